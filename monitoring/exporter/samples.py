"""What one collection found: values of declared families, as text for Prometheus and as metrics for programs.

Text is the reason for the form: a series' labels are written out once, when its node or link is first seen, and a line
of the answer is three strings put together. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.metrics_core import Metric

from monitoring import metrics
from monitoring.metrics import Family

Buckets = list[tuple[str, int]]
"""(upper bound as text, observations up to it)."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Labels:
    """The values of a series' labels, by the names that its family declares, with the text made of them once."""

    __slots__ = ("text", "values")

    def __init__(self, names: Sequence[str], values: Sequence[str]) -> None:
        if len(names) != len(values):
            raise ValueError(f"{len(values)} values for the labels {', '.join(names)}")
        self.values = tuple(values)
        written = ",".join(f'{name}="{escape(value)}"' for name, value in zip(names, values, strict=True))
        self.text = f"{{{written}}} "


def escape(value: str) -> str:
    """A label's value as the text format has it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


class Histogram:
    """Observations of one series, kept across collections: how many fell into each bucket, their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value into its bucket; a bound belongs to the bucket below it."""
        index = 0
        for bound in self._bounds:
            if value <= bound:
                break
            index += 1
        self._counts[index] += 1
        self._sum += value

    @property
    def sum(self) -> float:
        """Of all values."""
        return self._sum

    def cumulative(self) -> Buckets:
        """(upper bound as text, observations up to it), the last one "+Inf" with all of them."""
        total, found = 0, []
        for bound, count in zip((*(f"{bound:g}" for bound in self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found


class Samples:
    """Values by family. `add` is called some thousand times a collection."""

    def __init__(self) -> None:
        self.values: dict[Family, list[tuple[Labels, float]]] = {family: [] for family in metrics.ALL}
        self.histograms: dict[Family, list[tuple[Labels, Buckets, float]]] = {}

    def add(self, family: Family, labels: Labels, value: float) -> None:
        """A value of a series; `labels` has the names that the family declares."""
        self.values[family].append((labels, value))

    def add_histogram(self, family: Family, labels: Labels, histogram: Histogram) -> None:
        """A histogram's series as they are now; what it observes later is not in them."""
        self.histograms.setdefault(family, []).append((labels, histogram.cumulative(), histogram.sum))

    def __len__(self) -> int:
        histograms = sum(len(buckets) + 2 for rows in self.histograms.values() for _, buckets, _ in rows)
        return sum(map(len, self.values.values())) + histograms

    def text(self) -> bytes:
        """The answer to a scrape."""
        lines: list[str] = []
        for family, rows in self.values.items():
            name = family.name
            if rows:
                lines.append(_head(family))
                lines.extend([name + labels.text + repr(value) for labels, value in rows])
            if family in self.histograms:
                lines.append(_head(family))
                for labels, buckets, total in self.histograms[family]:
                    lines.extend(_histogram_lines(name, labels, buckets, total))
        lines.append("")
        return "\n".join(lines).encode()

    def families(self) -> Iterator[Metric]:
        """The same as objects of prometheus_client."""
        for family, rows in self.values.items():
            histograms = self.histograms.get(family, ())
            if not rows and not histograms:
                continue
            short = family.name.removesuffix("_total") if family.kind == metrics.COUNTER else family.name
            metric = Metric(short, family.help, family.kind)
            for labels, value in rows:
                metric.add_sample(family.name, dict(zip(family.labels, labels.values, strict=True)), value)
            for labels, buckets, total in histograms:
                own = dict(zip(family.labels, labels.values, strict=True))
                for bound, count in buckets:
                    metric.add_sample(f"{family.name}_bucket", {**own, "le": bound}, count)
                metric.add_sample(f"{family.name}_count", own, buckets[-1][1])
                metric.add_sample(f"{family.name}_sum", own, total)
            yield metric


def _head(family: Family) -> str:
    text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {family.name} {text}\n# TYPE {family.name} {family.kind}"


def _histogram_lines(name: str, labels: Labels, buckets: Buckets, total: float) -> Iterable[str]:
    inner = labels.text.rstrip()[1:-1]
    comma = "," if inner else ""
    for bound, count in buckets:
        yield f'{name}_bucket{{{inner}{comma}le="{bound}"}} {count}'
    yield f"{name}_count{labels.text}{buckets[-1][1]}"
    yield f"{name}_sum{labels.text}{total!r}"
