"""Declared against measured: what the testbed file and the intent asked for, beside what came of it. Pure.

A row judges only what can be judged. Staying below a limit is "within"; a limit that nobody came near says so, because
nothing is proven by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.report import learning, scale
from monitoring.report.limits import Limit, Sampling
from monitoring.report.record import Record
from monitoring.report.sampled import Flow, Spread, node_peak
from monitoring.report.samples import Floats, Sampled, summed_rate

TOLERANCE = 0.05
"""A rate up to so much above its limit counts as within it: sampling steps and the limit's own do not fall together."""
NEAR = 0.7
"""A limit of which less than this share was ever used was not put to the test."""


@dataclass(frozen=True)
class Row:
    """One comparison; `verdict` is within, reached, above, below, not tested, not applied or unknown."""

    what: str
    subject: str
    declared: str
    measured: str
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class LinkUse:
    """What a link carried in one direction."""

    name: str
    sender: str
    receiver: str
    limit: Limit | None
    """Its declared rate over time; None where it has none."""
    mean_bps: float
    peak_bps: float
    peak_share: float | None
    """The largest share of the declared rate that was in force at that time."""
    bytes: float
    drops: float | None


def rows(record: Record, listed: Sequence[learning.Round], flows: Sequence[Flow], trips: Sequence[Spread]) -> list[Row]:
    """All comparisons that this record allows."""
    return [
        *_intent(record, listed),
        *_meters(record, flows),
        *_links(record),
        *_delays(record, trips),
        *_nodes(record),
        *_verified(record),
    ]


def _verified(record: Record) -> list[Row]:
    """What `cohortnet verify` measured before or during the run: every rate; of the rest what is out of tolerance."""
    listed = record.verification.get("rows")
    found: list[Row] = []
    names = {"rate": "rate, verified", "rtt": "round trip, verified", "loss": "loss, verified"}
    shown = {"rate": scale.rate, "rtt": scale.seconds, "loss": lambda value: scale.percent(value)}
    within: dict[str, int] = {}
    for row in listed if isinstance(listed, list) else []:
        kind = str(row.get("kind"))
        if kind not in names:
            continue
        if row.get("ok") and kind != "rate":
            within[kind] = within.get(kind, 0) + 1
            continue
        measured, declared = row.get("measured"), row.get("declared")
        below = isinstance(measured, int | float) and isinstance(declared, int | float) and measured < declared
        verdict = "within" if row.get("ok") else "below" if kind == "rate" and (below or measured is None) else "above"
        note = str(row.get("note") or "")
        found.append(Row(names[kind], str(row.get("subject")), shown[kind](declared),
                         shown[kind](measured) if measured is not None else "–", verdict, note))  # fmt: skip
    for kind, count in within.items():
        found.append(Row(names[kind], f"{count} kinds of pairs", "", "", "within", "as declared, within tolerance"))
    for pair in (record.verification.get("unreachable") or [])[:10]:
        found.append(Row("reachable, verified", str(pair), "yes", "no", "below"))
    return found


def _intent(record: Record, listed: Sequence[learning.Round]) -> list[Row]:
    found: list[Row] = []
    asked = (record.intent.get("config") or {}).get("num-server-rounds")
    done = sum(1 for item in listed if item.number > 0 and item.replies)
    goal = (record.intent.get("goal") or {}).get("accuracy")
    if asked is not None:
        met = done >= int(asked)
        early = "ended early: the goal was reached" if not met and (record.intent.get("goal") or {}).get("met") else ""
        found.append(Row("rounds", "the run", str(asked), str(done), "reached" if met or early else "below", early))
    best = learning.headline(listed, "accuracy")
    if goal is not None:
        reached = best is not None and best[2] >= float(goal)
        found.append(
            Row(
                "accuracy",
                "the run",
                scale.percent(float(goal)),
                scale.percent(best[2]) + f" ({best[0]})" if best else "–",
                "reached" if reached else "below",
            )
        )
    if record.clients:
        joined = {event.get("client") for event in record.events if event["kind"] == "client.joined"}
        count = len(joined & set(record.clients))
        found.append(
            Row(
                "clients that joined",
                "the run",
                str(len(record.clients)),
                str(count),
                "reached" if count == len(record.clients) else "below",
            )
        )
    return found


def judge_share(share: float) -> str:
    """Of a rate as a share of its limit."""
    if share > 1 + TOLERANCE:
        return "above"
    return "within" if share >= NEAR else "not tested"


