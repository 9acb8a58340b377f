"""Rtnetlink in bulk: requests are collected first and sent together, one system call for many, each with its answer
checked.

`Batch` builds requests (pure; pyroute2 encodes them, this module only sends), `send` puts them through within a
namespace. Requests name what they are about, so that a refusal by the kernel can say which link failed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from topology.engine import namespaces
from topology.errors import TopologyError

_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_NEWLINK, _DELLINK, _NEWADDR = 16, 17, 20
_NLMSG_ERROR = 2
_IFF_UP = 1
_MAXIMUM_BYTES = 24_000
"""Of one system call: the answers to it must fit the socket's receive buffer."""


@dataclass(frozen=True)
class Peer:
    """The other end of a veth pair: its name, and the namespace it is born in (a pid or an open file; neither: the
    same).
    """

    name: str
    mac: str | None = None
    index: int | None = None
    pid: int | None = None
    namespace_fd: int | None = None


@dataclass
class Batch:
    """Requests in order, each with its subject for messages."""

    requests: list[tuple[bytes, str]] = field(default_factory=list)

    def _add(self, message: Any, kind: int, flags: int, subject: str) -> None:
        message["header"]["type"] = kind
        message["header"]["flags"] = _REQUEST | _ACK | flags
        message["header"]["sequence_number"] = len(self.requests)
        message.encode()
        self.requests.append((bytes(message.data), subject))

    def veth(
        self, name: str, peer: Peer, *, index: int | None = None, master: int | None = None,
        mac: str | None = None, up: bool = True, mtu: int = 1500,
    ) -> None:  # fmt: skip
        """A pair, one end here and the other born where `peer` says; one queue each, as a cable has."""
        other: list[tuple[str, Any]] = [("IFLA_IFNAME", peer.name), ("IFLA_MTU", mtu)]
        other += [("IFLA_ADDRESS", peer.mac)] if peer.mac else []
        other += [("IFLA_NET_NS_PID", peer.pid)] if peer.pid is not None else []
        other += [("IFLA_NET_NS_FD", peer.namespace_fd)] if peer.namespace_fd is not None else []
        # The other end cannot be born up: at that moment it has no peer yet (ENOTCONN).
        end = {"index": peer.index or 0, "attrs": [*other, ("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1)]}
        kind = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", end)]})]
        message = ifinfmsg()
        message["index"] = index or 0
        message["flags"] = message["change"] = _IFF_UP if up else 0
        attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", name), ("IFLA_MTU", mtu)]
        attributes += [("IFLA_ADDRESS", mac)] if mac else []
        attributes += [("IFLA_MASTER", master)] if master is not None else []
        attributes += [("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1), ("IFLA_LINKINFO", {"attrs": kind})]
        message["attrs"] = attributes
        self._add(message, _NEWLINK, _CREATE | _EXCL, f"link {name} to {peer.name}")

    def bridge(self, name: str, index: int) -> None:
        """A bridge that forwards at once and snoops on nothing, up."""
        data = [("IFLA_BR_STP_STATE", 0), ("IFLA_BR_FORWARD_DELAY", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]
        kind = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]
        message = ifinfmsg()
        message["index"] = index
        message["flags"] = message["change"] = _IFF_UP
        message["attrs"] = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": kind})]
        self._add(message, _NEWLINK, _CREATE | _EXCL, f"bridge {name}")

    def change(
        self, subject: str, *, index: int | None = None, name: str | None = None, up: bool | None = None,
        alias: str | None = None, mac: str | None = None,
    ) -> None:  # fmt: skip
        """Change an interface, named by index or by name."""
        message = ifinfmsg()
        message["index"] = index or 0
        if up is not None:
            message["flags"], message["change"] = (_IFF_UP if up else 0), _IFF_UP
        attributes = [("IFLA_IFNAME", name)] if name is not None else []
        attributes += [("IFLA_ADDRESS", mac)] if mac is not None else []
        message["attrs"] = [*attributes, *([("IFLA_IFALIAS", alias)] if alias is not None else [])]
        self._add(message, _NEWLINK, 0, subject)

    def isolate(self, index: int, subject: str) -> None:
        """Make a bridge port isolated: it exchanges no frame with other isolated ports."""
        message = ifinfmsg()
        message["index"] = index
        data = {"attrs": [("IFLA_BRPORT_ISOLATED", 1)]}
        slave = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]}
        message["attrs"] = [("IFLA_LINKINFO", slave)]
        self._add(message, _NEWLINK, 0, subject)

    def address(self, index: int, address: str, prefix_length: int, subject: str) -> None:
        """Give an interface an IPv4 address."""
        message = ifaddrmsg()
        message["family"] = socket.AF_INET
        message["prefixlen"] = prefix_length
        message["index"] = index
        network = (1 << 32) - (1 << (32 - prefix_length))
        number = struct.unpack("!I", socket.inet_aton(address))[0]
        broadcast = socket.inet_ntoa(struct.pack("!I", number & network | (~network & 0xFFFFFFFF)))
        message["attrs"] = [("IFA_LOCAL", address), ("IFA_ADDRESS", address), ("IFA_BROADCAST", broadcast)]
        self._add(message, _NEWADDR, _CREATE | _EXCL, subject)

    def delete(self, name: str) -> None:
        """Delete an interface by name."""
        message = ifinfmsg()
        message["attrs"] = [("IFLA_IFNAME", name)]
        self._add(message, _DELLINK, 0, f"interface {name}")


def socket_here() -> socket.socket:
    """A netlink socket in the calling thread's network namespace."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.settimeout(10.0)
    made.bind((0, 0))
    return made


def socket_in(namespace: Path) -> socket.socket:
    """A netlink socket in that network namespace. Raises OSError where it does not exist."""
    return namespaces.inside(namespace, socket_here)


def send(link: socket.socket, batch: Batch, *, ignore: Sequence[int] = ()) -> None:
    """Put all requests through, in order.

    Raises:
        TopologyError: with the subject of the first request that the kernel refused; error numbers in `ignore` are no
        refusal.
    """
    position = 0
    while position < len(batch.requests):
        size, end = 0, position
        while end < len(batch.requests) and (end == position or size + len(batch.requests[end][0]) <= _MAXIMUM_BYTES):
            size += len(batch.requests[end][0])
            end += 1
        link.send(b"".join(data for data, _ in batch.requests[position:end]))
        _answers(link, batch, position, end, ignore)
        position = end


def _answers(link: socket.socket, batch: Batch, first: int, end: int, ignore: Sequence[int]) -> None:
    waiting = set(range(first, end))
    refused: list[tuple[int, int]] = []
    while waiting:
        try:
            data = link.recv(1 << 18)
        except TimeoutError:
            raise TopologyError(f"{batch.requests[min(waiting)][1]}: the kernel gave no answer in 10 s") from None
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
            if kind == _NLMSG_ERROR and sequence in waiting:
                waiting.discard(sequence)
                status = -struct.unpack_from("=i", data, offset + 16)[0]
                if status and status not in ignore:
                    refused.append((sequence, status))
            offset += (length + 3) & ~3
    if refused:
        sequence, status = min(refused)
        name = errno.errorcode.get(status, str(status))
        raise TopologyError(f"{batch.requests[sequence][1]}: the kernel refused: {os.strerror(status)} ({name})")
