"""The keeper of queues, with an enforcer of the test's own: when it is called, and what becomes of its errors."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from topology.controller.queuekeeper import KEPT, QueueKeeper, concerning


@dataclass(frozen=True)
class Limit:
    meter: str
    interface: str
    node: str | None = None


class Enforcer:
    """Remembers what it was told; fails as the test says."""

    made = 0
    calls: list[tuple[Any, ...]] = []
    errors: list[str] | Exception = []

    def __init__(self, inventory: Any) -> None:
        type(self).made += 1

    def apply(self, limits: Sequence[Any]) -> list[str]:
        type(self).calls.append(tuple(limits))
        if isinstance(self.errors, Exception):
            raise self.errors
        return list(self.errors)

    def statistics(self, limit: Any) -> dict[str, Any]:
        return {"packets": 7}


class Bench:
    def __init__(self, state: Path, audit_s: float = 30) -> None:
        self.limits: list[Any] = []
        self.inventory: dict[str, Any] = {}
        self.troubles: list[str] = []
        Enforcer.made, Enforcer.calls, Enforcer.errors = 0, [], []
        self.keeper = QueueKeeper(lambda: self.limits, lambda: self.inventory, state, self.troubles.append, audit_s)

    def wake(self) -> tuple[str, ...] | None:
        return self.keeper.settled(self.keeper.wake(), 5)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    module = types.ModuleType("topology.controller.queues")
    module.__dict__["QueueEnforcer"] = Enforcer
    monkeypatch.setitem(sys.modules, "topology.controller.queues", module)
    made = Bench(tmp_path)
    yield made
    made.keeper.close()


def test_without_queues_there_is_no_enforcer_and_equal_limits_are_applied_once(bench: Bench) -> None:
    bench.keeper.start()
    assert bench.wake() == () and Enforcer.made == 0
    one = Limit("m1", "s1-eth1")
    bench.limits = [one]
    assert bench.wake() == () and bench.keeper.in_force == (one,)
    assert bench.wake() == () and Enforcer.calls == [(one,)], "nothing is new"
    bench.inventory = {"other": True}
    assert bench.wake() == () and Enforcer.calls == [(one,), (one,)] and Enforcer.made == 2, "nodes have other pids now"
    assert bench.keeper.statistics(one) == {"packets": 7}
    bench.limits = []
    bench.wake()
    bench.wake()
    assert Enforcer.calls[2:] == [()] and bench.keeper.in_force == ()


def test_queues_of_a_former_controller_are_taken_away(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / KEPT).write_text("{}")
    later = Bench(tmp_path)
    later.keeper.start()
    try:
        assert later.wake() == () and Enforcer.calls == [()]
    finally:
        later.keeper.close()


def test_errors_stay_with_their_limit_are_said_once_and_tried_again(tmp_path: Path, bench: Bench) -> None:
    bench = Bench(tmp_path, audit_s=0.2)
    good, bad = Limit("good", "eth0", "c1"), Limit("bad", "eth0", "c2")
    bench.limits = [good, bad]
    Enforcer.errors = ["interface 'eth0' of node 'c2': no such device"]
    bench.keeper.start()
    assert bench.wake() == tuple(Enforcer.errors) and bench.keeper.in_force == (good,)
    count = len(Enforcer.calls)
    time.sleep(0.6)
    assert len(Enforcer.calls) > count and bench.troubles == ["interface 'eth0' of node 'c2': no such device"]
    Enforcer.errors = RuntimeError("boom")
    problems = bench.wake()
    assert problems and "boom" in problems[0] and bench.keeper.in_force == ()
    Enforcer.errors = []
    assert bench.wake() == () and bench.keeper.in_force == (good, bad), "the thread goes on"
    bench.keeper.close()


def test_a_text_concerns_those_that_it_names() -> None:
    limit = Limit("m1", "s1-eth1")
    assert concerning(limit, ["meter 'm1' is too many"]) and concerning(limit, ["interface 's1-eth1': gone"])
    assert not concerning(limit, ["meter 'm10' is too many", "interface 's1-eth11': gone", "interface 'eth0': x"])
    assert concerning(limit, ["the file cannot be written"]), "names nobody: concerns everybody"
