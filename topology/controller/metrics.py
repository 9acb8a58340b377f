"""What the controller counts as it happens, declared in one place. The rest is read when it is scraped: of switches by
`scrape`, of meters by `meter_scrape`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics

disable_created_metrics()  # a second series for each counter, which nobody reads

PREFIX = "cohortnet_controller"


class Metrics:
    """The counters of one testbed's controller, in a registry of their own."""

    def __init__(self, testbed: str) -> None:
        self.registry = CollectorRegistry()
        self._testbed = testbed
        self.packet_ins = self._counter("packet_ins", "Packets from unknown sources that switches sent").labels(testbed)
        self.errors = self._counter(
            "openflow_errors", "Messages refused by switches, and switches that did not answer"
        ).labels(testbed)
        self._connections = self._counter(
            "switch_connections", "Times that a switch connected (more than 1: it came back)", "switch"
        )
        self._flow_changes = self._counter("flow_changes", "Flow messages sent", "switch")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, ["testbed", *labels], registry=self.registry)

    def connected(self, switch: str) -> None:
        """A switch connected."""
        self._connections.labels(self._testbed, switch).inc()

    def flows_sent(self, switch: str, count: int) -> None:
        """Flow messages were sent to a switch."""
        self._flow_changes.labels(self._testbed, switch).inc(count)
