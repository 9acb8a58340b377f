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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topology.engine import disciplines, namespaces, netlink
from topology.errors import TopologyError
from topology.plan import Plan, PlannedNode

NODE_INDEX, NODE_MANAGEMENT_INDEX = 10, 11
"""Interface indexes in a node; 2 and up may be taken by the kernel's own tunnel devices."""
_SWITCH_BASE, _MANAGEMENT_BASE, _BRIDGE_INDEX, _UPLINK_INDEX = 100_000, 200_000, 99_000, 99_001
# No switch is called with a dot, so these never meet a bridge or a port of the emulated network.
MANAGEMENT_BRIDGE, UPLINK = "mgmt.br", "mgmt.up"


Lines = Mapping[tuple[str | None, str], Sequence[Sequence[str]]]
"""Lines of traffic control by place (a node, or None for the core) and interface."""
NO_LINES: Lines = {}


def core_batch(
    plan: Plan, pids: Mapping[str, int], host_namespace_fd: int, *, isolate: bool = True, lines: Lines = NO_LINES
) -> netlink.Batch:
    """Everything that is made from within the core, in one batch. Pure."""
    batch = netlink.Batch()
    batch.bridge(MANAGEMENT_BRIDGE, _BRIDGE_INDEX)
    batch.veth(UPLINK, netlink.Peer(plan.host_interface, namespace_fd=host_namespace_fd), index=_UPLINK_INDEX,
               master=_BRIDGE_INDEX)  # fmt: skip
    nodes = {node.name: node for node in plan.nodes}
    real = {port.interface: port.name for switch in plan.switches for port in switch.ports}
    index = _SWITCH_BASE
    for link in plan.links:
        subject = f"link {link.name}"
        if link.a in nodes or link.b in nodes:
            node, interface = (
                (nodes[link.a], link.b_interface) if link.a in nodes else (nodes[link.b], link.a_interface)
            )
            peer = netlink.Peer(node.interface, node.mac, NODE_INDEX, pids[node.name])
            ends = [interface]
        else:
            peer = netlink.Peer(link.b_interface, index=index + 1)
            ends = [link.a_interface, link.b_interface]
        batch.veth(ends[0], peer, index=index, up=False)
        for number, interface in enumerate(ends, start=index):
            # Shaped before it is up: a discipline put on a live interface waits until nobody uses the old one.
            disciplines.add(batch, number, lines.get((None, interface), ()), subject)
            batch.change(subject, index=number, alias=real[interface], up=True)
        index += len(ends)
    for number, node in enumerate(plan.nodes):
        peer = netlink.Peer(node.management_interface, management_mac(node), NODE_MANAGEMENT_INDEX, pids[node.name])
        index = _MANAGEMENT_BASE + number
        batch.veth(f"mgmt.{number}", peer, index=index, master=_BRIDGE_INDEX, up=False)
        batch.change(f"management port of {node.name}", index=index, up=True, isolated=isolate,
                     alias=f"{node.name}-{node.management_interface}")  # fmt: skip
    return batch


def management_mac(node: PlannedNode) -> str:
    """The hardware address of a node's management interface, from its address there. Pure."""
    return "02:01:" + ":".join(f"{int(octet):02x}" for octet in node.management_address.split("."))


def node_batch(node: PlannedNode, management_prefix_length: int, lines: Lines = NO_LINES) -> netlink.Batch:
    """What is done within a node: addresses, traffic control, interfaces up. Pure."""
    batch = netlink.Batch()
    subject = f"interface of {node.name}"
    if node.switch:
        if node.address:
            batch.address(NODE_INDEX, node.address, node.prefix_length, f"address of {node.name}")
        disciplines.add(batch, NODE_INDEX, lines.get((node.name, node.interface), ()), subject)
        batch.change(subject, index=NODE_INDEX, up=True)
    batch.address(NODE_MANAGEMENT_INDEX, node.management_address, management_prefix_length,
                  f"management address of {node.name}")  # fmt: skip
    # It answers for its own address only: no address of the emulated network is heard there.
    own = {netlink.IPV4_ARP_IGNORE: 1, netlink.IPV4_RP_FILTER: 1}
    batch.change(subject, index=NODE_MANAGEMENT_INDEX, up=True, ipv4=own)
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


