"""What `/metrics` of an agent says: its own metrics, all in one class (processes by state, exits, events, watchers),
and those of the runs (`model_metrics`).

Values are read when Prometheus asks, so what is gone is gone from the next answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fl_node.agent.model_metrics import NODE_LABELS, families
from fl_node.agent.process import STATES
from fl_node.agent.supervisor import Supervisor


class AgentMetrics(Collector):
    def __init__(self, supervisor: Supervisor, watchers: Callable[[], int]) -> None:
        self._supervisor = supervisor
        self._watchers = watchers
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        who = self._supervisor.identity
        labels = NODE_LABELS
        values = (who.testbed, who.node, who.role, who.cohort)
        processes = GaugeMetricFamily(
            "cohortnet_agent_processes", "FL processes known to the agent", labels=[*labels, "kind", "state"]
        )
        counts = {(kind, state): 0 for kind in ("server", "client") for state in STATES}
        for process in self._supervisor.all():
            counts[(process.kind, process.state)] += 1
        for (kind, state), count in counts.items():
            processes.add_metric([*values, kind, state], count)
        yield processes
        exits = CounterMetricFamily(
            "cohortnet_agent_process_exits", "FL processes that have ended", labels=[*labels, "kind", "state"]
        )
        for (kind, state), count in sorted(self._supervisor.exits.items()):
            exits.add_metric([*values, kind, state], count)
        yield exits
        events = CounterMetricFamily("cohortnet_agent_events", "events read from FL processes", labels=labels)
        events.add_metric(values, self._supervisor.events_read)
        yield events
        watchers = GaugeMetricFamily("cohortnet_agent_watchers", "open event streams", labels=labels)
        watchers.add_metric(values, self._watchers())
        yield watchers
        with self._supervisor.runs.held() as runs:
            found = families(runs, values)
        yield from found
