"""Limits over time, of a cohort's traffic or of a link's direction: as the series tell them, else as declared. Pure.

Rates are bit/s; times are seconds from the start of the run. A series of limits begins when a limit is set and ends
when it is removed, so before its first sample and after its last one there is no limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from monitoring.report import scale
from monitoring.report.record import Record
from monitoring.report.samples import GAP, Floats, Sampled

AROUND = 2
"""Steps to either side of a step whose traffic its rate may hold: it lies between samples taken at other times."""
EDGE = 1.5
"""Steps from the first or last of all samples within which a series counts as there from the start or to the end."""

Steps = list[tuple[float, float]]
"""(time, rate that holds from it on), in their order; NaN: no limit."""


@dataclass(frozen=True)
class Limit:
    """A limit over time: `kind` is meter or link, `names` are of all that it is made of. A value holds from its time
    on; NaN, and all that lies before the first time, is no limit. `window` is of what is said of it."""

    kind: str
    names: tuple[str, ...]
    times: list[float]
    rates_bps: list[float]
    window: tuple[float, float] = (-math.inf, math.inf)

    def at(self, times: Floats) -> Floats:
        """What was in force at each of these times; NaN where nothing was."""
        place = np.searchsorted(np.array(self.times), times, side="right") - 1
        return np.where(place < 0, np.nan, np.array(self.rates_bps)[np.maximum(place, 0)])

    def around(self, times: Floats) -> Floats:
        """What rates at these equally spaced times can be judged by: the highest limit within AROUND steps of each; NaN
        where there was none at any of them."""
        found = np.pad(self.at(times), AROUND, mode="edge")
        return np.lib.stride_tricks.sliding_window_view(found, 2 * AROUND + 1).max(axis=1)

    def share(self, times: Floats, rates_bps: Floats) -> float | None:
        """The largest share of the limit in force that these rates had; None where none can be judged."""
        shares = rates_bps / self.around(times)
        return float(np.nanmax(shares)) if np.isfinite(shares).any() else None

    @property
    def name(self) -> str:
        """Of all that it is made of."""
        return ", ".join(self.names)

    @property
    def phases(self) -> Steps:
        """Its values within its window."""
        ends = [*self.times[1:], math.inf]
        low, high = self.window
        return [
            (time, rate)
            for time, rate, end in zip(self.times, self.rates_bps, ends, strict=True)
            if end > low and time < high
        ]

    @property
    def changes(self) -> int:
        """How often it was set, changed or removed within its window."""
        return max(len(self.phases) - 1, 0)

    @property
    def lowest_bps(self) -> float:
        """Of all values."""
        return float(np.nanmin(self.rates_bps))

    @property
    def highest_bps(self) -> float:
        """Of all values."""
        return float(np.nanmax(self.rates_bps))

    @property
    def rates(self) -> str:
        """20 Mbit/s → 6 Mbit/s → none."""
        return " → ".join(scale.rate(rate) if math.isfinite(rate) else "none" for _, rate in self.phases[-4:])

    @property
    def said(self) -> str:
        """20 Mbit/s → 6 Mbit/s (meter)."""
        return f"{self.rates} ({self.kind})"


def always(kind: str, rates: Sequence[tuple[str, float]]) -> Limit:
    """The tightest of these (name, rate), in force the whole time."""
    return Limit(kind, tuple(name for name, _ in rates), [-math.inf], [min(rate for _, rate in rates)])


class Sampling:
    """When a run was sampled: what its series of limits are read with."""

    def __init__(self, record: Record) -> None:
        assert record.samples is not None
        span = record.samples.span() or (record.start, record.start)
        self.start = record.start
        self.span = (span[0] - record.start, span[1] - record.start)
        self.step = record.samples.period()
        # Something that was set before the first event has its first sample within a step of it.
        first = float(record.events[0]["time"]) - record.start if record.events else -math.inf
        self.window = (first + self.step, record.end - record.start) if record.events else (-math.inf, math.inf)

    def tightest(self, kind: str, series: Iterable[tuple[str, Sampled]]) -> Limit | None:
        """The lowest of these (name, gauge) at each time; None where nothing was in force within the run."""
        known = [(name, item) for name, item in series if len(item.times)]
        if not known:
            return None
        parts = [self._steps(item) for _, item in known]
        times = np.unique([time for part in parts for time, _ in part])
        alone = [Limit(kind, (), [time for time, _ in part], [rate for _, rate in part]).at(times) for part in parts]
        steps = self._whole(list(zip(times.tolist(), reduce(np.fmin, alone).tolist(), strict=True)))
        names = tuple(dict.fromkeys(name for name, _ in known))
        limit = Limit(kind, names, [time for time, _ in steps], [rate for _, rate in steps], self.window)
        return limit if any(math.isfinite(rate) for _, rate in limit.phases) else None

    def _steps(self, item: Sampled) -> Steps:
        times = item.times - self.start
        apart = np.diff(times)
        # Of a long run all but the learning metrics may be kept at a longer step.
        step = max(self.step, float(np.median(apart))) if len(apart) else self.step
        first, last = self.span
        found: Steps = [] if times[0] <= first + EDGE * step else [(-math.inf, math.nan)]
        for place, (time, rate) in enumerate(zip(times.tolist(), item.values.tolist(), strict=True)):
            found.append((time if found or place else -math.inf, rate))
            following = times[place + 1] if place + 1 < len(times) else math.inf
            if (following - time > GAP * step) if math.isfinite(following) else time < last - EDGE * step:
                found.append((math.nextafter(time, math.inf), math.nan))
        return found

    def _whole(self, steps: Steps) -> Steps:
        # A meter that is enforced another way goes on as another series: no sample in between is no time without it.
        ends = [*(time for time, _ in steps[1:]), math.inf]
        kept = [
            (time, rate)
            for place, ((time, rate), end) in enumerate(zip(steps, ends, strict=True))
            if place == 0 or math.isfinite(rate) or end - time > EDGE * self.step
        ]
        return [
            step
            for place, step in enumerate(kept)
            if place == 0 or not _same(kept[place - 1][1], step[1])
        ]  # fmt: skip


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def limit_of(record: Record, sampling: Sampling, cohort: str, server: str, direction: str) -> Limit | None:
    """The tightest of the cohort's and its server's meters as they were in force, else as declared; without any the
    server's link."""
    assert record.samples is not None
    aims = (("cohort", cohort), ("server", server))
    series = [
        (item.labels.get("meter", ""), item)
        for kind, target in aims
        for item in record.samples.select(
            "cohortnet_meter_rate", kind=kind, target=target, direction=direction, unit="bit/s"
        )
    ]
    if series:
        found = sampling.tightest("meter", series)
        if found is not None:
            return found
    else:
        meters = [
            (str(meter["name"]), float(meter["rate"]))
            for meter in record.inventory.get("meters") or []
            if ((meter.get("target") or {}).get("kind"), str((meter.get("target") or {}).get("name"))) in aims
            and meter.get("unit") == "bit/s"
            and meter.get("direction") in (direction, "both")
        ]
        if meters:
            return always("meter", meters)
    rate = access_rate(record.inventory, server, outgoing=direction == "down")
    return None if rate is None else always("link", [rate])


def access_rate(inventory: Mapping[str, Any], node: str, *, outgoing: bool) -> tuple[str, float] | None:
    """Name and declared rate (bit/s) of a node's own link in one direction; None where none is declared."""
    for link in inventory.get("links") or []:
        if node and node in (link["a"], link["b"]):
            side = "a_to_b" if (link["a"] == node) == outgoing else "b_to_a"
            rate = (link.get(side) or {}).get("rate_bps")
            return (str(link["name"]), float(rate)) if rate else None
    return None
