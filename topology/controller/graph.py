"""The network as a graph: switches, the links between them, hosts; shortest paths and one spanning tree.
Pure.

Takes the inventory as plain data and names of links that are down. Knows nothing of OpenFlow and changes
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from topology.errors import TopologyError

MAXIMUM_PORTS = 3800
"""Ports of one switch: a broadcast flow names each, 16 bytes a port, and an OpenFlow message has at most
65,535 bytes."""


class GraphError(TopologyError):
    """An inventory from which no graph can be made; the text names the entry."""


@dataclass(frozen=True)
class Port:
    """A port of a switch as the inventory lists it."""

    number: int
    name: str
    peer_kind: str
    peer: str
    peer_port: int | None
    interface: str = ""
    """Its name in the core namespace."""


@dataclass(frozen=True)
class Switch:
    """A switch with its listed ports by number."""

    name: str
    datapath_id: int
    ports: Mapping[int, Port]


@dataclass(frozen=True)
class Host:
    """Something with one MAC address behind one port of a switch (`switch` is a datapath id)."""

    name: str
    mac: str
    address: str | None
    switch: int
    port: int
    role: str = "host"
    interface: str = "eth0"
    pid: int | None = None
    """Host's pid of its first process; None until it runs."""


@dataclass(frozen=True)
class Cohort:
    """The clients that one server serves."""

    name: str
    server: str
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A link between two switches; ends are (datapath id, port number)."""

    name: str
    a: tuple[int, int]
    b: tuple[int, int]


@dataclass(frozen=True)
class Graph:
    """Everything that the inventory says about the network. Two graphs are equal where they say the same."""

    testbed: str
    switches: Mapping[int, Switch]
    links: tuple[Link, ...]
    hosts: tuple[Host, ...]
    cohorts: tuple[Cohort, ...] = ()
    inventory: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What the graph was made from."""

    def switch_named(self, name: str) -> Switch | None:
        """The switch of that name, or None."""
        return next((switch for switch in self.switches.values() if switch.name == name), None)

    def host_named(self, name: str) -> Host | None:
        """The host of that name, or None."""
        return next((host for host in self.hosts if host.name == name), None)

    def cohort_named(self, name: str) -> Cohort | None:
        """The cohort of that name, or None."""
        return next((cohort for cohort in self.cohorts if cohort.name == name), None)

    def far_end(self, switch: int, port: int) -> tuple[int, int] | None:
        """(datapath id, port) at the other end of the link between switches that begins there, or None."""
        for link in self.links:
            if link.a == (switch, port):
                return link.b
            if link.b == (switch, port):
                return link.a
        return None


@dataclass(frozen=True)
class Paths:
    """Ways through the links that are up.

    `hops[at][towards]` is the port by which the switch `at` comes nearer to the switch `towards` (missing
    where there is no way); `tree` holds the names of the links on which broadcasts travel, `tree_ports` their
    ports by datapath id.
    """

    hops: Mapping[int, Mapping[int, int]]
    tree: frozenset[str]
    tree_ports: Mapping[int, frozenset[int]] = field(default_factory=dict)


