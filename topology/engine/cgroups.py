"""Control groups of a testbed: one for its daemons, one a node with its limits, in version 1 and 2.

Owns `cohortnet/<testbed>` in each hierarchy that it uses. A group is also how every process of a testbed is found
again, whatever became of its parent. Never touches a group with another name.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from topology.errors import TopologyError

ROOT = "cohortnet"
_WANTED_V1 = ("cpu", "cpuacct", "memory", "pids")
_WHERE_ASKED = frozenset(("cpuset", "freezer"))
"""Hierarchies of version 1 that a node joins only when it is pinned, or paused."""
_PERIOD_US = 100_000
PIDS_MAX = 4096
"""Processes and threads of one node: far more than any node needs, few enough that a runaway loop leaves the host
usable.
"""


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy with the controllers of it that we use."""

    folder: Path
    version: int
    controllers: frozenset[str]


def parse_hierarchies(mountinfo: str, unified_controllers: Iterable[str]) -> list[Hierarchy]:
    """The hierarchies to use, from the text of `/proc/self/mountinfo`; version 2 where it has controllers, else version
    1. Pure.
    """
    unified = frozenset(unified_controllers)
    first: list[Hierarchy] = []
    second: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        folder = Path(fields[4])
        if kind[0] == "cgroup2" and not second:
            second.append(Hierarchy(folder, 2, unified))
        elif kind[0] == "cgroup":
            controllers = frozenset(kind[2].split(",")) & {*_WANTED_V1, *_WHERE_ASKED}
            if controllers and not any(h.folder == folder for h in first):
                first.append(Hierarchy(folder, 1, controllers))
    return second if "memory" in unified or not first else first


@cache
def hierarchies() -> tuple[Hierarchy, ...]:
    """The hierarchies used on this machine. Raises TopologyError where no cgroup file system is mounted."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    controllers: list[str] = []
    for line in text.splitlines():
        if " - cgroup2 " in line:
            with contextlib.suppress(OSError):
                controllers = Path(line.split()[4], "cgroup.controllers").read_text(encoding="ascii").split()
            break
    found = tuple(parse_hierarchies(text, controllers))
    if not found:
        raise TopologyError("no cgroup file system is mounted; mount one: `mount -t cgroup2 none /sys/fs/cgroup`")
    return found


def _write(path: Path, value: str, subject: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, value.encode("ascii"))
        finally:
            os.close(fd)
    except OSError as error:
        raise TopologyError(f"{subject}: writing {value!r} to {path} failed: {error.strerror}") from None


def make(hierarchy: Hierarchy, parts: tuple[str, ...]) -> Path:
    """The group of that path, made where it is missing."""
    folder = hierarchy.folder
    if hierarchy.version == 1 and "cpuset" not in hierarchy.controllers:
        with contextlib.suppress(FileNotFoundError):  # most often all but the last are there
            whole = folder.joinpath(*parts)
            with contextlib.suppress(FileExistsError):
                os.mkdir(whole)
            return whole
    for depth, part in enumerate(parts):
        if hierarchy.version == 2:  # a child has a controller only where its parent hands it down
            wanted = [f"+{name}" for name in ("cpu", "memory", "cpuset", "pids") if name in hierarchy.controllers]
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(" ".join(wanted), encoding="ascii")
        parent, folder = folder, folder / part
        folder.mkdir(exist_ok=True)
        # Version 1: a cpuset group takes no process before its own sets are filled.
        if hierarchy.version == 1 and "cpuset" in hierarchy.controllers and depth < len(parts):
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not (folder / name).read_text(encoding="ascii").strip():
                    _write(folder / name, (parent / name).read_text(encoding="ascii").strip(), "cpuset")
    return folder


def _uses(hierarchy: Hierarchy, cpuset: bool) -> bool:
    return hierarchy.version == 2 or not hierarchy.controllers <= _WHERE_ASKED or (
        cpuset and "cpuset" in hierarchy.controllers
    )


def make_core(testbed: str) -> tuple[str, ...]:
    """The groups of the testbed's daemons, made where they are missing. Raises TopologyError.

    Under load the testbed comes before other programs, and its switches before its nodes: clients that train must not
    slow down the network that they talk over. (Without, the whole testbed would weigh as much as any one process.)
    """
    folders = []
    for hierarchy in hierarchies():
        if not _uses(hierarchy, False):
            continue
        folder = make(hierarchy, (ROOT, testbed, "core"))
        if "cpu" in hierarchy.controllers:
            name, weight = ("cpu.weight", 1000) if hierarchy.version == 2 else ("cpu.shares", 10240)
            for group in (folder.parent, folder):
                _write(group / name, str(weight), f"testbed {testbed!r}")
        folders.append(str(folder))
    return tuple(folders)


def core_groups(testbed: str) -> tuple[str, ...]:
    """The existing groups of the testbed's daemons."""
    folders = (h.folder / ROOT / testbed / "core" for h in hierarchies())
    return tuple(str(folder) for folder in folders if folder.is_dir())


