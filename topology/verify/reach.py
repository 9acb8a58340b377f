"""Who reaches whom, how fast and with what loss: ICMP echo between nodes, sent from within their network namespaces.

One raw socket a node, made in its namespace; one loop sends and receives for all of them, so that thousands of pairs
take seconds and the times are those of the network, not of processes that start.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import statistics
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from topology.engine import namespaces
from topology.errors import TopologyError

ECHO_REQUEST, ECHO_REPLY = 8, 0
PAYLOAD = struct.Struct("!IIQ")
"""Number of the pair, number of the echo, nanoseconds."""
PER_SECOND = 1500
"""Echoes a second at most: what a switch in user space forwards without queueing on a small machine."""


@dataclass
class Echoes:
    """What came back on one pair."""

    source: str
    target: str
    sent: int = 0
    times_s: list[float] = field(default_factory=list)

    @property
    def received(self) -> int:
        """Echoes that came back in time (each counted once)."""
        return len(self.times_s)

    @property
    def median_s(self) -> float | None:
        """Median round trip, None where nothing came back."""
        return statistics.median(self.times_s) if self.times_s else None


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _packet(identity: int, sequence: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identity, sequence & 0xFFFF)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, _checksum(head + payload), identity, sequence & 0xFFFF) + payload


def _raw_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return made


def ping(
    inventory: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    counts: Mapping[tuple[str, str], int],
    *,
    wait_s: float,
    default_count: int = 5,
) -> list[Echoes]:
    """Send echoes on all pairs and collect what comes back; the last is waited for `wait_s` seconds.

    Raises:
        TopologyError: where a node does not run.
    """
    nodes = {node["name"]: node for node in inventory["nodes"]}
    found = [Echoes(source, target) for source, target in pairs]
    identity = random.randrange(1, 0xFFFF)
    sockets: dict[str, socket.socket] = {}
    try:
        for source in {source for source, _ in pairs}:
            try:
                sockets[source] = namespaces.inside(namespaces.of_process(nodes[source]["pid"]), _raw_socket)
            except (OSError, TypeError) as error:
                raise TopologyError(f"node {source!r} is not running: {error}") from None
        names = {made.fileno(): name for name, made in sockets.items()}
        poll = select.epoll()
        for made in sockets.values():
            poll.register(made, select.EPOLLIN)
        seen: set[tuple[int, int]] = set()
        receive = partial(_receive, poll, {fd: sockets[name] for fd, name in names.items()}, identity, found, seen)
        # Rounds over all pairs, so that the echoes of one pair are apart from one another.
        wanted = [counts.get(pair, default_count) for pair in pairs]
        todo = [(number, turn) for turn in range(max(wanted, default=0))
                for number, count in enumerate(wanted) if turn < count]  # fmt: skip
        start = time.monotonic()
        for position, (number, turn) in enumerate(todo):
            due = start + position / PER_SECOND
            while (early := due - time.monotonic()) > 0:
                receive(early)
            receive(0.0)
            entry = found[number]
            payload = PAYLOAD.pack(number, turn, time.monotonic_ns())
            with contextlib.suppress(OSError):  # no way there: counted as sent, and nothing comes back
                sockets[entry.source].sendto(_packet(identity, turn, payload), (nodes[entry.target]["address"], 0))
            entry.sent += 1
        deadline = time.monotonic() + wait_s
        while len(seen) < len(todo) and (rest := deadline - time.monotonic()) > 0:
            receive(rest)
    finally:
        for made in sockets.values():
            made.close()
    return found


def _receive(
    poll: select.epoll,
    sockets: Mapping[int, socket.socket],
    identity: int,
    found: Sequence[Echoes],
    seen: set[tuple[int, int]],
    timeout_s: float,
) -> None:
    for fd, _ in poll.poll(timeout_s):
        while True:
            try:
                data = sockets[fd].recv(2048)
            except BlockingIOError:
                break
            except OSError:
                break
            now = time.monotonic_ns()
            icmp = data[(data[0] & 0x0F) * 4:]
            if len(icmp) < 8 + PAYLOAD.size or icmp[0] != ECHO_REPLY:
                continue
            if struct.unpack_from("!H", icmp, 4)[0] != identity:
                continue  # another program's
            number, turn, sent = PAYLOAD.unpack_from(icmp, 8)
            if number < len(found) and (number, turn) not in seen:
                seen.add((number, turn))
                found[number].times_s.append((now - sent) / 1e9)