def _value(entry: Any, key: str, kind: type, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise GraphError(f"inventory: {where}.{key} is {repr(value)[:60]}, expected {kind.__name__}")
    return value


def _switches(inventory: Mapping[str, Any]) -> dict[int, Switch]:
    switches: dict[int, Switch] = {}
    for index, entry in enumerate(_value(inventory, "switches", list, "inventory")):
        where = f"switches[{index}]"
        ports: dict[int, Port] = {}
        for position, item in enumerate(_value(entry, "ports", list, where)):
            at = f"{where}.ports[{position}]"
            number = _value(item, "number", int, at)
            ports[number] = Port(
                number,
                _value(item, "name", str, at),
                _value(item, "peer_kind", str, at),
                _value(item, "peer", str, at),
                item.get("peer_port"),
                str(item.get("interface") or item["name"]),
            )
        switch = Switch(_value(entry, "name", str, where), _value(entry, "datapath_id", int, where), ports)
        if len(ports) > MAXIMUM_PORTS:
            raise GraphError(
                f"inventory: {where} ({switch.name}) has {len(ports)} ports; at most {MAXIMUM_PORTS}: "
                "spread the nodes over more switches"
            )
        if switch.datapath_id in switches:
            raise GraphError(
                f"inventory: {where}.datapath_id {switch.datapath_id} belongs to "
                f"{switches[switch.datapath_id].name} too"
            )
        switches[switch.datapath_id] = switch
    return switches


def _hosts(inventory: Mapping[str, Any], ids: Mapping[str, int]) -> list[Host]:
    hosts: list[Host] = []
    owner: dict[str, str] = {}
    for index, entry in enumerate(_value(inventory, "nodes", list, "inventory")):
        where = f"nodes[{index}]"
        name, switch = _value(entry, "name", str, where), _value(entry, "switch", str, where)
        mac = _value(entry, "mac", str, where).lower()
        if not switch:
            continue  # linked to nothing yet
        if switch not in ids:
            raise GraphError(f"inventory: {where}.switch is {switch!r}, and no switch is called that")
        if mac in owner:
            raise GraphError(f"inventory: {where}.mac {mac} belongs to {owner[mac]} too")
        owner[mac] = name
        port = _value(entry, "switch_port", int, where)
        role, interface = str(entry.get("role", "host")), str(entry.get("interface", "eth0"))
        address = entry.get("address") or None
        hosts.append(Host(name, mac, address, ids[switch], port, role, interface, entry.get("pid")))
        hosts += _further(entry, where, ids, owner)
    return hosts


def _further(entry: dict[str, Any], where: str, ids: Mapping[str, int], owner: dict[str, str]) -> list[Host]:
    """A node's further interfaces, each a host of its own by the interface's name."""
    hosts = []
    for index, item in enumerate(entry.get("further", ())):
        at = f"{where}.further[{index}]"
        name, switch = _value(item, "interface", str, at), _value(item, "switch", str, at)
        mac = _value(item, "mac", str, at).lower()
        if switch not in ids:
            raise GraphError(f"inventory: {at}.switch is {switch!r}, and no switch is called that")
        if mac in owner:
            raise GraphError(f"inventory: {at}.mac {mac} belongs to {owner[mac]} too")
        owner[mac] = name
        port = _value(item, "switch_port", int, at)
        hosts.append(Host(name, mac, item.get("address") or None, ids[switch], port, "host", name, entry.get("pid")))
    return hosts


def _cohorts(inventory: Mapping[str, Any], hosts: Iterable[Host]) -> list[Cohort]:
    names = {host.name for host in hosts}
    cohorts = []
    entries = inventory.get("cohorts", [])
    if not isinstance(entries, list):
        raise GraphError(f"inventory: inventory.cohorts is {repr(entries)[:60]}, expected list")
    for index, entry in enumerate(entries):
        where = f"cohorts[{index}]"
        server, clients = _value(entry, "server", str, where), _value(entry, "clients", list, where)
        for node in (server, *clients):
            if node not in names:
                raise GraphError(f"inventory: {where} names {node!r}, and no node is called that")
        cohorts.append(Cohort(_value(entry, "name", str, where), server, tuple(clients)))
    return cohorts


def read_graph(inventory: Mapping[str, Any]) -> Graph:
    """The graph of an inventory (docs/architecture.md has its form).

    Raises:
        GraphError: where an entry is missing, of a wrong type, or contradicts another.
    """
    switches = _switches(inventory)
    ids = {switch.name: datapath_id for datapath_id, switch in switches.items()}
    hosts = _hosts(inventory, ids)
    links: list[Link] = []
    for index, entry in enumerate(_value(inventory, "links", list, "inventory")):
        where = f"links[{index}]"
        a, b = _value(entry, "a", str, where), _value(entry, "b", str, where)
        if a in ids and b in ids:
            links.append(
                Link(
                    _value(entry, "name", str, where),
                    (ids[a], _value(entry, "a_port", int, where)),
                    (ids[b], _value(entry, "b_port", int, where)),
                )
            )
    testbed, cohorts = str(inventory.get("testbed", "")), _cohorts(inventory, hosts)
    return Graph(testbed, switches, tuple(links), tuple(hosts), tuple(cohorts), inventory)


_Neighbours = dict[int, list[tuple[int, int, str]]]


def _neighbours(graph: Graph, links: Iterable[Link]) -> _Neighbours:
    # Sorted by neighbour, then own port: so that of two ways of the same length the same one is always taken.
    found: _Neighbours = {datapath_id: [] for datapath_id in graph.switches}
    for link in links:
        found[link.a[0]].append((link.b[0], link.a[1], link.name))
        found[link.b[0]].append((link.a[0], link.b[1], link.name))
    for entries in found.values():
        entries.sort()
    return found


def _distances(start: int, neighbours: _Neighbours) -> dict[int, int]:
    distance, todo = {start: 0}, deque([start])
    while todo:
        at = todo.popleft()
        for neighbour, _, _ in neighbours[at]:
            if neighbour not in distance:
                distance[neighbour] = distance[at] + 1
                todo.append(neighbour)
    return distance


def _breadth_first(neighbours: _Neighbours) -> list[str]:
    # Links of the flattest forest, from the lowest datapath id of each part.
    seen: set[int] = set()
    links: list[str] = []
    for root in sorted(neighbours):
        todo = deque([] if root in seen else [root])
        seen.add(root)
        while todo:
            for neighbour, _, name in neighbours[todo.popleft()]:
                if neighbour not in seen:
                    seen.add(neighbour)
                    links.append(name)
                    todo.append(neighbour)
    return links


def spanning_tree(
    graph: Graph, links: Iterable[Link], previous: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Names of links that join every switch that can be joined, without a loop.

    Links of `previous` that are still there stay. So one link that fails or returns changes at most one
    other, and while switches learn of the change one after the other, no mixture of the old and the new tree
    has a loop.
    """
    up = {link.name: link for link in links}
    part = {datapath_id: datapath_id for datapath_id in graph.switches}

    def root(at: int) -> int:
        while part[at] != at:
            part[at] = part[part[at]]
            at = part[at]
        return at

    tree: set[str] = set()
    for name in [*sorted(previous & up.keys()), *_breadth_first(_neighbours(graph, up.values()))]:
        a, b = root(up[name].a[0]), root(up[name].b[0])
        if a != b:
            part[a] = b
            tree.add(name)
    # The flattest forest may close loops with links that stayed; what is still apart is joined by any link.
    for name in sorted(up):
        a, b = root(up[name].a[0]), root(up[name].b[0])
        if a != b:
            part[a] = b
            tree.add(name)
    return frozenset(tree)


def find_paths(graph: Graph, down: frozenset[str], previous: frozenset[str] = frozenset()) -> Paths:
    """Shortest ways (fewest links; ties go to the lowest datapath id, then port) and the tree, without the
    links `down`."""
    links = [link for link in graph.links if link.name not in down]
    neighbours = _neighbours(graph, links)
    hops: dict[int, dict[int, int]] = {datapath_id: {} for datapath_id in graph.switches}
    for towards in graph.switches:
        distance = _distances(towards, neighbours)
        for at, length in distance.items():
            if length:
                hops[at][towards] = next(
                    port for neighbour, port, _ in neighbours[at] if distance.get(neighbour) == length - 1
                )
    tree = spanning_tree(graph, links, previous)
    ports: dict[int, set[int]] = {datapath_id: set() for datapath_id in graph.switches}
    for link in links:
        if link.name in tree:
            ports[link.a[0]].add(link.a[1])
            ports[link.b[0]].add(link.b[1])
    return Paths(hops, tree, {datapath_id: frozenset(numbers) for datapath_id, numbers in ports.items()})