def make_node(
    testbed: str, node: str, *, cpu: float | None, memory_bytes: int | None, cpuset: str | None
) -> tuple[str, ...]:
    """The groups of one node, made and with its limits applied; `cpu` in cores.

    Raises:
        TopologyError: naming the node, where the kernel refuses a limit or lacks the controller.
    """
    return _limit(testbed, node, cpu, memory_bytes, cpuset, new=True)


def change_node(
    testbed: str, node: str, *, cpu: float | None, memory_bytes: int | None, cpuset: str | None
) -> tuple[str, ...]:
    """Give the running node of that name other limits; None leaves one as it is, and a `cpu` of `math.inf` takes its
    limit away. The groups that it is in then.

    Raises:
        TopologyError: naming the node, where the kernel refuses a limit (memory in use cannot be taken away) or lacks
        the controller.
    """
    return _limit(testbed, node, cpu, memory_bytes, cpuset, new=False)


def _limit(
    testbed: str, node: str, cpu: float | None, memory_bytes: int | None, cpuset: str | None, *, new: bool
) -> tuple[str, ...]:
    subject = f"node {node!r}"
    folders: list[str] = []
    missing = {"cpu"} if cpu is not None else set()
    missing |= {"memory"} if memory_bytes is not None else set()
    missing |= {"cpuset"} if cpuset is not None else set()
    for hierarchy in hierarchies():
        there = not new and (hierarchy.folder / ROOT / testbed / "nodes" / node).is_dir()
        if not _uses(hierarchy, cpuset is not None) and not there:
            continue
        folder = make(hierarchy, (ROOT, testbed, "nodes", node))
        folders.append(str(folder))
        has = hierarchy.controllers
        missing -= has
        if new and "pids" in has:
            _write(folder / "pids.max", str(PIDS_MAX), subject)
        if cpu is not None and "cpu" in has:
            quota = -1 if cpu == math.inf else max(1000, round(cpu * _PERIOD_US))
            if hierarchy.version == 2:
                _write(folder / "cpu.max", f"{'max' if quota < 0 else quota} {_PERIOD_US}", subject)
            else:
                _write(folder / "cpu.cfs_period_us", str(_PERIOD_US), subject)
                _write(folder / "cpu.cfs_quota_us", str(quota), subject)
        if memory_bytes is not None and "memory" in has:
            _limit_memory(hierarchy, folder, memory_bytes, subject)
        if cpuset is not None and "cpuset" in has:
            _write(folder / "cpuset.cpus", cpuset, subject)
            if not there and not new:  # a group of its own from now on: what runs already moves in
                for pid in sorted(members(testbed, f"nodes/{node}")):
                    with contextlib.suppress(OSError):
                        (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
    if missing:
        raise TopologyError(
            f"{subject}: this kernel has no cgroup controller for {', '.join(sorted(missing))}; leave the limit out"
        )
    return tuple(folders)


def _limit_memory(hierarchy: Hierarchy, folder: Path, memory_bytes: int, subject: str) -> None:
    limit, swap = (
        ("memory.max", "memory.swap.max") if hierarchy.version == 2
        else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    )  # fmt: skip
    lines = [(limit, str(memory_bytes))]
    if (folder / swap).exists():  # a limit that can be swapped around is none
        lines.append((swap, "0" if hierarchy.version == 2 else str(memory_bytes)))
    if hierarchy.version == 1 and len(lines) == 2:
        # Memory with swap is never below memory alone: one that grows grows first there.
        present = int((folder / limit).read_text(encoding="ascii"))
        lines = lines if memory_bytes <= present else lines[::-1]
    for name, value in lines:
        _write(folder / name, value, subject)


def folders(testbed: str, below: str = "") -> list[str]:
    """All groups of the testbed (or of `core` or `nodes` below it), the deepest first."""
    return [folder for hierarchy in hierarchies() for folder in _below(hierarchy, testbed, below)]


def _below(hierarchy: Hierarchy, testbed: str, below: str) -> list[str]:
    if not testbed or "/" in testbed or testbed.startswith("."):
        raise TopologyError(f"{testbed!r} is no testbed's name")  # a parent's processes must never be taken for ours
    found: list[str] = []
    _walk(f"{hierarchy.folder}/{ROOT}/{testbed}/{below}".rstrip("/"), found)
    return found


def _walk(folder: str, found: list[str]) -> None:
    # Not os.walk: a group has dozens of files, and the kind of each is known without asking for it.
    try:
        with os.scandir(folder) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for child in children:
        _walk(child, found)
    found.append(folder)


def exists(testbed: str) -> bool:
    """Whether any group of the testbed is there."""
    return any((h.folder / ROOT / testbed).is_dir() for h in hierarchies())


def testbeds() -> set[str]:
    """Names of the testbeds that have groups here."""
    names: set[str] = set()
    for hierarchy in hierarchies():
        with contextlib.suppress(OSError):
            names |= {entry.name for entry in (hierarchy.folder / ROOT).iterdir() if entry.is_dir()}
    return names


def members(testbed: str, below: str = "") -> set[int]:
    """The processes in the testbed's groups (or in those below `below`, such as `core`), zombies left out."""
    pids: set[int] = set()
    for folder in folders(testbed, below):
        pids |= pids_of(folder)
    pids.discard(os.getpid())
    pids.discard(0)  # a process of another PID namespace
    return {pid for pid in pids if not _is_zombie(pid)}


def pids_of(folder: str) -> set[int]:
    """The processes in one group; none where it is gone."""
    with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}
    return set()


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return True
    fields = text.rpartition(b")")[2].split()
    # A first thread can be dead while others still close the process's files: then it is no zombie yet.
    return fields[0] in (b"Z", b"X") and int(fields[17]) <= 1


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def freezing(version: int) -> tuple[str, str, str]:
    """The file of a group that stops it, and the words to stop and to go on. Pure."""
    return ("cgroup.freeze", "1", "0") if version == 2 else ("freezer.state", "FROZEN", "THAWED")


