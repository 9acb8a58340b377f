"""One node under observation: its kept netlink sockets, its control groups, the labels of its series.

A probe belongs to one life of a node: its first process and the network namespace of that. `alive` says whether that
life goes on; a probe whose node is gone is closed at once, since its sockets would keep the namespace, and with it the
node's interfaces, in being.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from monitoring import metrics
from monitoring.exporter import namespaces, netlink
from monitoring.exporter.cgroups import Groups
from monitoring.exporter.netlink import Counters, Flow, NetlinkSocket, Qdisc
from monitoring.exporter.samples import Labels, Samples
from monitoring.inventory import Inventory, Node, packed

_SERVICES = {5000: "agent", 6000: "fl", 9000: "momo"}
_TRAFFIC_PORTS = range(5201, 5300)
"""Of the background traffic's iperf3 servers."""
_OBSERVERS = frozenset((9100, 9200, 9300))
"""Ports that are scraped in band: each scrape would leave a series of its own behind."""
_USAGE = (
    (metrics.CPU_USAGE, "cpu_s"), (metrics.CPU_USER, "user_s"), (metrics.CPU_SYSTEM, "system_s"),
    (metrics.CFS_PERIODS, "periods"), (metrics.CFS_THROTTLED_PERIODS, "throttled_periods"),
    (metrics.CFS_THROTTLED, "throttled_s"), (metrics.CPU_LIMIT, "cpu_limit_cores"),
    (metrics.MEMORY_USAGE, "memory_bytes"), (metrics.MEMORY_WORKING_SET, "working_set_bytes"),
    (metrics.MEMORY_RSS, "rss_bytes"), (metrics.MEMORY_LIMIT, "memory_limit_bytes"),
    (metrics.OOM_KILLS, "oom_kills"), (metrics.PROCESSES, "processes"),
)  # fmt: skip
_NETWORK = (
    (metrics.RECEIVE_BYTES, "rx_bytes"), (metrics.TRANSMIT_BYTES, "tx_bytes"),
    (metrics.RECEIVE_PACKETS, "rx_packets"), (metrics.TRANSMIT_PACKETS, "tx_packets"),
    (metrics.RECEIVE_DROPS, "rx_dropped"), (metrics.TRANSMIT_DROPS, "tx_dropped"),
    (metrics.RECEIVE_ERRORS, "rx_errors"), (metrics.TRANSMIT_ERRORS, "tx_errors"),
)  # fmt: skip


class Ending(NamedTuple):
    """One end of a link as its own namespace sees it: counters, queues (the root first), rate of its HTB in bit/s."""

    counters: Counters
    qdiscs: tuple[Qdisc, ...]
    rate_bps: int | None


def service(local_port: int, remote_port: int) -> str:
    """What a flow carries, by its ports: fl, agent, momo, traffic or other. Pure."""
    for port in (local_port, remote_port):
        if port in _SERVICES:
            return _SERVICES[port]
        if port in _TRAFFIC_PORTS:
            return "traffic"
    return "other"