def make_all(
    plan: Plan, pids: Mapping[str, int], *, isolate: bool = True, lines: Lines = NO_LINES,
    core_made: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Make and configure all interfaces of the nodes and switches; `core_made` is called when those of the switches
    are there.

    Raises TopologyError naming the link or node.
    """
    _in_each(plan, pids, lambda node: write_sysctls(_QUIET))  # before any interface: each takes it over at its birth
    host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netlink.socket_in(namespaces.named(plan.core_namespace)) as core:
            netlink.send(core, core_batch(plan, pids, host, isolate=isolate, lines=lines))
    finally:
        os.close(host)
    core_made()
    prefix_length = int(plan.management.partition("/")[2])

    def configure(node: PlannedNode) -> None:
        with netlink.socket_here() as link:
            netlink.send(link, node_batch(node, prefix_length, lines))

    _in_each(plan, pids, configure)


def _in_each(plan: Plan, pids: Mapping[str, int], work: Callable[[PlannedNode], None]) -> None:
    """Call `work` in the network namespace of every node, in one thread that goes from one to the next."""

    def body() -> None:
        for node in plan.nodes:
            try:
                namespaces.enter(namespaces.of_process(pids[node.name]))
            except OSError as error:
                raise TopologyError(f"node {node.name!r} ended while it was being wired: {error}") from error
            work(node)

    namespaces.in_thread(body)


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


def find_link(inventory: Mapping[str, Any], a: str, b: str) -> dict[str, Any]:
    """The link between two ends, in either order; of several between them `b#2` is the second.

    Raises TopologyError naming the neighbours, or the links, that there are.
    """
    other, _, number = b.partition("#")
    found = [link for link in inventory["links"] if {link["a"], link["b"]} == {a, other}]
    # The first of several has no number in its name; one that is gone leaves a gap.
    numbers = [link["name"].partition("#")[2] or "1" for link in found]
    if number in numbers or (len(found) == 1 and not number):
        return dict(found[numbers.index(number) if number else 0])
    if found:
        known = ", ".join(f"{other}#{n}" for n in numbers) if len(found) > 1 else other
        raise TopologyError(f"{b!r} names none of the {len(found)} links between {a!r} and {other!r}; write {known}")
    ends = sorted(
        {link["b"] if link["a"] == a else link["a"] for link in inventory["links"] if a in (link["a"], link["b"])}
    )
    known = f"{a!r} has links to {', '.join(ends)}" if ends else f"{a!r} is no end of any link"
    raise TopologyError(f"there is no link between {a!r} and {b!r}; {known}")


def down_links(inventory: Mapping[str, Any]) -> set[str]:
    """Names of the links that were taken down at a switch end, or lost one. Raises TopologyError where it is not up."""
    ends = {link[f"{end}_interface"]: link["name"] for link in inventory["links"] for end in "ab"
            if link[f"{end}_port"] is not None}  # fmt: skip

    def look() -> set[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return {name for interface, name in ends.items() if not _is_up(probe, interface)}

    try:
        return namespaces.inside(namespaces.named(inventory["core"]["namespace"]), look)
    except FileNotFoundError:
        raise TopologyError(f"testbed {inventory['testbed']!r} is not up; `cohortnet ls` shows those that are"
                            ) from None  # fmt: skip


def _is_up(probe: socket.socket, interface: str) -> bool:
    try:  # SIOCGIFFLAGS; IFF_UP and IFF_RUNNING, which is the carrier
        flags = struct.unpack_from("16sh", fcntl.ioctl(probe, 0x8913, struct.pack("16s24x", interface.encode())))[1]
    except OSError:
        return False
    return flags & 0x41 == 0x41


def disable_checksum_offload(plan: Plan, pids: Mapping[str, int]) -> None:
    """Make nodes compute checksums themselves: for an Open vSwitch that would hand on packets whose checksum was left
    to hardware.
    """
    _in_each(plan, pids, lambda node: checksum_off(node.interface) if node.switch else None)


def checksum_off(interface: str) -> None:
    """Switch transmit checksum offload off, in the calling thread's network namespace. Raises OSError."""
    # ETHTOOL_STXCSUM with 0, through SIOCETHTOOL; segmentation goes off with it.
    value = array.array("B", struct.pack("=II", 0x17, 0))
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, 0x8946, request)
