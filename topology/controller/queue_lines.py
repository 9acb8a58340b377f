"""From one queue tree of an interface to the next as words for `tc`, so that no packet is lost on the way. Pure.

The classes and discipline that the engine made (`1:`, `1:1`) are never touched: where an interface has them, the tree
stands beside, filters lead into it, and taking the filters away gives back what was. Where it has none, or a root
without classes, the tree is a root of its own (`2:`). New classes and filters come first; old classes go in a second
step, once their queues are empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from topology.controller.queue_tree import (
    UNLIMITED_BPS,
    QueueClass,
    QueueFilter,
    QueueTree,
)
from topology.engine import shaping
from topology.plan import Shape

QUANTUM_BYTES = 65550
"""What a class may send in a turn: not less than the largest packet, so that turns are equal in bytes."""
_FIRST_MINOR, _LAST_MINOR = 2, 0x2FFF
_LEAF_MAJORS = (0x3000, 0x6000, 0x9000)
"""For the disciplines of a leaf, from the outermost; the class's minor number is added."""
_GENERATION_PREFS = (100, 200)
_DEPTHS = 20

Line = list[str]


@dataclass(frozen=True)
class AppliedTree:
    """What is in force on an interface: classes and their minor numbers, filters, and which of two ranges of
    preferences these use.
    """

    major: int = 1
    classes: tuple[QueueClass, ...] = ()
    filters: tuple[QueueFilter, ...] = ()
    minors: Mapping[str, int] = field(default_factory=dict)
    generation: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> AppliedTree:
        classes = tuple(
            QueueClass(**{**item, "disciplines": tuple(tuple(words) for words in item["disciplines"])})
            for item in data["classes"]
        )
        filters = tuple(QueueFilter(**item) for item in data["filters"])
        return AppliedTree(data["major"], classes, filters, dict(data["minors"]), data["generation"])


@dataclass(frozen=True)
class Change:
    """`lines` bring the new tree in force; `leaving` are the minors of leaves to be empty before `finish` runs."""

    tree: AppliedTree | None
    lines: list[Line]
    leaving: tuple[int, ...]
    finish: list[Line]


def root_major(shape: Shape) -> int:
    """1 where the interface has the engine's own HTB, else 2."""
    return 1 if shape.rate_bps is not None else 2


def change(interface: str, shape: Shape, old: AppliedTree | None, new: QueueTree) -> Change:
    """What turns the old tree (None: the engine's shape alone) into the new one; no lines where they are the same."""
    if not new.classes:
        return _removal(interface, shape, old)
    base = old or AppliedTree(root_major(shape))
    minors = _minors(base.minors, new)
    had = {item.key: item for item in base.classes}
    has = {item.key for item in new.classes}
    filters_differ = base.filters != new.filters or any(item.leaf not in had for item in new.filters)
    generation = 1 - base.generation if old and filters_differ else base.generation
    tree = AppliedTree(
        base.major, new.classes, new.filters, {item.key: minors[item.key] for item in new.classes}, generation
    )
    writer = _Writer(interface, base.major, minors)
    lines = [] if old or base.major == 1 else [writer.root()]
    for item in new.classes:
        before = had.get(item.key)
        if before is None or _figures(before) != _figures(item):
            lines.append(writer.htb("add" if before is None else "change", item))
        if before is None or before.disciplines != item.disciplines:
            lines += writer.disciplines(item, before)
    if filters_differ:
        lines += writer.filters(new.filters, generation)
        lines += writer.without_filters(base.filters, base.generation) if old else []
    gone = [item for item in base.classes if item.key not in has]
    lines += writer.release(gone, shape)
    leaving = tuple(minors[item.key] for item in gone if item.disciplines)
    return Change(tree, lines, leaving, [writer.removed(item) for item in reversed(gone)])


def _figures(item: QueueClass) -> tuple[int, int, int, int]:
    return (item.rate_bps, item.ceil_bps, item.burst_bytes, item.ceil_burst_bytes)


def _removal(interface: str, shape: Shape, old: AppliedTree | None) -> Change:
    if old is None:
        return Change(None, [], (), [])
    writer = _Writer(interface, old.major, old.minors)
    own = shaping.commands(interface, shape)
    if old.major == 2 and own:  # what waits in a root goes with it, and without filters all would pass unshaped
        return Change(None, own, (), [])
    lines = [*writer.without_filters(old.filters, old.generation), *writer.release(list(old.classes), shape)]
    leaving = tuple(old.minors[item.key] for item in old.classes if item.disciplines)
    if old.major == 2:
        return Change(None, lines, leaving, [["qdisc", "del", "dev", interface, "root"]])
    return Change(None, lines, leaving, [writer.removed(item) for item in reversed(old.classes)])


