"""One picture of a testbed as plain values, made from two collections and what the services said. Pure.

Rates are bit/s, CPU cores, memory bytes, shares fractions of 1. None is "not known", never "zero".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from monitoring.inventory import Inventory
from monitoring.top.reading import Growth
from monitoring.top.services import ENDED, Progress, Told

SATURATED = 0.9
"""Share of its declared rate from which a link counts as saturated."""
STATES = ("running", "starting", "allocating", "resolving", "accepted")


@dataclass
class CohortView:
    """A cohort with its latest intent, and its traffic as it arrives at the far end."""

    name: str
    server: str
    clients: int
    intent: str = ""
    run: str = ""
    state: str = "idle"
    phase: str = ""
    round: int | None = None
    rounds: int | None = None
    accuracy: float | None = None
    loss: float | None = None
    joined: int = 0
    failures: int = 0
    up_bps: float | None = None
    down_bps: float | None = None
    up_limit_bps: float | None = None
    down_limit_bps: float | None = None
    up_limit_kind: str = ""
    down_limit_kind: str = ""


@dataclass
class MeterView:
    """A meter in one direction."""

    name: str
    target: str
    direction: str
    unit: str
    limit: float
    in_force: str
    pending: bool
    rate: float | None = None
    drops_per_s: float | None = None
    dropped: int = 0
    problem: str = ""


@dataclass
class LinkView:
    """A link in one direction."""

    name: str
    sender: str
    receiver: str
    rate_bps: float
    limit_bps: float | None
    share: float | None
    drops_per_s: float
    up: bool
    saturated: bool


@dataclass
class NodeView:
    """A node's processor and memory; shares are of its limit where it has one."""

    name: str
    role: str
    cohort: str
    up: bool
    cpu_cores: float | None
    cpu_limit_cores: float | None
    memory_bytes: float | None
    memory_limit_bytes: float | None
    throttled: float | None


@dataclass
class TrafficView:
    """A background flow: what it shall send, and what its source sends in all."""

    name: str
    source: str
    destination: str
    pattern: str
    running: bool
    target_bps: float | None
    source_bps: float | None


