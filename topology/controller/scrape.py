"""What Prometheus reads from the running fleet: gauges and port counters, asked of the switches at each
scrape."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from topology.controller.fleet import Fleet
from topology.controller.flows import LAST_PORT
from topology.controller.metrics import PREFIX
from topology.controller.session import SwitchSilent

_SWITCH = ["testbed", "switch"]
_PORT_COUNTERS = {
    "rx_bytes": ("receive_bytes", "Bytes that came in at a switch port"),
    "tx_bytes": ("transmit_bytes", "Bytes that went out of a switch port"),
    "rx_packets": ("receive_packets", "Packets that came in at a switch port"),
    "tx_packets": ("transmit_packets", "Packets that went out of a switch port"),
    "rx_dropped": ("receive_drops", "Packets dropped that came in at a switch port"),
    "tx_dropped": ("transmit_drops", "Packets dropped on their way out of a switch port"),
    "rx_errors": ("receive_errors", "Errors of packets that came in at a switch port"),
    "tx_errors": ("transmit_errors", "Errors of packets on their way out of a switch port"),
}
WORKERS = 4


class FleetCollector:
    """A collector for a prometheus_client registry. A switch that does not answer has no port series in that
    scrape."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not ask switches."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series of this scrape."""
        view = self._fleet.network.snapshot()
        sessions = self._fleet.sessions()
        testbed = view.graph.testbed
        known = list(view.graph.switches)
        connected_count = sum(datapath_id in sessions for datapath_id in known)
        for name, text, count in (
            ("switches", "Switches of the inventory", len(known)),
            ("connected_switches", "Switches of the inventory that are connected", connected_count),
            ("links_down", "Links between switches that are down", len(view.down_links)),
            ("boards", "Boards that were learnt", len(view.boards)),
        ):
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["testbed"])
            family.add_metric([testbed], count)
            yield family
        flows = GaugeMetricFamily(f"{PREFIX}_flows", "Flows that the switch confirmed", labels=_SWITCH)
        connected = GaugeMetricFamily(f"{PREFIX}_switch_connected", "1 where connected", labels=_SWITCH)
        for datapath_id, switch in view.graph.switches.items():
            session = sessions.get(datapath_id)
            flows.add_metric([testbed, switch.name], session.flow_count if session else 0)
            connected.add_metric([testbed, switch.name], 1 if session else 0)
        yield flows
        yield connected
        labels = ["testbed", "switch", "port", "peer"]
        families = {
            key: CounterMetricFamily(f"cohortnet_switch_port_{name}", text, labels=labels)
            for key, (name, text) in _PORT_COUNTERS.items()
        }
        tables = GaugeMetricFamily(
            "cohortnet_switch_flows",
            "Flows in a table of a switch, those of others included",
            labels=[*_SWITCH, "table"],
        )
        with ThreadPoolExecutor(WORKERS) as pool:
            answers = list(pool.map(self._counters, known))
        for datapath_id, (counters, flow_counts) in zip(known, answers, strict=True):
            switch = view.graph.switches[datapath_id]
            for table, count in sorted(flow_counts.items()):
                tables.add_metric([testbed, switch.name, str(table)], count)
            for number, values in sorted(counters.items()):
                if number >= LAST_PORT:
                    continue  # the switch's own LOCAL port
                port = switch.ports.get(number)
                state = view.ports.get(datapath_id, {}).get(number)
                name = port.name if port else state.name if state else str(number)
                for key, value in values.items():
                    # A counter that a switch does not keep is reported as all ones.
                    if value < 2**64 - 1:
                        families[key].add_metric(
                            [testbed, switch.name, name, port.peer if port else ""], value
                        )
        yield tables
        yield from families.values()

    def _counters(self, datapath_id: int) -> tuple[dict[int, dict[str, int]], dict[int, int]]:
        """Counters by port, and flows by table."""
        try:
            return self._fleet.port_statistics(datapath_id), self._fleet.table_statistics(datapath_id)
        except SwitchSilent:
            return {}, {}
