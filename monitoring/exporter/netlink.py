"""Netlink, as little of it as monitoring needs: dumps of interfaces, queueing disciplines, classes and TCP sockets,
read from kept sockets straight into records.

General libraries build an object for every attribute, most of which nobody here reads; this module picks fixed offsets
with `struct` (a hundred nodes are to cost milliseconds). Layouts are those of the kernel's `linux/rtnetlink.h`,
`if_link.h`, `pkt_sched.h`, `inet_diag.h` and `tcp.h`: part of its promise to programs, they only ever grow at the end.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_TIMEOUT_S = 2
_BUFFER_BYTES = 1 << 18
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_GETLINK, _GETQDISC, _GETTCLASS, _GETSTATS = 18, 38, 42, 94
_TCPDIAG_GETSOCK = 18
_ESTABLISHED = 1 << 1
_INFO_EXTENSION = 1 << 1
_SKIP_STATISTICS = 8
"""RTEXT_FILTER_SKIP_STATS: names and states without half a kilobyte of counters each."""
ROOT = 0xFFFFFFFF
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INTERFACE = struct.Struct("=BxHiII")
_TRAFFIC = struct.Struct("=BxxxiIII")
_STATISTICS = struct.Struct("=8Q")
_U64, _U32, _I32 = struct.Struct("=Q"), struct.Struct("=I"), struct.Struct("=i")
_BASIC, _QUEUE = struct.Struct("=QI"), struct.Struct("=5I")
_TCP_HEAD = struct.Struct("=BBBB2s2s16s16s")
_RTT = struct.Struct("=II4xI")
_TCP_INFO_RTT, _TCP_INFO_RETRANS, _TCP_INFO_RECEIVED = 68, 100, 120
_TCP_INFO_DELIVERY, _TCP_INFO_SENT = 160, 200


class Interface(NamedTuple):
    """An interface by the kernel: `up` says that it was set up, `carrier` that its other end is up too."""

    number: int
    name: str
    up: bool
    carrier: bool


class Counters(NamedTuple):
    """An interface's counters since it was made."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


class Qdisc(NamedTuple):
    """A queueing discipline; backlog is what waits in it now, the rest counts since it was made."""

    interface: int
    handle: int
    parent: int
    kind: str
    bytes: int
    packets: int
    backlog_packets: int
    backlog_bytes: int
    drops: int
    overlimits: int

    @property
    def name(self) -> str:
        """Its handle as `tc` writes it."""
        return f"{self.handle >> 16:x}:"


class Flow(NamedTuple):
    """An established TCP socket; addresses are four bytes, times in microseconds, rates in byte/s."""

    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    rtt_us: int
    rttvar_us: int
    cwnd: int
    retransmits: int
    delivery_rate: int
    bytes_sent: int
    bytes_received: int


class NetlinkSocket:
    """A kept netlink socket: one request at a time, answers in full. Belongs to the network namespace of the thread
    that made it, and keeps that namespace alive until it is closed.
    """

    def __init__(self, protocol: int, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            # The kernel's own time-out: Python's would ask with a system call more before each answer.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))
            self._socket.bind((0, groups))
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def close(self) -> None:
        """Let go of the socket and with it of the namespace."""
        self._socket.close()

    def ask(self, kind: int, body: bytes, *, dump: bool) -> Iterator[tuple[bytes, int, int]]:
        """Send one request; yields (data, start, end) of each message of the answer, without its header.

        Raises OSError where the kernel refuses or does not answer; the socket is then to be closed.
        """
        self._sequence = sequence = (self._sequence + 1) & 0xFFFFFFFF
        flags = _REQUEST | (_DUMP if dump else 0)
        self._socket.send(_HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body)
        while True:
            data = self._socket.recv(_BUFFER_BYTES)
            offset, size = 0, len(data)
            while offset + 16 <= size:
                length, answer, _, number, _ = _HEADER.unpack_from(data, offset)
                if length < 16:
                    raise OSError(errno.EBADMSG, "a netlink message without a length")
                if number == sequence:
                    if answer == _DONE:
                        return
                    if answer == _ERROR:
                        status = -_I32.unpack_from(data, offset + 16)[0]
                        if status:
                            raise OSError(status, os.strerror(status))
                        return
                    yield data, offset + 16, offset + length
                    if not dump:
                        return
                offset += (length + 3) & ~3

    def pending(self) -> bool:
        """Whether the kernel has announced anything on the socket's groups since the last call (or lost count)."""
        found = False
        while True:
            try:
                self._socket.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT)
                found = True
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True


def route_socket(groups: int = 0) -> NetlinkSocket:
    """For interfaces, disciplines and classes of the calling thread's namespace. Raises OSError."""
    return NetlinkSocket(socket.NETLINK_ROUTE, groups)


def diag_socket() -> NetlinkSocket:
    """For TCP sockets of the calling thread's namespace. Raises OSError."""
    return NetlinkSocket(4)  # NETLINK_SOCK_DIAG


def _attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            return
        yield kind & 0x3FFF, start + 4, start + length
        start += (length + 3) & ~3


