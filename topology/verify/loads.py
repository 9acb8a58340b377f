"""Which flows load which direction of a link, and which of these loads may run at the same time.

Pure. A direction is loaded by as many flows as it takes until the rest of their paths could carry more than its rate,
so that what arrives is its own rate and nobody else's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from topology.verify.routes import Direction, Limit, Routes

ENOUGH = 1.03
"""The rest of the paths must carry that much more than the rate under test."""
LEAST_SHARE = 0.02
"""A further flow adds at least that share of the rate."""
SHARE = 0.85
"""Of a link's rate that loads of others may take while another load passes it."""
ACKNOWLEDGEMENTS = 0.06
"""Of a flow's rate that goes back."""
MOST_FLOWS = 40
BUDGET_BPS = 400_000_000
"""Loads that run at the same time together have at most this rate (a faster one runs alone): two cores forward more,
but not without fail."""

_Key = Direction | tuple[str, Limit]


@dataclass
class Load:
    """The flows that fill one direction of a link."""

    direction: Direction
    rate_bps: int
    flows: list[tuple[str, str]] = field(default_factory=list)
    offered_bps: float = 0.0
    """What the rest of the flows' paths can carry."""
    limits: list[Limit] = field(default_factory=list)
    """Meters that hold for some of the flows."""

    @property
    def expected_bps(self) -> float:
        """What must arrive: the rate, or less where no set of flows can offer it."""
        return min(float(self.rate_bps), self.offered_bps)

    @property
    def fills(self) -> bool:
        """Whether the direction itself is what limits."""
        return self.offered_bps >= self.rate_bps


def _keys(routes: Routes, limits: Sequence[Limit], source: str, target: str) -> list[tuple[_Key, float]]:
    path: list[tuple[_Key, float]] = []
    for hop in routes.path(source, target):
        rate = routes.declared[hop].rate_bps
        if rate is not None:
            path.append((hop, float(rate)))
    path += [(("meter", limit), float(limit.rate_bps)) for limit in limits if limit.holds(source, target)]
    return path


def crossing(routes: Routes) -> dict[Direction, list[tuple[str, str]]]:
    """The pairs of nodes whose path takes each direction."""
    found: dict[Direction, list[tuple[str, str]]] = defaultdict(list)
    nodes = routes.nodes
    for source in nodes:
        for target in nodes:
            if source != target:
                for hop in routes.path(source, target):
                    found[hop].append((source, target))
    return found


def loads(routes: Routes, limits: Sequence[Limit] = (), without: Collection[tuple[str, str]] = ()) -> list[Load]:
    """A load for every direction with a rate, in the inventory's order; no flow between the pairs `without` (TCP needs
    both ways, so these are left out in either order).
    """
    wanted = [d for d, declared in routes.declared.items() if declared.rate_bps is not None]
    apart = {frozenset(pair) for pair in without}
    pairs = crossing(routes)
    return [
        _fill(routes, limits, way, [pair for pair in pairs.get(way, []) if frozenset(pair) not in apart])
        for way in wanted
    ]


def _fill(routes: Routes, limits: Sequence[Limit], direction: Direction, pairs: Sequence[tuple[str, str]]) -> Load:
    rate = routes.declared[direction].rate_bps
    assert rate is not None
    load = Load(direction, rate)
    left: dict[_Key, float] = {}

    def could(source: str, target: str) -> float:
        keys = _keys(routes, limits, source, target)
        return min((left.get(key, capacity) for key, capacity in keys if key != direction), default=float("inf"))

    # The widest pairs first: few flows are measured better than many. A pair is used once; ends may serve again.
    candidates = sorted(pairs, key=lambda pair: -could(*pair))
    for source, target in candidates:
        if load.offered_bps >= ENOUGH * rate or len(load.flows) >= MOST_FLOWS:
            break
        adds = could(source, target)
        if adds <= 0 or (load.flows and adds < LEAST_SHARE * rate):
            continue
        load.flows.append((source, target))
        load.offered_bps += min(adds, ENOUGH * rate)
        for key, capacity in _keys(routes, limits, source, target):
            left[key] = left.get(key, capacity) - min(adds, ENOUGH * rate)
        load.limits += [limit for limit in limits if limit.holds(source, target) and limit not in load.limits]
    return load


def batches(routes: Routes, todo: Sequence[Load], budget_bps: float = BUDGET_BPS) -> list[list[Load]]:
    """Loads in groups that do not disturb one another: on no link do others take more than a share of its rate."""
    rest = [load for load in todo if load.flows]
    groups: list[list[Load]] = []
    while rest:
        group: list[Load] = []
        taken: dict[Direction, float] = defaultdict(float)
        tested: dict[Direction, float] = {}
        total, nodes = 0.0, 0
        later = []
        for load in rest:
            uses = _uses(routes, load)
            fits = not group or (
                total + load.expected_bps <= budget_bps
                and nodes + len(load.flows) <= MOST_FLOWS
                and all(_room(routes, hop, taken[hop] + bps, load, tested) for hop, bps in uses.items())
                and taken[load.direction] == 0
            )
            if not fits:
                later.append(load)
                continue
            group.append(load)
            total += load.expected_bps
            nodes += len(load.flows)
            tested[load.direction] = load.expected_bps
            for hop, bps in uses.items():
                taken[hop] += bps
        groups.append(group)
        rest = later
    return groups


def _uses(routes: Routes, load: Load) -> dict[Direction, float]:
    """What a load takes of each direction, its acknowledgements included, its own direction left out."""
    uses: dict[Direction, float] = defaultdict(float)
    each = load.expected_bps / max(1, len(load.flows))
    for source, target in load.flows:
        for hop in routes.path(source, target):
            if hop != load.direction:
                uses[hop] += each
        for hop in routes.path(target, source):
            uses[hop] += ACKNOWLEDGEMENTS * each
    return uses


def _room(routes: Routes, hop: Direction, taken: float, load: Load, tested: Mapping[Direction, float]) -> bool:
    rate = routes.declared[hop].rate_bps
    if hop in tested:
        return False  # another load fills it
    return rate is None or hop == load.direction or taken <= SHARE * rate