def reset_lines(interface: str, shape: Shape, classes: Mapping[int, int]) -> list[Line]:
    """Back to the engine's shape from any state. `classes` are all HTB classes found: minor to its parent's minor (0:
    the root).
    """
    if root_major(shape) == 2:
        own = shaping.commands(interface, shape)
        return own or [["qdisc", "del", "dev", interface, "root"]]

    def depth(minor: int) -> int:
        return 1 + depth(classes[minor]) if minor in classes else 0

    ours = sorted((minor for minor in classes if minor != 1), key=depth, reverse=True)
    lines = [["filter", "del", "dev", interface, "parent", "1:"]]
    return [*lines, *(["class", "del", "dev", interface, "classid", f"1:{minor:x}"] for minor in ours)]


def _minors(taken: Mapping[str, int], tree: QueueTree) -> dict[str, int]:
    """Numbers for all classes; those of before keep theirs, also while they are on their way out."""
    minors = dict(taken)
    used = set(minors.values())
    following = _FIRST_MINOR
    for item in tree.classes:
        if item.key in minors:
            continue
        while following in used:
            following += 1
        if following > _LAST_MINOR:
            raise ValueError(f"a queue tree has at most {_LAST_MINOR - _FIRST_MINOR + 1} classes")
        minors[item.key] = following
        used.add(following)
    return minors


class _Writer:
    def __init__(self, interface: str, major: int, minors: Mapping[str, int]) -> None:
        self._interface, self._major, self._minors = interface, major, minors

    def _id(self, key: str | None) -> str:
        return f"{self._major}:" + ("" if key is None else f"{self._minors[key]:x}")

    def root(self) -> Line:
        # No default: what no filter takes is sent at once.
        return ["qdisc", "replace", "dev", self._interface, "root", "handle", f"{self._major}:", "htb", "default", "0"]

    def htb(self, verb: str, item: QueueClass) -> Line:
        return [
            "class", verb, "dev", self._interface, "parent", self._id(item.parent), "classid", self._id(item.key),
            "htb", "rate", f"{item.rate_bps}bit", "ceil", f"{item.ceil_bps}bit", "burst", f"{item.burst_bytes}b",
            "cburst", f"{item.ceil_burst_bytes}b", "quantum", str(QUANTUM_BYTES),
        ]  # fmt: skip

    def disciplines(self, item: QueueClass, before: QueueClass | None) -> list[Line]:
        """A leaf's queues; only those that differ, as TBF hands on a new limit to what it holds."""
        lines = []
        parent = self._id(item.key)
        old = before.disciplines if before else ()
        for number, words in enumerate(item.disciplines):
            major = _LEAF_MAJORS[number] + self._minors[item.key]
            known = number < len(old) and old[number][0] == words[0]
            if not known or old[number] != words:
                verb = "change" if known else "replace"
                lines.append(
                    ["qdisc", verb, "dev", self._interface, "parent", parent, "handle", f"{major:x}:", *words]
                )
            parent = f"{major:x}:1"
        return lines

    def filters(self, filters: tuple[QueueFilter, ...], generation: int) -> list[Line]:
        lines = []
        for item in sorted(filters, key=_preference):
            words = ["u32"]
            for side, address in (("src", item.source), ("dst", item.destination)):
                words += ["match", "ip", side, f"{address}/32"] if address else []
            if len(words) == 1:
                words += ["match", "u32", "0", "0"]
            place = self._place(item, generation)
            lines.append(["filter", "add", *place, *words, "flowid", self._id(item.leaf)])
        return lines

    def without_filters(self, filters: tuple[QueueFilter, ...], generation: int) -> list[Line]:
        places = {tuple(self._place(item, generation)): None for item in sorted(filters, key=_preference, reverse=True)}
        return [["filter", "del", *place] for place in places]

    def _place(self, item: QueueFilter, generation: int) -> Line:
        # Filters of one preference share one protocol; those that match every packet come last.
        every = not (item.source or item.destination)
        preference = _GENERATION_PREFS[generation] + _preference(item)
        protocol = "all" if every else "ip"
        return ["dev", self._interface, "parent", f"{self._major}:", "protocol", protocol, "pref", str(preference)]

    def release(self, gone: list[QueueClass], shape: Shape) -> list[Line]:
        """Classes on their way out send what they hold as fast as the link, or what stays around them, allows."""
        keys = {item.key: item for item in gone}
        free = shape.rate_bps or UNLIMITED_BPS
        lines = []
        for item in gone:
            if item.parent is None and item.rate_bps == item.ceil_bps == shape.rate_bps:
                continue  # the link's own rate holds to the last
            within = item
            while within.parent in keys:
                within = keys[within.parent]
            ceil = free if within.parent is None or within.parent == "own" else item.ceil_bps
            rate = ceil if item.parent is None else item.rate_bps
            burst = max(item.ceil_burst_bytes, shaping.burst_bytes(ceil))
            if (rate, ceil) != (item.rate_bps, item.ceil_bps):
                freed = QueueClass(item.key, item.parent, rate, ceil, item.burst_bytes, burst)
                lines.append(self.htb("change", freed))
        return lines

    def removed(self, item: QueueClass) -> Line:
        return ["class", "del", "dev", self._interface, "classid", self._id(item.key)]


def _preference(item: QueueFilter) -> int:
    every = not (item.source or item.destination)
    return _DEPTHS - item.depth + (2 * _DEPTHS if every else 0)
