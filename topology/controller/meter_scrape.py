"""Meters as Prometheus reads them: rates, bytes, packets and drops of each band, asked of the switches at each
scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from topology.controller.meter_view import MeterView

_LABELS = ["testbed", "meter", "direction", "kind", "target"]
_WHERE = [*_LABELS, "switch", "meter_id"]
_QUEUE = [*_LABELS, "node", "interface"]


class MeterCollector:
    """A collector for a prometheus_client registry. A meter whose switch does not answer has no counters in that
    scrape."""

    def __init__(self, view: MeterView, testbed: str) -> None:
        self._view, self._testbed = view, testbed

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not ask switches."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series of this scrape."""
        rate = GaugeMetricFamily(
            "cohortnet_meter_rate", "Limit, in bit/s or packet/s", labels=[*_LABELS, "unit", "in_force"]
        )
        pending = GaugeMetricFamily(
            "cohortnet_meter_pending", "1 where the meter is not in force yet", labels=["testbed", "meter"]
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
        for meter in self._view.all(flows=False):
            pending.add_metric([self._testbed, meter["name"]], 1 if meter["pending"] else 0)
            target = meter["target"]
            named = target.get("name") or target.get("address") or f"{target.get('switch')}:{target.get('port')}"
            ways = ("up", "down") if meter["direction"] == "both" else (meter["direction"],)
            for way in ways:
                labels = [self._testbed, meter["name"], way, target["kind"], named]
                rate.add_metric([*labels, meter["unit"], meter["in_force"]], meter["rate"])
            for entry in meter["entries"]:
                labels = [self._testbed, meter["name"], entry["direction"], target["kind"], named]
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
        yield from (rate, pending, packets, octets, band_packets, band_octets, *queue.values())
