"""Links that come, go, or are taken down while the testbed is up.

Takes a testbed's name and planned links; makes the pair, its addresses, its shape, its ports in Open vSwitch, and
writes all of it down. Ends may be a node and a switch, two switches, or two nodes. A link that fails half-way is taken
away again.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from topology.capabilities import capabilities
from topology.engine import links, namespaces, netlink, openvswitch, ovsdb, send_buffer, shaping
from topology.engine.change import Change, changing
from topology.errors import TopologyError
from topology.plan import PlannedLink, PlannedPort
from topology.planning import short_interface

_CARRIER_S = 3.0


@dataclass(frozen=True)
class NodeEnd:
    """A node's end of a link that is added. An `address` of None leaves the interface without one."""

    mac: str
    address: str | None
    prefix_length: int


def add_link(testbed: str, link: PlannedLink, ends: Mapping[str, NodeEnd]) -> dict[str, Any]:
    """Add a link to a testbed that is up; `ends` has an entry for each end that is a node. Gives the new inventory.

    The first link of a node to a switch becomes the node's own (its address in the inventory, its place for the
    controller); further ones stand in its inventory entry as `further`.

    Raises:
        TopologyError: naming the link; nothing of it is left then.
    """
    with changing(testbed) as change:
        _check_new(change, link, ends)
        _build(change, link, ends)
        _note(change, link, ends)
        change.save()
        after_new_ports(change)
        change.wait_for_flows()
        return change.inventory


def _build(change: Change, link: PlannedLink, ends: Mapping[str, NodeEnd]) -> None:
    lines = _shapes(change, link)
    _make_pair(change, link, ends)
    try:
        for place, interface_lines in lines.items():
            shaping.apply(_place(change, place), interface_lines, f"link {link.name}")
        for node, end in ends.items():
            _configure(change, node, _interface(link, node), end)
        _add_ports(change, link)
        _wait_running([(_end_place(change, link, end), _interface(link, end)) for end in (link.a, link.b)])
    except BaseException:
        _delete(change, link)
        raise


def after_new_ports(change: Change) -> None:
    """What sockets of new ports need for high rates."""
    if change.inventory["core"]["datapath"] == "netdev":
        openvswitch.enlarge_buffers(change.plan)
        send_buffer.enlarge(change.inventory)


def check_remade(change: Change, link: PlannedLink) -> None:
    """Raise TopologyError where the link could not be made anew: it leads from node to node."""
    if link.a_port is None and link.b_port is None:
        raise TopologyError(f"link {link.name} leads from node to node and cannot be made anew; remove it first")


def remake(change: Change, link: PlannedLink) -> None:
    """Make a link between node and switch again whose node has a new network namespace. Raises TopologyError."""
    name, switch = (link.a, link.b) if link.a_port is None else (link.b, link.a)
    entry = change.entry(name)
    port = link.b_port if link.a_port is None else link.a_port
    place = next(item for item in (entry, *entry.get("further", ()))
                 if (item["switch"], item["switch_port"]) == (switch, port))  # fmt: skip
    _delete(change, link)
    _build(change, link, {name: NodeEnd(place["mac"], place["address"] or None, place["prefix_length"])})


def remove_link(testbed: str, name: str) -> dict[str, Any]:
    """Take a link away, and its ports; gives the new inventory. Raises TopologyError where there is none of that name.
    """
    with changing(testbed) as change:
        drop(change, [planned(change, name)])
        change.save()
        change.wait_for_flows()
        return change.inventory


def planned(change: Change, name: str) -> PlannedLink:
    """The link of that name. Raises TopologyError."""
    for link in change.plan.links:
        if link.name == name:
            return link
    raise TopologyError(f"{change.plan.testbed!r} has no link {name!r}")


def drop(change: Change, gone: Sequence[PlannedLink]) -> None:
    """Take links away and out of plan and inventory; the caller saves."""
    for link in gone:
        _delete(change, link)
    names = {link.name for link in gone}
    ends = {(end, port) for link in gone for end, port in ((link.a, link.a_port), (link.b, link.b_port))}
    change.plan = replace(
        change.plan,
        links=tuple(link for link in change.plan.links if link.name not in names),
        switches=tuple(
            replace(switch, ports=tuple(p for p in switch.ports if (switch.name, p.number) not in ends))
            for switch in change.plan.switches
        ),
    )
    change.inventory["links"] = [entry for entry in change.inventory["links"] if entry["name"] not in names]
    change.inventory["switches"] = [asdict(switch) for switch in change.plan.switches]
    for node in change.plan.nodes:
        entry = change.entry(node.name)
        if "further" in entry:
            entry["further"] = [item for item in entry["further"] if (item["switch"], item["switch_port"]) not in ends]
        if (node.switch, node.switch_port) in ends:
            change.replace_node(replace(node, switch="", switch_port=0))


