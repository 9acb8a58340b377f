"""`StreamGrid`: Flower's `Grid` over one gRPC stream a client.

Owns the meeting of Flower's messages with the hub's bytes: ids, order of replies, Error replies, the phases
that events tell of. Takes a `Hub` and is given to a ServerApp. Never opens a connection itself. What Flower
would wait for without end ends here by a deadline, with the names of the clients that are missing.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from fl_node import flower
from fl_node.hub import Hub
from fl_node.session import Arrival, CohortError, Outgoing

_POLL_GAP_S = 5.0  # calls of get_node_ids closer than this are one wait
_WHOLE_COHORT_WAIT_S = 10.0  # with everybody present nobody else will come


def node_ids(run: str, clients: Iterable[str]) -> dict[str, int]:
    """Stable node ids: 20 bits of the run, 43 of the name, so that their order depends on the names alone.

    Sampling sees the same order in every run of the same clients, whatever the run is called.
    """
    run_bits = int.from_bytes(hashlib.sha256(run.encode()).digest()[:8], "big") >> 44
    made: dict[str, int] = {}
    for name in clients:
        name_bits = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 21
        made[name] = (run_bits << 43) | (name_bits or 1)
    if len(set(made.values())) != len(made):
        raise ValueError("two clients have one node id: rename one of them")
    return made


@dataclass
class Phase:
    """Messages that were pushed together for one purpose."""

    round: int | None
    name: str
    clients: list[str] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)
    replies: int = 0
    errors: int = 0
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass
class _Pending:
    message: flower.Message
    client: str
    phase: Phase


class StreamGrid(Grid):
    """The Grid that a ServerApp is called with."""

    def __init__(
        self,
        hub: Hub,
        run: Any,
        *,
        message_timeout_s: float,
        stall_timeout_s: float,
        event: Callable[..., Any],
        first_push: Callable[[], Any] = lambda: None,
        check: Callable[[], Any] = lambda: None,
    ) -> None:
        """`check` is called wherever the application asks the grid for something, and may raise to end it."""
        self._hub = hub
        self._run = run
        self._message_timeout_s = message_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._event = event
        self._first_push = first_push
        self._check = check
        self._names = {node_id: name for name, node_id in hub.clients().items()}
        self._lock = threading.RLock()
        self._cache = flower.SegmentCache()
        self._pending: dict[str, _Pending] = {}
        self._done: dict[str, flower.Message] = {}
        self._nonce = uuid.uuid4().hex[:8]
        self._count = 0
        self._waits: dict[int, tuple[float, float]] = {}  # thread -> (first call, last call) of get_node_ids
        self.valid_replies = 0
        self.first_error: tuple[str, str] | None = None  # (client, reason)

    # --- Flower's Grid --------------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """Set the run; the server does so before the application starts."""
        self._run = run

    @property
    def run(self) -> Any:
        """The run (Flower's own type)."""
        return self._run

    def create_message(
        self,
        content: Any,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> flower.Message:
        """Make a message (Flower's older way; `Message(...)` does the same)."""
        return flower.Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Node ids of the clients that can be reached, sorted.

        Raises:
            CohortError: somebody polls for more clients than can come, for longer than the stall time-out.
        """
        self._check()
        found = self._hub.available()
        now = time.monotonic()
        thread = threading.get_ident()
        with self._lock:
            first, last = self._waits.get(thread, (now, now))
            if now - last > _POLL_GAP_S or self._pending:
                first = now
            self._waits[thread] = (first, now)
        if thread != threading.main_thread().ident:
            return found
        absent = self._hub.absent()
        limit = self._stall_timeout_s if absent else min(self._stall_timeout_s, _WHOLE_COHORT_WAIT_S)
        if now - first > limit:
            there = f"{len(found)} of {len(self._names)} clients are there"
            if absent:
                why = "; ".join(f"{name}: {reason}" for name, reason in sorted(absent.items()))
                raise CohortError(
                    f"the application has waited {limit:g} s for clients; {there}. Missing: {why}",
                    sorted(absent),
                )
            raise CohortError(
                f"the application waits for more clients than the run has; {there}. "
                "Lower min-available-nodes, min-train-nodes or min-evaluate-nodes",
                [],
            )
        return found

    def push_messages(self, messages: Iterable[flower.Message]) -> list[str]:
        """Send messages; returns their ids in the same order."""
        self._check()
        batch: list[Outgoing] = []
        phases: dict[tuple[int | None, str], Phase] = {}
        with self._lock:
            self._cache.begin()
            self._waits.clear()
            for message in messages:
                batch.append(self._register(message, phases))
            if batch:
                self._first_push()
            for phase in phases.values():
                self._event("phase.started", round=phase.round, phase=phase.name, clients=phase.clients)
        if batch:
            self._hub.submit(batch)
        return [outgoing.id for outgoing in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> list[flower.Message]:
        """The replies that are there, in the order of `message_ids`; each is given once."""
        self._check()
        wanted = list(message_ids)
        self._collect(wanted)
        with self._lock:
            return [self._done.pop(message_id) for message_id in wanted if message_id in self._done]

    def send_and_receive(
        self, messages: Iterable[flower.Message], *, timeout: float | None = None
    ) -> list[flower.Message]:
        """Send messages and wait; replies come in the order of the messages.

        A client that is gone or late is answered for with an Error. Where `timeout` (seconds) ends first,
        messages without a reply have none in the result, as with Flower's own grid.
        """
        ids = self.push_messages(messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = set(ids)
        while waiting:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                self._hub.forget(waiting, f"no reply within the application's own timeout of {timeout:g} s")
                self._collect(list(waiting))
                with self._lock:
                    for message_id in waiting:
                        reply = self._done.get(message_id)
                        if reply is not None and reply.has_error():
                            del self._done[message_id]
                break
            self._hub.wait(waiting, left)
            self._check()
            self._collect(list(waiting))
            with self._lock:
                waiting -= self._done.keys()
        with self._lock:
            return [self._done.pop(message_id) for message_id in ids if message_id in self._done]

    # --- inside ---------------------------------------------------------------------------------------------

    def _register(self, message: flower.Message, phases: dict[tuple[int | None, str], Phase]) -> Outgoing:
        node_id = message.metadata.dst_node_id
        client = self._names.get(node_id)
        if client is None:
            raise ValueError(
                f"message to node {node_id}: this run has no such node. Its nodes: {sorted(self._names)}"
            )
        message_id = f"{self._nonce}-{self._count}"
        self._count += 1
        flower.set_message_id(message, message_id)
        key = flower.describe(message)
        phase = phases.setdefault(key, Phase(*key))
        phase.clients.append(client)
        phase.open.add(message_id)
        segments = flower.encode(message, self._cache)
        self._pending[message_id] = _Pending(message, client, phase)
        return Outgoing(message_id, client, segments, self._message_timeout_s)

    def _collect(self, ids: list[str]) -> None:
        with self._lock:
            for arrival in self._hub.take(ids):
                pending = self._pending.pop(arrival.id, None)
                if pending is not None:
                    self._done[arrival.id] = self._reply(pending, arrival)

    def _reply(self, pending: _Pending, arrival: Arrival) -> flower.Message:
        failure, error, reply = self._read(pending, arrival)
        examples, metrics = flower.summary(reply)
        phase = pending.phase
        phase.replies += not error
        phase.errors += bool(error)
        phase.bytes_down += arrival.bytes_down
        phase.bytes_up += arrival.bytes_up
        phase.open.discard(arrival.id)
        if error and self.first_error is None:
            self.first_error = (pending.client, error)
        self.valid_replies += not error
        self._event(
            "client.reply",
            round=phase.round,
            phase=phase.name,
            client=pending.client,
            seconds=round(arrival.seconds, 6),
            busy_seconds=None if arrival.busy_seconds is None else round(arrival.busy_seconds, 6),
            bytes_down=arrival.bytes_down,
            bytes_up=arrival.bytes_up,
            num_examples=examples,
            metrics=metrics,
            error=error or None,
            failure=failure or None,
        )
        if not phase.open:
            self._event(
                "phase.finished",
                round=phase.round,
                phase=phase.name,
                clients=phase.clients,
                seconds=round(time.monotonic() - phase.started, 6),
                replies=phase.replies,
                errors=phase.errors,
                bytes_down=phase.bytes_down,
                bytes_up=phase.bytes_up,
            )
        return reply

    def _read(self, pending: _Pending, arrival: Arrival) -> tuple[str, str, flower.Message]:
        """(kind of failure, error in words, reply); the first two are empty where all is well."""
        if arrival.payload is None:
            kind, code = ("gone", flower.ERROR_NODE_GONE) if arrival.gone else ("no-reply", flower.ERROR_NO_REPLY)
            return kind, arrival.reason, flower.error_reply(pending.message, code, arrival.reason)
        payload, arrival.payload = arrival.payload, None
        try:
            reply = flower.decode(payload)
        except (DecodeError, ValueError, TypeError, AttributeError) as error:
            reason = f"client {pending.client} sent a reply that cannot be read: {error}"
            return "unreadable", reason, flower.error_reply(pending.message, flower.ERROR_NO_REPLY, reason)
        flower.set_message_id(reply, f"{arrival.id}-reply")
        if reply.has_error():
            return "application", reply.error.reason or f"code {reply.error.code}", reply
        return "", "", reply
