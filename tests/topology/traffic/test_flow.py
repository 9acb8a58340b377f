"""A flow that cannot start tries a bounded number of times, with its reason; programs that are missing are named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from topology.traffic import flow as flow_module
from topology.traffic.flow import MOST_TRIES, Flow
from topology.traffic.lane import Lane
from topology.traffic.program import Trouble

PLANNED = {
    "name": "one", "source": "n1", "destination": "n2", "protocol": "tcp", "pattern": "constant", "rate_bps": 10**6,
    "period_s": None, "on_s": None, "low_bps": None, "size_bytes": None, "seed": None, "start": False,
    "ports": [5201, 5202],
}  # fmt: skip


def gone(name: str) -> Mapping[str, Any]:
    raise Trouble(f"{name}: is not running")


def test_a_flow_gives_up_after_so_many_tries_and_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(flow_module, "LONGEST_PAUSE_S", 0.001)
    states: list[str] = []

    async def play() -> Flow:
        flow = Flow(PLANNED, gone, lambda f: states.append(f.state), None)
        for _ in range(2):
            flow.start()
            async with asyncio.timeout(10):
                while flow.state != "failed":
                    await asyncio.sleep(0.01)
        return flow

    flow = asyncio.run(play())
    assert states == 2 * ["starting", *(MOST_TRIES - 1) * ["retrying"], "failed"]
    view = flow.view()
    assert view["reason"] == f"n1: is not running (tried {MOST_TRIES} times)"
    assert view["running"] is False and view["started"] is None and view["now_bps"] == 0


def test_stopping_ends_the_tries() -> None:
    async def play() -> Flow:
        flow = Flow(PLANNED, gone, lambda f: None, None)
        flow.start()
        async with asyncio.timeout(5):
            await flow.settled.wait()
        assert flow.state == "retrying"
        await flow.stop()
        return flow

    assert asyncio.run(play()).state == "stopped"


def test_a_mistake_in_the_program_is_no_running_flow() -> None:
    def broken(name: str) -> Mapping[str, Any]:
        raise LookupError("a mistake")

    async def play() -> Flow:
        flow = Flow(PLANNED, broken, lambda f: None, None)
        flow.start()
        async with asyncio.timeout(5):
            await flow.settled.wait()
        return flow

    flow = asyncio.run(play())
    assert flow.state == "failed" and "a mistake" in flow.reason


def test_a_rate_set_while_stopped_holds_at_the_next_start() -> None:
    async def play() -> Flow:
        flow = Flow(PLANNED, gone, lambda f: None, None)
        flow.set_rate(5_000_000)
        assert flow.in_force.is_set()
        return flow

    view = asyncio.run(play()).view()
    assert view["rate_bps"] == 5_000_000 and view["state"] == "stopped"


def test_a_flow_stopped_while_it_waits_for_its_last_segment_stops_cleanly() -> None:
    """The wait is for a task of the lane: ending the one must neither end the other nor be taken for it."""
    ended: list[str] = []

    async def play() -> None:
        lane = Lane(PLANNED, 5201, gone, lambda: None)

        async def retiring() -> None:
            await asyncio.sleep(0.1)
            ended.append("retired")

        lane._retiring = asyncio.get_running_loop().create_task(retiring())
        sending = asyncio.get_running_loop().create_task(lane.send(10**6, 1.0))
        await asyncio.sleep(0.01)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await lane.end()

    asyncio.run(play())
    assert ended == ["retired"]