def set_state(inventory: Mapping[str, Any], name: str, up: bool) -> None:
    """Take one link down, or up again: at its switch ends (nodes keep addresses and routes), or at both where it has
    none. Raises TopologyError where there is no such link.
    """
    link = next((entry for entry in inventory["links"] if entry["name"] == name), None)
    if link is None:
        raise TopologyError(f"{inventory['testbed']!r} has no link {name!r}")
    pids = {node["name"]: node["pid"] for node in inventory["nodes"]}
    at_switches = [link[f"{end}_interface"] for end in "ab" if link[f"{end}_port"] is not None]
    core = namespaces.named(inventory["core"]["namespace"])
    places = [(core, at_switches)] if at_switches else [
        (namespaces.of_process(pids[link[end]]), [link[f"{end}_interface"]]) for end in "ab"
    ]  # fmt: skip
    for place, interfaces in places:
        batch = netlink.Batch()
        for interface in interfaces:
            batch.change(f"link {name}", name=interface, up=up)
        try:
            with netlink.socket_in(place) as connection:
                netlink.send(connection, batch)
        except FileNotFoundError:
            raise TopologyError(f"testbed {inventory['testbed']!r} is not up") from None
    if up:
        ends = [
            (namespaces.of_process(pids[link[end]]) if link[f"{end}_port"] is None else core, link[f"{end}_interface"])
            for end in "ab"
        ]
        _wait_running(ends)


def _wait_running(ends: Sequence[tuple[Path, str]]) -> None:
    # The kernel passes a carrier on at most once a second, and until then an end drops what it is given. An end that
    # somebody has set down in its node does not come up: that is waited for no longer than so.
    deadline = time.monotonic() + _CARRIER_S
    while time.monotonic() < deadline:
        if all(namespaces.inside(place, partial(_is_running, interface)) for place, interface in ends):
            return
        time.sleep(0.01)


def _is_running(interface: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, 0x8913, struct.pack("16sH14x", interface.encode(), 0))  # SIOCGIFFLAGS
    return bool(struct.unpack_from("=H", answer, 16)[0] & 0x40)  # IFF_RUNNING


def free_port(present: Sequence[PlannedLink], switch: str) -> int:
    """The lowest number above all that a switch's links have. Pure."""
    taken = [
        port
        for link in present
        for end, port in ((link.a, link.a_port), (link.b, link.b_port))
        if end == switch and port is not None
    ]
    return max(taken, default=0) + 1


def _interface(link: PlannedLink, end: str) -> str:
    return link.a_interface if link.a == end else link.b_interface


def _check_new(change: Change, link: PlannedLink, ends: Mapping[str, NodeEnd]) -> None:
    switches = {switch.name for switch in change.plan.switches}
    nodes = {node.name for node in change.plan.nodes}
    for end, port in ((link.a, link.a_port), (link.b, link.b_port)):
        if end not in switches | nodes:
            raise TopologyError(f"link {link.name}: {change.plan.testbed!r} has no node or switch {end!r}")
        if (end in switches) != (port is not None) or (end in nodes) != (end in ends):
            raise TopologyError(f"link {link.name}: {end!r} needs {'a port' if end in switches else 'its node end'}")
        for other in change.plan.links:
            if end in switches and (end, port) in ((other.a, other.a_port), (other.b, other.b_port)):
                raise TopologyError(f"link {link.name}: port {port} of {end!r} belongs to link {other.name}")
    if any(other.name == link.name for other in change.plan.links):
        raise TopologyError(f"link {link.name}: there is one of that name already")
    macs = change.macs()
    for end_facts in ends.values():
        owner = macs.get(end_facts.mac)
        if owner is not None:
            raise TopologyError(f"link {link.name}: the hardware address {end_facts.mac} belongs to {owner!r}")


