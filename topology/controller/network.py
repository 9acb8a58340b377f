"""What the controller believes about the network right now: graph, port states, boards that were learnt, the
tree in use.

Takes events (an inventory, ports of a switch, one port, a source address), answers with the flows that a
switch should have. Locked, because switches talk at the same time; never sends anything, never waits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from topology.controller.flows import LAST_PORT, Flow
from topology.controller.forwarding import MAXIMUM_ADDRESSES, Board, boards_in, flooded_in, flows_for
from topology.controller.graph import Graph, Paths, find_paths

MAXIMUM_BOARDS = 1024
"""Boards that are remembered at once; each costs one flow in every switch."""
UNSPECIFIED = "0.0.0.0"

Learnt = Literal["new", "moved", "address", "known", "host", "full", "ignored"]


@dataclass(frozen=True)
class PortState:
    """A port as the switch describes it; `up` is false where it is switched off or without carrier."""

    number: int
    name: str
    up: bool


@dataclass(frozen=True)
class Snapshot:
    """A consistent copy of the belief, for showing."""

    graph: Graph
    paths: Paths
    ports: Mapping[int, Mapping[int, PortState]]
    boards: tuple[Board, ...]
    down_links: frozenset[str]
    version: int = 0
    """Another one wherever flows may be others."""


class Network:
    """The belief. Methods that change it return whether flows may have changed, so that the caller wakes the
    switches."""

    def __init__(self, graph: Graph) -> None:
        self._lock = threading.RLock()
        self._graph = graph
        self._ports: dict[int, dict[int, PortState]] = {}
        self._boards: dict[str, Board] = {}
        self._quiet: set[tuple[int, int, str]] = set()
        self._paths: Paths | None = None
        self._tree: frozenset[str] = frozenset()
        self._tree_in_use = False
        self._flooded_before: dict[int, frozenset[int]] = {}
        self._version = 0

    @property
    def graph(self) -> Graph:
        """The graph in use (immutable)."""
        return self._graph

    @property
    def version(self) -> int:
        """Grows with every change from which flows may follow."""
        return self._version

    def _changed(self) -> bool:
        self._paths = None
        self._version += 1
        return True

    def _down_links(self) -> frozenset[str]:
        # A switch that never connected is believed to have all its ports: its flows are put in before its
        # ports are known.
        def is_down(end: tuple[int, int]) -> bool:
            ports = self._ports.get(end[0])
            return ports is not None and (end[1] not in ports or not ports[end[1]].up)

        return frozenset(link.name for link in self._graph.links if is_down(link.a) or is_down(link.b))

    def _device_ports(self, switch: int) -> frozenset[int]:
        known = self._graph.switches.get(switch)
        if known is None:
            return frozenset()
        return frozenset(n for n in self._ports.get(switch, {}) if n not in known.ports and n < LAST_PORT)

    def _find_paths(self) -> Paths:
        if self._paths is None:
            self._paths = find_paths(self._graph, self._down_links(), self._tree)
            self._tree = self._paths.tree
        return self._paths

    def set_graph(self, graph: Graph) -> bool:
        """A new inventory was read. Boards that it lists now are hosts from here on."""
        with self._lock:
            if graph == self._graph:
                if graph.inventory != self._graph.inventory:
                    self._graph = graph
                return False
            self._graph = graph
            hosts = {host.mac for host in graph.hosts}
            self._boards = {
                mac: board
                for mac, board in self._boards.items()
                if mac not in hosts and board.port in self._device_ports(board.switch)
            }
            self._quiet = {entry for entry in self._quiet if entry[2] in hosts}
            return self._changed()

    def set_ports(self, switch: int, ports: Iterable[PortState]) -> bool:
        """All ports of a switch, as it described them when it connected."""
        with self._lock:
            before = self._matters(switch)
            self._ports[switch] = {port.number: port for port in ports}
            self._forget_lost(switch)
            return self._matters(switch) != before and self._changed()

    def set_port(self, switch: int, number: int, port: PortState | None) -> bool:
        """One port was added or changed; None: it is gone."""
        with self._lock:
            before = self._matters(switch)
            table = self._ports.setdefault(switch, {})
            if port is None:
                table.pop(number, None)
            else:
                table[number] = port
            self._forget_lost(switch)
            return self._matters(switch) != before and self._changed()

    def port(self, switch: int, number: int) -> PortState | None:
        """What is believed about a port; None where the switch never described it."""
        with self._lock:
            return self._ports.get(switch, {}).get(number)

    def _matters(self, switch: int) -> tuple[object, ...]:
        # What flows are made from, of all that ports tell: a host whose port is down keeps its flows.
        return self._down_links(), self._device_ports(switch), len(self._boards), len(self._quiet)

    def _forget_lost(self, switch: int) -> None:
        # A board whose port is down may come back anywhere; its next packet tells where.
        here = {n for n in self._device_ports(switch) if self._ports[switch][n].up}
        self._boards = {
            mac: board for mac, board in self._boards.items() if board.switch != switch or board.port in here
        }
        self._quiet = {entry for entry in self._quiet if entry[0] != switch or entry[1] in here}

    def learn(self, switch: int, port: int, mac: str, address: str | None = None) -> Learnt:
        """A packet from a source that is no news to nobody yet came in at a port that the inventory does not
        list; `address` is its IPv4 source where it has one.

        Returns:
            new, moved or address (flows change), known, host (the inventory gives that address to a node elsewhere:
            not learnt, and quiet from here on), full (`MAXIMUM_BOARDS` reached), ignored (a multicast source,
            a listed port or an unknown switch).
        """
        mac = mac.lower()
        with self._lock:
            if port not in self._device_ports(switch) or int(mac[:2], 16) & 1:
                return "ignored"
            if any(host.mac == mac for host in self._graph.hosts):
                if (switch, port, mac) in self._quiet:
                    return "known"
                self._quiet.add((switch, port, mac))
                self._version += 1
                return "host"
            before = self._boards.get(mac)
            if before is None and len(self._boards) >= MAXIMUM_BOARDS:
                return "full"
            known = () if before is None else before.addresses
            addresses = known
            if address not in (None, UNSPECIFIED, *known) and len(known) < MAXIMUM_ADDRESSES:
                addresses = (*known, str(address))
            board = Board(mac, switch, port, addresses)
            if board == before:
                return "known"
            self._boards[mac] = board
            self._version += 1
            if before is None:
                return "new"
            return "address" if replace(before, addresses=addresses) == board else "moved"

    def adopt(self, switch: int, present: Iterable[Flow]) -> list[Board]:
        """Take over what a former controller left in the switch: the boards that it learnt, and its tree.

        The tree only before this controller gave out flows of its own: broadcasts then go on as before, and
        switches that are reached one after the other never follow two trees at once.
        """
        with self._lock:
            flooded = flooded_in(present := list(present))
            if flooded is not None and not self._tree_in_use:
                self._flooded_before[switch] = flooded
                ports = {(at, port) for at, known in self._flooded_before.items() for port in known}
                self._tree = frozenset(
                    link.name for link in self._graph.links if link.a in ports and link.b in ports
                )
                self._changed()
            hosts = {host.mac for host in self._graph.hosts}
            taken = [
                board
                for board in boards_in(switch, present)
                if board.mac not in hosts
                and board.mac not in self._boards
                and board.port in self._device_ports(switch)
            ][: max(0, MAXIMUM_BOARDS - len(self._boards))]
            self._boards.update({board.mac: board for board in taken})
            self._version += bool(taken)
            return taken

    def flows(self, switch: int) -> list[Flow] | None:
        """What that switch should have; None where the inventory does not know it."""
        with self._lock:
            if switch not in self._graph.switches:
                return None
            self._tree_in_use = True
            quiet = [(port, mac) for place, port, mac in sorted(self._quiet) if place == switch]
            graph, paths, ports = self._graph, self._find_paths(), self._device_ports(switch)
            boards = tuple(self._boards.values())
        return flows_for(switch, graph, paths, ports, boards, quiet, len(boards) < MAXIMUM_BOARDS)

    def snapshot(self) -> Snapshot:
        """A copy that later events do not change."""
        with self._lock:
            ports = {switch: dict(table) for switch, table in self._ports.items()}
            boards = tuple(self._boards.values())
            return Snapshot(
                self._graph, self._find_paths(), ports, boards, self._down_links(), self._version
            )
