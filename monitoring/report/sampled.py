"""What the series of a run say of its network and its nodes: rates by cohort against limits, RTT, CPU, memory. Pure.

Rates are bit/s, RTT seconds, CPU cores, memory bytes; times are seconds from the start of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from monitoring.report.limits import Limit, Sampling, limit_of
from monitoring.report.record import Record
from monitoring.report.samples import Floats, Sampled, Samples, spread, summed_rate


@dataclass
class Flow:
    """A cohort's traffic in one direction. Arrived is what its far end received, sent what its near end gave away."""

    cohort: str
    direction: str
    times: Floats
    arrived_bps: Floats | None = None
    sent_bps: Floats | None = None
    arrived_bytes: float | None = None
    limit: Limit | None = None
    dropped_packets: float | None = None

    @property
    def highest_share(self) -> float | None:
        """The largest share of the limit that was in force at that time."""
        if self.limit is None or self.arrived_bps is None:
            return None
        return self.limit.share(self.times, self.arrived_bps)


@dataclass
class Spread:
    """Middle, low and high of a quantity over time."""

    cohort: str
    role: str
    times: Floats
    middle: Floats
    low: Floats
    high: Floats
    limit: float | None = None
    extra: dict[str, float] = field(default_factory=dict)


def cohorts(record: Record) -> list[str]:
    """All cohorts of the testbed in the order of the inventory; the run's own also where there is no inventory."""
    names = [str(item["name"]) for item in record.inventory.get("cohorts") or []]
    return names if not record.cohort or record.cohort in names else [*names, record.cohort]


def _server(record: Record, cohort: str) -> str:
    if cohort == record.cohort and record.server:
        return record.server
    found = [item["server"] for item in record.inventory.get("cohorts") or [] if str(item["name"]) == cohort]
    return str(found[0]) if found else ""


def flows(record: Record) -> list[Flow]:
    """Both directions of every cohort of which something was sampled."""
    samples = record.samples
    if samples is None:
        return []
    grid, sampling = samples.grid(), Sampling(record)
    times = grid - record.start
    found: list[Flow] = []
    for cohort in cohorts(record):
        server = _server(record, cohort)
        for direction in ("up", "down"):
            into, out_of = "node_network_receive_bytes_total", "node_network_transmit_bytes_total"
            if direction == "up":
                arrived = samples.select(into, node=server)
                sent = samples.select(out_of, role="client", cohort=cohort)
            else:
                arrived = samples.select(into, role="client", cohort=cohort)
                sent = samples.select(out_of, node=server)
            flow = Flow(cohort, direction, times)
            for name, series in (("arrived_bps", arrived), ("sent_bps", sent)):
                rates = summed_rate(series, grid)
                setattr(flow, name, None if rates is None else rates * 8)
            flow.arrived_bytes = sum(item.growth() for item in arrived) if arrived else None
            flow.limit = limit_of(record, sampling, cohort, server, direction)
            flow.dropped_packets = _dropped(samples, cohort, direction)
            if flow.arrived_bps is not None or flow.sent_bps is not None:
                found.append(flow)
    return found


def _dropped(samples: Samples, cohort: str, direction: str) -> float | None:
    # A meter counts what its band took, a queue what did not fit into it.
    series = [
        item
        for metric in ("cohortnet_meter_band_drop_packets_total", "cohortnet_meter_queue_drops_total")
        for item in samples.select(metric, kind="cohort", target=cohort, direction=direction)
    ]
    return sum(item.growth() for item in series) if series else None


def round_trips(record: Record) -> list[Spread]:
    """RTT of the FL flows by cohort: median, 5th and 95th percentile of all flows in each step."""
    return _gauges(record, "tcp_rtt", 1e-3, (0.5, 0.05, 0.95))


def windows(record: Record) -> list[Spread]:
    """Congestion window of the FL flows by cohort, in segments; quantiles as of the RTT."""
    return _gauges(record, "tcp_cwnd", 1.0, (0.5, 0.05, 0.95))


def _gauges(record: Record, metric: str, factor: float, quantiles: Sequence[float]) -> list[Spread]:
    samples = record.samples
    if samples is None:
        return []
    grid = samples.grid()
    found = []
    for cohort in cohorts(record):
        server = _server(record, cohort)
        # Both ends see the same path; the server's sockets are one for each client.
        series = samples.select(metric, flow="fl", node=server) or samples.select(metric, flow="fl", cohort=cohort)
        result = spread(series, grid, quantiles)
        if result is not None and np.isfinite(result[0]).any():
            middle, low, high = (part * factor for part in result)
            lowest = min(float(item.values.min()) for item in series) * factor
            found.append(Spread(cohort, "", grid - record.start, middle, low, high, extra={"lowest": lowest}))
    return found


def processors(record: Record) -> list[Spread]:
    """CPU by cohort and role, in cores: mean of the nodes with their lowest and highest."""
    return _nodes(record, "container_cpu_usage_seconds_total", "container_spec_cpu_limit_cores", counter=True)


def memories(record: Record) -> list[Spread]:
    """Working set by cohort and role, in bytes: mean of the nodes with their lowest and highest."""
    return _nodes(record, "container_memory_working_set_bytes", "container_spec_memory_limit_bytes", counter=False)


def _nodes(record: Record, metric: str, limit: str, *, counter: bool) -> list[Spread]:
    samples = record.samples
    if samples is None:
        return []
    grid = samples.grid()
    found = []
    for cohort in cohorts(record):
        for role in ("server", "client"):
            series = samples.select(metric, role=role, cohort=cohort)
            rows = [_one(item, grid, counter=counter) for item in series]
            known = [row for row in rows if row is not None and np.isfinite(row).any()]
            if not known:
                continue
            table = np.array(known)
            some = np.isfinite(table).any(axis=0)
            middle, low, high = (np.full(len(grid), np.nan) for _ in range(3))
            middle[some] = np.nanmean(table[:, some], axis=0)
            low[some], high[some] = np.nanmin(table[:, some], axis=0), np.nanmax(table[:, some], axis=0)
            limits = {
                float(item.values[-1]) for item in samples.select(limit, role=role, cohort=cohort) if len(item.values)
            }
            one = limits.pop() if len(limits) == 1 else None
            found.append(Spread(cohort, role, grid - record.start, middle, low, high, one))
    return found


def _one(item: Sampled, grid: Floats, *, counter: bool) -> Floats | None:
    if counter:
        return summed_rate([item], grid)
    result = spread([item], grid, (1.0,))
    return None if result is None else result[0]


def node_peak(samples: Samples | None, metric: str, node: str) -> float | None:
    """The highest sample of a node's gauge."""
    found = [
        float(item.values.max()) for item in (samples.select(metric, node=node) if samples else []) if len(item.values)
    ]
    return max(found) if found else None


def node_growth(samples: Samples | None, metric: str, node: str) -> float | None:
    """How much a node's counter grew during the run, all its series together."""
    found = [item.growth() for item in (samples.select(metric, node=node) if samples else [])]
    return sum(found) if found else None
