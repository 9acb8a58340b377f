"""All interfaces of a testbed: veth pairs born in place, node ends in the nodes, switch ends in the core; addresses;
link up and down.

Takes a plan and the nodes' pids. Core interfaces get their index from here, so that one batch can make and change them
without asking for indexes in between. Switches themselves are `openvswitch`'s, the management bridge's rules
`management`'s.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from topology.engine import namespaces, netlink
from topology.errors import TopologyError
from topology.plan import Plan, PlannedNode

NODE_INDEX, NODE_MANAGEMENT_INDEX = 10, 11
"""Interface indexes in a node; 2 and up may be taken by the kernel's own tunnel devices."""
_SWITCH_BASE, _MANAGEMENT_BASE, _BRIDGE_INDEX, _UPLINK_INDEX = 100_000, 200_000, 99_000, 99_001
# No switch is called with a dot, so these never meet a bridge or a port of the emulated network.
MANAGEMENT_BRIDGE, UPLINK = "mgmt.br", "mgmt.up"


def core_batch(plan: Plan, pids: Mapping[str, int], host_namespace_fd: int, *, isolate: bool = True) -> netlink.Batch:
    """Everything that is made from within the core, in one batch. Pure."""
    batch = netlink.Batch()
    batch.bridge(MANAGEMENT_BRIDGE, _BRIDGE_INDEX)
    batch.veth(UPLINK, netlink.Peer(plan.host_interface, namespace_fd=host_namespace_fd), index=_UPLINK_INDEX,
               master=_BRIDGE_INDEX)  # fmt: skip
    nodes = {node.name: node for node in plan.nodes}
    real = {port.interface: port.name for switch in plan.switches for port in switch.ports}
    index = _SWITCH_BASE
    for link in plan.links:
        if link.a in nodes or link.b in nodes:
            node, interface = (
                (nodes[link.a], link.b_interface) if link.a in nodes else (nodes[link.b], link.a_interface)
            )
            peer = netlink.Peer(node.interface, node.mac, NODE_INDEX, pids[node.name])
            batch.veth(interface, peer, index=index)
            batch.change(f"link {link.name}", index=index, alias=real[interface])
            index += 1
            continue
        batch.veth(link.a_interface, netlink.Peer(link.b_interface, index=index + 1), index=index)
        for number, interface in ((index, link.a_interface), (index + 1, link.b_interface)):
            batch.change(f"link {link.name}", index=number, alias=real[interface], up=True)
        index += 2
    for number, node in enumerate(plan.nodes):
        peer = netlink.Peer(node.management_interface, management_mac(node), NODE_MANAGEMENT_INDEX, pids[node.name])
        index = _MANAGEMENT_BASE + number
        batch.veth(f"mgmt.{number}", peer, index=index, master=_BRIDGE_INDEX)
        if isolate:
            batch.isolate(index, f"management port of {node.name}")
        batch.change(f"management port of {node.name}", index=index, alias=f"{node.name}-{node.management_interface}")
    return batch


def management_mac(node: PlannedNode) -> str:
    """The hardware address of a node's management interface, from its address there. Pure."""
    return "02:01:" + ":".join(f"{int(octet):02x}" for octet in node.management_address.split("."))


def node_batch(node: PlannedNode, management_prefix_length: int) -> netlink.Batch:
    """What is done within a node: addresses, interfaces up. Pure."""
    batch = netlink.Batch()
    if node.switch and node.address:
        batch.address(NODE_INDEX, node.address, node.prefix_length, f"address of {node.name}")
    batch.address(NODE_MANAGEMENT_INDEX, node.management_address, management_prefix_length,
                  f"management address of {node.name}")  # fmt: skip
    for index in (NODE_INDEX, NODE_MANAGEMENT_INDEX) if node.switch else (NODE_MANAGEMENT_INDEX,):
        batch.change(f"interface of {node.name}", index=index, up=True)
    return batch


def write_sysctls(values: Mapping[str, str]) -> None:
    """Write settings below `/proc/sys/net` of the calling thread's network namespace; those that a kernel lacks are
    left out.
    """
    for key, value in values.items():
        path = Path("/proc/sys/net", key)
        if path.exists():
            path.write_text(value, encoding="ascii")


_QUIET = {"ipv6/conf/default/disable_ipv6": "1"}
"""IPv6 speaks by itself (neighbour and router discovery) on every interface that comes up; the emulated network shall
be silent.
"""


def prepare_core(namespace: Path) -> None:
    """Settings of the core's network namespace, before any interface is in it."""
    namespaces.inside(namespace, lambda: write_sysctls(_QUIET))