def burst_needed(flow: Flow) -> float:
    """How deep a bucket (bits) these rates need that is filled at the limit's rate: what came above it in any
    stretch. Where no limit was in force nothing is needed."""
    assert flow.limit is not None and flow.arrived_bps is not None
    limits = flow.limit.around(flow.times)
    step = float(flow.times[1] - flow.times[0]) if len(flow.times) > 1 else 0.0
    level = deepest = 0.0
    for rate, limit in zip(flow.arrived_bps, limits, strict=True):
        level = max(level + (float(rate) - float(limit)) * step, 0.0) if np.isfinite(rate - limit) else 0.0
        deepest = max(deepest, level)
    return deepest


def _meters(record: Record, flows: Sequence[Flow]) -> list[Row]:
    found = []
    bursts = {str(meter.get("name")): meter.get("burst") for meter in record.inventory.get("meters") or []}
    for flow in flows:
        if flow.limit is None or flow.limit.kind != "meter" or flow.arrived_bps is None or len(flow.times) < 2:
            continue
        limit, step = flow.limit.highest_bps, float(flow.times[1] - flow.times[0])
        # A bucket of each meter's burst (one second of its rate where nothing else is declared), and what a step's
        # edges may shift from one to the next.
        bucket = sum(float(bursts.get(name) or limit) for name in flow.limit.names)
        allowed = bucket * (1 + TOLERANCE) + limit * step
        share = flow.highest_share or 0.0
        if burst_needed(flow) > allowed:
            verdict = "above"
        else:
            verdict = "within" if flow.dropped_packets or share >= NEAR else "not tested"
        notes = [f"{scale.percent(share)} of the limit in force, burst included"]
        notes += [f"{scale.number(flow.dropped_packets)} packets dropped"] if flow.dropped_packets else []
        changes = flow.limit.changes
        notes += [f"changed {'once' if changes == 1 else f'{changes} times'} in the run"] if changes else []
        peak = float(np.nanmax(flow.arrived_bps)) if np.isfinite(flow.arrived_bps).any() else 0.0
        found.append(
            Row(
                f"meter, {flow.direction}",
                f"cohort {flow.cohort} ({flow.limit.name})",
                flow.limit.rates,
                f"{scale.rate(peak)} at most",
                verdict,
                "; ".join(notes),
            )
        )
    return found


def link_uses(record: Record) -> list[LinkUse]:
    """Every direction of every link that carried something, the fullest first."""
    samples = record.samples
    if samples is None:
        return []
    grid, sampling = samples.grid(), Sampling(record)
    found = []
    drops = {
        (item.labels.get("link"), item.labels.get("direction")): item.growth()
        for item in samples.select("cohortnet_link_drops_total")
    }
    limits = {
        (item.labels.get("link"), item.labels.get("direction")): sampling.tightest(
            "link", [(item.labels.get("link", ""), item)]
        )
        for item in samples.select("cohortnet_link_rate_bits_per_second")
    }
    for item in samples.select("cohortnet_link_bytes_total"):
        use = _link_use(item, grid, record.start, limits, drops)
        if use is not None and use.bytes > 0:
            found.append(use)
    return sorted(found, key=lambda use: (use.peak_share or 0.0, use.peak_bps), reverse=True)


def _link_use(
    item: Sampled, grid: Floats, start: float, limits: Mapping[Any, Limit | None], drops: Mapping[Any, float]
) -> LinkUse | None:
    rates = summed_rate([item], grid)
    if rates is None or not np.isfinite(rates).any():
        return None
    rates = rates * 8
    key = (item.labels.get("link"), item.labels.get("direction"))
    ends = (item.labels.get("a", ""), item.labels.get("b", ""))
    sender, receiver = ends if key[1] == "a_to_b" else ends[::-1]
    limit = limits.get(key)
    return LinkUse(
        str(key[0]),
        sender,
        receiver,
        limit,
        float(np.nanmean(rates)),
        float(np.nanmax(rates)),
        limit.share(grid - start, rates) if limit else None,
        item.growth(),
        drops.get(key),
    )


