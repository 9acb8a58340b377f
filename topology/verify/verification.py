"""The whole verification of a raised testbed: reachability, round trips, loss and rates, each declared against
measured, with a verdict. Changes nothing in the testbed; loads its links while it measures.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from topology.verify import rates
from topology.verify.loads import Load, batches, loads
from topology.verify.reach import Echoes, ping
from topology.verify.routes import Routes, limits_of

RTT_FLOOR_S = 0.0015
"""What switches in user space and the scheduler add at most to a round trip over a quiet network."""
RTT_SHARE = 0.02
JITTER_DEVIATIONS = 3.0
LOSS_ECHOES = 400
"""Echoes on a pair whose path is declared to lose packets: enough to tell 1 % from 5 %."""
STRAY_LOSS = 0.002
"""Of all echoes on paths without declared loss: what a busy machine may lose without a verdict against the network."""
LIMITED_TOLERANCE = 0.06
"""TCP below a meter that drops is not exact."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One comparison. `subject` is a link's direction or a class of pairs; values in the unit that `unit` says."""

    kind: str
    subject: str
    unit: str
    declared: float | None
    measured: float | None
    tolerance: float
    ok: bool
    note: str = ""


@dataclass(frozen=True)
class Verification:
    """All comparisons of one verification."""

    testbed: str
    started: float
    seconds: float
    rows: tuple[Row, ...]
    pairs: int
    all_pairs: bool
    unreachable: tuple[str, ...]
    not_applied: tuple[str, ...]
    meters: tuple[str, ...]
    load_average: float
    congestion_control: str = "cubic"
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether every comparison is within its tolerance and every pair reaches the other."""
        return not self.unreachable and all(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as it is kept with runs."""
        return {**asdict(self), "ok": self.ok}