def make_all(plan: Plan, pids: Mapping[str, int], *, isolate: bool = True) -> None:
    """Make and configure all interfaces of the nodes and switches. Raises TopologyError naming the link or node."""
    host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netlink.socket_in(namespaces.named(plan.core_namespace)) as core:
            netlink.send(core, core_batch(plan, pids, host, isolate=isolate))
    finally:
        os.close(host)
    prefix_length = int(plan.management.partition("/")[2])
    for node in plan.nodes:
        try:
            configure = partial(_configure, node, prefix_length, node_settings(node))
            namespaces.inside(namespaces.of_process(pids[node.name]), configure)
        except OSError as error:
            raise TopologyError(f"node {node.name!r} ended while it was being wired: {error}") from error


def node_settings(node: PlannedNode) -> dict[str, str]:
    """Settings of a node's network namespace, for `write_sysctls`. Pure."""
    return {
        **_QUIET,
        f"ipv6/conf/{node.interface}/disable_ipv6": "1",
        f"ipv6/conf/{node.management_interface}/disable_ipv6": "1",
        # The management interface answers for its own address only: no address of the emulated network is heard there.
        f"ipv4/conf/{node.management_interface}/arp_ignore": "1",
        f"ipv4/conf/{node.management_interface}/rp_filter": "1",
    }


def _configure(node: PlannedNode, prefix_length: int, settings: Mapping[str, str]) -> None:
    write_sysctls(settings)
    with netlink.socket_here() as link:
        netlink.send(link, node_batch(node, prefix_length))


def find_link(inventory: Mapping[str, Any], a: str, b: str) -> dict[str, Any]:
    """The link between two ends, in either order. Raises TopologyError naming the neighbours that there are."""
    for link in inventory["links"]:
        if {link["a"], link["b"]} == {a, b}:
            return dict(link)
    ends = sorted(
        {link["b"] if link["a"] == a else link["a"] for link in inventory["links"] if a in (link["a"], link["b"])}
    )
    known = f"{a!r} has links to {', '.join(ends)}" if ends else f"{a!r} is no end of any link"
    raise TopologyError(f"there is no link between {a!r} and {b!r}; {known}")


def set_link(inventory: Mapping[str, Any], a: str, b: str, up: bool) -> None:
    """Take a link down, or up again, at its switch ends: the node sees its carrier go, and keeps addresses and routes.

    Raises TopologyError where there is no such link or the testbed is not up.
    """
    link = find_link(inventory, a, b)
    batch = netlink.Batch()
    for port, interface in ((link["a_port"], link["a_interface"]), (link["b_port"], link["b_interface"])):
        if port is not None:
            batch.change(f"link {link['name']}", name=interface, up=up)
    try:
        with netlink.socket_in(namespaces.named(inventory["core"]["namespace"])) as core:
            netlink.send(core, batch)
    except FileNotFoundError:
        raise TopologyError(
            f"testbed {inventory['testbed']!r} is not up; `cohortnet ls` shows those that are"
        ) from None


def interface_counters(inventory: Mapping[str, Any], node: str) -> dict[str, int]:
    """Bytes and packets of a node's interface in the emulated network: rx_bytes, rx_packets, tx_bytes, tx_packets.

    Raises TopologyError where the node is unknown or not running.
    """
    for entry in inventory["nodes"]:
        if entry["name"] == node:
            try:
                text = Path(f"/proc/{entry['pid']}/net/dev").read_text(encoding="ascii")
            except OSError:
                raise TopologyError(f"node {node!r} is not running") from None
            return parse_counters(text, entry["interface"])
    raise TopologyError(f"{inventory['testbed']!r} has no node {node!r}")


def parse_counters(text: str, interface: str) -> dict[str, int]:
    """The counters of one interface in the text of `/proc/net/dev`. Raises TopologyError where it is not there."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == interface:
            fields = [int(value) for value in rest.split()]
            return {"rx_bytes": fields[0], "rx_packets": fields[1], "tx_bytes": fields[8], "tx_packets": fields[9]}
    raise TopologyError(f"there is no interface {interface!r}")


def disable_checksum_offload(plan: Plan, pids: Mapping[str, int]) -> None:
    """Make nodes compute checksums themselves: for an Open vSwitch that would hand on packets whose checksum was left
    to hardware.
    """
    for node in plan.nodes:
        if node.switch:
            namespaces.inside(namespaces.of_process(pids[node.name]), partial(checksum_off, node.interface))


def checksum_off(interface: str) -> None:
    """Switch transmit checksum offload off, in the calling thread's network namespace. Raises OSError."""
    # ETHTOOL_STXCSUM with 0, through SIOCETHTOOL; segmentation goes off with it.
    value = array.array("B", struct.pack("=II", 0x17, 0))
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, 0x8946, request)
