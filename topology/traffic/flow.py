"""One flow while the testbed is up: plays its schedule over two lanes, tries again where something fails, can be given
another rate at any time.

The schedule counts from the flow's start, also across failures and changes of rate, so the same pattern and seed send
at the same moments. A failure is told with its reason and tried again at growing intervals, `MOST_TRIES` times; a flow
that has run for `STEADY_S` has them all again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from topology.traffic.lane import FindNode, Lane
from topology.traffic.program import Trouble
from topology.traffic.schedule import Pattern, pattern_of, segments

MOST_TRIES = 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
STEADY_S = 10.0
SHORTEST_S = 0.2
"""What is left of a segment and shorter than this is not worth a connection."""
WATCH_S = 1.0


class Flow:
    """A planned flow and what becomes of it. `on_change` is called when its state or its rate has changed."""

    def __init__(
        self, planned: Mapping[str, Any], find: FindNode, on_change: Callable[[Flow], None], ceiling_bps: int | None
    ) -> None:
        self.planned = planned
        self.name: str = planned["name"]
        self.pattern: Pattern = pattern_of(planned)
        self.state = "stopped"
        self.reason = ""
        self.tries = 0
        self.started: float | None = None
        self.changed = time.time()
        self.segment_bps = 0
        self.settled = asyncio.Event()
        """Set whenever the flow is not in its first attempt."""
        self.settled.set()
        self.in_force = asyncio.Event()
        """Set whenever no other rate is sent than the one that was asked for last."""
        self.in_force.set()
        self._on_change = on_change
        self._ceiling_bps = ceiling_bps
        self._nudge = asyncio.Event()
        self._turn = 0
        self._origin = 0.0
        self._lanes = [Lane(planned, port, find, self._nudge.set) for port in planned["ports"]]
        self._going: Lane | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether it has been started and neither stopped nor given up."""
        return self.state not in ("stopped", "failed")

    def view(self) -> dict[str, Any]:
        """The flow as plain data: what is planned, and how it stands now."""
        going = self._going
        return {
            **{key: self.planned[key] for key in ("name", "source", "destination", "protocol", "pattern")},
            "rate_bps": self.pattern.rate_bps, "running": self.state == "running", "started": self.started,
            "changed": self.changed, "state": self.state, "reason": self.reason, "tries": self.tries,
            "now_bps": self.segment_bps if self.state == "running" else 0,
            "sent_bps": going.sent_bps if going is not None and self.state == "running" else None,
            **{key: self.planned[key] for key in ("period_s", "on_s", "low_bps", "size_bytes", "seed", "ports")},
        }  # fmt: skip

    def start(self) -> None:
        """Begin, where it is not running already; a failed flow begins anew."""
        if self._task is not None and not self._task.done():
            return
        self.tries = 0
        self.started = None
        self.settled.clear()
        self._set("starting")
        self._origin = asyncio.get_running_loop().time()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Trouble is handled where it arises; anything else is a mistake in here, and must not look like traffic.
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._set("failed", f"internal error: {error!r}")

    async def stop(self) -> None:
        """End all of it; returns when its programs are gone."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._end_lanes()
        self.settled.set()
        if self.state != "stopped":
            self._set("stopped")

    def set_rate(self, rate_bps: int) -> None:
        """Another mean rate, from now on."""
        if rate_bps == self.pattern.rate_bps:
            return
        self.pattern = replace(self.pattern, rate_bps=rate_bps)
        self._turn += 1
        self._nudge.set()
        if self.state == "running":
            self.in_force.clear()
        self._set(self.state, self.reason)

    def _set(self, state: str, reason: str = "") -> None:
        self.state, self.reason, self.changed = state, reason, time.time()
        if state == "running" and self.started is None:
            self.started = self.changed
        if state != "starting":
            self.settled.set()
        if state != "running":
            self.in_force.set()
        self._on_change(self)

    async def _end_lanes(self) -> None:
        self._going = None
        await asyncio.gather(*(lane.end() for lane in self._lanes))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._play()
            except Trouble as trouble:
                self.tries = 1 if self.state == "running" and loop.time() - began > STEADY_S else self.tries + 1
                await self._end_lanes()
                if self.tries >= MOST_TRIES:
                    self._set("failed", f"{trouble} (tried {self.tries} times)")
                    return
                self._set("retrying", str(trouble))
                await asyncio.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.tries - 1)))

    async def _play(self) -> None:
        """Play the schedule from now on, for ever. Raises Trouble."""
        loop = asyncio.get_running_loop()
        at_once = False
        while True:
            turn = self._turn
            for segment in segments(self.pattern, loop.time() - self._origin, self._ceiling_bps):
                end = self._origin + segment.end_s
                left = end - loop.time()
                if left < SHORTEST_S:
                    continue
                if segment.rate_bps:
                    lane = self._lanes[1] if self._going is self._lanes[0] else self._lanes[0]
                    await lane.send(segment.rate_bps, left)
                    self._retire(at_once)
                    self._going = lane
                else:
                    self._retire(at_once)
                at_once = False
                self.segment_bps = segment.rate_bps
                if self._turn == turn:
                    self.in_force.set()
                if self.state != "running":
                    self._set("running")
                if not await self._until(end, turn):
                    break
            at_once = True  # the rate has changed: what is going on is no longer wanted

    def _retire(self, at_once: bool) -> None:
        going, self._going = self._going, None
        if going is not None:
            going.retire(at_once=at_once)

    async def _until(self, deadline: float, turn: int) -> bool:
        """Wait for that moment; False as soon as the rate has changed. Raises Trouble where the lane fails."""
        loop = asyncio.get_running_loop()
        while True:
            self._nudge.clear()
            if self._turn != turn:
                return False
            if self._going is not None:
                self._going.check()
            left = deadline - loop.time()
            if left <= 0:
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), min(left, WATCH_S))