def interfaces(route: NetlinkSocket) -> list[Interface]:
    """All interfaces of the namespace. Raises OSError."""
    body = _INTERFACE.pack(0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 29, _SKIP_STATISTICS)
    found = []
    for data, start, end in route.ask(_GETLINK, body, dump=True):
        _, _, index, flags, _ = _INTERFACE.unpack_from(data, start)
        name = ""
        for kind, first, last in _attributes(data, start + 16, end):
            if kind == 3:
                name = data[first : last - 1].decode()
                break
        found.append(Interface(index, name, bool(flags & IFF_UP), bool(flags & IFF_LOWER_UP)))
    return found


def counters(route: NetlinkSocket, index: int | None = None) -> dict[int, Counters]:
    """Counters by interface index: of one interface, or of all. Raises OSError (ENODEV where that one is gone)."""
    found = {}
    body = struct.pack("=BxxxII", 0, index or 0, 1)
    for data, start, end in route.ask(_GETSTATS, body, dump=index is None):
        number = _U32.unpack_from(data, start + 4)[0]
        for kind, first, _ in _attributes(data, start + 12, end):
            if kind == 1:
                found[number] = Counters._make(_STATISTICS.unpack_from(data, first))
    return found


def qdiscs(route: NetlinkSocket) -> list[Qdisc]:
    """All queueing disciplines of the namespace that hold packets. Raises OSError."""
    found = []
    for data, start, end in route.ask(_GETQDISC, _TRAFFIC.pack(0, 0, 0, 0, 0), dump=True):
        _, index, handle, parent, _ = _TRAFFIC.unpack_from(data, start)
        kind = ""
        octets = packets = waiting = waiting_bytes = drops = overlimits = 0
        for attribute, first, last in _attributes(data, start + 20, end):
            if attribute == 1:
                kind = data[first : last - 1].decode()
                if kind == "noqueue":
                    break
            elif attribute == 7:
                for inner, value, after in _attributes(data, first, last):
                    if inner == 1:
                        octets, packets = _BASIC.unpack_from(data, value)
                    elif inner == 3:
                        waiting, waiting_bytes, drops, _, overlimits = _QUEUE.unpack_from(data, value)
                    elif inner == 8 and after - value >= 8:
                        packets = _U64.unpack_from(data, value)[0]
        if kind != "noqueue":
            found.append(Qdisc(index, handle, parent, kind, octets, packets, waiting, waiting_bytes, drops, overlimits))
    return found


def root_rate(route: NetlinkSocket, index: int) -> int | None:
    """The rate of an interface's outermost HTB class in bit/s; None where it has none. Raises OSError."""
    rate: int | None = None
    for data, start, end in route.ask(_GETTCLASS, _TRAFFIC.pack(0, index, 0, 0, 0), dump=True):
        if _TRAFFIC.unpack_from(data, start)[3] != ROOT:
            continue
        htb, options = False, (0, 0)
        for attribute, first, last in _attributes(data, start + 20, end):
            if attribute == 1:
                htb = data[first : last - 1] == b"htb"
            elif attribute == 2:
                options = (first, last)
        if not htb:
            continue
        octets = 0
        for inner, value, _ in _attributes(data, *options):
            if inner == 1:
                octets = octets or _U32.unpack_from(data, value + 8)[0]
            elif inner == 6:  # rates that 32 bits do not hold
                octets = _U64.unpack_from(data, value)[0]
        rate = (rate or 0) + 8 * octets
    return rate


# `struct inet_diag_req`: the request that covers IPv4 and IPv6 sockets in one pass over the kernel's table. A server
# that listens on `::` has its IPv4 connections in IPv6 sockets.
_TCP_REQUEST = struct.pack("=BBBB48xII", 0, 0, 0, _INFO_EXTENSION, _ESTABLISHED, 0)
_MAPPED = bytes(10) + b"\xff\xff"


def tcp_flows(diag: NetlinkSocket, local: bytes) -> list[Flow]:
    """Established TCP sockets whose own address is `local` (four bytes). Raises OSError."""
    found = []
    for data, start, end in diag.ask(_TCPDIAG_GETSOCK, _TCP_REQUEST, dump=True):
        family, _, _, _, source_port, destination_port, source, destination = _TCP_HEAD.unpack_from(data, start)
        if family == socket.AF_INET:
            source, destination = source[:4], destination[:4]
        elif source.startswith(_MAPPED):
            source, destination = source[12:], destination[12:]
        if source != local:
            continue
        for kind, first, last in _attributes(data, start + 72, end):
            if kind != 2 or last - first < _TCP_INFO_DELIVERY + 8:
                continue
            rtt, rttvar, cwnd = _RTT.unpack_from(data, first + _TCP_INFO_RTT)
            acknowledged, received = struct.unpack_from("=QQ", data, first + _TCP_INFO_RECEIVED)
            sent = (_U64.unpack_from(data, first + _TCP_INFO_SENT)[0] if last - first >= _TCP_INFO_SENT + 8
                    else acknowledged)  # fmt: skip
            found.append(Flow(
                source, int.from_bytes(source_port, "big"), destination, int.from_bytes(destination_port, "big"),
                rtt, rttvar, cwnd, _U32.unpack_from(data, first + _TCP_INFO_RETRANS)[0],
                _U64.unpack_from(data, first + _TCP_INFO_DELIVERY)[0], sent, received,
            ))  # fmt: skip
            break
    return found
