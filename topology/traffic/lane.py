"""One of the two ports of a flow: an iperf3 server that stays at the destination, and a client for each segment.

Two lanes let a segment begin before the last bytes of the one before it have arrived: a change of rate leaves no
gap. A server whose client was killed is replaced: it would believe itself busy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from topology.engine import listeners
from topology.traffic import iperf
from topology.traffic.program import Program, Trouble

LISTEN_S = 5.0
CONNECT_S = 6.0
"""More than iperf3's own time-out for connecting, so that it says itself why."""
RETIRE_S = 0.75
"""How long a client may take to end after its segment (it exchanges results with its server)."""
STALL_S = 10.0

FindNode = Callable[[str], Mapping[str, Any]]


class Lane:
    """A port. `on_event` is called when its client says something or ends."""

    def __init__(self, flow: Mapping[str, Any], port: int, find: FindNode, on_event: Callable[[], None]) -> None:
        self._flow = flow
        self._port = port
        self._find = find
        self._on_event = on_event
        self._server: Program | None = None
        self._server_said: deque[str] = deque(maxlen=4)
        self._client: Program | None = None
        self._connected = asyncio.Event()
        self._error = ""
        self._progress = 0.0
        self._retiring: asyncio.Task[None] | None = None
        self.sent_bps: float | None = None

    async def send(self, rate_bps: int, duration_s: float) -> None:
        """Begin a segment; returns when its connection stands. Raises Trouble."""
        await self._retired()
        source, destination = self._find(self._flow["source"]), self._find(self._flow["destination"])
        await self._serve(destination)
        self._connected = asyncio.Event()
        self._error = ""
        self.sent_bps = None
        argv = iperf.client(
            source["address"], destination["address"], self._port, self._flow["protocol"], rate_bps, duration_s
        )
        self._client = Program(source, argv, self._hear, self._client_gone)
        await self._client.start()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), CONNECT_S)
        self._progress = asyncio.get_running_loop().time()
        if self._client.status:  # it can also be done already, with status 0
            raise Trouble(self._why())
        if self._client.status is None and not self._connected.is_set():
            raise Trouble(f"{source['name']}: no connection to {destination['name']} in {CONNECT_S:g} s")

    async def _serve(self, destination: Mapping[str, Any]) -> None:
        if self._server is not None and self._server.status is None:
            return
        place = f"{destination['address']}:{self._port}"
        if self._listens(destination["pid"]):
            raise Trouble(f"{destination['name']}: iperf3 cannot listen on {place}: another program does already")
        self._server_said.clear()
        argv = iperf.server(destination["address"], self._port)
        self._server = server = Program(destination, argv, self._server_said.append, lambda: None)
        await server.start()
        deadline = asyncio.get_running_loop().time() + LISTEN_S
        while True:
            if server.status is not None:
                said = [found for line in self._server_said if (found := iperf.read_line(line).error)]
                why = said[-1] if said else f"it ended with status {server.status}"
                raise Trouble(f"{destination['name']}: iperf3 cannot listen on {place}: {why}")
            if self._listens(server.pid):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise Trouble(f"{destination['name']}: iperf3 does not listen on {place}")
            await asyncio.sleep(0.02)

    def _listens(self, pid: int) -> bool:
        return self._port in listeners.ports(pid)

    def _hear(self, line: str) -> None:
        said = iperf.read_line(line)
        if said.connected:
            self._connected.set()
        if said.sent_bps is not None:
            self.sent_bps = said.sent_bps
            if said.sent_bps > 0:
                self._progress = asyncio.get_running_loop().time()
        self._error = said.error or self._error

    def _client_gone(self) -> None:
        self._connected.set()  # whoever waits for the connection has to look
        self._on_event()

    def _why(self) -> str:
        assert self._client is not None
        return f"{self._flow['source']}: {self._error or f'iperf3 ended with status {self._client.status}'}"

    def check(self) -> None:
        """Raises Trouble where the segment's client has failed, or has not moved a byte for long."""
        if self._client is None:
            return
        if self._client.status:
            raise Trouble(self._why())
        idle = asyncio.get_running_loop().time() - self._progress
        if self._client.status is None and idle > STALL_S:
            raise Trouble(f"{self._flow['source']}: nothing has passed to {self._flow['destination']} for {idle:.0f} s")

    def retire(self, *, at_once: bool) -> None:
        """Let the client come to its end (or end it `at_once`) while another lane goes on."""
        if self._client is not None and self._retiring is None:
            self._retiring = asyncio.get_running_loop().create_task(self._retire(at_once))

    async def _retire(self, at_once: bool) -> None:
        client, self._client = self._client, None
        if client is not None and not await client.end(interrupt=at_once, within_s=RETIRE_S) and self._server:
            await self._server.end(interrupt=False)

    async def _retired(self) -> None:
        if self._retiring is not None:
            await asyncio.shield(self._retiring)  # a flow that is stopped meanwhile must not stop this too
            self._retiring = None

    async def end(self) -> None:
        """End client and server at once. Where this is cancelled, calling it again ends what is left."""
        await self._retired()
        for program in (self._client, self._server):
            if program is not None:
                await program.end(interrupt=False)
        self._client = self._server = None