def _links(record: Record) -> list[Row]:
    """The server's own link, of the clients' links the fullest each way, and any other that came near its rate."""
    found: list[Row] = []
    groups: dict[str, list[LinkUse]] = {}
    for use in link_uses(record):
        if use.limit is None or use.peak_share is None:
            continue
        if use.sender in record.clients:
            groups.setdefault("sent by clients", []).append(use)
        elif use.receiver in record.clients:
            groups.setdefault("received by clients", []).append(use)
        elif record.server in (use.sender, use.receiver) or use.peak_share >= NEAR:
            groups[f"{use.sender} → {use.receiver}"] = [use]
    for uses in groups.values():
        fullest = uses[0]
        notes = [f"the fullest of {len(uses)} links like it"] if len(uses) > 1 else []
        dropped = sum(use.drops or 0.0 for use in uses)
        notes += (
            [f"{scale.number(dropped)} packets dropped" + (" on all of them" if len(uses) > 1 else "")]
            if dropped
            else []
        )
        assert fullest.limit is not None and fullest.peak_share is not None
        if fullest.limit.changes:
            notes.insert(0, f"{scale.percent(fullest.peak_share)} of the rate in force")
        found.append(
            Row(
                "link rate",
                f"{fullest.sender} → {fullest.receiver}",
                fullest.limit.rates,
                f"{scale.rate(fullest.peak_bps)} at most",
                judge_share(fullest.peak_share),
                "; ".join(notes),
            )
        )
    return found


def path_delay(inventory: Mapping[str, Any], start: str, end: str) -> float | None:
    """Declared delay (seconds) of one way along the path with the fewest links; None where there is no path."""
    hops: dict[str, list[tuple[str, float]]] = {}
    for link in inventory.get("links") or []:
        for a, b, way in ((link["a"], link["b"], "a_to_b"), (link["b"], link["a"], "b_to_a")):
            hops.setdefault(a, []).append((b, float((link.get(way) or {}).get("delay_s") or 0.0)))
    waiting, seen = deque([(start, 0.0)]), {start}
    while waiting:
        place, delay = waiting.popleft()
        if place == end:
            return delay
        for following, more in hops.get(place, ()):
            if following not in seen:
                seen.add(following)
                waiting.append((following, delay + more))
    return None


def declared_round_trip(record: Record, server: str, clients: Sequence[str]) -> float | None:
    """Declared delay there and back in seconds, the smallest of these clients; None where nothing is declared."""
    trips = []
    for client in clients:
        there, back = (path_delay(record.inventory, *ends) for ends in ((client, server), (server, client)))
        if there is not None and back is not None:
            trips.append(there + back)
    return min(trips) if trips and max(trips) > 0 else None


def _delays(record: Record, trips: Sequence[Spread]) -> list[Row]:
    declared = declared_round_trip(record, record.server, record.clients) if record.server else None
    if declared is None:
        return []
    not_applied = "delay" in (record.manifest.get("not_applied") or [])
    found = next((trip for trip in trips if trip.cohort == record.cohort), None)
    lowest = found.extra["lowest"] if found else None
    if not_applied:
        verdict, note = (
            "not applied",
            "this kernel has no netem; the user allowed that with `allow_unsupported: [delay]`",
        )
    elif lowest is None:
        verdict, note = "unknown", "RTT was not sampled"
    else:
        verdict = "reached" if lowest >= declared * (1 - TOLERANCE) else "below"
        note = "the lowest RTT of any flow; queues add to it"
    return [
        Row(
            "delay there and back",
            f"{record.server} ↔ its clients",
            scale.seconds(declared),
            scale.seconds(lowest),
            verdict,
            note,
        )
    ]


def _nodes(record: Record) -> list[Row]:
    """Limits of CPU and memory of the server, and of the clients the one that came nearest."""
    found: list[Row] = []
    for names in ([record.server] if record.server else [], record.clients):
        for what in ("CPU", "memory"):
            used = [use for use in (_node_use(record, name, what) for name in names) if use is not None]
            if not used:
                continue
            share, name, limit, peak = max(used)
            shown = scale.memory if what == "memory" else _cores
            note = f"{scale.percent(share)} of it" + (f", the most of {len(used)} clients" if len(used) > 1 else "")
            verdict = "above" if share > 1 + TOLERANCE else "within" if share >= NEAR else "not tested"
            found.append(Row(what, name, shown(limit), f"{shown(peak)} at most", verdict, note))
    return found


def _cores(value: float) -> str:
    return f"{scale.number(value)} cores"


def _node_use(record: Record, name: str, what: str) -> tuple[float, str, float, float] | None:
    node = record.nodes.get(name) or {}
    limit = node.get("memory_bytes") if what == "memory" else node.get("cpu")
    if not limit or record.samples is None:
        return None
    if what == "memory":
        peak = node_peak(record.samples, "container_memory_working_set_bytes", name)
    else:
        rates = summed_rate(
            record.samples.select("container_cpu_usage_seconds_total", node=name), record.samples.grid()
        )
        peak = float(np.nanmax(rates)) if rates is not None and np.isfinite(rates).any() else None
    return None if peak is None else (peak / float(limit), name, float(limit), peak)
