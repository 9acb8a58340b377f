"""Rtnetlink in bulk: requests are collected first and sent together, one system call for many, each with its answer
checked.

`Batch` builds requests (pure), `send` puts them through within a namespace. Requests name what they are about, so that
a refusal by the kernel can say which link failed. Layouts and numbers are those of the kernel's `linux/rtnetlink.h`,
`if_link.h` and `ip.h`; they are packed here, as a testbed is thousands of requests and a general encoder takes longer
for them than the kernel does.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from topology.engine import namespaces
from topology.errors import TopologyError

REQUEST_REPLACE, REQUEST_CREATE = 0x100, 0x400
_REQUEST, _ACK, _EXCL = 0x1, 0x4, 0x200
_NEWLINK, _DELLINK, _NEWADDR = 16, 17, 20
_NLMSG_ERROR = 2
_IFF_UP = 1
_LINK_ADDRESS, _LINK_NAME, _LINK_MTU, _LINK_MASTER, _LINK_INFO = 1, 3, 4, 10, 18
_LINK_NS_PID, _LINK_ALIAS, _LINK_AF_SPEC, _LINK_NS_FD, _LINK_TX_QUEUES, _LINK_RX_QUEUES = 19, 20, 26, 28, 31, 32
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BRIDGE_FORWARD_DELAY, _BRIDGE_STP, _BRIDGE_SNOOPING, _PORT_ISOLATED = 1, 5, 23, 33
_ADDRESS, _ADDRESS_LOCAL, _ADDRESS_BROADCAST = 1, 2, 4
IPV4_RP_FILTER, IPV4_ARP_IGNORE = 8, 19
"""Settings of an interface as `change` takes them (IPV4_DEVCONF_*)."""
_MAXIMUM_BYTES = 24_000
"""Of one system call: the answers to it must fit the socket's receive buffer."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes. Pure."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _word(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def _byte(kind: int, value: int) -> bytes:
    return struct.pack("=HHBxxx", 5, kind, value)


def text_attribute(kind: int, value: str) -> bytes:
    """An attribute that is a text with its final zero. Pure."""
    return attribute(kind, value.encode() + b"\0")


def _mac(kind: int, address: str) -> bytes:
    return attribute(kind, bytes.fromhex(address.replace(":", "")))


_ONE_QUEUE = _word(_LINK_TX_QUEUES, 1) + _word(_LINK_RX_QUEUES, 1)
_ISOLATED = attribute(
    _LINK_INFO,
    text_attribute(_INFO_SLAVE_KIND, "bridge") + attribute(_INFO_SLAVE_DATA, _byte(_PORT_ISOLATED, 1)),
)


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

    def add(self, kind: int, flags: int, body: bytes, subject: str) -> None:
        """Any request: its type, its flags beside those that all have, and what follows the header."""
        header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, len(self.requests), 0)
        self.requests.append((header + body, subject))

    def _link(self, flags: int, attributes: bytes, subject: str, index: int = 0, up: bool | None = None) -> None:
        state, mask = (0 if up is None else _IFF_UP if up else 0), (0 if up is None else _IFF_UP)
        self.add(_NEWLINK, flags, struct.pack("=BxHiII", 0, 0, index, state, mask) + attributes, subject)

    def veth(
        self, name: str, peer: Peer, *, index: int | None = None, master: int | None = None,
        mac: str | None = None, up: bool = True, mtu: int = 1500,
    ) -> None:  # fmt: skip
        """A pair, one end here and the other born where `peer` says; one queue each, as a cable has."""
        # The other end cannot be born up: at that moment it has no peer yet (ENOTCONN).
        other = struct.pack("=BxHiII", 0, 0, peer.index or 0, 0, 0)
        other += text_attribute(_LINK_NAME, peer.name) + _word(_LINK_MTU, mtu) + _ONE_QUEUE
        other += _mac(_LINK_ADDRESS, peer.mac) if peer.mac else b""
        other += _word(_LINK_NS_PID, peer.pid) if peer.pid is not None else b""
        other += _word(_LINK_NS_FD, peer.namespace_fd) if peer.namespace_fd is not None else b""
        kind = text_attribute(_INFO_KIND, "veth") + attribute(_INFO_DATA, attribute(_VETH_PEER, other))
        attributes = text_attribute(_LINK_NAME, name) + _word(_LINK_MTU, mtu) + _ONE_QUEUE
        attributes += _mac(_LINK_ADDRESS, mac) if mac else b""
        attributes += _word(_LINK_MASTER, master) if master is not None else b""
        attributes += attribute(_LINK_INFO, kind)
        subject = f"link {name} to {peer.name}"
        self._link(REQUEST_CREATE | _EXCL, attributes, subject, index or 0, True if up else None)

    def bridge(self, name: str, index: int) -> None:
        """A bridge that forwards at once and snoops on nothing, up."""
        data = _word(_BRIDGE_STP, 0) + _word(_BRIDGE_FORWARD_DELAY, 0) + _byte(_BRIDGE_SNOOPING, 0)
        kind = text_attribute(_INFO_KIND, "bridge") + attribute(_INFO_DATA, data)
        attributes = text_attribute(_LINK_NAME, name) + attribute(_LINK_INFO, kind)
        self._link(REQUEST_CREATE | _EXCL, attributes, f"bridge {name}", index, True)

    def change(
        self, subject: str, *, index: int | None = None, name: str | None = None, up: bool | None = None,
        alias: str | None = None, mac: str | None = None, isolated: bool = False,
        ipv4: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        """Change an interface, named by index or by name.

        `isolated` makes a bridge port exchange no frame with other isolated ports; `ipv4` are settings (IPV4_*).
        """
        attributes = text_attribute(_LINK_NAME, name) if name is not None else b""
        attributes += _mac(_LINK_ADDRESS, mac) if mac is not None else b""
        attributes += text_attribute(_LINK_ALIAS, alias) if alias is not None else b""
        attributes += _ISOLATED if isolated else b""
        if ipv4:
            settings = attribute(1, b"".join(_word(key, value) for key, value in ipv4.items()))  # IFLA_INET_CONF
            attributes += attribute(_LINK_AF_SPEC, attribute(socket.AF_INET, settings))
        self._link(0, attributes, subject, index or 0, up)

    def isolate(self, index: int, subject: str) -> None:
        """Make a bridge port isolated: it exchanges no frame with other isolated ports."""
        self.change(subject, index=index, isolated=True)

    def address(self, index: int, address: str, prefix_length: int, subject: str) -> None:
        """Give an interface an IPv4 address."""
        own = socket.inet_aton(address)
        number = struct.unpack("!I", own)[0] | (0xFFFFFFFF >> prefix_length)
        body = struct.pack("=BBBBI", socket.AF_INET, prefix_length, 0, 0, index)
        body += attribute(_ADDRESS_LOCAL, own) + attribute(_ADDRESS, own)
        body += attribute(_ADDRESS_BROADCAST, struct.pack("!I", number))
        self.add(_NEWADDR, REQUEST_CREATE | _EXCL, body, subject)

    def delete(self, name: str) -> None:
        """Delete an interface by name."""
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + text_attribute(_LINK_NAME, name)
        self.add(_DELLINK, 0, body, f"interface {name}")


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
