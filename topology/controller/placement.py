"""Where meters hold: for each meter and direction the switch, the table and the flows, or the interface with its
queue. Pure: meters, graph, paths and boards go in.

Each kind of target and direction has its own table, and each table goes on to the next, so that a packet passes
every meter that concerns it and nested limits hold together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from topology.controller import flows as tables
from topology.controller.flows import Contents, Flow, Match, Meter, match, meter_cookie
from topology.controller.graph import Host
from topology.controller.meters import Direction, Force, MeterSpec, Target
from topology.controller.scene import NotPlaced, Scene

if TYPE_CHECKING:
    from topology.controller.queues import QueueLimit

PRIORITY = 100
_IPV4 = 0x0800
_TABLES = {
    ("client", "up"): tables.TABLE_CLIENT_UP,
    ("client", "down"): tables.TABLE_CLIENT_DOWN,
    ("address", "up"): tables.TABLE_ADDRESS_UP,
    ("address", "down"): tables.TABLE_ADDRESS_DOWN,
    ("cohort", "up"): tables.TABLE_COHORT_UP,
    ("cohort", "down"): tables.TABLE_COHORT_DOWN,
    ("server", "up"): tables.TABLE_SERVER_UP,
    ("server", "down"): tables.TABLE_SERVER_DOWN,
}

@dataclass(frozen=True)
class Numbered:
    """A meter and the ids that it has in switches, by direction; and when it was last set or changed (wall time, 0
    where nobody knows), which is no part of what it is."""

    spec: MeterSpec
    ids: Mapping[str, int]
    changed: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Place:
    """Where one direction of a meter holds: flows of a switch that use the meter, or a queue.

    `switch` is None and `problem` says why where it holds nowhere. `forever`: it never will.
    """

    name: str
    direction: Direction
    force: Force
    switch: int | None = None
    meter: Meter | None = None
    flows: tuple[Flow, ...] = ()
    limit: QueueLimit | None = None
    problem: str | None = None
    hint: str = ""
    forever: bool = False


@dataclass(frozen=True)
class Layout:
    """All places, and what follows from them for each switch and for the queues."""

    places: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    contents: Mapping[int, Contents] = field(default_factory=dict)
    limits: tuple[QueueLimit, ...] = ()


def switch_of(target: Target, scene: Scene) -> int:
    """The datapath id of the switch where meters on that target hold. Raises NotPlaced."""
    if target.kind == "cohort":
        return scene.members(target.name)[0].switch
    if target.kind == "port":
        return scene.switch_named(target.switch)
    if target.kind == "address":
        return scene.standing(target.address or "").switch
    return scene.host(target.name).switch


def matches(target: Target, direction: Direction, scene: Scene) -> tuple[int, list[Match]]:
    """The table, and what the packets that count match there. Raises NotPlaced."""
    up = direction == "up"
    if target.kind == "port":
        switch, port = scene.switch_named(target.switch), target.port or 0
        if scene.port_way(switch, port, direction) == "in":
            return tables.TABLE_PORT_IN, [match(in_port=port)]
        return tables.TABLE_PORT_OUT, [match(eth_dst=one.mac) for one in scene.behind(switch, port)]
    table = _TABLES[target.kind, direction]
    if target.kind == "cohort":
        server, clients = scene.members(target.name)
        pairs = [(client.mac, server.mac) if up else (server.mac, client.mac) for client in clients]
        return table, [match(eth_src=source, eth_dst=destination) for source, destination in pairs]
    if target.kind == "address":
        scene.standing(target.address or "")
        field_name = "ipv4_src" if up else "ipv4_dst"
        return table, [match(eth_type=_IPV4, **{field_name: target.address or ""})]
    mac = scene.host(target.name).mac
    # Up is away from a client and to a server.
    source = up == (target.kind == "client")
    return table, [match(eth_src=mac) if source else match(eth_dst=mac)]


def _openflow_meter(spec: MeterSpec, number: int) -> Meter:
    # OpenFlow counts kbit; what is less than one is left to nobody: the meter never lets more through than asked.
    divisor = 1000 if spec.unit == "bit/s" else 1
    return Meter(number, spec.unit, spec.rate // divisor, spec.burst_for("drop") // divisor)


def _drop(entry: Numbered, direction: Direction, switch: int, scene: Scene) -> Place:
    number = entry.ids[direction]
    table, found = matches(entry.spec.target, direction, scene)
    flows = tuple(
        Flow(table, PRIORITY, fields, goto=table + 1, cookie=meter_cookie(number), meter=number)
        for fields in found
    )
    meter = _openflow_meter(entry.spec, number)
    return Place(entry.spec.name, direction, "drop", switch, meter, flows)


def _address(host: Host) -> str:
    if host.address is None:
        raise NotPlaced(f"{host.name} has no IPv4 address to tell its packets by", "use enforce: drop", forever=True)
    return host.address


def _sender(stands: Host) -> tuple[str, str]:
    """Namespace and interface of a node that sends. Raises NotPlaced while it does not run."""
    if stands.pid is None:
        raise NotPlaced(f"{stands.name} does not run yet", "it counts once the testbed is up")
    return stands.name, stands.interface


def _port_exit(target: Target, direction: Direction, switch: int, scene: Scene) -> tuple[str | None, str]:
    """The interface that all packets leave by that pass the port in that direction."""
    port = target.port or 0
    if scene.port_way(switch, port, direction) == "out":
        return None, scene.port_interface(switch, port)
    far = scene.graph.far_end(switch, port)
    if far is not None:
        return None, scene.port_interface(*far)
    known = scene.graph.switches[switch].ports.get(port)
    if known is None:
        raise NotPlaced(
            f"what enters by port {port} of {target.switch} is sent by a board, whose queue is its own",
            "use enforce: drop",
            forever=True,
        )
    return _sender(scene.host(known.peer))


def queue_limit(spec: MeterSpec, direction: Direction, scene: Scene) -> QueueLimit:
    """The queue that holds the meter in that direction: at the one interface that all its packets leave by.

    Raises:
        NotPlaced: where there is none.
    """
    from topology.controller.queues import QueueLimit, QueueMember

    target, up = spec.target, direction == "up"
    if spec.unit != "bit/s":
        raise NotPlaced("a queue counts bits, not packets", "write `rate` in bit/s", forever=True)
    node: str | None = None
    members = [QueueMember(spec.name, None, None)]
    if target.kind == "cohort":
        server, clients = scene.members(target.name)
        here = _address(server)
        if up:
            interface = scene.port_interface(server.switch, server.port)
            members = [QueueMember(client.name, _address(client), here) for client in clients]
        else:
            node, interface = _sender(server)
            members = [QueueMember(client.name, here, _address(client)) for client in clients]
    elif target.kind == "port":
        node, interface = _port_exit(target, direction, scene.switch_named(target.switch), scene)
    elif target.kind == "address":
        address = target.address or ""
        stands = scene.standing(address)
        if not up:
            interface = scene.port_interface(stands.switch, stands.port)
            members = [QueueMember(address, None, address)]
        elif isinstance(stands, Host):
            node, interface = _sender(stands)
            members = [QueueMember(address, address, None)]
        else:
            reason = f"{address} is a board, whose queue is its own"
            raise NotPlaced(reason, "use enforce: drop", forever=True)
    else:
        host = scene.host(target.name)
        if up == (target.kind == "client"):
            node, interface = _sender(host)
        else:
            interface = scene.port_interface(host.switch, host.port)
        members = [QueueMember(host.name, None, None)]
    return QueueLimit(spec.name, direction, node, interface, spec.rate, spec.burst_for("queue"), tuple(members))


def place(
    entry: Numbered, direction: Direction, scene: Scene, maximum_meters: Mapping[int, int]
) -> Place:
    """Where one direction of a meter holds. `maximum_meters` says by datapath id how many meters a switch can
    have; one that never said is believed to have some."""
    spec = entry.spec
    force: Force = "queue" if spec.enforce == "queue" else "drop"
    try:
        switch = switch_of(spec.target, scene)
        if maximum_meters.get(switch, 1) == 0:
            if spec.enforce == "drop":
                name = scene.graph.switches[switch].name
                raise NotPlaced(f"{name} has no meters", "use enforce: queue, or auto", forever=True)
            force = "queue"
        if force == "drop":
            return _drop(entry, direction, switch, scene)
        limit = queue_limit(spec, direction, scene)
        return Place(spec.name, direction, "queue", switch, limit=limit)
    except NotPlaced as reason:
        text, hint = reason.reason, reason.hint
        return Place(spec.name, direction, force, problem=text, hint=hint, forever=reason.forever)


def lay_out(entries: Iterable[Numbered], scene: Scene, maximum_meters: Mapping[int, int]) -> Layout:
    """Places of all meters, and what each switch and the queues should have for them."""
    places: dict[str, tuple[Place, ...]] = {}
    flows: defaultdict[int, list[Flow]] = defaultdict(list)
    meters: defaultdict[int, list[Meter]] = defaultdict(list)
    limits: list[QueueLimit] = []
    for entry in entries:
        places[entry.spec.name] = tuple(
            place(entry, direction, scene, maximum_meters) for direction in entry.spec.directions
        )
        for found in places[entry.spec.name]:
            if found.limit is not None:
                limits.append(found.limit)
            elif found.switch is not None and found.meter is not None:
                flows[found.switch] += found.flows
                meters[found.switch].append(found.meter)
    contents = {at: Contents(tuple(flows[at]), tuple(meters[at])) for at in meters}
    return Layout(places, contents, tuple(limits))