def choose_pairs(routes: Routes, most: int) -> tuple[list[tuple[str, str]], bool]:
    """All ordered pairs of nodes, or where these are more than `most`, some of every class; whether they are all."""
    classes = pair_classes(routes)
    total = sum(len(pairs) for pairs in classes.values())
    if total <= most:
        return [pair for pairs in classes.values() for pair in pairs], True
    each = max(1, most // len(classes))
    return [pair for pairs in classes.values() for pair in _spread(pairs, each)], False


def _spread(pairs: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    # Evenly over the list, so that every source and target of a class has its turn.
    if len(pairs) <= count:
        return list(pairs)
    return [pairs[position * len(pairs) // count] for position in range(count)]


def pair_classes(routes: Routes) -> dict[str, list[tuple[str, str]]]:
    """Ordered pairs by the kind and place of their ends, whichever sends: "client@swCampus1 - server@aggsw10"."""
    nodes = {node["name"]: node for node in routes.inventory["nodes"]}
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source in routes.nodes:
        for target in routes.nodes:
            if source != target:
                ends = sorted(f"{nodes[name]['role']}@{nodes[name]['switch']}" for name in (source, target))
                found[" - ".join(ends)].append((source, target))
    return found


def expectation_classes(
    kinds: Mapping[str, Sequence[tuple[str, str]]], expected: Mapping[tuple[str, str], tuple[float, float, float]]
) -> dict[tuple[str, str], str]:
    """The class that each expected pair is counted to: its kind and place (`pair_classes`), and what is expected of it
    (round trip and jitter in seconds, loss as a fraction, each to the millionth). Pure.

    Where links differ within one kind and place, each class of these is called by its first pair as well.
    """
    found: dict[tuple[str, str], str] = {}
    for kind, members in kinds.items():
        alike: dict[tuple[float, ...], list[tuple[str, str]]] = defaultdict(list)
        for pair in members:
            if pair in expected:
                alike[tuple(round(value, 6) for value in expected[pair])].append(pair)
        for pairs in alike.values():
            name = kind if len(alike) == 1 else f"{kind} (as {' - '.join(pairs[0])})"
            found |= dict.fromkeys(pairs, name)
    return found


def verify(
    inventory: Mapping[str, Any],
    *,
    meters: Sequence[Mapping[str, Any]] = (),
    tolerance: float = 0.02,
    seconds: float = 2.0,
    most_pairs: int = 4000,
    echoes: int = 5,
    progress: Progress = lambda *_: None,
) -> Verification:
    """Measure everything that the inventory declares; `meters` as the controller shows them.

    Raises:
        TopologyError: where a node does not run or a measuring program fails.
    """
    started, begin = time.time(), time.monotonic()
    load_average = os.getloadavg()[0]
    routes = Routes(inventory)
    limits = limits_of(inventory, meters)
    pairs, everyone = choose_pairs(routes, most_pairs)
    progress("pairs", 0, len(pairs))
    rows, unreachable = _reach(routes, pairs, echoes)
    progress("pairs", len(pairs), len(pairs))
    rows += _rates(routes, loads(routes, limits, unreachable), tolerance, seconds, progress)
    notes = [] if load_average < 1.0 else [f"the machine was busy when it began (load {load_average:.1f})"]
    others = [f"{m['name']} ({m['target']['kind']})" for m in meters if m["name"] not in {x.meter for x in limits}]
    if others:
        notes.append(f"meters that no expectation takes into account: {', '.join(others)}")
    return Verification(
        str(inventory["testbed"]), started, time.monotonic() - begin, tuple(rows), len(pairs), everyone,
        tuple(f"{source} -> {target}" for source, target in unreachable), tuple(inventory["unsupported"]),
        tuple(f"{x.meter} {x.way} {x.rate_bps} bit/s {x.in_force}" for x in limits), load_average, notes=tuple(notes),
    )  # fmt: skip


def _reach(
    routes: Routes, pairs: Sequence[tuple[str, str]], echoes: int
) -> tuple[list[Row], list[tuple[str, str]]]:
    declared = routes.declared

    def there_and_back(source: str, target: str) -> tuple[float, float, float]:
        way = [declared[hop] for hop in (*routes.path(source, target), *routes.path(target, source))]
        survival = math.prod(hop.survival for hop in way)
        return sum(hop.delay_s for hop in way), math.sqrt(sum(hop.jitter_s**2 for hop in way)), 1.0 - survival

    expected = {pair: there_and_back(*pair) for pair in pairs}
    classes = expectation_classes(pair_classes(routes), expected)
    # One pair of each class stands for its class where loss is declared: hundreds of echoes on each would take minutes.
    chosen: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        if expected[pair][2] > 0:
            chosen.setdefault(classes[pair], pair)
    slowest = max((rtt + 6 * jitter for rtt, jitter, _ in expected.values()), default=0.0)
    answers = ping(routes.inventory, pairs, {pair: LOSS_ECHOES for pair in chosen.values()}, wait_s=slowest + 1.0,
                   default_count=echoes)  # fmt: skip
    unreachable = [(entry.source, entry.target) for entry in answers if entry.received == 0]
    by_class: dict[str, list[Echoes]] = defaultdict(list)
    for entry in answers:
        by_class[classes[entry.source, entry.target]].append(entry)
    rows = []
    for name, members in by_class.items():
        rtt, jitter, loss = expected[members[0].source, members[0].target]
        times = sorted(time_s for member in members for time_s in member.times_s)
        measured = times[len(times) // 2] if times else None
        tolerance = RTT_FLOOR_S + RTT_SHARE * rtt + JITTER_DEVIATIONS * jitter / math.sqrt(max(1, len(times)))
        met = measured is not None and abs(measured - rtt) <= tolerance
        how = f"{len(members)} pairs, {len(times)} echoes"
        rows.append(Row("rtt", name, "s", rtt, measured, tolerance, met, how))
        counted = [m for m in members if loss == 0 or (m.source, m.target) == chosen.get(name)]
        sent, received = sum(m.sent for m in counted), sum(m.received for m in counted)
        share = 1.0 - received / sent if sent else 1.0
        # 3.3 deviations: one verdict in a thousand is wrong by chance.
        width = STRAY_LOSS + 3.3 * math.sqrt(max(loss * (1 - loss), 1e-9) / max(1, sent)) + 1.0 / max(1, sent)
        rows.append(Row("loss", name, "fraction", loss, share, width, abs(share - loss) <= width,
                        f"{sent - received} of {sent} echoes"))  # fmt: skip
    return rows, unreachable


def _rates(
    routes: Routes, todo: Sequence[Load], tolerance: float, seconds: float, progress: Progress
) -> list[Row]:
    measured: dict[tuple[str, str], float] = {}
    failed: dict[tuple[str, str], str] = {}
    progress("links", 0, len(todo))
    for group in batches(routes, todo):
        for load, (rate, failure) in zip(group, rates.measure(routes.inventory, group, seconds), strict=True):
            measured[load.direction] = rate
            failed[load.direction] = failure
        progress("links", len(measured), len(todo))
    rows = []
    for load in todo:
        subject, arrived = " -> ".join(routes.ends(load.direction)), measured.get(load.direction)
        metered = f"limited by {', '.join(sorted({limit.meter for limit in load.limits}))}" if load.limits else ""
        if arrived is None:
            rows.append(Row("rate", subject, "bit/s", float(load.rate_bps), None, tolerance, False,
                            "no pair of nodes that reach each other can load it"))  # fmt: skip
            continue
        if load.fills and not load.limits:
            allowed, note = tolerance, f"{len(load.flows)} flows"
            ok = abs(arrived / load.rate_bps - 1) <= allowed
        else:
            # No more can be offered than the rest of the paths, or the meters on them, let through.
            allowed = max(tolerance, LIMITED_TOLERANCE)
            most = load.rate_bps * (1 + tolerance)
            ok = load.expected_bps * (1 - allowed) <= arrived <= most
            note = f"{len(load.flows)} flows, {metered or f'at most {load.offered_bps / 1e6:g} Mbit/s can be offered'}"
        note += f"; {failed[load.direction]}" if failed[load.direction] else ""
        rows.append(Row("rate", subject, "bit/s", float(load.rate_bps), arrived, allowed, ok, note))
    return rows


def keep(verification: Verification, folder: Path) -> Path:
    """Write `verification.json` into a folder, in one step; gives its path."""
    import json

    path = folder / "verification.json"
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(verification.as_dict(), indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)
    return path
