"""From one shape of an interface to another under traffic, as steps for `tc`, so that no packet is lost that the new
shape would not lose. Pure.

Takes what stands at the interface (`Layout`) and both shapes. A rate is HTB's class, changed in place; so are the
disciplines below it where they stay of the same kinds. Where they do not (a first delay, a queue of the user's own),
packets go by a second class while the first sends what it holds; then it gets its new disciplines, they go by it
again, and the second one goes once it is empty. An interface that has HTB keeps it: its class is then as fast as none.
How words for `tc` look is `shaping`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from topology.engine import shaping
from topology.engine.queue_counters import Counted
from topology.plan import Shape

UNLIMITED_BPS = 100_000_000_000
"""The rate of a class that never holds anything back."""
SIDE_CLASS = "1:fffe"
"""The second class; the controller's own have lower numbers."""
_SIDE_OFFSET = 0x100
_SIDE_PREFERENCE = 49000
"""After all of the controller's filters: where it has some, all packets are theirs."""
_LONGEST_DRAIN_S = 30.0


@dataclass(frozen=True)
class Layout:
    """What stands at an interface: its root's kind and handle ("" and "" where there is none), all HTB classes, and
    the kinds below the engine's own class (or of the root and below), outermost first.
    """

    root: str = ""
    handle: str = ""
    classes: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the engine's own HTB and class are there."""
        return self.root == "htb" and self.handle == "1:" and shaping.OWN_CLASS in self.classes

    @property
    def limited(self) -> bool:
        """Whether queue limits of the controller stand beside the engine's own class: then no packet goes by that."""
        return any(name not in (shaping.OWN_CLASS, SIDE_CLASS) for name in self.classes)


@dataclass(frozen=True)
class Step:
    """Lines for one `tc`, then a class that has to be empty before the next step, and how long that may take."""

    lines: list[list[str]]
    empty: str | None = None
    within_s: float = 0.0


def read_layout(disciplines: Sequence[Counted], classes: Sequence[Counted]) -> Layout:
    """What the kernel says of one interface's disciplines and HTB classes."""
    root = next((item for item in disciplines if item.parent_major == 0 and item.major), None)
    if root is None:
        return Layout()
    below = {(item.parent_major, item.parent_minor): item for item in disciplines}
    chain, place = ([], (1, 1)) if root.kind == "htb" else ([root.kind], (root.major, 1))
    while (item := below.get(place)) is not None and len(chain) < 8:
        chain.append(item.kind)
        place = (item.major, 1)
    named = tuple(f"{item.major:x}:{item.minor:x}" for item in classes)
    return Layout(root.kind, f"{root.major:x}:", named, tuple(chain))


def steps(interface: str, layout: Layout, old: Shape, new: Shape) -> list[Step]:
    """What turns an interface from `old`, as it stands there, into `new`. None where nothing has to be done."""
    if not layout.own:
        return _without_own_class(interface, layout, old, new)
    kept, had = _with_rate(new), _with_rate(old)
    change = shaping.change_commands(interface, had, kept)
    first = _clean(interface, layout)
    in_place = shaping.same_kinds(had, kept) and layout.chain == _kinds(kept)
    # Nothing passes the class while limits stand beside it; and kernels since 6.16 refuse a second netem in one tree
    # where one of them duplicates.
    if in_place:
        return [Step([*first, *change])]
    fresh = [["qdisc", "del", "dev", interface, "parent", shaping.OWN_CLASS]] if layout.chain else []
    renewed = [*fresh, *change]
    if layout.limited or (old.duplicate or new.duplicate):
        return [Step([*first, *renewed])]
    place = ["dev", interface, "parent", "1:", "protocol", "all", "pref", str(_SIDE_PREFERENCE)]
    aside = [
        *first,
        *shaping.rate_lines(interface, kept, classid=SIDE_CLASS)[1:],
        *shaping.leaf_lines(interface, kept, parent=SIDE_CLASS, offset=_SIDE_OFFSET),
        ["filter", "add", *place, "u32", "match", "u32", "0", "0", "flowid", SIDE_CLASS],
    ]
    back = [*renewed, ["filter", "del", *place]]
    return [
        Step(aside, shaping.OWN_CLASS, _drain_s(had)),
        Step(back, SIDE_CLASS, _drain_s(kept)),
        Step([["class", "del", "dev", interface, "classid", SIDE_CLASS]]),
    ]


def _without_own_class(interface: str, layout: Layout, old: Shape, new: Shape) -> list[Step]:
    theirs = layout.root == "htb" and layout.handle == "2:"
    if theirs and new.rate_bps is None:
        return []  # the controller's tree is the root, and takes the new shape up by itself
    wanted = shaping.commands(interface, new)
    if not wanted:
        return [Step([["qdisc", "del", "dev", interface, "root"]])] if layout.root else []
    if new.rate_bps is None and layout.chain == _kinds(new) and shaping.same_kinds(old, new):
        return [Step(shaping.leaf_lines(interface, new))]
    # From here on it has HTB, and further changes lose nothing. What a root of netem delays at this moment is lost.
    return [Step(shaping.commands(interface, _with_rate(new)))]


def _with_rate(shape: Shape) -> Shape:
    return shape if shape.rate_bps is not None else replace(shape, rate_bps=UNLIMITED_BPS)


def _kinds(shape: Shape) -> tuple[str, ...]:
    return tuple(words[0] for words in shaping.leaf(shape))


def _clean(interface: str, layout: Layout) -> list[list[str]]:
    """Takes away what a change left that ended half-way."""
    if SIDE_CLASS not in layout.classes:
        return []
    place = ["dev", interface, "parent", "1:", "protocol", "all", "pref", str(_SIDE_PREFERENCE)]
    # There may be no filter any more, and deleting none is an error: one is added first.
    return [
        ["filter", "add", *place, "u32", "match", "u32", "0", "0", "flowid", shaping.OWN_CLASS],
        ["filter", "del", *place],
        ["class", "del", "dev", interface, "classid", SIDE_CLASS],
    ]


def _drain_s(shape: Shape) -> float:
    """How long a full class of that shape takes to send what it holds."""
    held = shaping.queue_packets(shape) * shaping.FRAME_BYTES * 8 / (shape.rate_bps or UNLIMITED_BPS)
    return min(_LONGEST_DRAIN_S, 0.5 + held + shape.delay_s + 4 * shape.jitter_s)
