"""The flows that one switch should have. Pure: graph, paths and boards go in, flows come out.

Table 0 only goes on to table 1 (meters come above that). Table 1 forwards: known destinations along shortest
paths, broadcast and multicast on the tree; all else is dropped. OpenFlow never sends a packet back to the
port it came from unless IN_PORT is named, so one broadcast flow a switch is enough. On a switch with ports
that the inventory does not list, packets then pass table 2, which copies those from new sources to the
controller; nothing waits for its answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from topology.controller.flows import (
    TABLE_BOARDS,
    TABLE_FORWARDING,
    TABLE_METERS,
    TO_CONTROLLER,
    Flow,
    match,
)
from topology.controller.graph import Graph, Paths

MULTICAST = ("01:00:00:00:00:00", "01:00:00:00:00:00")
LINK_LOCAL = ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0")
"""IEEE 802.1D reserved group addresses: STP, LLDP, pause. A bridge never forwards them."""

_NOISE, _BLOCKED, _BROADCAST, _KNOWN, _MISS = 400, 300, 200, 100, 0
_QUIET, _NO_SOURCE, _NEW = 200, 150, 100


@dataclass(frozen=True)
class Board:
    """A device that the inventory does not know, seen behind `port` of `switch` (a datapath id)."""

    mac: str
    switch: int
    port: int


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
        Flow(TABLE_METERS, 0, match(), goto=TABLE_FORWARDING),
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
    return flows


def boards_in(switch: int, flows: Iterable[Flow]) -> list[Board]:
    """The boards that flows of this switch tell of: what a controller that restarts takes over instead of
    forgetting."""
    found = []
    for flow in flows:
        fields = dict(flow.match.fields)
        if flow.table != TABLE_BOARDS or flow.priority != _QUIET or set(fields) != {"in_port", "eth_src"}:
            continue
        port, mac = fields["in_port"], fields["eth_src"]
        if isinstance(port, int) and isinstance(mac, str):
            found.append(Board(mac, switch, port))
    return found


def flooded_in(flows: Iterable[Flow]) -> frozenset[int] | None:
    """The ports on which these flows of one switch broadcast; None where they do not say."""
    for flow in flows:
        if (flow.table, flow.priority) == (TABLE_FORWARDING, _BROADCAST):
            return frozenset(flow.outputs)
    return None
