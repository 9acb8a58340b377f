"""One collection of the exporter, and the growth between two: by name of the metric and label. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

Key = tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """Values of all series at one moment; `time` counts seconds on a clock that never jumps."""

    time: float
    values: Mapping[str, Mapping[Key, float]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[Key, Mapping[str, str]]] = field(default_factory=dict)

    def each(self, metric: str) -> Iterable[tuple[Mapping[str, str], float]]:
        """Labels and value of every series of a metric."""
        labels = self.labels.get(metric, {})
        return [(labels[key], value) for key, value in self.values.get(metric, {}).items()]

    def one(self, metric: str, **labels: str) -> float | None:
        """The value of the first series with these labels; None where there is none."""
        for found, value in self.each(metric):
            if all(found.get(name) == wanted for name, wanted in labels.items()):
                return value
        return None


def take(families: Iterable[Metric], time: float) -> Reading:
    """A collection as a reading."""
    values: dict[str, dict[Key, float]] = {}
    labels: dict[str, dict[Key, Mapping[str, str]]] = {}
    for family in families:
        for sample in family.samples:
            key = tuple(sample.labels.values())
            values.setdefault(sample.name, {})[key] = float(sample.value)
            labels.setdefault(sample.name, {})[key] = sample.labels
    return Reading(time, values, labels)


class Growth:
    """From one reading to the next: rates of counters."""

    def __init__(self, before: Reading, now: Reading) -> None:
        self.before, self.now = before, now
        self.seconds = now.time - before.time

    def rates(self, metric: str) -> Iterable[tuple[Mapping[str, str], float]]:
        """Labels and growth a second of each counter that both readings have; one that restarted counts from 0."""
        if self.seconds <= 0:
            return []
        old, labels = self.before.values.get(metric, {}), self.now.labels.get(metric, {})
        found = []
        for key, value in self.now.values.get(metric, {}).items():
            if key in old:
                grown = value - old[key] if value >= old[key] else value
                found.append((labels[key], grown / self.seconds))
        return found

    def sums(self, metric: str, label: str, **wanted: str) -> dict[str, float]:
        """Growth a second by the value of one label, of the series with these other labels."""
        found: dict[str, float] = {}
        for labels, rate in self.rates(metric):
            if all(labels.get(name) == value for name, value in wanted.items()):
                found[labels.get(label, "")] = found.get(labels.get(label, ""), 0.0) + rate
        return found
