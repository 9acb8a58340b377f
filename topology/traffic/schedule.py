"""What a flow sends when: a pattern and a seed as an endless row of segments, each with one rate. Pure.

Every pattern has the flow's `rate` as its mean over a long time: on-off sends more while it is on, sine as much above
the rate as below, and Poisson counts blocks that arrive independently of one another.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

RENEW_S = 600.0
"""A constant flow is a new connection after so long: what one connection may still have to catch up has an end."""
SLOT_S = 1.0
"""Poisson arrivals are counted over so long and sent evenly within it."""
MOST_STEPS = 24
"""Steps of one period of a sine; a step lasts at least a second."""
LEAST_STEPS = 8
LEAST_RATE_BPS = 10_000
LEAST_STEP_S = 1.0
MOST_PERIOD_S = 86400.0
MOST_ARRIVALS_PER_S = 1000.0
"""More blocks a second than this differ from a constant rate by less than anybody can see."""
SILENT_BPS = 1000
"""A step below this (the foot of a sine that reaches zero) sends nothing."""

USES = {"constant": (), "poisson": ("size", "seed"), "on-off": ("period", "on"), "sine": ("period", "low")}
"""Which keys a pattern has beside the rate."""


@dataclass(frozen=True)
class Pattern:
    """A pattern with all of its numbers. Those that `kind` does not use are None.

    `period_s` is one turn of on-off or sine, `on_s` the sending part of it, `low_bps` the sine's lowest rate,
    `size_bytes` a Poisson block.
    """

    kind: str
    rate_bps: int
    period_s: float | None = None
    on_s: float | None = None
    low_bps: int | None = None
    size_bytes: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Segment:
    """From `start_s` after the flow's beginning, for `duration_s`, at `rate_bps` of payload; a rate of 0 is silence."""

    start_s: float
    duration_s: float
    rate_bps: int

    @property
    def end_s(self) -> float:
        """When it ends, in seconds after the flow's beginning."""
        return self.start_s + self.duration_s


@dataclass(frozen=True)
class Wrong:
    """A number of a pattern that cannot be: its key in a testbed file, a short code, what is wrong, what to write."""

    key: str
    code: str
    message: str
    hint: str


def pattern_of(flow: Mapping[str, Any]) -> Pattern:
    """The pattern of a planned flow, from its plain data (an entry of the inventory)."""
    keys = ("rate_bps", "period_s", "on_s", "low_bps", "size_bytes", "seed")
    return Pattern(flow["pattern"], **{key: flow[key] for key in keys})


def peak_bps(pattern: Pattern) -> int:
    """The highest rate that the pattern asks for of its own; a Poisson slot that the path cannot carry is spread."""
    if pattern.kind == "on-off":
        assert pattern.period_s is not None and pattern.on_s is not None
        return round(pattern.rate_bps * pattern.period_s / pattern.on_s)
    if pattern.kind == "sine":
        return 2 * pattern.rate_bps - (pattern.low_bps or 0)
    return pattern.rate_bps


def wrong_numbers(pattern: Pattern) -> list[Wrong]:
    """Everything about the pattern's numbers that cannot be played, whatever the network."""
    found = []

    def wrong(key: str, message: str, hint: str) -> None:
        found.append(Wrong(key, "bad-value", message, hint))

    if pattern.rate_bps < LEAST_RATE_BPS:
        wrong("rate", f"{pattern.rate_bps} bit/s is too little for a flow", "at least `10 kbit/s`")
    if pattern.kind in ("on-off", "sine"):
        assert pattern.period_s is not None
        least = 2 * LEAST_STEP_S if pattern.kind == "on-off" else LEAST_STEPS * LEAST_STEP_S
        if not least <= pattern.period_s <= MOST_PERIOD_S:
            wrong("period", f"a period of {pattern.period_s:g} s is no period of {pattern.kind}",
                  f"from `{least:g} s` to `24 h`")  # fmt: skip
        elif pattern.kind == "on-off":
            assert pattern.on_s is not None
            if not LEAST_STEP_S <= pattern.on_s <= pattern.period_s - LEAST_STEP_S:
                wrong("on", f"{pattern.on_s:g} s of a period of {pattern.period_s:g} s",
                      f"from `{LEAST_STEP_S:g} s` to `{pattern.period_s - LEAST_STEP_S:g} s`; or `pattern: constant`"
                      )  # fmt: skip
    if pattern.low_bps is not None and pattern.low_bps > pattern.rate_bps:
        wrong("low", f"the lowest rate, {pattern.low_bps} bit/s, is above the mean, {pattern.rate_bps} bit/s",
              "`low:` at most `rate:`")  # fmt: skip
    if pattern.kind == "poisson":
        assert pattern.size_bytes is not None
        least_size = math.ceil(pattern.rate_bps / 8 / MOST_ARRIVALS_PER_S)
        if not max(100, least_size) <= pattern.size_bytes <= 10**10:
            wrong("size", f"blocks of {pattern.size_bytes} B cannot be counted at this rate",
                  f"from `{max(100, least_size)} B` to `10 GB`")  # fmt: skip
    return found


