"""The core's network namespace under observation: states, counters and queues of the switches' interfaces.

States and rates are read again only after the kernel announced a change of any interface or queue (a kept socket
listens for that), counters and queues at each collection.
"""

from __future__ import annotations

import os

from monitoring.exporter import namespaces, netlink
from monitoring.exporter.netlink import Counters, Interface, NetlinkSocket, Qdisc
from monitoring.exporter.nodes import Ending

_GROUP_LINK, _GROUP_TC = 0x1, 0x8


class CoreProbe:
    """The core's sockets. Raises OSError where the namespace is not there."""

    def __init__(self, namespace: str) -> None:
        self._path = f"/run/netns/{namespace}"
        self._inode = os.stat(self._path).st_ino
        self._route, self._events = namespaces.inside(self._path, _sockets)
        self._interfaces: dict[str, Interface] = {}
        self._rates: dict[int, int | None] = {}
        self._stale = True
        self.counters: dict[int, Counters] = {}
        self._qdiscs: dict[int, list[Qdisc]] = {}

    def alive(self) -> bool:
        """Whether the namespace is still the one of that name."""
        try:
            return os.stat(self._path).st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the namespace."""
        self._route.close()
        self._events.close()

    def read(self) -> None:
        """Read everything once, for the questions below. Raises OSError."""
        self._stale = self._events.pending() or self._stale
        self.counters = netlink.counters(self._route)
        self._qdiscs = {}
        for qdisc in netlink.qdiscs(self._route):
            self._qdiscs.setdefault(qdisc.interface, []).append(qdisc)
        if self._stale:
            self._interfaces = {found.name: found for found in netlink.interfaces(self._route)}
            self._rates = {
                index: netlink.root_rate(self._route, index)
                for index, found in self._qdiscs.items()
                if any(qdisc.kind == "htb" and qdisc.parent == netlink.ROOT for qdisc in found)
            }
            self._stale = False

    def interface(self, name: str) -> Interface | None:
        """An interface's state; None where it is gone."""
        return self._interfaces.get(name)

    def ending(self, name: str) -> Ending | None:
        """The end of a link in the core; None where it is gone."""
        found = self._interfaces.get(name)
        counters = self.counters.get(found.number) if found else None
        if found is None or counters is None:
            return None
        return Ending(counters, tuple(self._qdiscs.get(found.number, ())), self._rates.get(found.number))


def _sockets() -> tuple[NetlinkSocket, NetlinkSocket]:
    route = netlink.route_socket()
    try:
        return route, netlink.route_socket(_GROUP_LINK | _GROUP_TC)
    except OSError:
        route.close()
        raise
