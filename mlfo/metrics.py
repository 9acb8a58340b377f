"""Everything that the orchestrator measures about itself, declared in one place."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Metrics:
    """One registry a process, so that tests and roles do not meet in a global one."""

    def __init__(self, node: str, role: str, states: Callable[[], dict[str, int]]) -> None:
        self.registry = CollectorRegistry()
        self.phase_seconds = Histogram(
            "mlfo_intent_phase_seconds",
            "Seconds that intents spent in a state",
            ["phase"],
            registry=self.registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600),
        )
        self.errors = Counter("mlfo_errors", "Errors by kind", ["kind"], registry=self.registry)
        self.momo = Counter(
            "mlfo_momo_messages",
            "Mo-Mo calls by method, direction and outcome",
            ["method", "direction", "outcome"],
            registry=self.registry,
        )
        self.registry.register(_States(states, {"node": node, "role": role}))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _States(Collector):
    """Counted when asked, so that the numbers cannot drift from the store."""

    def __init__(self, states: Callable[[], dict[str, int]], labels: dict[str, str]) -> None:
        self._states = states
        self._labels = labels

    def collect(self) -> list[Metric]:
        gauge = GaugeMetricFamily("mlfo_intents", "Intents by state", labels=[*self._labels, "state"])
        for state, count in self._states().items():
            gauge.add_metric([*self._labels.values(), state], count)
        return [gauge]
