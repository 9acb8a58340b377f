"""The client's end of the stream to its FL server.

Owns one asyncio thread that connects, reconnects, receives messages and sends replies until the server has
them. Takes and gives bytes. Never looks into a message. Everything without a leading underscore may be called
from the main thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from fl_node import wire
from fl_node.proto import stream_pb2 as pb

_BROKEN = (grpc.RpcError, asyncio.TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError, OSError)
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass
class Task:
    """A message from the server."""

    id: str
    sequence: int
    payload: bytearray | None


@dataclass
class End:
    """There will be no more messages. Kind: finished, failed (the run), refused, unreachable, error."""

    kind: str
    reason: str


@dataclass
class Reply:
    """An answer that the server has not confirmed."""

    reply_to: str
    segments: list[bytes]
    busy_seconds: float


@dataclass(frozen=True)
class LinkSettings:
    """What a link is told; times in seconds."""

    server: str
    run: str
    client: str
    flower: str
    failure: str = ""
    connect_timeout_s: float = 60.0
    keepalive_s: float = 10.0
    keepalive_timeout_s: float = 20.0


class Link:
    """One client's connection to its server, over all reconnections."""

    def __init__(
        self,
        settings: LinkSettings,
        saved: Reply | None = None,
        notice: Callable[[str, str], Any] = lambda kind, reason: None,
    ) -> None:
        self.settings = settings
        self.node_id = 0
        self.bytes_down = 0
        self.bytes_up = 0
        self._notice = notice
        self._inbox: queue.Queue[Task | End] = queue.Queue()
        self._instance = uuid.uuid4().hex
        self._replies: dict[str, Reply] = {saved.reply_to: saved} if saved else {}
        self._held: set[str] = set(self._replies)
        self._unsent: deque[str] = deque()
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bye: str | None = None
        self._reconnect_s = 0.0
        self._thread = threading.Thread(target=self._serve, name="link", daemon=True)

    # --- from the main thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def next(self) -> Task | End:
        """The next message, or the end. After an End there is nothing more."""
        return self._inbox.get()

    def reply(self, reply: Reply) -> None:
        """Send an answer; it is kept and sent again until the server has it."""

        def add() -> None:
            self._replies[reply.reply_to] = reply
            self._unsent.append(reply.reply_to)
            if self._wake is not None:
                self._wake.set()

        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(add)

    def stop(self, reason: str, timeout_s: float = 3.0) -> None:
        """Say goodbye, so that the server need not wait for this client, and end the thread."""

        def leave() -> None:
            self._bye = reason
            if self._wake is not None:
                self._wake.set()

        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(leave)
        self._thread.join(timeout=timeout_s)

    # --- in the link's thread -------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:  # the main thread waits on the inbox and must hear of it
            self._inbox.put(End("error", f"the link failed: {type(error).__name__}: {error}"))

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        deadline = time.monotonic() + self.settings.connect_timeout_s
        attempt = 0
        welcomed = False
        last = "no answer"
        while self._bye is None:
            reached, end, last_error = await self._connection(welcomed)
            if end is not None:
                self._inbox.put(end)
                return
            last = last_error or last
            if reached:
                welcomed, attempt = True, 0
                deadline = time.monotonic() + self._reconnect_s
                self._notice("lost", last)
            if time.monotonic() > deadline:
                verb = "lost, and not reached again" if welcomed else "not reached"
                limit = self._reconnect_s if welcomed else self.settings.connect_timeout_s
                self._inbox.put(
                    End("unreachable", f"server {self.settings.server} {verb} within {limit:g} s: {last}")
                )
                return
            if self._bye is None:
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1

    async def _connection(self, again: bool) -> tuple[bool, End | None, str]:
        """One connection, to its end: (was it welcomed, the end of all, what ended it)."""
        options = wire.channel_options(self.settings.keepalive_s, self.settings.keepalive_timeout_s)
        channel = grpc.aio.insecure_channel(self.settings.server, options=options)
        welcomed = False
        tasks: list[asyncio.Future[Any]] = []
        try:
            connect = channel.stream_stream(
                wire.METHOD,
                request_serializer=pb.Up.SerializeToString,
                response_deserializer=pb.Down.FromString,
            )
            call = connect()
            hello = pb.Hello(
                protocol=wire.PROTOCOL,
                flower=self.settings.flower,
                run=self.settings.run,
                client=self.settings.client,
                instance=self._instance,
                holding=sorted(self._held),
                failure=self.settings.failure,
            )
            await asyncio.wait_for(self._send(call, pb.Up(hello=hello)), wire.FIRST_FRAME_TIMEOUT_S)
            first = await asyncio.wait_for(call.read(), wire.FIRST_FRAME_TIMEOUT_S)
            if first is grpc.aio.EOF:
                return False, None, await _status(call)
            self.bytes_down += first.ByteSize()
            if first.WhichOneof("kind") == "refused":
                return (
                    False,
                    End("refused", f"server {self.settings.server} refused: {first.refused.reason}"),
                    "",
                )
            if first.WhichOneof("kind") != "welcome":
                return False, End("error", f"server {self.settings.server} did not welcome the client"), ""
            welcomed = True
            self.node_id = first.welcome.node_id
            self._reconnect_s = first.welcome.reconnect_s
            self._notice("reconnected" if again else "connected", "")
            self._unsent = deque(self._replies)
            tasks = [asyncio.ensure_future(self._read(call)), asyncio.ensure_future(self._write(call))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None and not isinstance(error, _BROKEN):
                    raise error
                if error is None and task.result() is not None:
                    return True, task.result(), ""
            return True, None, await _status(call)
        except _BROKEN as error:
            details = getattr(error, "details", None)
            return welcomed, None, str(details() if callable(details) else error) or type(error).__name__
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await channel.close()

    async def _send(self, call: Any, up: pb.Up) -> None:
        self.bytes_up += up.ByteSize()
        await call.write(up)

    async def _read(self, call: Any) -> End | None:
        assembly: wire.Assembly | None = None
        while True:
            down = await call.read()
            if down is grpc.aio.EOF:
                return None
            self.bytes_down += down.ByteSize()
            kind = down.WhichOneof("kind")
            if kind == "head":
                assembly = wire.Assembly(down.head)
            elif kind == "chunk":
                if assembly is None:
                    raise wire.WireError("a chunk without a head")
                if assembly.add(down.chunk):
                    self._take(assembly)
                    assembly = None
            elif kind == "received":
                self._confirmed(down.received.id)
            elif kind == "finish":
                return End("finished" if down.finish.succeeded else "failed", down.finish.reason)
            elif kind == "refused":
                return End("refused", f"server {self.settings.server} refused: {down.refused.reason}")

    def _take(self, assembly: wire.Assembly) -> None:
        head = assembly.head
        if head.id not in self._held:
            self._held.add(head.id)
            self._inbox.put(Task(head.id, head.sequence, assembly.take()))

    def _confirmed(self, reply_id: str) -> None:
        reply_to = reply_id.removesuffix("-reply")
        self._replies.pop(reply_to, None)
        self._held.discard(reply_to)

    async def _write(self, call: Any) -> End | None:
        assert self._wake is not None
        while True:
            while self._unsent:
                reply = self._replies.get(self._unsent.popleft())
                if reply is None:
                    continue
                head = pb.Head(
                    id=f"{reply.reply_to}-reply",
                    reply_to=reply.reply_to,
                    size_bytes=wire.size_bytes(reply.segments),
                    busy_seconds=reply.busy_seconds,
                )
                await self._send(call, pb.Up(head=head))
                for chunk in wire.chunks(reply.segments):
                    await self._send(call, pb.Up(chunk=chunk))
            if self._bye is not None:
                await self._send(call, pb.Up(bye=pb.Bye(reason=self._bye)))
                await call.done_writing()
                await asyncio.wait_for(call.code(), 2.0)
                return End("stopped", self._bye)
            self._wake.clear()
            await self._wake.wait()


async def _status(call: Any) -> str:
    """Why a call has ended, in words."""
    try:
        details = await asyncio.wait_for(call.details(), 2.0)
    except _BROKEN:
        details = ""
    return details or "the server closed the stream"
