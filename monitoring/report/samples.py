"""Series of a run as arrays: selecting, summing counters into rates, spreads of gauges over time. Pure but for loading.

The samples of different nodes need not fall together. Rates are therefore taken on one grid of equal steps: a counter
is laid between its samples in a straight line, which keeps every byte; differences of the sum are divided by the step.
Where no sample was taken for longer than GAP steps nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAP = 2.6
"""Steps without any sample after which a line is broken."""
MOST_STEPS = 480
"""Of a grid: finer than a chart can show is not computed."""


@dataclass(frozen=True)
class Sampled:
    """One series: its labels, and values at unix seconds."""

    labels: Mapping[str, str]
    times: Floats
    values: Floats

    def growth(self) -> float:
        """How much a counter grew between its first and last sample; a restart from 0 is taken into account."""
        steps = np.diff(self.values)
        return float(np.where(steps >= 0, steps, self.values[1:]).sum()) if len(self.values) > 1 else 0.0


class Samples:
    """All series of a run."""

    def __init__(self, series: Mapping[str, Sequence[Sampled]]) -> None:
        self._series = {name: list(items) for name, items in series.items()}

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics that were kept."""
        return sorted(self._series)

    def select(self, metric: str, **labels: str) -> list[Sampled]:
        """The series of a metric whose labels have these values."""
        return [
            item
            for item in self._series.get(metric, ())
            if all(item.labels.get(name, "") == value for name, value in labels.items())
        ]

    def span(self) -> tuple[float, float] | None:
        """First and last time of any sample."""
        ends = [(item.times[0], item.times[-1]) for items in self._series.values() for item in items if len(item.times)]
        return (float(min(a for a, _ in ends)), float(max(b for _, b in ends))) if ends else None

    def period(self) -> float:
        """The usual time between two samples of a series, in seconds."""
        steps = [
            np.median(np.diff(item.times))
            for items in self._series.values()
            for item in items[:3]
            if len(item.times) > 2
        ]
        return float(np.median(steps)) if steps else 5.0

    def grid(self) -> Floats:
        """Unix seconds in equal steps of the sampling period (longer where the run is long) over all samples."""
        span = self.span()
        if span is None:
            return np.array([])
        step = max(self.period(), (span[1] - span[0]) / MOST_STEPS)
        return np.arange(span[0], span[1] + step * 0.51, step)


def load_samples(folder: Path) -> tuple[Samples | None, str]:
    """The series kept with a run, or None and a sentence that says why there are none."""
    from monitoring.series import SeriesError, read

    try:
        kept = read(folder)
    except SeriesError as error:
        return None, f"The time series cannot be read: {error}"
    if not len(kept):
        return None, (
            "No time series: the testbed was raised without monitoring, so rates, limits in force, RTT, CPU "
            "and memory over time are not known. `cohortnet up --monitoring` keeps them with the next run."
        )
    return Samples(
        {
            metric: [Sampled(dict(labels), times, values) for labels, (times, values) in kept.select(metric).items()]
            for metric in kept.metrics
        }
    ), ""


def _unwrapped(item: Sampled) -> Floats:
    # A counter that restarted goes on from where it was.
    steps = np.diff(item.values, prepend=item.values[:1])
    return np.cumsum(np.where(steps >= 0, steps, item.values))


def _blank(rates: Floats, grid: Floats, series: Sequence[Sampled]) -> Floats:
    step = grid[1] - grid[0]
    taken = np.unique(np.concatenate([item.times for item in series]))
    after = np.searchsorted(taken, grid)
    before_s = np.where(after > 0, grid - taken[np.maximum(after - 1, 0)], np.inf)
    after_s = np.where(after < len(taken), taken[np.minimum(after, len(taken) - 1)] - grid, np.inf)
    rates[(before_s + after_s > GAP * step) & (np.minimum(before_s, after_s) > 0.51 * step)] = np.nan
    return rates


def summed_rate(series: Sequence[Sampled], grid: Floats) -> Floats | None:
    """Growth a second of the sum of these counters, at each time of the grid (over the step before it)."""
    usable = [item for item in series if len(item.times) > 1]
    if not usable or len(grid) < 2:
        return None
    total = np.zeros(len(grid))
    for item in usable:
        total += np.interp(grid, item.times, _unwrapped(item))
    rates = np.diff(total, prepend=total[:1]) / (grid[1] - grid[0])
    rates[0] = np.nan
    return _blank(rates, grid, usable)


def spread(series: Sequence[Sampled], grid: Floats, quantiles: Sequence[float]) -> list[Floats] | None:
    """Quantiles of all samples of these gauges in each step of the grid; NaN where there was none."""
    usable = [item for item in series if len(item.times)]
    if not usable or len(grid) < 2:
        return None
    times = np.concatenate([item.times for item in usable])
    values = np.concatenate([item.values for item in usable])
    step = grid[1] - grid[0]
    place = np.rint((times - grid[0]) / step).astype(int)
    kept = (place >= 0) & (place < len(grid)) & np.isfinite(values)
    place, values = place[kept], values[kept]
    results = [np.full(len(grid), np.nan) for _ in quantiles]
    order = np.argsort(place, kind="stable")
    place, values = place[order], values[order]
    for index, first, last in zip(*_runs(place), strict=True):
        for result, quantile in zip(results, quantiles, strict=True):
            result[index] = np.quantile(values[first:last], quantile)
    return results


def _runs(place: NDArray[Any]) -> tuple[list[int], list[int], list[int]]:
    steps, first = np.unique(place, return_index=True)
    return [int(s) for s in steps], [int(f) for f in first], [*(int(f) for f in first[1:]), len(place)]