def end_all(
    testbed: str, *, grace_s: float, deadline_s: float = 15.0, below: str = "", keep: Collection[int] = ()
) -> int:
    """End every process in the testbed's groups but those of `keep`: SIGTERM, after `grace_s` SIGKILL, until none is
    left or `deadline_s` are over.

    Gives back how many there were. New children of a dying process are caught by the next turn.
    """
    start = time.monotonic()
    for hierarchy in hierarchies():  # a paused process takes no signal, in version 1 not even SIGKILL
        if hierarchy.version == 2 or "freezer" in hierarchy.controllers:
            file, _, word = freezing(hierarchy.version)
            for folder in _below(hierarchy, testbed, below):
                with contextlib.suppress(OSError):
                    Path(folder, file).write_text(word, encoding="ascii")
    pids = members(testbed, below) - set(keep)
    ended = set(pids)
    if grace_s > 0 and pids:
        _signal(pids, signal.SIGTERM)
        while (pids := _wait_for_end(pids, start + grace_s)) and time.monotonic() - start < grace_s:
            pids |= members(testbed, below) - set(keep)
        pids |= members(testbed, below) - set(keep)
        ended |= pids
    # Each look at thousands of processes takes its time: the deadline counts from the last one that ended.
    fewest, deadline = len(pids), time.monotonic() + deadline_s
    while pids and time.monotonic() < deadline:
        _signal(pids, signal.SIGKILL)
        _wait_for_end(pids, min(deadline, time.monotonic() + 1.0))
        pids = members(testbed, below) - set(keep)
        ended |= pids
        if len(pids) < fewest:
            fewest, deadline = len(pids), time.monotonic() + deadline_s
    return len(ended)


def _wait_for_end(pids: Iterable[int], until: float) -> set[int]:
    """Those that have not ended at that time. They are known: no group has to be searched for them again and again."""
    left = set(pids)
    while left and time.monotonic() < until:
        time.sleep(0.01)
        left = {pid for pid in left if not _is_zombie(pid)}
    return left


def remove(testbed: str, *, deadline_s: float = 5.0) -> list[str]:
    """Remove the testbed's groups once they are empty; gives back those that could not be removed.

    A group stays busy for a moment after its last process has ended, so this polls: for `deadline_s` seconds after the
    last one that went (thousands of groups take longer than any fixed time).
    """
    deadline = time.monotonic() + deadline_s
    pause = 0.002
    fewest: int | None = None
    while True:
        left: list[str] = []
        for folder in folders(testbed):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                left.append(folder)
        if fewest is None or len(left) < fewest:
            fewest, deadline = len(left), time.monotonic() + deadline_s
        if not left or time.monotonic() > deadline:
            break
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    for hierarchy in hierarchies():  # the last testbed takes the common parent with it
        with contextlib.suppress(OSError):
            (hierarchy.folder / ROOT).rmdir()
    return left


def remove_node(testbed: str, node: str, *, deadline_s: float = 5.0) -> None:
    """End every process in one node's groups, and remove the groups. Raises TopologyError where they stay."""
    if not node or "/" in node or node.startswith("."):
        raise TopologyError(f"{node!r} is no node's name")
    end_all(testbed, grace_s=0.0, below=f"nodes/{node}")
    deadline = time.monotonic() + deadline_s
    while left := [folder for folder in folders(testbed, f"nodes/{node}") if os.path.isdir(folder)]:
        for folder in left:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if time.monotonic() > deadline:
            raise TopologyError(f"node {node!r}: the cgroup {left[0]} does not go; a process in it does not end")
        time.sleep(0.005)


def node_names(testbed: str) -> list[str]:
    """Names of the nodes that have groups."""
    names: set[str] = set()
    for hierarchy in hierarchies():
        with contextlib.suppress(OSError):
            names |= {e.name for e in (hierarchy.folder / ROOT / testbed / "nodes").iterdir() if e.is_dir()}
    return sorted(names)
