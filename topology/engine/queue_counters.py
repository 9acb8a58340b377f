"""What the kernel says of HTB classes and queues, read by rtnetlink: which there are, their rates, what they counted.

Takes a netlink socket of the network namespace (`topology.engine.netlink.socket_here`); changes nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from topology.errors import TopologyError

_GET_QDISC, _GET_CLASS = 38, 42
_ERROR, _DONE = 2, 3
_REQUEST_DUMP = 0x1 | 0x300
_TCMSG = struct.Struct("=BxxxiIII")  # family, interface's index, handle, parent, info
_ROOT = 0xFFFFFFFF
_KIND, _OPTIONS, _STATS2 = 1, 2, 7
_BASIC, _QUEUE = 1, 3
_HTB_PARAMETERS, _HTB_RATE64, _HTB_CEIL64 = 1, 6, 7


@dataclass(frozen=True)
class Counted:
    """One class (or, with `kind`, one discipline). Minor and major numbers of its own and its parent's handle; rates in
    byte/s where it is an HTB class.
    """

    kind: str
    major: int
    minor: int
    parent_major: int
    parent_minor: int
    rate: int
    ceil: int
    bytes: int
    packets: int
    drops: int
    backlog: int


def classes(link: socket.socket, index: int) -> list[Counted]:
    """All HTB classes of an interface. Raises TopologyError, also where it does not exist."""
    return [item for _, item in _dump(link, _GET_CLASS, index) if item.kind == "htb"]


def disciplines(link: socket.socket, index: int) -> list[Counted]:
    """All queueing disciplines of an interface (the kernel gives those of the whole namespace)."""
    return [item for found, item in _dump(link, _GET_QDISC, index) if found == index]


def _dump(link: socket.socket, kind: int, index: int) -> Iterator[tuple[int, Counted]]:
    body = _TCMSG.pack(0, index, 0, 0, 0)
    link.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_DUMP, 1, 0) + body)
    while True:
        try:
            data = link.recv(1 << 18)
        except TimeoutError:
            raise TopologyError("the kernel did not list its queues in 10 s") from None
        offset = 0
        while offset + 16 <= len(data):
            length, message = struct.unpack_from("=IH", data, offset)
            if message == _DONE:
                return
            if message == _ERROR:
                status = -struct.unpack_from("=i", data, offset + 16)[0]
                name = errno.errorcode.get(status, str(status))
                raise TopologyError(f"the kernel did not list its queues: {os.strerror(status)} ({name})")
            yield _one(data[offset + 16 : offset + length])
            offset += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _one(data: bytes) -> tuple[int, Counted]:
    _, index, handle, parent, _ = _TCMSG.unpack_from(data)
    attributes = _attributes(data[_TCMSG.size :])
    kind = attributes.get(_KIND, b"").rstrip(b"\0").decode()
    rate = ceil = 0
    if kind == "htb":
        options = _attributes(attributes.get(_OPTIONS, b""))
        if (parameters := options.get(_HTB_PARAMETERS)) is not None:
            rate, ceil = struct.unpack_from("=I", parameters, 8)[0], struct.unpack_from("=I", parameters, 20)[0]
            rate = struct.unpack("=Q", options[_HTB_RATE64])[0] if _HTB_RATE64 in options else rate
            ceil = struct.unpack("=Q", options[_HTB_CEIL64])[0] if _HTB_CEIL64 in options else ceil
    statistics = _attributes(attributes.get(_STATS2, b""))
    sent, packets = struct.unpack_from("=QI", statistics[_BASIC]) if _BASIC in statistics else (0, 0)
    backlog, drops = struct.unpack_from("=4xII", statistics[_QUEUE]) if _QUEUE in statistics else (0, 0)
    if parent == _ROOT:
        parent = 0
    return index, Counted(
        kind, handle >> 16, handle & 0xFFFF, parent >> 16, parent & 0xFFFF, rate, ceil, sent, packets, drops, backlog
    )
