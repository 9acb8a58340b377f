"""Starts one FL process and holds it: by a subprocess of the agent, or through the testbed's spawner.

Takes a command and a log, gives a Handle. Either way the process has its own session, and ends when the agent
ends. Knows nothing of runs and their states.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import fl_node
from fl_node.spawner_client import Spawned, Spawner, SpawnerError

STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL
_LEASH = Path(__file__).with_name("leash.py")


class LaunchError(Exception):
    """The process could not be started; the text says why."""


class Handle(Protocol):
    """A started process. `pid` is its number in the node, `host_pid` on the host where that is known."""

    pid: int
    host_pid: int

    def wait(self) -> int:
        """Block until it has ended; its exit code, negative for a signal. Called by one thread."""

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after STOP_SECONDS. Returns at once."""

    def finish(self) -> None:
        """SIGUSR1 to the process alone: a server takes it as "your goal is reached, end well". Returns at once."""

    def kill(self) -> None:
        """End it now: the last means, where stop() has not worked."""


class Launcher(Protocol):
    def launch(self, argv: list[str], environment: dict[str, str], log: Path, application: Path) -> Handle:
        """Start `argv` (`python` stands for this interpreter). Raises LaunchError."""


def process_environment() -> dict[str, str]:
    """The agent's own environment, with what makes a run repeatable and its output visible at once."""
    environment = dict(os.environ)
    environment.setdefault("PYTHONHASHSEED", "0")
    environment["PYTHONUNBUFFERED"] = "1"
    package = str(Path(fl_node.__file__).resolve().parents[1])
    paths = [item for item in environment.get("PYTHONPATH", "").split(os.pathsep) if item and item != package]
    environment["PYTHONPATH"] = os.pathsep.join([package, *paths])
    return environment


class SubprocessLauncher:
    """Processes of this interpreter, children of the agent.

    All are forked by one thread that lives as long as the agent: the kernel's parent-death signal follows the
    thread.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")
        self._lock = threading.Lock()
        self._own: set[int] = set()

    def collect_orphans(self) -> None:
        """As PID 1 of a container: collect processes whose own parents have ended. Costs a call or two."""
        with self._lock:  # no process of ours is between its birth and its place in the set
            for _ in range(64):
                try:
                    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if found is None or found.si_pid in self._own:  # its own thread collects it
                        return
                    os.waitpid(found.si_pid, os.WNOHANG)
                except ChildProcessError:
                    return

    def _disown(self, pid: int) -> None:
        with self._lock:
            self._own.discard(pid)

    def launch(self, argv: list[str], environment: dict[str, str], log: Path, application: Path) -> Handle:
        return self._thread.submit(self._launch, argv, environment, log).result()

    def _launch(self, argv: list[str], environment: dict[str, str], log: Path) -> Handle:
        program = sys.executable if argv[0] == "python" else argv[0]
        leashed = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), program, *argv[1:]]
        try:
            with log.open("ab") as out, self._lock:
                process = subprocess.Popen(
                    leashed,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
                self._own.add(process.pid)
        except OSError as error:
            raise LaunchError(f"cannot execute {program}: {error}") from error
        return _SubprocessHandle(process, self._disown)


class _SubprocessHandle:
    def __init__(self, process: subprocess.Popen[bytes], disown: Callable[[int], None]) -> None:
        self.pid = self.host_pid = process.pid
        self._process = process
        self._disown = disown
        self._lock = threading.Lock()
        self._collected = False
        self._killer: threading.Timer | None = None

    def wait(self) -> int:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            # It is a zombie still, so its number cannot be another group's: end what is left of its own.
            self._signal(signal.SIGKILL)
            code = self._process.wait()
            self._collected = True
            if self._killer is not None:
                self._killer.cancel()
        self._disown(self.pid)
        return code

    def stop(self) -> None:
        with self._lock:
            if self._killer is not None:
                return
            self._signal(signal.SIGTERM)
            self._killer = threading.Timer(STOP_SECONDS, self.kill)
            self._killer.daemon = True
            self._killer.start()

    def finish(self) -> None:
        with self._lock:
            if not self._collected:
                os.kill(self.pid, signal.SIGUSR1)  # at worst a zombie, whose number is not given again

    def kill(self) -> None:
        with self._lock:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if not self._collected:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class SpawnerLauncher:
    """Processes forked by the testbed's spawner from the application's warm template, leased by a
    connection."""

    def __init__(self, spawner: Spawner, node: str) -> None:
        self._spawner = spawner
        self._node = node

    def launch(self, argv: list[str], environment: dict[str, str], log: Path, application: Path) -> Handle:
        try:
            spawned = self._spawner.start(
                self._node, argv, environment, log, lease=True, application=application
            )
        except SpawnerError as error:
            raise LaunchError(str(error)) from error
        return _SpawnedHandle(spawned)


class _SpawnedHandle:
    def __init__(self, spawned: Spawned) -> None:
        self.pid = spawned.node_pid
        self.host_pid = spawned.pid
        self._spawned = spawned
        self._ended = False

    def wait(self) -> int:
        try:
            code = self._spawned.wait()
        except SpawnerError:  # the spawner has ended: the kernel has killed all that it had forked
            return -int(signal.SIGKILL)
        finally:
            self._ended = True
            self._spawned.close()
        assert code is not None  # wait() without a time-out returns a code or raises
        return code

    def stop(self) -> None:
        try:
            self._spawned.stop()
        except SpawnerError:  # it has ended, or the spawner has; wait() tells
            return

    def finish(self) -> None:
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGUSR1)  # agent and process share the node's PID namespace

    def kill(self) -> None:
        self._spawned.close()
