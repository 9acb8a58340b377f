"""Every metric of the controller, declared in one place. Counters are counted as things happen, the rest is
read when it is scraped."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

PREFIX = "cohortnet_controller"


class Metrics:
    """The counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.packet_ins = Counter(
            f"{PREFIX}_packet_ins", "Packets from unknown sources that switches sent", registry=self.registry
        )
        self.errors = Counter(
            f"{PREFIX}_openflow_errors",
            "Messages refused by switches, and switches that did not answer",
            registry=self.registry,
        )
        self.connections = Counter(
            f"{PREFIX}_switch_connections",
            "Times that a switch connected (more than 1: it came back)",
            ["switch"],
            registry=self.registry,
        )
        self.flow_changes = Counter(
            f"{PREFIX}_flow_changes", "Flow messages sent", ["switch"], registry=self.registry
        )
