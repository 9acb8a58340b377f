"""The flows that one switch should have. Pure: graph, paths and boards go in, flows come out.

Tables 0 to 9 belong to meters: each only goes on to the next (`placement` has what comes above that). Table 10
forwards: known destinations along shortest paths, broadcast and multicast on the tree; all else is dropped.
OpenFlow never sends a packet back to the port it came from unless IN_PORT is named, so one broadcast flow a
switch is enough. On a switch with ports that the inventory does not list, packets then pass table 11, which
copies those from new sources, and from new IPv4 addresses of known ones, to the controller; nothing waits for
its answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from topology.controller.flows import (
    METER_TABLES,
    TABLE_BOARDS,
    TABLE_FORWARDING,
    TO_CONTROLLER,
    Flow,
    Value,
    match,
)
from topology.controller.graph import Graph, Paths

MULTICAST = ("01:00:00:00:00:00", "01:00:00:00:00:00")
LINK_LOCAL = ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0")
"""IEEE 802.1D reserved group addresses: STP, LLDP, pause. A bridge never forwards them."""

_NOISE, _BLOCKED, _BROADCAST, _KNOWN, _MISS = 400, 300, 200, 100, 0
_OLD_ADDRESS, _NEW_ADDRESS, _QUIET, _NO_SOURCE, _NEW = 240, 220, 200, 150, 100
_IPV4, _ARP = 0x0800, 0x0806
_NO_ADDRESS = "0.0.0.0"
"""What a board without an address sends from (ARP probe, DHCP)."""
MAXIMUM_ADDRESSES = 4
"""IPv4 addresses that are learnt of one board: one that routes for others would otherwise report each of
theirs."""


@dataclass(frozen=True)
class Board:
    """A device that the inventory does not know, seen behind `port` of `switch` (a datapath id), with the IPv4
    addresses that it sent from, in the order in which they were seen."""

    mac: str
    switch: int
    port: int
    addresses: tuple[str, ...] = ()


def flows_for(
    switch: int,
    graph: Graph,
    paths: Paths,
    device_ports: Collection[int] = (),
    boards: Iterable[Board] = (),
    quiet: Iterable[tuple[int, str]] = (),
    learning: bool = True,
) -> list[Flow]:
    """All forwarding flows of the switch with that datapath id.

    Args:
        device_ports: ports that the switch has and the inventory does not list.
        boards: what was learnt on device ports, of all switches.
        quiet: (port, MAC) here whose packets are no news, although nothing was learnt from them.
        learning: false where no more boards can be learnt: then none is reported.
    """
    known = graph.switches[switch]
    after = TABLE_BOARDS if device_ports else None
    flows = [
        *(Flow(table, _MISS, match(), goto=table + 1) for table in METER_TABLES),
        Flow(TABLE_FORWARDING, _NOISE, match(eth_dst=LINK_LOCAL)),
        Flow(TABLE_FORWARDING, _MISS, match(), goto=after),
    ]
    between = {port for link in graph.links for end, port in (link.a, link.b) if end == switch}
    between |= {port.number for port in known.ports.values() if port.peer_kind == "switch"}
    tree = paths.tree_ports.get(switch, frozenset())
    flooded = sorted(({*known.ports} - between) | tree | set(device_ports))
    flows.append(Flow(TABLE_FORWARDING, _BROADCAST, match(eth_dst=MULTICAST), tuple(flooded), after))
    flows += [
        Flow(TABLE_FORWARDING, _BLOCKED, match(in_port=port, eth_dst=MULTICAST))
        for port in sorted(between - tree)
    ]
    boards = list(boards)
    for mac, place, port in [
        *((h.mac, h.switch, h.port) for h in graph.hosts),
        *((b.mac, b.switch, b.port) for b in boards),
    ]:
        output = port if place == switch else paths.hops[switch].get(place)
        if output is not None:
            flows.append(Flow(TABLE_FORWARDING, _KNOWN, match(eth_dst=mac), (output,), after))
    if device_ports:
        here = {(board.port, board.mac) for board in boards if board.switch == switch} | set(quiet)
        flows.append(Flow(TABLE_BOARDS, _MISS, match()))
        for port in sorted(device_ports):
            flows.append(Flow(TABLE_BOARDS, _NO_SOURCE, match(in_port=port, eth_src=MULTICAST)))
            if learning:
                flows.append(Flow(TABLE_BOARDS, _NEW, match(in_port=port), (TO_CONTROLLER,)))
        flows += [Flow(TABLE_BOARDS, _QUIET, match(in_port=port, eth_src=mac)) for port, mac in sorted(here)]
        for board in boards:
            if board.switch == switch:
                flows += _address_flows(board)
    return flows


def _address_flows(board: Board) -> list[Flow]:
    """What reports further addresses of a board, as long as there is room for them."""
    flows = []
    here: dict[str, Value] = {"in_port": board.port, "eth_src": board.mac}
    for address in (_NO_ADDRESS, *board.addresses):
        flows.append(Flow(TABLE_BOARDS, _OLD_ADDRESS, match(**here, eth_type=_IPV4, ipv4_src=address)))
        flows.append(Flow(TABLE_BOARDS, _OLD_ADDRESS, match(**here, eth_type=_ARP, arp_spa=address)))
    if len(board.addresses) < MAXIMUM_ADDRESSES:
        for kind in (_IPV4, _ARP):
            flows.append(Flow(TABLE_BOARDS, _NEW_ADDRESS, match(**here, eth_type=kind), (TO_CONTROLLER,)))
    return flows


def boards_in(switch: int, flows: Iterable[Flow]) -> list[Board]:
    """The boards that flows of this switch tell of: what a controller that restarts takes over instead of
    forgetting. Their addresses come sorted: in which order they were seen is not in the flows."""
    found: dict[tuple[str, int], list[str]] = {}
    addresses: dict[tuple[str, int], list[str]] = {}
    for flow in flows:
        fields = dict(flow.match.fields)
        port, mac, address = fields.get("in_port"), fields.get("eth_src"), fields.get("ipv4_src")
        if flow.table != TABLE_BOARDS or not isinstance(port, int) or not isinstance(mac, str):
            continue
        if flow.priority == _QUIET and len(fields) == 2:
            found[mac, port] = addresses.setdefault((mac, port), [])
        elif flow.priority == _OLD_ADDRESS and isinstance(address, str) and address != _NO_ADDRESS:
            addresses.setdefault((mac, port), []).append(address)
    return [Board(mac, switch, port, tuple(sorted(known))) for (mac, port), known in found.items()]


def flooded_in(flows: Iterable[Flow]) -> frozenset[int] | None:
    """The ports on which these flows of one switch broadcast; None where they do not say."""
    for flow in flows:
        if (flow.table, flow.priority) == (TABLE_FORWARDING, _BROADCAST):
            return frozenset(flow.outputs)
    return None