class NodeProbe:
    """The sockets and labels of one life of one node."""

    def __init__(self, inventory: Inventory, node: Node, inode: int, route: NetlinkSocket, diag: NetlinkSocket,
                 numbers: Mapping[str, int]) -> None:  # fmt: skip
        self.node = node
        self._inode, self._route, self._diag, self._numbers = inode, route, diag, numbers
        self._address = packed(node.address)
        self._groups = Groups(node.cgroups)
        self._own = (inventory.testbed, node.name, node.role, node.cohort)
        self.labels = Labels(metrics.NODE, self._own)
        self._devices = {name: Labels(metrics.RECEIVE_BYTES.labels, (*self._own, node.device(name)))
                         for name in numbers}  # fmt: skip
        self._flows: dict[tuple[int, bytes, int], Labels] = {}
        self._peers = inventory.names_by_address

    @property
    def life(self) -> tuple[int, int]:
        """The node's first process and its network namespace, as numbers: another life has others."""
        return self.node.pid or 0, self._inode

    def alive(self) -> bool:
        """Whether the node's first process still runs, and is the one that it was."""
        return self.node.pid is not None and namespaces.inode(self.node.pid) == self._inode

    def meet(self, peers: Mapping[bytes, str]) -> None:
        """Flows name their other ends by these names from now on."""
        self._peers = peers
        self._flows = {}

    def close(self) -> None:
        """Let go of the node's namespace."""
        self._route.close()
        self._diag.close()

    def endings(self) -> dict[str, Ending]:
        """The node's ends of its links, by interface. Raises OSError."""
        own: dict[int, list[Qdisc]] = {}
        for qdisc in netlink.qdiscs(self._route):
            own.setdefault(qdisc.interface, []).append(qdisc)
        found = {}
        for name, counters in self.counters().items():
            number = self._numbers[name]
            queues = tuple(own.get(number, ()))
            shaped = any(qdisc.kind == "htb" and qdisc.parent == netlink.ROOT for qdisc in queues)
            found[name] = Ending(counters, queues, netlink.root_rate(self._route, number) if shaped else None)
        return found

    def counters(self) -> dict[str, Counters]:
        """Of the node's interfaces in the emulated network. Raises OSError."""
        return {name: netlink.counters(self._route, number)[number] for name, number in self._numbers.items()}

    def up(self, interface: str) -> bool:
        """Whether an interface is up and has a carrier. Raises OSError."""
        return any(found.up and found.carrier for found in netlink.interfaces(self._route) if found.name == interface)

    def flows(self) -> list[Flow]:
        """The node's established TCP sockets in the emulated network. Raises OSError."""
        return [] if self._address is None else netlink.tcp_flows(self._diag, self._address)

    def add_usage(self, samples: Samples) -> None:
        """Processor, memory and processes."""
        usage = self._groups.read()
        for family, name in _USAGE:
            value = getattr(usage, name)
            if value is not None:
                samples.add(family, self.labels, value)

    def add_network(self, samples: Samples, counters: Mapping[str, Counters]) -> None:
        """The counters of its interfaces."""
        for interface, found in counters.items():
            for family, name in _NETWORK:
                samples.add(family, self._devices[interface], getattr(found, name))

    def add_flows(self, samples: Samples, observe: Callable[[str, float], None] | None) -> None:
        """The flows' series; each round trip (ms) is also given to `observe`, with the cohort. Raises OSError."""
        seen: dict[tuple[int, bytes, int], Labels] = {}
        for flow in self.flows():
            if flow.local_port in _OBSERVERS or flow.remote_port in _OBSERVERS:
                continue
            key = (flow.local_port, flow.remote, flow.remote_port)
            labels = self._flows.get(key) or self._flow_labels(flow)
            seen[key] = labels
            rtt_ms = flow.rtt_us / 1e3
            samples.add(metrics.TCP_RTT, labels, rtt_ms)
            samples.add(metrics.TCP_RTTVAR, labels, flow.rttvar_us / 1e3)
            samples.add(metrics.TCP_CWND, labels, flow.cwnd)
            samples.add(metrics.TCP_DELIVERY_RATE, labels, 8 * flow.delivery_rate)
            samples.add(metrics.TCP_RETRANSMITS, labels, flow.retransmits)
            samples.add(metrics.TCP_BYTES_SENT, labels, flow.bytes_sent)
            samples.add(metrics.TCP_BYTES_RECEIVED, labels, flow.bytes_received)
            if observe is not None:
                observe(self.node.cohort, rtt_ms)
        self._flows = seen  # labels of flows that ended go with them

    def _flow_labels(self, flow: Flow) -> Labels:
        remote = socket.inet_ntoa(flow.remote) if len(flow.remote) == 4 else socket.inet_ntop(socket.AF_INET6,
                                                                                              flow.remote)  # fmt: skip
        return Labels(metrics.TCP_RTT.labels, (
            *self._own, f"{self.node.address}:{flow.local_port}", f"{remote}:{flow.remote_port}",
            self._peers.get(flow.remote, ""), service(flow.local_port, flow.remote_port),
        ))  # fmt: skip


def open_probes(inventory: Inventory, nodes: Sequence[Node]) -> dict[str, NodeProbe | Exception]:
    """Probes by node name, for running nodes; or what went wrong there (a node can end at any moment)."""

    def make() -> tuple[NetlinkSocket, NetlinkSocket, dict[str, int]]:
        route = netlink.route_socket()
        try:
            names = {found.name: found.number for found in netlink.interfaces(route)}
            return route, netlink.diag_socket(), names
        except OSError:
            route.close()
            raise

    inodes = [namespaces.inode(node.pid or 0) for node in nodes]
    made = namespaces.inside_all([f"/proc/{node.pid}/ns/net" for node in nodes], make)
    probes: dict[str, NodeProbe | Exception] = {}
    for node, inode, result in zip(nodes, inodes, made, strict=True):
        if isinstance(result, Exception):
            probes[node.name] = result
            continue
        route, diag, names = result
        if inode is None:
            route.close()
            diag.close()
            probes[node.name] = OSError(f"{node.name} has ended")
            continue
        numbers = {name: names[name] for name in inventory.interfaces[node.name] if name in names}
        probes[node.name] = NodeProbe(inventory, node, inode, route, diag, numbers)
    return probes
