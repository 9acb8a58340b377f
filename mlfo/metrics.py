"""Everything that the orchestrator measures about itself, declared in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlfo.errors import Problem

disable_created_metrics()  # a second series for each counter, which nobody reads

LATEST = 100
"""Intents whose state's begin is shown; older ones are only counted."""
Latest = Callable[[int], list[tuple[str, str, str, float]]]
"""The newest intents, as (intent id, run, state, wall time at which that state began)."""


class Metrics:
    """One registry a process, so that tests and roles do not meet in a global one."""

    def __init__(self, node: str, role: str, states: Callable[[], dict[str, int]], latest: Latest) -> None:
        self.registry = CollectorRegistry()
        self.phase_seconds = Histogram(
            "mlfo_intent_phase_seconds",
            "Seconds that intents spent in a state",
            ["phase"],
            registry=self.registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600),
        )
        self.processing_seconds = Histogram(
            "mlfo_intent_processing_seconds",
            "Seconds from an intent's acceptance to its run",
            registry=self.registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900),
        )
        self.accepted = Counter("mlfo_intents_accepted", "Intents that were accepted", registry=self.registry)
        self._refused = Counter(
            "mlfo_intents_refused",
            "Intents that were refused, by the code of the first problem",
            ["code"],
            registry=self.registry,
        )
        self.errors = Counter("mlfo_errors", "Errors by kind", ["kind"], registry=self.registry)
        self._momo = Counter(
            "mlfo_momo_messages",
            "Mo-Mo calls by method, direction and outcome",
            ["method", "direction", "outcome"],
            registry=self.registry,
        )
        self._momo_bytes = Counter(
            "mlfo_momo_bytes",
            "Serialised bytes of Mo-Mo requests and replies that this MLFO sent and received",
            ["method", "direction"],
            registry=self.registry,
        )
        self._momo_seconds = Histogram(
            "mlfo_momo_seconds",
            "Seconds of Mo-Mo calls: to the answer where they are made, of the work where they are answered",
            ["method"],
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90),
        )
        self.registry.register(_Intents(states, latest, {"node": node, "role": role}))

    def refuse(self, problems: Sequence[Problem]) -> None:
        """An intent was refused: one refusal, and each of its problems an error."""
        self._refused.labels(problems[0].code[:60] if problems else "unknown").inc()
        for problem in problems:
            self.errors.labels(f"refused_{problem.code}"[:60]).inc()

    def momo_call(self, method: str, direction: str, outcome: str, began: float, sent: int, received: int) -> None:
        """A Mo-Mo call is over. `direction` says whether it was sent or received, `began` when, on the monotonic
        clock; `sent` and `received` are serialised bytes, seen from here."""
        self._momo.labels(method, direction, outcome).inc()
        self._momo_bytes.labels(method, "sent").inc(sent)
        self._momo_bytes.labels(method, "received").inc(received)
        self._momo_seconds.labels(method).observe(time.monotonic() - began)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Intents(Collector):
    """Counted when asked, so that the numbers cannot drift from the store."""

    def __init__(self, states: Callable[[], dict[str, int]], latest: Latest, labels: dict[str, str]) -> None:
        self._states = states
        self._latest = latest
        self._labels = labels

    def collect(self) -> list[Metric]:
        gauge = GaugeMetricFamily("mlfo_intents", "Intents by state", labels=[*self._labels, "state"])
        for state, count in self._states().items():
            gauge.add_metric([*self._labels.values(), state], count)
        since = GaugeMetricFamily(
            "mlfo_intent_state_timestamp_seconds",
            f"Wall time at which the state of each of the last {LATEST} intents began",
            labels=["intent", "run", "state"],
        )
        for intent, run, state, at in self._latest(LATEST):
            since.add_metric([intent, run, state], at)
        return [gauge, since]