def _shapes(change: Change, link: PlannedLink) -> dict[str | None, list[list[str]]]:
    """Lines of `tc` by place. Raises TopologyError where this kernel cannot do what they need."""
    allowed = () if _has_netem() else change.plan.allow_unsupported
    switches = {switch.name for switch in change.plan.switches}
    places: dict[str | None, list[list[str]]] = {}
    for end, interface, shape in ((link.a, link.a_interface, link.a_to_b), (link.b, link.b_interface, link.b_to_a)):
        left = shaping.without(shape, allowed)
        if left.needs_netem() and not _has_netem():
            raise TopologyError(
                f"link {link.name}: this kernel has no netem, and `{left.needs_netem()[0]}` needs it; "
                "`cohortnet doctor` says how to get it"
            )
        lines = shaping.commands(interface, left)
        if lines:
            places.setdefault(None if end in switches else end, []).extend(lines)
    return places


def _has_netem() -> bool:
    return capabilities().netem is not False


def _end_place(change: Change, link: PlannedLink, end: str) -> Path:
    port = link.a_port if link.a == end else link.b_port
    return change.namespace_of(end) if port is None else change.core


def _place(change: Change, place: str | None) -> Path:
    return change.core if place is None else change.namespace_of(place)


def _make_pair(change: Change, link: PlannedLink, ends: Mapping[str, NodeEnd]) -> None:
    a_node, b_node = ends.get(link.a), ends.get(link.b)
    batch = netlink.Batch()
    if a_node is not None and b_node is not None:
        peer = netlink.Peer(link.b_interface, b_node.mac, pid=change.entry(link.b)["pid"])
        batch.veth(link.a_interface, peer, mac=a_node.mac)
        with netlink.socket_in(change.namespace_of(link.a)) as connection:
            netlink.send(connection, batch)
        return
    if a_node is None and b_node is None:
        batch.veth(link.a_interface, netlink.Peer(link.b_interface))
    else:
        own, node, end = (link.b_interface, link.a, a_node) if a_node else (link.a_interface, link.b, b_node)
        change.namespace_of(node)  # refuses a node that has ended, with its name
        assert end is not None
        batch.veth(own, netlink.Peer(_interface(link, node), end.mac, pid=change.entry(node)["pid"]))
    for name, port in ((link.a, link.a_port), (link.b, link.b_port)):
        if port is not None:
            batch.change(f"link {link.name}", name=_interface(link, name), alias=f"{name}-eth{port}", up=True)
    with netlink.socket_in(change.core) as connection:
        netlink.send(connection, batch)


def _configure(change: Change, node: str, interface: str, end: NodeEnd) -> None:
    def configure() -> None:
        links.write_sysctls({f"ipv6/conf/{interface}/disable_ipv6": "1"})
        index = socket.if_nametoindex(interface)
        batch = netlink.Batch()
        if end.address:
            batch.address(index, end.address, end.prefix_length, f"address of {node}")
        batch.change(f"interface {interface} of {node}", index=index, up=True)
        with netlink.socket_here() as connection:
            netlink.send(connection, batch)
        if not change.offloads:
            links.checksum_off(interface)

    namespaces.inside(change.namespace_of(node), configure)


def _add_ports(change: Change, link: PlannedLink) -> None:
    bridges = {switch.name: switch.bridge for switch in change.plan.switches}
    wanted = [
        (bridges[end], interface, port, f"{end}-eth{port}")
        for end, interface, port in ((link.a, link.a_interface, link.a_port), (link.b, link.b_interface, link.b_port))
        if port is not None
    ]
    if not wanted:
        return
    with ovsdb.Database(openvswitch.folder(change.plan) / "db.sock") as database:
        noop = database.transact([{"op": "select", "table": "QoS", "where": [["type", "==", "linux-noop"]],
                                   "columns": ["_uuid"]}])[0]["rows"]  # fmt: skip
        database.carry_out(port_operations(wanted, noop[0]["_uuid"] if noop else None))
        names = [["name", "==", interface] for _, interface, _, _ in wanted]
        rows = [
            database.transact([{"op": "select", "table": "Interface", "where": [name], "columns": ["ofport", "error"]}])
            for name in names
        ]
    for (_, interface, number, _), found in zip(wanted, rows, strict=True):
        row = found[0]["rows"][0]
        if row["ofport"] != number:
            said = row["error"] if isinstance(row["error"], str) else ""
            raise TopologyError(f"link {link.name}: Open vSwitch refused port {interface!r}: "
                                f"{said or 'its number is ' + str(row['ofport'])} (wanted {number})")  # fmt: skip


