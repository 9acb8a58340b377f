"""Meters as Prometheus reads them: rates, bytes, packets and drops of each band, asked of the switches at each
scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from topology.controller.graph import Graph
from topology.controller.meter_view import MeterView

_METER = ["testbed", "cohort", "meter"]
_LABELS = [*_METER, "direction", "kind", "target"]
_WHERE = [*_LABELS, "switch", "meter_id"]
_QUEUE = [*_LABELS, "node", "interface"]


class MeterCollector:
    """A collector for a prometheus_client registry. A meter whose switch does not answer has no counters in that
    scrape."""

    def __init__(self, view: MeterView, graph: Callable[[], Graph]) -> None:
        self._view, self._graph = view, graph

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not ask switches."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series of this scrape."""
        rate = GaugeMetricFamily(
            "cohortnet_meter_rate", "Limit, in bit/s or packet/s", labels=[*_LABELS, "unit", "in_force"]
        )
        pending = GaugeMetricFamily(
            "cohortnet_meter_pending", "1 where the meter is not in force yet", labels=_METER
        )
        changed = GaugeMetricFamily(
            "cohortnet_meter_changed_timestamp_seconds",
            "Wall time at which the meter was last set or changed",
            labels=_METER,
        )
        packets = CounterMetricFamily(
            "cohortnet_meter_packets", "Packets that came to a meter, dropped ones included", labels=_WHERE
        )
        octets = CounterMetricFamily(
            "cohortnet_meter_bytes", "Bytes that came to a meter, dropped ones included", labels=_WHERE
        )
        band_packets = CounterMetricFamily(
            "cohortnet_meter_band_drop_packets", "Packets that a meter's band dropped", labels=[*_WHERE, "band"]
        )
        band_octets = CounterMetricFamily(
            "cohortnet_meter_band_drop_bytes", "Bytes that a meter's band dropped", labels=[*_WHERE, "band"]
        )
        queue: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            "packets": CounterMetricFamily(
                "cohortnet_meter_queue_packets", "Packets that a meter's queue sent", labels=_QUEUE
            ),
            "bytes": CounterMetricFamily(
                "cohortnet_meter_queue_bytes", "Bytes that a meter's queue sent", labels=_QUEUE
            ),
            "drops": CounterMetricFamily(
                "cohortnet_meter_queue_drops", "Packets that a meter's queue dropped", labels=_QUEUE
            ),
            "backlog_bytes": GaugeMetricFamily(
                "cohortnet_meter_queue_backlog_bytes", "Bytes that wait in a meter's queue", labels=_QUEUE
            ),
        }
        graph = self._graph()
        cohorts = _Cohorts(graph)
        for meter in self._view.all(flows=False):
            target = meter["target"]
            own = [graph.testbed, cohorts.of(target), meter["name"]]
            pending.add_metric(own, 1 if meter["pending"] else 0)
            if meter["changed"] is not None:
                changed.add_metric(own, meter["changed"])
            named = target.get("name") or target.get("address") or f"{target.get('switch')}:{target.get('port')}"
            ways = ("up", "down") if meter["direction"] == "both" else (meter["direction"],)
            for way in ways:
                labels = [*own, way, target["kind"], named]
                rate.add_metric([*labels, meter["unit"], meter["in_force"]], meter["rate"])
            for entry in meter["entries"]:
                labels = [*own, entry["direction"], target["kind"], named]
                if "interface" in entry:
                    for key, family in queue.items():
                        if entry.get(key) is not None:
                            family.add_metric([*labels, entry["node"] or "", entry["interface"]], entry[key])
                    continue
                if entry["packets"] is None:
                    continue
                where = [*labels, entry["switch"], str(entry["meter_id"])]
                packets.add_metric(where, entry["packets"])
                octets.add_metric(where, entry["bytes"])
                for index, band in enumerate(entry["bands"]):
                    band_packets.add_metric([*where, str(index)], band["packets"])
                    band_octets.add_metric([*where, str(index)], band["bytes"])
        yield from (rate, pending, changed, packets, octets, band_packets, band_octets, *queue.values())


class _Cohorts:
    """Which cohort a meter's target is, or is of: the first, for one that serves several."""

    def __init__(self, graph: Graph) -> None:
        self._names = {cohort.name for cohort in graph.cohorts}
        self._of_node: dict[str, str] = {}
        for cohort in graph.cohorts:
            for node in (cohort.server, *cohort.clients):
                self._of_node.setdefault(node, cohort.name)

    def of(self, target: Mapping[str, Any]) -> str:
        """Its name; "" where the target (a port, an address) belongs to none."""
        name = str(target.get("name", ""))
        if target["kind"] == "cohort":
            return name if name in self._names else ""
        return self._of_node.get(name, "") if target["kind"] in ("client", "server") else ""
