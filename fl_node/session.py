"""What the server knows of its clients and of the messages between them: records, no behaviour.

Times are in seconds on the monotonic clock, sizes in bytes on the stream. Nothing here opens a socket.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fl_node.proto import stream_pb2 as pb


class HubError(Exception):
    """The transport cannot serve; the message names address or client."""


class CohortError(HubError):
    """Clients are missing; `clients` names them."""

    def __init__(self, message: str, clients: list[str]) -> None:
        super().__init__(message)
        self.clients = clients


@dataclass
class Outgoing:
    """A message that waits for its answer."""

    id: str
    client: str
    segments: list[bytes]
    timeout_s: float
    sequence: int = 0
    pushed: float = field(default_factory=time.monotonic)
    bytes_down: int = 0
    deadline: asyncio.TimerHandle | None = None


@dataclass
class Arrival:
    """The answer to a message: `payload`, or `reason` where there will be none."""

    id: str
    client: str
    seconds: float
    bytes_down: int
    bytes_up: int = 0
    payload: bytearray | None = None
    busy_seconds: float | None = None
    reason: str = ""
    gone: bool = False


class Connection:
    """One stream of one client, from its Hello to its end."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.control: deque[pb.Down] = deque()
        self.sent: set[str] = set()
        self.wake = asyncio.Event()
        self.kicked = asyncio.Event()
        self.closing = False

    def put(self, frame: pb.Down, last: bool = False) -> None:
        """Queue a small frame; `last` ends the stream after it."""
        self.control.append(frame)
        self.closing = self.closing or last
        self.wake.set()


@dataclass
class Session:
    """One expected client over all its connections. State: absent, connected, lost (within grace), gone."""

    name: str
    node_id: int
    state: str = "absent"
    connection: Connection | None = None
    outgoing: dict[str, Outgoing] = field(default_factory=dict)
    sequence: int = 0
    grace: asyncio.TimerHandle | None = None
    reason: str = "it never connected"
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(frozen=True)
class HubSettings:
    """What a hub is told; times in seconds. `clients` maps the expected names to node ids.

    Where only their number is known, `expected` is larger than `clients`: any name is let in until all places
    are taken, and `assign` makes its node id.
    """

    run: str
    run_number: int
    flower: str
    clients: dict[str, int]
    expected: int
    assign: Callable[[str], int]
    host: str = "0.0.0.0"
    port: int = 6000
    grace_s: float = 30.0
    keepalive_s: float = 10.0
    keepalive_timeout_s: float = 20.0
