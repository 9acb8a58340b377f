"""The children that one process has forked into nodes: their start, their end, and ending them.

Takes Orders and stop requests by key, calls back once when a start is decided and once when a process has
ended. Used by the base template and by each application's template. Never reads the inventory, never speaks
to clients.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from fl_node.spawner.birth import BirthError, Midwife, Order
from fl_node.spawner.loop import Loop

START_SECONDS = 10.0  # a start takes milliseconds; this ends one that hangs in a mount or a log
STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL


@dataclass
class Child:
    order: Order
    pid: int
    report: int | None
    node_pid: int = 0
    decided: bool = False
    stopping: bool = False
    heard: bytearray = field(default_factory=bytearray)


class Brood:
    """`on_started(key, answer)` gets `{"ok": true, pid, node_pid}` or `{"ok": false, error}`; after a good
    start `on_exit(key, code)` follows once, with a negative signal number where a signal ended it."""

    def __init__(
        self,
        loop: Loop,
        midwife: Midwife,
        on_started: Callable[[int, dict[str, Any]], None],
        on_exit: Callable[[int, int], None],
        keep: Collection[int],
    ) -> None:
        self._loop = loop
        self._midwife = midwife
        self._on_started = on_started
        self._on_exit = on_exit
        self.keep = set(keep)
        self._by_pid: dict[int, Child] = {}
        self._by_key: dict[int, Child] = {}
        self.forks = 0
        self.fork_seconds = 0.0

    def __len__(self) -> int:
        return len(self._by_pid)

    def start(self, order: Order) -> None:
        began = time.perf_counter()
        try:
            pid, report = self._midwife.deliver(order, self.keep)
        except (BirthError, OSError) as error:
            self._on_started(order.key, {"ok": False, "error": str(error)})
            return
        self.forks += 1
        self.fork_seconds += time.perf_counter() - began
        child = Child(order, pid, report)
        self._by_pid[pid] = child
        self._by_key[order.key] = child
        self._loop.watch(report, selectors.EVENT_READ, lambda _ready: self._listen(child))
        self._loop.after(START_SECONDS, lambda: self._give_up(child))

    def stop(self, key: int) -> None:
        """SIGTERM now, SIGKILL after STOP_SECONDS. A key that is not known has ended already."""
        child = self._by_key.get(key)
        if child is None or child.stopping:
            return
        child.stopping = True
        self._signal(child, signal.SIGTERM)
        self._loop.after(STOP_SECONDS, lambda: self._signal(child, signal.SIGKILL))

    def stop_all(self) -> None:
        for key in list(self._by_key):
            self.stop(key)

    def owns(self, pid: int) -> bool:
        return pid in self._by_pid

    def reap(self, pid: int) -> None:
        """`pid` is a zombie of ours: end what is left of its group, collect it, report it."""
        child = self._by_pid[pid]
        # As long as it is a zombie its number cannot be another group's.
        _kill_group(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        del self._by_pid[pid]
        del self._by_key[child.order.key]
        self._listen(child)
        self._decide(child)
        if child.node_pid:
            self._on_exit(child.order.key, os.waitstatus_to_exitcode(status))

    def _listen(self, child: Child) -> None:
        if child.report is None:
            return
        while True:
            try:
                data = os.read(child.report, 4096)
            except BlockingIOError:
                return
            if not data:
                break
            child.heard += data
        self._decide(child)

    def _decide(self, child: Child) -> None:
        if child.decided:
            return
        child.decided = True
        if child.report is not None:
            self._loop.forget(child.report)
            os.close(child.report)
            child.report = None
        answer: dict[str, Any] = {}
        for line in child.heard.splitlines():
            answer.update(json.loads(line))
        if "error" not in answer and "node_pid" not in answer:
            answer["error"] = (
                f"node {child.order.place.node!r}: the process ended before it had joined the node"
            )
        if "error" in answer:
            child.node_pid = 0
            self._on_started(child.order.key, {"ok": False, "error": answer["error"]})
            return
        child.node_pid = int(answer["node_pid"])
        self._on_started(child.order.key, {"ok": True, "pid": child.pid, "node_pid": child.node_pid})

    def _give_up(self, child: Child) -> None:
        if child.decided:
            return
        text = f"node {child.order.place.node!r}: the process did not join within {START_SECONDS:g} s"
        child.heard = bytearray(json.dumps({"error": text}).encode())
        self._decide(child)
        self._signal(child, signal.SIGKILL)

    def _signal(self, child: Child, number: int) -> None:
        if self._by_pid.get(child.pid) is child:
            _kill_group(child.pid, number)


def _kill_group(pid: int, number: int) -> None:
    """Signal the group that `pid` leads, or `pid` alone where it has not made its group yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def next_zombie() -> int | None:
    """The pid of a child that has ended and is not collected yet, or None."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None