def segments(pattern: Pattern, from_s: float = 0.0, ceiling_bps: int | None = None) -> Iterator[Segment]:
    """The pattern's segments without end, in order and without gaps, from `from_s` seconds after its beginning.

    `ceiling_bps` is what the path carries: a Poisson slot with more than that goes on in the next one. The same pattern
    gives the same segments.
    """
    for segment in _endless(pattern, from_s, ceiling_bps):
        if segment.end_s <= from_s:
            continue
        late = max(0.0, from_s - segment.start_s)
        yield Segment(segment.start_s + late, segment.duration_s - late, segment.rate_bps)


def _endless(pattern: Pattern, from_s: float, ceiling_bps: int | None) -> Iterator[Segment]:
    if pattern.kind == "constant":
        for index in count(int(from_s // RENEW_S)):
            yield Segment(index * RENEW_S, RENEW_S, pattern.rate_bps)
    elif pattern.kind == "on-off":
        assert pattern.period_s is not None and pattern.on_s is not None
        for index in count(int(from_s // pattern.period_s)):
            start = index * pattern.period_s
            yield Segment(start, pattern.on_s, peak_bps(pattern))
            yield Segment(start + pattern.on_s, pattern.period_s - pattern.on_s, 0)
    elif pattern.kind == "sine":
        yield from _sine(pattern, from_s)
    else:
        yield from _poisson(pattern, from_s, ceiling_bps)


def _sine(pattern: Pattern, from_s: float) -> Iterator[Segment]:
    assert pattern.period_s is not None
    steps = max(LEAST_STEPS, min(MOST_STEPS, int(pattern.period_s / LEAST_STEP_S)))
    width = pattern.period_s / steps
    amplitude = pattern.rate_bps - (pattern.low_bps or 0)
    for index in count(int(from_s // pattern.period_s) * steps):
        # The mean of the sine over the step, so that the steps of a period have the rate as their mean.
        angles = (2 * math.pi * (index % steps) / steps, 2 * math.pi * (index % steps + 1) / steps)
        level = (math.cos(angles[0]) - math.cos(angles[1])) / (angles[1] - angles[0])
        rate = round(pattern.rate_bps + amplitude * level)
        yield Segment(index * width, width, rate if rate >= SILENT_BPS else 0)


def _poisson(pattern: Pattern, from_s: float, ceiling_bps: int | None) -> Iterator[Segment]:
    assert pattern.size_bytes is not None
    waiting = 0.0
    for index in count(int(from_s // SLOT_S)):
        # A generator for each slot: any slot can be had without those before it.
        chance = random.Random(f"{pattern.seed}/{index}")
        mean = pattern.rate_bps * SLOT_S / 8 / pattern.size_bytes
        waiting += 8.0 * pattern.size_bytes * _arrivals(chance, mean)
        sent = waiting if ceiling_bps is None else min(waiting, ceiling_bps * SLOT_S)
        waiting -= sent
        yield Segment(index * SLOT_S, SLOT_S, round(sent / SLOT_S))


def _arrivals(chance: random.Random, mean: float) -> int:
    """A Poisson number: how many exponential gaps fit into the slot."""
    number, passed = 0, chance.expovariate(mean)
    while passed <= 1.0:
        number += 1
        passed += chance.expovariate(mean)
    return number
