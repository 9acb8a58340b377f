"""The queues of one interface as a tree: from its own shape and the limits that are wanted on it, which class each
packet waits in, at which rates, and how the classes nest. Pure.

Every limit is an HTB class whose members are leaves of equal guaranteed rate that borrow from one another; limits of
which one contains the other nest, so that a packet passes both. The interface's own rate is the tree's outermost
class. `queue_lines` makes the words for `tc` out of it, `queues` applies them. Rates count whole Ethernet frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from topology.engine import shaping
from topology.plan import Shape

UNLIMITED_BPS = 100_000_000_000
"""For classes that never hold anything back; HTB has no word for "no limit"."""
_LEAST_REST = 0.1
"""Of a rate: what stays for packets without a limit where limits ask for more than there is."""
_DEEPEST = 8
"""Classes from the outermost to a leaf: TC_HTB_MAXDEPTH of the kernel."""
_QUEUE_S = 0.1
"""What may wait in a leaf, at its guaranteed rate: with all members busy nobody waits longer."""
_LEAST_FRAMES = 5
"""Fewer would starve TCP at rates of kilobits (measured: ten flows share 1 Mbit/s with a Jain's index of 0.999)."""
_LARGEST_SEGMENT_BYTES = 65550
_LONGEST_BURST_S = 60
"""HTB keeps no more time than that."""

Box = tuple[str | None, str | None]
"""IPv4 source and destination; None is any."""


@dataclass(frozen=True)
class QueueMember:
    """One equal share of a limit; matched by IPv4 source and destination, None matches all."""

    name: str
    source: str | None
    destination: str | None

    @property
    def box(self) -> Box:
        return (self.source, self.destination)


@dataclass(frozen=True)
class QueueLimit:
    """One total for what leaves by one interface: bit/s, and what may pass at once after a pause in bits.

    `node` is the node that the interface is in; None: the core namespace, where the controller runs.
    """

    meter: str
    direction: str
    node: str | None
    interface: str
    rate_bps: int
    burst_bits: int
    members: tuple[QueueMember, ...]

    @property
    def key(self) -> str:
        return f"{self.meter}.{self.direction}"


@dataclass(frozen=True)
class QueueClass:
    """An HTB class. `disciplines` of a leaf: what it queues in, outermost first; of an inner class none.

    The key is its place in the tree; a class whose key stays is changed in place. Rates in bit/s, bursts in bytes.
    """

    key: str
    parent: str | None
    rate_bps: int
    ceil_bps: int
    burst_bytes: int
    ceil_burst_bytes: int
    disciplines: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class QueueFilter:
    """What goes to a leaf. Deeper ones are asked first."""

    depth: int
    source: str | None
    destination: str | None
    leaf: str


@dataclass(frozen=True)
class QueuePlace:
    """Where a limit's figures are read: its class, and for each member the leaves that hold its packets."""

    key: str
    leaves: tuple[str, ...]
    shares: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class QueueTree:
    """All classes (parents first) and filters of one interface, the places of its limits by `QueueLimit.key`, and why
    limits were left out.
    """

    classes: tuple[QueueClass, ...] = ()
    filters: tuple[QueueFilter, ...] = ()
    places: Mapping[str, QueuePlace] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


def build(shape: Shape, limits: Sequence[QueueLimit], implied: Box = (None, None)) -> QueueTree:
    """The tree of one interface. `implied` are addresses that all its packets have (the node's own, at its interface).

    A limit that cannot hold together with one before it is left out and explained in `refused`.
    """
    accepted: list[QueueLimit] = []
    refused: list[str] = []
    for limit in limits:
        problem = _own_problem(limit) or next(
            (text for other in accepted if (text := _conflict(other, limit, implied))), None
        )
        if problem is None and _depth(shape, [*accepted, limit], implied) > _DEEPEST:
            around = [other for other in accepted if _contains(other, limit, implied)]
            problem = (
                f"{_where(limit)}: meter {limit.meter!r} lies within {len(around)} other limits, innermost "
                f"{around[-1].meter!r}, and HTB nests {_DEEPEST} classes at most; remove one of them"
            )
        if problem is None:
            accepted.append(limit)
        else:
            refused.append(problem)
    tree = _Builder(shape, accepted, implied).tree()
    return replace(tree, refused=tuple(refused))


def _own_problem(limit: QueueLimit) -> str | None:
    if limit.rate_bps < 8:
        return f"{_where(limit)}: meter {limit.meter!r} has {limit.rate_bps} bit/s; a queue passes 8 bit/s or more"
    if not 0 < limit.burst_bits <= limit.rate_bps * _LONGEST_BURST_S:
        return (
            f"{_where(limit)}: meter {limit.meter!r} has a burst of {limit.burst_bits} bit at {limit.rate_bps} bit/s; "
            f"a queue takes more than 0 and at most {_LONGEST_BURST_S} s of the rate, "
            f"{limit.rate_bps * _LONGEST_BURST_S} bit"
        )
    return None


def _where(limit: QueueLimit) -> str:
    return f"interface {limit.interface!r}" + (f" of node {limit.node!r}" if limit.node else "")


def _within(inner: Box, outer: Box) -> bool:
    return all(there is None or here == there for here, there in zip(inner, outer, strict=True))


def _meet(one: Box, other: Box) -> bool:
    return all(here is None or there is None or here == there for here, there in zip(one, other, strict=True))


def _boxes(limit: QueueLimit, implied: Box) -> list[Box]:
    return [_plain(member.box, implied) for member in limit.members]


def _plain(box: Box, implied: Box) -> Box:
    source, destination = (None if there == always else there for there, always in zip(box, implied, strict=True))
    return (source, destination)


def _contains(outer: QueueLimit, inner: QueueLimit, implied: Box) -> bool:
    return bool(inner.members) and all(
        any(_within(box, around) for around in _boxes(outer, implied)) for box in _boxes(inner, implied)
    )


def _conflict(first: QueueLimit, second: QueueLimit, implied: Box) -> str | None:
    if first.key == second.key:
        return f"{_where(second)}: meter {second.meter!r} is there twice for {second.direction}; give it once"
    if _contains(first, second, implied) or _contains(second, first, implied):
        return None
    theirs = _boxes(second, implied)
    shared = next((one for one in _boxes(first, implied) if any(_meet(one, other) for other in theirs)), None)
    if shared is None:
        return None
    return (
        f"{_where(second)}: meters {first.meter!r} and {second.meter!r} share some of their packets and neither holds "
        f"all of the other's, which one tree of HTB classes cannot express; {first.meter!r} is in force, "
        f"{second.meter!r} is not: remove one, or set it with enforce drop on a switch that has meters"
    )


def _depth(shape: Shape, limits: Sequence[QueueLimit], implied: Box) -> int:
    parents = {item.key: item.parent for item in _Builder(shape, limits, implied).tree().classes}

    def up(key: str | None) -> int:
        return 0 if key is None else 1 + up(parents[key])

    return max((up(key) for key in parents), default=0)


@dataclass
class _Child:
    """What shares a class's rate: a limit, a member with what is nested in it, or (neither) the rest."""

    weight: float
    limit: QueueLimit | None = None
    member: QueueMember | None = None
    nested: list[QueueLimit] = field(default_factory=list)


class _Builder:
    def __init__(self, shape: Shape, limits: Sequence[QueueLimit], implied: Box) -> None:
        self._shape, self._limits, self._implied = shape, limits, implied
        self._classes: list[QueueClass] = []
        self._filters: list[QueueFilter] = []
        self._keys: dict[str, str] = {}
        self._inside: dict[str, list[QueueLimit]] = {}
        for limit in limits:
            around = self._innermost_around(limit)
            self._inside.setdefault(around.key if around else "", []).append(limit)

    def _boxes(self, limit: QueueLimit) -> list[Box]:
        return _boxes(limit, self._implied)

    def _around(self, limit: QueueLimit) -> list[QueueLimit]:
        """The limits that hold all of this one's packets; of two equal ones the earlier is the outer."""
        place = self._limits.index(limit)
        return [
            other for number, other in enumerate(self._limits)
            if number != place and _contains(other, limit, self._implied)
            and not (_contains(limit, other, self._implied) and number > place)
        ]  # fmt: skip

    def _innermost_around(self, limit: QueueLimit) -> QueueLimit | None:
        around = self._around(limit)
        return max(around, key=lambda other: len(self._around(other)), default=None)

    def tree(self) -> QueueTree:
        if not self._limits:
            return QueueTree()
        top = self._inside.get("", [])
        rate = self._shape.rate_bps
        rest_leaf = _rest_disciplines(self._shape)
        covered = any((None, None) in self._boxes(limit) for limit in top)
        if rate is None:
            for limit in top:
                self._limit(limit, None, limit.rate_bps, UNLIMITED_BPS, 0)
            if rest_leaf and not covered:
                burst = shaping.burst_bytes(UNLIMITED_BPS)
                self._class("rest", None, UNLIMITED_BPS, UNLIMITED_BPS, burst, burst, rest_leaf)
                self._filters.append(QueueFilter(0, None, None, "rest"))
        else:
            burst = shaping.burst_bytes(rate)
            self._class("own", None, rate, rate, burst, burst)
            children = [_Child(limit.rate_bps, limit=limit) for limit in top]
            self._children("own", rate, rate, burst, children, None if covered else (None, None), 0, rest_leaf)
        places = {limit.key: self._place(limit) for limit in self._limits}
        return QueueTree(tuple(self._classes), tuple(self._filters), places)

    def _class(
        self, key: str, parent: str | None, rate: int, ceil: int, burst: int, ceil_burst: int,
        disciplines: tuple[tuple[str, ...], ...] = (),
    ) -> None:  # fmt: skip
        self._classes.append(QueueClass(key, parent, rate, ceil, burst, ceil_burst, disciplines))

    def _children(
        self, parent: str, rate: int, ceil: int, burst: int, children: list[_Child], rest: Box | None, depth: int,
        rest_leaf: tuple[tuple[str, ...], ...] = (),
    ) -> None:  # fmt: skip
        """Share out a class's rate among limits and a rest, which is guaranteed what they leave."""
        others = []
        if rest is not None:
            left = rate - sum(child.weight for child in children)
            others = [_Child(max(left, rate * _LEAST_REST), member=QueueMember("rest", *rest))]
        shares = _shares(rate, [*children, *others])
        for child, share in zip(children, shares, strict=False):
            assert child.limit is not None
            self._limit(child.limit, parent, share, ceil, depth + 1)
        if rest is not None:
            share = shares[-1]
            key = f"{parent}>rest"
            leaf = rest_leaf or _disciplines(self._shape, share, ceil)
            self._class(key, parent, share, ceil, _small_burst(share), burst, leaf)
            self._filters.append(QueueFilter(depth, *rest, key))

    def _limit(self, limit: QueueLimit, parent: str | None, share: int, ceil: int, depth: int) -> None:
        """A limit's class and all below it. `share` is what it is guaranteed, `ceil` what those around it allow."""
        rate, ceil = min(share, limit.rate_bps), min(ceil, limit.rate_bps)
        burst = min(limit.burst_bits // 8 or 1, ceil * _LONGEST_BURST_S // 8 or 1)
        # A guaranteed rate is not held back by the classes around: only the ceiling may have the large burst there.
        own_burst = burst if parent is None else _small_burst(rate)
        nested = self._inside.get(limit.key, [])
        leaf = len(limit.members) <= 1 and not nested
        key = (f"{parent}>" if parent else "") + f"limit {limit.key}" + ("" if leaf else " inner")
        self._keys[limit.key] = key
        if leaf:
            self._class(key, parent, rate, ceil, own_burst, burst, _disciplines(self._shape, rate, ceil))
            self._filters += [QueueFilter(depth, *member.box, key) for member in limit.members]
            return
        self._class(key, parent, rate, ceil, own_burst, burst)
        if len(limit.members) == 1:
            self._nest(key, limit.members[0], nested, rate, ceil, burst, depth)
            return
        children = self._arrange(limit, nested)
        for child, part in zip(children, _shares(rate, children), strict=True):
            if child.limit is not None:
                self._limit(child.limit, key, part, ceil, depth + 1)
                continue
            assert child.member is not None
            member_key = f"{key}>member {child.member.name}"
            if not child.nested:
                leaf_words = _disciplines(self._shape, part, ceil)
                self._class(member_key, key, part, ceil, _small_burst(part), burst, leaf_words)
                self._filters.append(QueueFilter(depth + 1, *child.member.box, member_key))
            else:
                self._class(f"{member_key} inner", key, part, ceil, _small_burst(part), burst)
                self._nest(f"{member_key} inner", child.member, child.nested, part, ceil, burst, depth + 1)

    def _nest(
        self, key: str, member: QueueMember, nested: list[QueueLimit], rate: int, ceil: int, burst: int, depth: int
    ) -> None:
        """Limits within one member, beside what else that member sends."""
        box = _plain(member.box, self._implied)
        covered = any(_within(box, part) for limit in nested for part in self._boxes(limit))
        children = [_Child(limit.rate_bps, limit=limit) for limit in nested]
        self._children(key, rate, ceil, burst, children, None if covered else member.box, depth)

    def _arrange(self, limit: QueueLimit, nested: Iterable[QueueLimit]) -> list[_Child]:
        """The shares of a limit's class: members, and in the place of those that a nested limit covers, that limit."""
        boxes = self._boxes(limit)
        inside: dict[int, list[QueueLimit]] = {}
        taken: set[int] = set()
        children = []
        for inner in nested:
            parts = self._boxes(inner)
            touched = {next(n for n, around in enumerate(boxes) if _within(part, around)) for part in parts}
            whole = {n for n in touched if any(_within(boxes[n], part) for part in parts)}
            if len(touched) == 1 and not whole:
                inside.setdefault(next(iter(touched)), []).append(inner)
            else:
                taken |= whole
                children.append(_Child(float(max(1, len(whole))), limit=inner))
        rest = [n for n in range(len(boxes)) if n not in taken]
        members = [_Child(1.0, member=limit.members[n], nested=inside.get(n, [])) for n in rest]
        return [*children, *members]

    def _place(self, limit: QueueLimit) -> QueuePlace:
        key = self._keys[limit.key]
        mine = [item for item in self._filters if item.leaf == key or item.leaf.startswith(f"{key}>")]
        leaves = tuple(item.key for item in self._classes
                       if item.disciplines and (item.key == key or item.key.startswith(f"{key}>")))  # fmt: skip
        shares = []
        for member in limit.members:
            around = _plain(member.box, self._implied)
            held = [item.leaf for item in mine
                    if _within(_plain((item.source, item.destination), self._implied), around)]  # fmt: skip
            shares.append((member.name, tuple(dict.fromkeys(held))))
        return QueuePlace(key, leaves, tuple(shares))


def _shares(rate_bps: int, children: Sequence[_Child]) -> list[int]:
    """A rate shared out by weight; what a limit cannot take goes to the others."""
    shares = [0] * len(children)
    open_ones = list(range(len(children)))
    left = float(rate_bps)
    while open_ones:
        unit = left / sum(children[n].weight for n in open_ones)
        full = []
        for n in open_ones:
            limit = children[n].limit
            if limit is not None and limit.rate_bps < unit * children[n].weight:
                full.append((n, limit.rate_bps))
        if not full:
            for n in open_ones:
                shares[n] = max(8, int(unit * children[n].weight))
            break
        for n, most in full:
            shares[n] = most
            left -= most
            open_ones.remove(n)
    return shares


def _small_burst(rate_bps: int) -> int:
    """Ten milliseconds, without a least: HTB lets a class pass a frame whenever it has any token."""
    return max(64, round(rate_bps * 0.01 / 8))


def _disciplines(shape: Shape, share_bps: int, ceil_bps: int) -> tuple[tuple[str, ...], ...]:
    """What a leaf queues in: a short queue in bytes, or the user's own length, and netem where the link has it.

    The queue is TBF's, which is the one that cuts what offloading merged back into frames: a queue shorter than one
    such packet would otherwise take none at all, and one of that length is seconds long at low rates (measured: ten
    flows at 1 Mbit/s wait 5 to 10 s, and share at 0.83 of the rate). TBF's own rate never holds anything back.
    """
    netem = bool(shape.needs_netem())
    if shape.queue_packets is not None and not netem:
        return (tuple(shaping.users_queue(shape.queue_packets)),)
    size = max(_LEAST_FRAMES * shaping.FRAME_BYTES, round(share_bps * _QUEUE_S / 8))
    whole = size >= 2 * _LARGEST_SEGMENT_BYTES  # there is room: what is merged stays so, for the processor's sake
    if not netem:
        return (tuple(shaping.tbf(size, cut=not whole)),)
    queue = ["bfifo", "limit", str(size)]
    if shape.queue_packets is not None:
        queue = ["pfifo", "limit", str(shape.queue_packets)]
    waiting = shape.queue_packets or max(_LEAST_FRAMES, round(size / shaping.FRAME_BYTES))
    limit = shaping.queue_packets(replace(shape, rate_bps=ceil_bps, queue_packets=waiting))
    cut = not whole or shaping.counts_frames(shape)
    return tuple(tuple(words) for words in shaping.netem_chain(shape, limit, queue, cut=cut))


def _rest_disciplines(shape: Shape) -> tuple[tuple[str, ...], ...]:
    """The queue that the link itself has, for what no limit matches; none for a link that does not queue."""
    return tuple(tuple(words) for words in shaping.leaf(shape))
