"""Trains of numbered UDP packets between two nodes: what arrived, how often, how late, and whether it was altered.

All sockets are this process's own, made within the nodes' network namespaces, so both ends read one clock; arrival is
stamped by the kernel. Packets go without checksum: what was altered on its way still arrives, and is seen.
"""

from __future__ import annotations

import math
import socket
import statistics
import struct
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topology.engine import namespaces

PORT = 7007
_HEAD = struct.Struct("!IQ")
_WARM = 0xFFFFFFFF
_SO_NO_CHECK, _SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 11, 35, 33
_HEADERS = 14 + 20 + 8
"""Ethernet, IP and UDP."""


@dataclass(frozen=True)
class Train:
    """What became of `sent` packets. `delays_s` are those of each packet's first arrival, by its number."""

    sent: int
    delays_s: Mapping[int, float]
    copies: Counter[int]
    altered: int
    sending_s: float
    """How long it took to send them all."""
    arrivals_s: tuple[float, ...]
    """When packets arrived, copies too, in seconds from the first that was sent."""

    @property
    def lost(self) -> int:
        """Those of which no true copy arrived."""
        return self.sent - len(self.delays_s)

    @property
    def extra(self) -> int:
        return sum(count - 1 for count in self.copies.values())

    @property
    def least_s(self) -> float:
        """A delay that one in twenty packets stays below: what is added is never less than declared, and a busy machine
        only adds to it.
        """
        return statistics.quantiles(self.delays_s.values(), n=20)[0]

    def chunks_s(self, size: int) -> list[list[float]]:
        """The delays of so many packets in a row, as they were sent."""
        delays = [self.delays_s[number] for number in sorted(self.delays_s)]
        return [delays[start : start + size] for start in range(0, len(delays) - size + 1, size)]

    def frames_per_s(self, start_s: float, end_s: float) -> float:
        """Arrivals in a window of that time."""
        return sum(start_s <= moment < end_s for moment in self.arrivals_s) / (end_s - start_s)


def _node(inventory: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(dict(node) for node in inventory["nodes"] if node["name"] == name)


def _socket(inventory: Mapping[str, Any], name: str) -> socket.socket:
    made = namespaces.inside(
        namespaces.of_process(_node(inventory, name)["pid"]), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    )
    made.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
    return made


def train(
    inventory: Mapping[str, Any], source: str, sink: str, count: int, *, frame_bytes: int = 106,
    interval_s: float = 0.0, settle_s: float = 0.4,
) -> Train:  # fmt: skip
    """Send `count` packets of so many bytes on the wire, one each `interval_s` (0: as fast as they go)."""
    size = frame_bytes - _HEADERS
    filler = bytes(range(256)) * (size // 256 + 1)
    with _socket(inventory, source) as out, _socket(inventory, sink) as into:
        into.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 * 2**20)
        into.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        into.bind(("", PORT))
        into.setblocking(False)
        out.connect((_node(inventory, sink)["address"], PORT))
        _warm(out, into)
        sent: dict[int, int] = {}
        start = time.monotonic()
        for number in range(count):
            if interval_s:
                time.sleep(max(0.0, start + number * interval_s - time.monotonic()))
            sent[number] = now = time.time_ns()
            out.send(_HEAD.pack(number, now) + filler[: size - _HEAD.size])
        sending_s = time.monotonic() - start
        time.sleep(settle_s)
        return _collect(into, sent, filler[: size - _HEAD.size], sending_s)


def _warm(out: socket.socket, into: socket.socket) -> None:
    # Addresses are resolved and flows are set up: neither is to be measured.
    deadline = time.monotonic() + 10
    arrived = 0
    while arrived < 2:
        assert time.monotonic() < deadline, "nothing arrives at all"
        out.send(_HEAD.pack(_WARM, 0))
        time.sleep(0.15)
        arrived += len(_drain(into))


def _drain(into: socket.socket) -> list[tuple[bytes, int]]:
    found: list[tuple[bytes, int]] = []
    while True:
        try:
            data, extra, _, _ = into.recvmsg(65536, 64)
        except BlockingIOError:
            return found
        stamp = struct.unpack("=qq", extra[0][2])
        found.append((data, stamp[0] * 1_000_000_000 + stamp[1]))


def _collect(into: socket.socket, sent: Mapping[int, int], filler: bytes, sending_s: float) -> Train:
    delays: dict[int, float] = {}
    copies: Counter[int] = Counter()
    altered = 0
    stamps = []
    for data, stamp in _drain(into):
        number, begun = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (_WARM, 0)
        if sent.get(number) != begun or data[_HEAD.size :] != filler:
            altered += (number, begun) != (_WARM, 0)
            continue
        copies[number] += 1
        stamps.append(stamp)
        delays.setdefault(number, (stamp - begun) / 1e9)
    arrivals = tuple((stamp - sent[0]) / 1e9 for stamp in stamps)
    return Train(len(sent), delays, copies, altered, sending_s, arrivals)


def assert_share(what: str, happened: int, of: int, declared: float) -> None:
    """A count lies within four standard deviations of its binomial law: one run in 16,000 fails by chance."""
    deviation = math.sqrt(of * declared * (1 - declared))
    low, high = of * declared - 4 * deviation, of * declared + 4 * deviation
    print(f"{what}: {happened} of {of} = {happened / of:.2%}, declared {declared:.2%}, "
          f"allowed {low / of:.2%} to {high / of:.2%}")  # fmt: skip
    assert low <= happened <= high


def assert_near(what: str, measured: float, declared: float, within: float) -> None:
    """A measured value lies within so much of the declared one."""
    print(f"{what}: declared {declared:g}, measured {measured:.4g}, allowed +-{within:g}")
    assert abs(measured - declared) <= within
