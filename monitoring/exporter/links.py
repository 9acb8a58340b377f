"""Links as series: what was declared, what was sent into each direction, what waits and is dropped in its queues,
whether it is up, and when that last changed.

Takes what the probes read at both ends (`Ending`); does no I/O itself. Each direction is counted at its sending end, by
its outermost queue where it has one: what it counted is kept, so that a queue that comes or goes is no traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from monitoring import metrics
from monitoring.exporter import netlink
from monitoring.exporter.nodes import Ending
from monitoring.exporter.samples import Labels, Samples
from monitoring.inventory import Inventory, Link, Shape

End = Callable[[str, str], Ending | None]
"""(end's name, interface) to what is there; None where it is gone."""
State = Callable[[str, str], bool]
"""(end's name, interface) to whether it is there, up and with a carrier."""

_UNKNOWN = "unknown"


class _Total:
    """A counter that is read at one source after another (an interface, a queue on it): it only ever grows."""

    def __init__(self) -> None:
        self._source: tuple[str, int] | None = None
        self._last = self._total = 0

    def add(self, source: tuple[str, int], value: int) -> int:
        """Take what that source counts now; gives the total. What another source had counted before does not count."""
        if self._source is None:
            self._total = value
        elif source == self._source:
            self._total += value - self._last if value >= self._last else value
        self._source, self._last = source, value
        return self._total


@dataclass(frozen=True)
class _Totals:
    """Of one direction: what was sent, and what its queues dropped."""

    bytes: _Total = field(default_factory=_Total)
    packets: _Total = field(default_factory=_Total)
    drops: _Total = field(default_factory=_Total)


@dataclass(frozen=True)
class _Direction:
    name: str
    sender: str
    interface: str
    declared: Shape
    labels: Labels


@dataclass(frozen=True)
class _Line:
    link: Link
    labels: Labels
    changed: Labels
    watched: tuple[tuple[str, str], ...]
    directions: tuple[_Direction, ...]


class LinkBook:
    """All links of one inventory, and what they were like at the last look."""

    def __init__(self, inventory: Inventory) -> None:
        self._testbed = inventory.testbed
        self._lines = [self._line(link) for link in inventory.links]
        self._seen: dict[str, tuple[object, ...]] = {}
        self._changed: dict[str, float] = {}
        self._totals: dict[tuple[str, str], _Totals] = {}
        self._queues: dict[tuple[str, str, str, int], Labels] = {}

    def _line(self, link: Link) -> _Line:
        own = (self._testbed, link.name, link.a, link.b)
        directions = tuple(
            _Direction(name, sender, interface, shape, Labels(metrics.LINK_BYTES.labels, (*own, name)))
            for name, sender, interface, shape in (
                ("a_to_b", link.a, link.a_interface, link.a_to_b), ("b_to_a", link.b, link.b_interface, link.b_to_a)
            )
        )  # fmt: skip
        ends = ((link.a_port, link.a, link.a_interface), (link.b_port, link.b, link.b_interface))
        # A switch's end tells of both: it has no carrier while the node's is down. Between two nodes there is none.
        watched = tuple((name, interface) for port, name, interface in ends if port is not None)
        watched = watched or tuple((name, interface) for _, name, interface in ends)
        return _Line(link, Labels(metrics.LINK_UP.labels, own),
                     Labels(metrics.LINK_CHANGED.labels, (self._testbed, link.name)), watched, directions)  # fmt: skip

    def inherit(self, before: LinkBook) -> None:
        """Take over what the book of the inventory before this one has seen."""
        self._seen, self._changed, self._totals = before._seen, before._changed, before._totals

    def add(self, samples: Samples, end: End, state: State, now: float) -> None:
        """The series of all links at the wall time `now`."""
        queues: dict[tuple[str, str, str, int], Labels] = {}
        for line in self._lines:
            up = all(state(name, interface) for name, interface in line.watched)
            shapes: list[object] = []
            for direction in line.directions:
                self._add_declared(samples, direction)
                found = end(direction.sender, direction.interface)
                shapes += [direction.declared, found.rate_bps if found else _UNKNOWN]
                if found is not None:
                    self._add_measured(samples, line.link, direction, found, queues)
            samples.add(metrics.LINK_UP, line.labels, 1 if up else 0)
            self._note(samples, line, (up, *shapes), now)
        self._queues = queues

    def _note(self, samples: Samples, line: _Line, looks: tuple[object, ...], now: float) -> None:
        name = line.link.name
        before = self._seen.get(name, looks)
        # An end that is gone or cannot be read has no rate: what it was before still stands.
        looks = tuple(old if new == _UNKNOWN else new for old, new in zip(before, looks, strict=True))
        if any(old not in (new, _UNKNOWN) for old, new in zip(before, looks, strict=True)):
            self._changed[name] = now
        self._seen[name] = looks
        if name in self._changed:
            samples.add(metrics.LINK_CHANGED, line.changed, self._changed[name])

    def _add_declared(self, samples: Samples, direction: _Direction) -> None:
        declared, labels = direction.declared, direction.labels
        if declared.rate_bps is not None:
            samples.add(metrics.LINK_RATE, labels, declared.rate_bps)
        samples.add(metrics.LINK_DELAY, labels, declared.delay_s)
        samples.add(metrics.LINK_LOSS, labels, declared.loss)

    def _add_measured(
        self, samples: Samples, link: Link, direction: _Direction, found: Ending,
        queues: dict[tuple[str, str, str, int], Labels],
    ) -> None:  # fmt: skip
        root = next((qdisc for qdisc in found.qdiscs if qdisc.parent == netlink.ROOT), None)
        counters, labels = found.counters, direction.labels
        totals = self._totals.setdefault((link.name, direction.name), _Totals())
        # A queue counts whole frames, also of segments that are still merged; the interface counts those once.
        source = (root.kind, root.handle) if root else ("", 0)
        samples.add(metrics.LINK_BYTES, labels, totals.bytes.add(source, root.bytes if root else counters.tx_bytes))
        samples.add(metrics.LINK_PACKETS, labels,
                    totals.packets.add(source, root.packets if root else counters.tx_packets))  # fmt: skip
        drops = totals.drops.add(source, root.drops if root else 0)
        samples.add(metrics.LINK_DROPS, labels, counters.tx_dropped + drops)
        for qdisc in found.qdiscs:
            if not qdisc.handle and qdisc is not root:
                continue  # the kernel's own children without a number cannot be told apart
            key = (link.name, direction.name, qdisc.kind, qdisc.handle)
            own = self._queues.get(key) or Labels(
                metrics.QDISC_DROPS.labels, (self._testbed, link.name, direction.name, qdisc.kind, qdisc.name)
            )
            queues[key] = own
            samples.add(metrics.QDISC_BACKLOG_BYTES, own, qdisc.backlog_bytes)
            samples.add(metrics.QDISC_BACKLOG_PACKETS, own, qdisc.backlog_packets)
            samples.add(metrics.QDISC_DROPS, own, qdisc.drops)
            samples.add(metrics.QDISC_OVERLIMITS, own, qdisc.overlimits)
            samples.add(metrics.QDISC_BYTES, own, qdisc.bytes)
