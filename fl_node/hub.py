"""The server's end of all client streams: who is there, what each was sent and has not answered.

Owns one asyncio thread with the gRPC server, a session for each expected client, deadlines and the grace
period of lost links. Takes messages as bytes and gives arrivals as bytes. Never looks into a message, and
knows nothing of Flower. All methods without a leading underscore may be called from any thread; everything
with one runs in the hub's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from fl_node import wire
from fl_node.proto import stream_pb2 as pb
from fl_node.session import Arrival, CohortError, Connection, HubError, HubSettings, Outgoing, Session

MAX_OUTSTANDING = 256  # messages that one client may owe an answer to
EventSink = Callable[..., Any]


class Hub:
    """Serves the streams of a run's clients."""

    def __init__(self, settings: HubSettings, event: EventSink) -> None:
        self.settings = settings
        self._event = event
        self._sessions = {name: Session(name, node_id) for name, node_id in settings.clients.items()}
        self._arrivals: dict[str, Arrival] = {}
        self._change = threading.Condition()
        self._failure: CohortError | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="hub", daemon=True)
        self._started = threading.Event()
        self._start_error: str | None = None
        self._server: Any = None
        self._stopping = False
        self._woken = False
        self.port = 0

    # --- from any thread ------------------------------------------------------------------------------------

    def start(self) -> int:
        """Listen; returns the port. Raises HubError where the address is taken."""
        self._thread.start()
        self._started.wait(timeout=30)
        if self._start_error or not self.port:
            raise HubError(self._start_error or "the transport did not start within 30 s")
        return self.port

    def await_cohort(self, timeout_s: float) -> None:
        """Wait until every expected client is connected. Raises CohortError that names the missing ones."""
        deadline = time.monotonic() + timeout_s
        with self._change:
            while True:
                if self._failure is not None:
                    raise self._failure
                missing = self._not_connected()
                unnamed = self.settings.expected - len(self._sessions)
                if not missing and not unnamed:
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    reasons = [f"{name}: {self._sessions[name].reason}" for name in missing]
                    if unnamed:
                        there = ", ".join(sorted(set(self._sessions) - set(missing))) or "nobody"
                        reasons.append(f"{unnamed} of any name never connected ({there} did)")
                    why = "; ".join(reasons)
                    raise CohortError(
                        f"{len(missing) + unnamed} of {self.settings.expected} clients had not joined "
                        f"after {timeout_s:g} s: {why}",
                        missing,
                    )
                self._change.wait(min(left, 1.0))

    def clients(self) -> dict[str, int]:
        """Names and node ids of all clients that are known, sorted by name."""
        with self._change:
            return {name: self._sessions[name].node_id for name in sorted(self._sessions)}

    def available(self) -> list[int]:
        """Node ids of clients that are connected or within their grace period, sorted."""
        with self._change:
            return sorted(s.node_id for s in self._sessions.values() if s.state in ("connected", "lost"))

    def absent(self) -> dict[str, str]:
        """Clients that cannot be counted on any more (or yet), with the reason."""
        with self._change:
            return {s.name: s.reason for s in self._sessions.values() if s.state in ("absent", "gone")}

    def totals(self) -> tuple[int, int]:
        """(bytes down, bytes up) of all frames so far."""
        with self._change:
            sessions = list(self._sessions.values())
        return sum(s.bytes_down for s in sessions), sum(s.bytes_up for s in sessions)

    def submit(self, batch: list[Outgoing]) -> None:
        """Send messages, each to its client, in this order. Answers come through `wait` and `take`."""
        done = asyncio.run_coroutine_threadsafe(self._submit(batch), self._loop)
        done.result(timeout=60)

    def take(self, ids: Iterable[str]) -> list[Arrival]:
        """Arrivals among `ids`, each handed out once."""
        with self._change:
            return [self._arrivals.pop(i) for i in ids if i in self._arrivals]

    def wait(self, ids: set[str], timeout_s: float) -> None:
        """Return when one of `ids` has arrived, when `wake` was called, or after the time."""
        with self._change:
            self._change.wait_for(
                lambda: self._woken or any(i in self._arrivals for i in ids), timeout=timeout_s
            )

    def wake(self) -> None:
        """Have every `wait` return at once from now on. Takes no lock: a signal handler may call it."""

        def tell() -> None:
            with self._change:
                self._woken = True
                self._change.notify_all()

        self._loop.call_soon_threadsafe(tell)

    def forget(self, ids: Iterable[str], reason: str) -> None:
        """Stop waiting for these messages; each arrives as failed with `reason`."""
        wanted = list(ids)

        async def drop() -> None:
            for session in self._sessions.values():
                for message_id in wanted:
                    if message_id in session.outgoing:
                        self._fail(session, message_id, reason, gone=False)

        asyncio.run_coroutine_threadsafe(drop(), self._loop).result(timeout=60)

    def close(self, succeeded: bool, reason: str, linger_s: float = 5.0) -> None:
        """Tell every client that the run has ended, wait for them for at most `linger_s`, stop serving."""
        if not self._thread.is_alive():
            return
        done = asyncio.run_coroutine_threadsafe(self._finish(succeeded, reason, linger_s), self._loop)
        with contextlib.suppress(TimeoutError):  # the process ends now anyway, and takes the sockets along
            done.result(timeout=linger_s + 10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    # --- in the loop ----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        except (RuntimeError, OSError) as error:
            self._start_error = (
                f"cannot listen on {self.settings.host}:{self.settings.port}: {error}. "
                "Another program holds the port, or the address is not on this node"
            )
        finally:
            self._started.set()
        if not self._start_error:
            self._loop.run_forever()

    async def _listen(self) -> None:
        options = wire.channel_options(self.settings.keepalive_s, self.settings.keepalive_timeout_s)
        server = grpc.aio.server(options=options)
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=pb.Up.FromString,
            response_serializer=pb.Down.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SERVICE, {"Connect": handler}),)
        )
        self.port = server.add_insecure_port(f"{self.settings.host}:{self.settings.port}")
        await server.start()
        self._server = server

    async def _connect(self, _: Any, context: Any) -> None:
        try:
            first = await asyncio.wait_for(context.read(), wire.FIRST_FRAME_TIMEOUT_S)
        except TimeoutError:
            return
        if first is grpc.aio.EOF or first.WhichOneof("kind") != "hello":
            return
        refusal = self._refusal(first.hello)
        if refusal:
            await context.write(pb.Down(refused=pb.Refused(reason=refusal)))
            return
        name = first.hello.client
        if name not in self._sessions:
            with self._change:
                self._sessions[name] = Session(name, self.settings.assign(name))
        session = self._sessions[name]
        connection = self._attach(session, first)
        reason = "the link was lost"
        tasks = [
            asyncio.ensure_future(self._read(session, context)),
            asyncio.ensure_future(self._write(session, connection, context)),
            asyncio.ensure_future(connection.kicked.wait()),
        ]
        try:
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and task.exception() is not None:
                    reason = f"the link was lost: {task.exception()}"
        finally:
            for task in tasks:
                task.cancel()
            self._detach(session, connection, reason)

    def _refusal(self, hello: pb.Hello) -> str:
        if hello.protocol != wire.PROTOCOL:
            return f"this server speaks stream protocol {wire.PROTOCOL}, the client {hello.protocol}"
        if hello.run != self.settings.run:
            return f"this server runs {self.settings.run!r}, the client asks for run {hello.run!r}"
        if not hello.client or len(hello.client) > 255:
            return f"a client's name has 1 to 255 characters, this one {len(hello.client)}"
        if hello.client not in self._sessions and len(self._sessions) >= self.settings.expected:
            known = ", ".join(sorted(self._sessions))
            return f"client {hello.client!r} is not of run {self.settings.run!r}. Its clients: {known}"
        if hello.flower != self.settings.flower:
            return (
                f"this server has flwr {self.settings.flower}, the client {hello.flower}: install one version"
            )
        if hello.failure:
            with self._change:
                self._failure = CohortError(
                    f"client {hello.client} cannot take part: {hello.failure}", [hello.client]
                )
                self._change.notify_all()
            return f"noted: {hello.failure}"
        if self._stopping:
            return "the run has ended"
        return ""

    def _attach(self, session: Session, first: pb.Up) -> Connection:
        hello = first.hello
        connection = Connection(hello.instance)
        old = session.connection
        if old is not None:
            if old.instance != hello.instance:
                text = f"another process of client {session.name} has connected in place of this one"
                old.put(pb.Down(refused=pb.Refused(reason=text)), last=True)
            self._loop.call_later(0 if old.instance == hello.instance else 2, old.kicked.set)
        if session.grace is not None:
            session.grace.cancel()
            session.grace = None
        before = session.state
        connection.sent = set(hello.holding)
        connection.put(
            pb.Down(
                welcome=pb.Welcome(
                    run_number=self.settings.run_number,
                    node_id=session.node_id,
                    reconnect_s=max(60.0, 2 * self.settings.grace_s),
                )
            )
        )
        with self._change:
            session.bytes_up += first.ByteSize()
            session.connection, session.state, session.reason = connection, "connected", ""
            self._change.notify_all()
        kind = "client.reconnected" if before in ("connected", "lost") else "client.joined"
        reason = {"absent": "", "gone": "rejoined after it was given up"}.get(before, "the link is back")
        self._tell(kind, session, reason)
        return connection

    def _detach(self, session: Session, connection: Connection, reason: str) -> None:
        if session.connection is not connection:
            return  # a newer connection has taken its place
        session.connection = None
        if session.state != "connected":
            return
        with self._change:
            session.state, session.reason = "lost", reason
            self._change.notify_all()
        if self._stopping:
            return
        session.grace = self._loop.call_later(self.settings.grace_s, self._give_up, session)
        self._tell(
            "client.left", session, f"{reason}; waiting {self.settings.grace_s:g} s for it", final=False
        )

    def _give_up(self, session: Session, reason: str = "") -> None:
        if session.grace is not None:
            session.grace.cancel()
            session.grace = None
        reason = reason or f"{session.reason}, and it did not come back within {self.settings.grace_s:g} s"
        with self._change:
            session.state, session.reason = "gone", reason
            self._change.notify_all()
        self._tell("client.left", session, reason, final=True)
        for message_id in list(session.outgoing):
            self._fail(session, message_id, f"client {session.name} is gone: {reason}", gone=True)

    async def _read(self, session: Session, context: Any) -> None:
        assembly: wire.Assembly | None = None
        while True:
            up = await context.read()
            if up is grpc.aio.EOF:
                return
            size = up.ByteSize()
            session.bytes_up += size
            kind = up.WhichOneof("kind")
            if kind == "head":
                assembly = wire.Assembly(up.head)
                assembly.frame_bytes = size
            elif kind == "chunk":
                if assembly is None:
                    raise wire.WireError("a chunk without a head")
                assembly.frame_bytes += size
                if assembly.add(up.chunk):
                    self._arrived(session, assembly)
                    assembly = None
            elif kind == "bye":
                self._give_up(session, up.bye.reason or "it left")
                return

    def _arrived(self, session: Session, assembly: wire.Assembly) -> None:
        head = assembly.head
        if session.connection is not None:
            session.connection.put(pb.Down(received=pb.Received(id=head.id)))
        outgoing = session.outgoing.pop(head.reply_to, None)
        if outgoing is None:  # answered before, or its deadline has passed
            return
        self._settle(
            outgoing,
            bytes_up=assembly.frame_bytes,
            payload=assembly.take(),
            busy_seconds=head.busy_seconds,
        )

    def _fail(self, session: Session, message_id: str, reason: str, gone: bool) -> None:
        outgoing = session.outgoing.pop(message_id, None)
        if outgoing is not None:
            self._settle(outgoing, reason=reason, gone=gone)

    def _settle(self, outgoing: Outgoing, **fields: Any) -> None:
        if outgoing.deadline is not None:
            outgoing.deadline.cancel()
        arrival = Arrival(
            id=outgoing.id,
            client=outgoing.client,
            seconds=time.monotonic() - outgoing.pushed,
            bytes_down=outgoing.bytes_down,
            **fields,
        )
        with self._change:
            self._arrivals[outgoing.id] = arrival
            self._change.notify_all()

    async def _submit(self, batch: list[Outgoing]) -> None:
        for outgoing in batch:
            session = self._sessions[outgoing.client]
            outgoing.sequence = session.sequence
            session.sequence += 1
            if session.state in ("absent", "gone"):
                self._settle(outgoing, reason=f"client {session.name} is gone: {session.reason}", gone=True)
                continue
            if len(session.outgoing) >= MAX_OUTSTANDING:
                self._settle(outgoing, reason=f"client {session.name} already owes {MAX_OUTSTANDING} answers")
                continue
            session.outgoing[outgoing.id] = outgoing
            late = f"client {session.name} did not answer within {outgoing.timeout_s:g} s"
            outgoing.deadline = self._loop.call_later(
                outgoing.timeout_s, self._fail, session, outgoing.id, late, False
            )
            if session.connection is not None:
                session.connection.wake.set()

    async def _write(self, session: Session, connection: Connection, context: Any) -> None:
        async def send(down: pb.Down) -> int:
            size = down.ByteSize()
            await context.write(down)
            session.bytes_down += size
            return size

        async def flush() -> None:
            while connection.control:
                await send(connection.control.popleft())

        while True:
            await flush()
            if connection.closing:
                return
            waiting = next((o for i, o in session.outgoing.items() if i not in connection.sent), None)
            if waiting is None:
                connection.wake.clear()
                await connection.wake.wait()
                continue
            connection.sent.add(waiting.id)
            size = wire.size_bytes(waiting.segments)
            head = pb.Head(id=waiting.id, sequence=waiting.sequence, size_bytes=size)
            waiting.bytes_down += await send(pb.Down(head=head))
            for chunk in wire.chunks(waiting.segments):
                if waiting.id not in session.outgoing:
                    break  # its deadline has passed: the next head tells the client to drop what it has
                waiting.bytes_down += await send(pb.Down(chunk=chunk))
                await flush()

    async def _finish(self, succeeded: bool, reason: str, linger_s: float) -> None:
        self._stopping = True
        deadline = time.monotonic() + linger_s
        for session in self._sessions.values():
            if session.grace is not None:
                session.grace.cancel()
            if session.connection is not None:
                session.connection.put(
                    pb.Down(finish=pb.Finish(succeeded=succeeded, reason=reason)), last=True
                )
        while time.monotonic() < deadline and any(s.connection is not None for s in self._sessions.values()):
            await asyncio.sleep(0.02)
        if self._server is not None:
            await self._server.stop(grace=0.5)

    # --- helpers --------------------------------------------------------------------------------------------

    def _not_connected(self) -> list[str]:
        return [name for name, session in self._sessions.items() if session.state != "connected"]

    def _tell(self, kind: str, session: Session, reason: str, **more: Any) -> None:
        expected = self.settings.expected
        joined = len(self._sessions) - len(self._not_connected())
        self._event(kind, client=session.name, joined=joined, expected=expected, reason=reason, **more)
