"""Copies the series of one run out of Prometheus into the run's folder, and says what was kept and what was not.

Which series: those of the testbed (label `testbed`), and of those with a run only that run's. How many: at most
`LIMIT` samples; beyond that all but the learning metrics are kept at a longer step, and what still does not fit is
named.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from monitoring.series.files import CSV, PARQUET, Samples, SeriesWriter, table_of
from monitoring.series.prometheus_api import PrometheusApi, SeriesError
from monitoring.series.reader import increases

LIMIT = 2_000_000
"""Samples of one run: up to 300 MB as CSV and 35 MB as Parquet (measured: 144 and 17 bytes a sample)."""
DEADLINE_S = 60.0
CHUNK = 200_000
"""Samples asked for at once: about 10 MB of JSON."""
MOST_POINTS = 10_000
"""Prometheus gives 11,000 points of a series at once, where it is asked for steps."""
_NAMES = ("model_.*|fl_.*|cohortnet.*|node_.*|container_.*|tcp_.*|tcprtt_(bucket|sum|count)|mlfo_.*|"
          "up|scrape_duration_seconds|ALERTS")  # fmt: skip
_NOT_NAMES = ".+_created|(?:fl|mlfo|cohortnet|container|node)_.*_bucket"
_LEARNING = re.compile(r"^(model_|fl_)")
"""What a run is about is kept as it was scraped, however much else there is."""
_TARGET_LABELS = ("job", "instance")
"""Where a series was scraped says nothing about a node; only the scraping's own metrics are told apart by them."""
_OF_SCRAPING = ("up", "scrape_duration_seconds")


@dataclass(frozen=True)
class SeriesSummary:
    """What was kept, for the manifest. Times in Unix seconds.

    `thinned_step_s` is the step of all but the learning metrics where there was too much, else None; `left_out` names
    metrics of which nothing, or not all, was kept. `overruns` counts collections that were late or slow in that time,
    `missed_scrapes` targets that did not answer.
    """

    state: str
    start: float
    end: float
    period_s: float
    metrics: int
    series: int
    samples: int
    thinned_step_s: float | None
    left_out: tuple[str, ...]
    overruns: int
    missed_scrapes: int
    files: dict[str, int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "left_out": list(self.left_out)}


def selector(testbed: str, run: str, name: str | None = None) -> str:
    """What belongs to that run, of that metric or of all that are kept. Pure."""
    matchers = [f"testbed={_quoted(testbed)}", f"run=~{_quoted('|' + re.escape(run))}"]
    if name is not None:
        matchers.insert(0, f"__name__={_quoted(name)}")
    else:
        matchers[:0] = [f"__name__=~{_quoted(_NAMES)}", f"__name__!~{_quoted(_NOT_NAMES)}"]
    return "{" + ",".join(matchers) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True)
class Share:
    """How one metric is fetched: as scraped (`step_s` None) or in steps, `span_s` seconds at once."""

    metric: str
    step_s: float | None
    span_s: float


def plan_shares(counts: Mapping[str, float], period_s: float, length_s: float, limit: int) -> list[Share]:
    """How each metric is fetched so that about `limit` samples come together; learning metrics first. Pure.

    `counts` is the number of series by metric.
    """
    each = length_s / period_s + 1
    ordered = sorted(counts, key=lambda name: (not _LEARNING.match(name), counts[name], name))
    learning = sum(counts[name] for name in ordered if _LEARNING.match(name)) * each
    others = sum(counts[name] for name in ordered if not _LEARNING.match(name)) * each
    room = max(limit - learning, 1.0)
    factor = math.ceil(others / room) if others > room else 1
    whole = learning > limit  # then even they are stepped
    shares = []
    for name in ordered:
        thin = factor if not _LEARNING.match(name) else (math.ceil(learning / limit) if whole else 1)
        step = period_s * thin if thin > 1 else None
        span = max(CHUNK / max(counts[name], 1.0), 10.0) * (step or period_s)
        if step is not None:
            span = min(span, MOST_POINTS * step)
        shares.append(Share(name, step, span))
    return shares