def port_operations(wanted: Sequence[tuple[str, str, int, str]], noop: list[str] | None) -> list[dict[str, Any]]:
    """One transaction that adds ports (bridge, interface, number, real name) to bridges. Pure."""
    operations: list[dict[str, Any]] = []
    for position, (bridge, interface, number, real) in enumerate(wanted):
        row = {"name": interface, "ofport_request": number, "external_ids": ["map", [["name", real]]]}
        operations.append({"op": "insert", "table": "Interface", "uuid-name": f"i{position}", "row": row})
        port: dict[str, Any] = {"name": interface, "interfaces": ["named-uuid", f"i{position}"]}
        if noop is not None:
            port["qos"] = noop
        operations.append({"op": "insert", "table": "Port", "uuid-name": f"p{position}", "row": port})
        operations.append({"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
                           "mutations": [["ports", "insert", ["named-uuid", f"p{position}"]]]})  # fmt: skip
    return operations


def _delete(change: Change, link: PlannedLink) -> None:
    """Take away whatever there is of the link. Raises TopologyError where a part does not go."""
    ends = ((link.a, link.a_interface, link.a_port), (link.b, link.b_interface, link.b_port))
    at_switches = [(end, interface) for end, interface, port in ends if port is not None]
    if at_switches:
        bridges = {switch.name: switch.bridge for switch in change.plan.switches}
        with ovsdb.Database(openvswitch.folder(change.plan) / "db.sock") as database:
            operations: list[dict[str, Any]] = []
            for end, interface in at_switches:
                found = database.transact([{"op": "select", "table": "Port", "where": [["name", "==", interface]],
                                            "columns": ["_uuid"]}])[0]["rows"]  # fmt: skip
                operations += [
                    {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridges[end]]],
                     "mutations": [["ports", "delete", row["_uuid"]]]} for row in found
                ]  # fmt: skip
            if operations:
                database.carry_out(operations)
    place = change.core if at_switches else namespaces.of_process(change.entry(link.a)["pid"] or 0)
    batch = netlink.Batch()
    batch.delete(at_switches[0][1] if at_switches else link.a_interface)
    with suppress(FileNotFoundError), netlink.socket_in(place) as connection:  # gone with its node
        netlink.send(connection, batch, ignore=(errno.ENODEV, errno.EINVAL))


def _note(change: Change, link: PlannedLink, ends: Mapping[str, NodeEnd]) -> None:
    """Write the link into plan and inventory."""
    switches = {switch.name: switch for switch in change.plan.switches}
    for name, end in ends.items():
        other, port = (link.b, link.b_port) if link.a == name else (link.a, link.a_port)
        if port is None:
            continue  # from node to node: no switch has to know
        node = change.plan.node(name)
        place: dict[str, Any] = {"interface": _interface(link, name), "mac": end.mac, "address": end.address or "",
                 "prefix_length": end.prefix_length, "switch": other, "switch_port": port}  # fmt: skip
        if node.switch:
            change.entry(name).setdefault("further", []).append(place)
        else:
            change.replace_node(replace(node, **place))
    for name, port, other, other_port in (
        (link.a, link.a_port, link.b, link.b_port), (link.b, link.b_port, link.a, link.a_port),
    ):  # fmt: skip
        if port is not None:
            kind = "switch" if other in switches else "node"
            entry = PlannedPort(port, f"{name}-eth{port}", _interface(link, name), kind, other, other_port)
            switches[name] = replace(switches[name], ports=(*switches[name].ports, entry))
    change.plan = replace(change.plan, links=(*change.plan.links, link), switches=tuple(switches.values()))
    change.inventory["links"].append(asdict(link))
    change.inventory["switches"] = [asdict(switch) for switch in change.plan.switches]
    skipped = [name for name in (*link.a_to_b.needs_netem(), *link.b_to_a.needs_netem()) if not _has_netem()]
    change.inventory["unsupported"] = list(dict.fromkeys([*change.inventory["unsupported"], *skipped]))


def switch_interface(switch: str, port: int) -> str:
    """The interface in the core that is a switch's port. Pure."""
    return short_interface(f"{switch}-eth{port}")

