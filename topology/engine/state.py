"""What is remembered of a testbed while it exists: its plan, when and by whom it was raised; and one lock a testbed.

The state file is written before anything else is made, so a removal knows every name, whatever happened after. Lock
files stand next to the state folders and are gone when nobody holds or wants them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topology.errors import TopologyError
from topology.model import TESTBED_NAME
from topology.plan import STATE_ROOT, Plan, plan_from_dict

VERSION = 1


@dataclass(frozen=True)
class State:
    """The content of a state file. `phase` is "raising" or "up"; `started` is wall time; `pid` is who raised it."""

    plan: Plan
    phase: str
    started: float
    pid: int


def check_name(testbed: str) -> str:
    """The name, where it can be a testbed's: paths and cgroups are made of it, so nothing else may ever pass.

    Raises:
        TopologyError: for any other text, such as an empty one or "..".
    """
    if not re.fullmatch(TESTBED_NAME, testbed):
        raise TopologyError(f"{testbed!r} is no testbed's name; `cohortnet ls` lists the testbeds")
    return testbed


def folder(testbed: str) -> Path:
    """The testbed's state folder. Raises TopologyError for what is no name."""
    return STATE_ROOT / check_name(testbed)


def has_containers(testbed: str) -> bool:
    """Whether the testbed has containers beside those of a Docker runtime's nodes: whoever makes one with the
    testbed's label first writes a file `containers` into its state folder.
    """
    return (folder(testbed) / "containers").exists()


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old one or the new one."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def begin(plan: Plan) -> None:
    """Make the testbed's folders and its state file. Raises TopologyError where the folder cannot be made."""
    try:
        STATE_ROOT.mkdir(mode=0o755, exist_ok=True)
        for path in (plan.state, plan.shared, plan.logs, plan.state / "nodes", plan.state / "ovs"):
            path.mkdir(exist_ok=True)
        plan.state.chmod(0o700)
        _write(State(plan, "raising", time.time(), os.getpid()))
    except OSError as error:
        raise TopologyError(f"{error.filename}: {error.strerror}; raising a testbed needs root") from None


def _write(state: State) -> None:
    data = {"version": VERSION, "phase": state.phase, "started": state.started, "pid": state.pid,
            "runtime": state.plan.runtime, "plan": state.plan.as_dict()}  # fmt: skip
    write_atomically(state.plan.state / "state.json", json.dumps(data) + "\n")


def mark_up(plan: Plan) -> None:
    """Note that the testbed is up."""
    path = plan.state / "state.json"
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TopologyError(f"{path}: {error}; was the testbed removed while it was raised?") from None
    write_atomically(path, json.dumps({**data, "phase": "up", "pid": os.getpid()}) + "\n")


def keep_plan(plan: Plan) -> None:
    """Replace the plan of a testbed that exists; whoever changes a testbed that is up holds its lock."""
    old = load(plan.testbed)
    assert old is not None, plan.testbed
    _write(State(plan, old.phase, old.started, old.pid))


def load(testbed: str) -> State | None:
    """The state of a testbed; None where there is none or none that can be read (an interrupted first write)."""
    try:
        data: dict[str, Any] = json.loads((folder(testbed) / "state.json").read_text(encoding="utf-8"))
        return State(plan_from_dict(data["plan"]), data["phase"], data["started"], data["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_readable(testbed: str) -> bool:
    """Whether this process may read the testbed's state."""
    return os.access(folder(testbed), os.R_OK | os.X_OK)


def names() -> list[str]:
    """Testbeds that have a state folder."""
    try:
        found = (entry.name for entry in STATE_ROOT.iterdir() if entry.is_dir())
        return sorted(name for name in found if re.fullmatch(TESTBED_NAME, name))
    except FileNotFoundError:
        return []


def _lock_path(testbed: str) -> Path:
    return STATE_ROOT / f".{check_name(testbed)}.lock"  # a testbed's name starts with a letter: never a folder's name


@contextlib.contextmanager
def lock(testbed: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the testbed's lock: only one process raises, changes or removes it at a time. Freed by the kernel when its
    holder dies.

    Raises:
        TopologyError: where another process holds it for longer than `wait_s` seconds; names that process.
    """
    path = _lock_path(testbed)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            STATE_ROOT.mkdir(mode=0o755, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # the last testbed's removal took the root folder at this moment
        except OSError as error:
            raise TopologyError(f"{path}: {error.strerror}; handling testbeds needs root") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            if time.monotonic() >= deadline:
                raise TopologyError(
                    f"testbed {testbed!r} is being raised, changed or removed by process {holder or '?'}; "
                    "try again when it has ended"
                ) from None
            time.sleep(0.05)
            continue
        try:  # who held it before us may have removed the file: then ours is a lock on nothing
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(fd)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        if not folder(testbed).exists():  # nothing left that the lock could guard
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                STATE_ROOT.rmdir()
        os.close(fd)