def keep(
    prometheus_url: str,
    inventory: Mapping[str, Any],
    start: float,
    end: float,
    folder: Path,
    *,
    run: str | None = None,
    limit: int = LIMIT,
) -> SeriesSummary:
    """Write `series.parquet` and `series.csv` of the run from `start` to `end` (Unix seconds) into `folder`.

    `run` is the folder's name where it is left out. Nothing is written where there are no samples (state "empty").

    Raises:
        SeriesError: where Prometheus does not answer, or the files cannot be written; then neither is there.
    """
    run = run if run is not None else Path(folder).name
    began = time.monotonic()
    period_s = float(inventory["monitoring"]["period_s"])
    counting = _Counting()
    with PrometheusApi(prometheus_url) as api:
        names = selector(inventory["testbed"], run)
        length = f"{max(1, round((end - start) * 1000))}ms"
        counts = api.value_by_label(f"count by (__name__) (last_over_time({names}[{length}]))", "__name__", end)
        shares = plan_shares(counts, period_s, end - start, limit)
        if shares:
            try:
                with SeriesWriter(Path(folder)) as writer:
                    for share in shares:
                        if counting.samples >= limit or time.monotonic() - began > DEADLINE_S:
                            counting.left_out.append(share.metric)
                            continue
                        chosen = selector(inventory["testbed"], run, share.metric)
                        for found in _fetch(api, chosen, share, start, end):
                            room = limit - counting.samples if time.monotonic() - began < DEADLINE_S else 0
                            writer.write(table_of(counting.take(_cut(found, room))))
                            if sum(len(times) for _, times, _ in found) > room:
                                counting.left_out.append(share.metric)
                                break
            except (OSError, pa.ArrowException) as error:
                raise SeriesError(f"the series of {run} cannot be written to {folder}: {error}") from None
    steps = {share.step_s for share in shares if share.step_s is not None}
    sizes = {name: (Path(folder) / name).stat().st_size for name in (PARQUET, CSV)} if shares else {}
    return SeriesSummary(
        state="kept" if counting.samples else "empty", start=start, end=end, period_s=period_s,
        metrics=len(counting.metrics), series=len(counting.series), samples=counting.samples,
        thinned_step_s=max(steps) if steps else None, left_out=tuple(dict.fromkeys(counting.left_out)),
        overruns=counting.overruns, missed_scrapes=counting.missed, files=sizes,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def _fetch(api: PrometheusApi, chosen: str, share: Share, start: float, end: float) -> Iterator[list[Samples]]:
    at = start
    while at < end:
        until = min(at + share.span_s, end)
        if share.step_s is None:
            yield api.raw(chosen, at, until)
            at = until
        else:
            yield api.stepped(chosen, at, until, share.step_s)
            at += (math.floor((until - at) / share.step_s) + 1) * share.step_s


def _cut(found: list[Samples], room: int) -> list[Samples]:
    kept = []
    for labels, times, values in found:
        if room <= 0:
            break
        kept.append((labels, times[:room], values[:room]))
        room -= len(times)
    return kept


class _Counting:
    """Counts what passes on its way to the files, and takes away labels that say nothing."""

    def __init__(self) -> None:
        self.samples = 0
        self.metrics: set[str] = set()
        self.series: set[frozenset[tuple[str, str]]] = set()
        self.left_out: list[str] = []
        self.overruns = 0
        self.missed = 0

    def take(self, found: list[Samples]) -> list[Samples]:
        """The same series as they are kept."""
        kept: list[Samples] = []
        for labels, times, values in found:
            name = labels["__name__"]
            dropped = () if name in _OF_SCRAPING else _TARGET_LABELS
            own = {key: value for key, value in labels.items() if key not in dropped}
            self.samples += len(times)
            self.metrics.add(name)
            self.series.add(frozenset(own.items()))
            if name == "cohortnet_exporter_overruns_total":
                self.overruns += round(float(increases(values).sum()))
            elif name == "up":
                self.missed += int((values == 0).sum())
            kept.append((own, times, values))
        return kept
