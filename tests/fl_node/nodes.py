"""Nodes for the spawner's tests: an init in namespaces of its own, and cgroups, made and removed by the
test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CGROUP_ROOT = Path("/sys/fs/cgroup")


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`; fails the test by naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError(f"no Pss of {pid}")


class Node:
    """An init process (PID 1 of its namespace) and a cgroup. `close()` ends both."""

    def __init__(self, name: str, prefix: str) -> None:
        self.name = name
        script = f"hostname {name} && ip link set lo up && exec sleep 100000"
        self._unshare = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child=KILL",
                "sh",
                "-c",
                script,
            ],
            stderr=subprocess.DEVNULL,  # unshare complains of a mask when its child is killed
        )
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self.pid = int(wait_until(lambda: children.read_text().strip(), 5, f"init of {name}"))
        wait_until(lambda: Path(f"/proc/{self.pid}/comm").read_text() == "sleep\n", 5, f"init of {name}")
        base = CGROUP_ROOT / "memory"
        if not base.is_dir():
            base = CGROUP_ROOT  # version 2
        self.cgroup = base / f"{prefix}-{name}"
        self.cgroup.mkdir()

    def entry(self) -> dict[str, Any]:
        return {"name": self.name, "pid": self.pid, "cgroups": [str(self.cgroup)]}

    def end_init(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._unshare.wait(5)

    def close(self) -> None:
        if self._unshare.poll() is None:
            self.end_init()
        procs = self.cgroup / "cgroup.procs"
        wait_until(lambda: not procs.read_text().strip(), 10, f"the cgroup of {self.name} to be empty")
        self.cgroup.rmdir()


class Nest:
    """Nodes, their inventory and a spawner over them. `close()` removes all."""

    def __init__(self, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self.inventory = folder / "inventory.json"
        self.socket = folder / "s.sock"
        self.nodes: dict[str, Node] = {}
        self._prefix = f"t-agent-{os.getpid()}-{folder.name[-8:]}"
        self.log = folder / "spawner.log"
        self.process = subprocess.Popen(
            [
                *command,
                "--inventory",
                str(self.inventory),
                "--socket",
                str(self.socket),
                "--log",
                str(self.log),
            ],
            env=environment,
        )
        wait_until(
            lambda: self.socket.exists() or self.process.poll() is not None, 20, "the spawner's socket"
        )
        assert self.process.poll() is None, self.log.read_text()

    def add(self, *names: str) -> None:
        for name in names:
            self.nodes[name] = Node(name, self._prefix)

    def write(self, state: str = "up", pids: bool = True) -> None:
        entries = [node.entry() for node in self.nodes.values()]
        if not pids:
            entries = [{**entry, "pid": None} for entry in entries]
        body = {"version": 1, "state": state, "nodes": entries}
        fresh = self.inventory.with_suffix(".new")
        fresh.write_text(json.dumps(body))
        fresh.replace(self.inventory)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(12)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for node in self.nodes.values():
            node.close()