@dataclass
class Frame:
    """Everything of one picture."""

    testbed: str
    time: float
    seconds: float
    state: str
    nodes_up: int
    nodes_all: int
    cohorts: list[CohortView] = field(default_factory=list)
    meters: list[MeterView] = field(default_factory=list)
    links: list[LinkView] = field(default_factory=list)
    """Busiest first; links without traffic are left out."""
    nodes: list[NodeView] = field(default_factory=list)
    traffic: list[TrafficView] = field(default_factory=list)
    exporter: dict[str, float | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def build(inventory: Inventory, growth: Growth, told: Told, time: float, cpu_share: float | None) -> Frame:
    """The picture. `time` is unix seconds, `cpu_share` what this program itself uses of a core."""
    now = growth.now
    up = {labels["node"]: value > 0 for labels, value in now.each("node_up")}
    collect = now.one("cohortnet_exporter_collect_seconds")
    return Frame(
        testbed=inventory.testbed,
        time=time,
        seconds=growth.seconds,
        state=inventory.state,
        nodes_up=sum(up.get(node.name, False) for node in inventory.nodes),
        nodes_all=len(inventory.nodes),
        cohorts=_cohorts(inventory, growth, told),
        meters=_meters(told),
        links=_links(growth),
        nodes=_nodes(inventory, growth, up),
        traffic=_traffic(growth),
        exporter={
            "collect_seconds": collect,
            "series": now.one("cohortnet_exporter_series"),
            "cpu_share": cpu_share,
            "resident_bytes": now.one("cohortnet_exporter_resident_bytes"),
        },
        problems=list(told.problems),
    )


def _cohorts(inventory: Inventory, growth: Growth, told: Told) -> list[CohortView]:
    received = growth.sums("node_network_receive_bytes_total", "node")
    by_client = growth.sums("node_network_receive_bytes_total", "cohort", role="client")
    found = []
    for cohort in inventory.cohorts:
        name = cohort.name
        intent = _latest(told.intents, name)
        server = str((intent or {}).get("server") or cohort.server)
        view = CohortView(name, server, len(cohort.clients))
        if intent is not None:
            _tell(view, intent, told.progress.get(str(intent["id"]), Progress()))
        view.up_bps = received[server] * 8 if server in received else None
        view.down_bps = by_client[name] * 8 if name in by_client else None
        for direction in ("up", "down"):
            limit, kind = _limit(inventory, told.meters, name, server, direction)
            setattr(view, f"{direction}_limit_bps", limit)
            setattr(view, f"{direction}_limit_kind", kind)
        found.append(view)
    return found


def _latest(intents: Sequence[Mapping[str, Any]], cohort: str) -> Mapping[str, Any] | None:
    own = [intent for intent in intents if str(intent.get("cohort") or "") == cohort]
    live = [intent for intent in own if intent["state"] not in ENDED]
    return max(live or own, key=lambda intent: float(intent.get("created") or 0.0), default=None)


def _tell(view: CohortView, intent: Mapping[str, Any], progress: Progress) -> None:
    view.intent, view.run, view.state = str(intent.get("intentID") or ""), str(intent["id"]), str(intent["state"])
    view.clients = len(intent.get("clients") or []) or view.clients
    rounds = (intent.get("config") or {}).get("num-server-rounds")
    view.rounds = int(rounds) if rounds is not None else None
    view.round, view.phase, view.joined = progress.round, progress.phase, progress.joined
    view.accuracy, view.loss, view.failures = progress.accuracy, progress.loss, progress.failures


def _limit(
    inventory: Inventory, meters: Sequence[Mapping[str, Any]], cohort: str, server: str, direction: str
) -> tuple[float | None, str]:
    """The tightest limit between server and clients that is known: meters of both, and the server's own link."""
    limits: list[tuple[float, str]] = []
    for meter in meters:
        target = (meter["target"]["kind"], str(meter["target"].get("name")))
        fits = target in (("cohort", cohort), ("server", server)) and meter["direction"] in (direction, "both")
        if fits and meter["unit"] == "bit/s" and not meter.get("pending"):
            limits.append((float(meter["rate"]), "meter"))
    for link in inventory.links:
        if server in (link.a, link.b):
            outgoing = (link.a == server) == (direction == "down")
            rate = (link.a_to_b if outgoing else link.b_to_a).rate_bps
            if rate:
                limits.append((float(rate), "link"))
    return min(limits, default=(None, ""))


def _counted(meter: Mapping[str, Any], direction: str) -> tuple[float, float]:
    # (bytes or packets that came, packets that were dropped); a queue counts what it sent.
    amount = drops = 0.0
    key = "packets" if meter["unit"] == "packet/s" else "bytes"
    for entry in meter.get("entries") or ():
        if entry["direction"] == direction:
            amount += float(entry.get(key) or 0)
            drops += float(entry.get("drops") or 0) + sum(
                float(band.get("packets") or 0) for band in entry.get("bands") or ()
            )
    return amount, drops


def _meters(told: Told) -> list[MeterView]:
    before = {meter["name"]: meter for meter in told.meters_before}
    seconds = told.meters_time - told.meters_before_time
    found = []
    for meter in told.meters:
        target = meter["target"]
        named = target.get("name") or target.get("address") or f"{target.get('switch')}:{target.get('port')}"
        for direction in ("up", "down") if meter["direction"] == "both" else (meter["direction"],):
            view = MeterView(
                str(meter["name"]),
                f"{target['kind']} {named}",
                direction,
                str(meter["unit"]),
                float(meter["rate"]),
                str(meter["in_force"]),
                bool(meter.get("pending")),
                problem=str(meter.get("problem") or ""),
            )
            amount, drops = _counted(meter, direction)
            view.dropped = int(drops)
            old = before.get(meter["name"])
            if old is not None and told.meters_before_time and seconds > 0:
                amount_before, drops_before = _counted(old, direction)
                factor = 8.0 if view.unit == "bit/s" else 1.0
                # A meter that was changed anew counts from zero again.
                view.rate = max(amount - amount_before, 0.0) * factor / seconds
                view.drops_per_s = max(drops - drops_before, 0.0) / seconds
            found.append(view)
    return found


def _links(growth: Growth) -> list[LinkView]:
    limits = {
        (labels["link"], labels["direction"]): value
        for labels, value in growth.now.each("cohortnet_link_rate_bits_per_second")
    }
    drops = {(labels["link"], labels["direction"]): rate for labels, rate in growth.rates("cohortnet_link_drops_total")}
    up = {labels["link"]: value > 0 for labels, value in growth.now.each("cohortnet_link_up")}
    found = []
    for labels, rate in growth.rates("cohortnet_link_bytes_total"):
        key = (labels["link"], labels["direction"])
        limit = limits.get(key)
        share = rate * 8 / limit if limit else None
        dropping, is_up = drops.get(key, 0.0), up.get(labels["link"], True)
        if rate <= 0 and dropping <= 0 and is_up:
            continue
        ends = (labels["a"], labels["b"]) if labels["direction"] == "a_to_b" else (labels["b"], labels["a"])
        found.append(
            LinkView(
                labels["link"], *ends, rate * 8, limit, share, dropping, is_up, share is not None and share >= SATURATED
            )
        )
    return sorted(found, key=lambda view: (not view.up, view.share or 0.0, view.rate_bps), reverse=True)


def _nodes(inventory: Inventory, growth: Growth, up: Mapping[str, bool]) -> list[NodeView]:
    cpu = growth.sums("container_cpu_usage_seconds_total", "node")
    periods = growth.sums("container_cpu_cfs_periods_total", "node")
    throttled = growth.sums("container_cpu_cfs_throttled_periods_total", "node")
    gauges = {
        metric: {labels["node"]: value for labels, value in growth.now.each(metric)}
        for metric in (
            "container_memory_working_set_bytes",
            "container_spec_memory_limit_bytes",
            "container_spec_cpu_limit_cores",
        )
    }
    found = []
    for node in inventory.nodes:
        name = node.name
        share = throttled.get(name, 0.0) / periods[name] if periods.get(name) else None
        found.append(
            NodeView(
                name,
                node.role,
                node.cohort,
                up.get(name, False),
                cpu.get(name),
                gauges["container_spec_cpu_limit_cores"].get(name),
                gauges["container_memory_working_set_bytes"].get(name),
                gauges["container_spec_memory_limit_bytes"].get(name),
                share,
            )
        )
    return sorted(found, key=lambda view: (view.up, -(view.cpu_cores or 0.0), -(view.memory_bytes or 0.0)))


def _traffic(growth: Growth) -> list[TrafficView]:
    sent = growth.sums("node_network_transmit_bytes_total", "node")
    targets = {labels["flow"]: value for labels, value in growth.now.each("cohortnet_traffic_target_bits_per_second")}
    found = []
    for labels, value in growth.now.each("cohortnet_traffic_running"):
        source = labels.get("source", "")
        found.append(
            TrafficView(
                labels["flow"],
                source,
                labels.get("destination", ""),
                labels.get("pattern", ""),
                value > 0,
                targets.get(labels["flow"]),
                sent[source] * 8 if source in sent else None,
            )
        )
    return found
