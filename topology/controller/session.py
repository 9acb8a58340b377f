"""One connected switch: a thread that makes its flows and meters what they should be, and asks it questions.

Wakes when the network's belief changed, and every `audit_s` seconds to see whether somebody took a flow away.
Every question has a deadline; a switch that does not answer is disconnected, and comes back by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topology.controller import wire
from topology.controller.flows import (
    COOKIE_OURS,
    COOKIE_OURS_MASK,
    LAST_METER,
    Barrier,
    Contents,
    Flow,
    Message,
    Meter,
    MeterMod,
)
from topology.controller.reconcile import reconcile

LOG = logging.getLogger("controller.session")

ANSWER_S = 10.0
"""Deadline of a switch's answer to a question."""
FLOW_S = 0.01
"""What each flow message adds to it; one takes about 0.1 ms, and many switches may be served at once."""
CHUNK_BYTES = 256 * 1024
SHOWN_REFUSALS = 20
"""Refusals of one attempt that are shown one by one."""


class SwitchSilent(Exception):
    """The switch did not answer in time, or its connection ended meanwhile."""


@dataclass(frozen=True)
class Refusal:
    """A message of ours that the switch answered with an OpenFlow error, and the error in words."""

    message: Message
    text: str


class _Question:
    """A request that waits for the parts of its reply."""

    def __init__(self, sent: Mapping[int, Message | str]) -> None:
        self.sent = sent
        """What went out for it, by transaction id."""
        self.entries: list[Any] = []
        self.refusals: list[Refusal] = []
        self.error: str | None = None
        """The request itself was refused."""
        self.errors: list[Any] | None = None
        """Where the asker wants to see OpenFlow errors itself: those of its messages."""
        self.done = threading.Event()


class Session:
    """The conversation with one switch, from its connection to its end.

    Args:
        wanted: gives what it should have, None where it is not known.
        on_read: called once, with what of ours the switch had when it connected, and with the number of meters
            that it can have; returns after the other switches were heard too, or not (then their links are
            believed up).
        on_error: called with the text of each OpenFlow error that stays after a second attempt.
        on_sent: called with the number of messages sent.
        audit_s: seconds between two looks at what the switch really has.
    """

    def __init__(
        self,
        connection: Any,
        name: str,
        wanted: Callable[[], Contents | None],
        on_read: Callable[[Contents, int], None],
        on_error: Callable[[str], None],
        on_sent: Callable[[int], None],
        audit_s: float,
    ) -> None:
        self._audit_s = audit_s
        self.connection = connection
        self.name = name
        self.connected_since = time.time()
        self.installed = False
        """The switch confirmed everything that it should have by now."""
        self.confirmed: dict[object, Flow | Meter] = {}
        """What it confirmed: flows by key, meters by id."""
        self.flow_count = 0
        self.maximum_meters = 0
        self._wanted, self._on_read, self._on_error, self._on_sent = wanted, on_read, on_error, on_sent
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._numbering = threading.Lock()
        self._progress = threading.Condition()
        self._asked = 0
        self._done = 0
        self._refusals: tuple[Refusal, ...] = ()
        self._questions: dict[int, _Question] = {}
        self._thread = threading.Thread(target=self._run, name=f"session-{name}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wake(self) -> int:
        """What the switch should have may have changed. Gives a ticket for `settled`."""
        with self._progress:
            self.installed = False
            self._asked += 1
            ticket = self._asked
        self._wake.set()
        return ticket

    def settled(self, ticket: int, timeout_s: float) -> tuple[Refusal, ...] | None:
        """Wait until the switch has what it should have had when the ticket was given.

        Returns:
            what it refused of that; None where it went, or did not come to it in time.
        """
        with self._progress:
            self._progress.wait_for(lambda: self._done >= ticket or self._closed.is_set(), timeout_s)
            return self._refusals if self._done >= ticket else None

    def close(self) -> None:
        """The connection ended: every question in the air fails, the thread ends."""
        self.installed = False
        self._closed.set()
        self._wake.set()
        with self._progress:
            self._progress.notify_all()
        with self._lock:
            questions = list(self._questions.values())
        for question in questions:
            question.done.set()

    # What the switch says; called from the thread that handles os-ken's events.

    def on_reply(self, reply: Any, entries: Iterable[Any] = (), last: bool = True) -> None:
        """A part of a reply; parts without a question are dropped (it came too late)."""
        with self._lock:
            question = self._questions.get(reply.xid)
        if question is not None:
            question.entries.extend(entries)
            if last:
                question.done.set()

    def on_openflow_error(self, error: Any) -> None:
        """The switch refused something: keep it for whoever asked, or say it where nobody waits."""
        text = wire.describe_error(error)
        with self._lock:
            question = next((q for q in self._questions.values() if error.xid in q.sent), None)
        if question is None:
            self._on_error(f"{self.name} refused message {error.xid:#x}: {text}")
            return
        message = question.sent[error.xid]
        if question.errors is not None:
            question.errors.append(error)
            if self._questions.get(error.xid) is question:
                question.done.set()
        elif isinstance(message, str):
            question.error = text
            question.done.set()
        else:
            question.refusals.append(Refusal(message, f"{self.name} refused {words(message)}: {text}"))

    # Questions; any thread may ask.

    def _ask(self, request: Any, before: Sequence[Message] = (), timeout_s: float = ANSWER_S) -> _Question:
        """Send the messages `before` and the request in one go, wait for the reply to the request.

        Raises:
            SwitchSilent: where it does not come in time.
        """
        messages = [wire.to_openflow(self.connection, message) for message in before]
        kind = type(request).__name__
        return self._exchange([*messages, request], [*before, kind], timeout_s)

    def exchange(self, messages: Sequence[Any], timeout_s: float) -> tuple[list[Any], list[Any]]:
        """Send os-ken messages of a REST call in one go, wait for the reply to the last.

        Gives the reply's entries, and the OpenFlow errors that the messages met: they are the caller's to
        tell, and no trouble of the controller's.

        Raises:
            SwitchSilent: where the reply does not come in time.
        """
        errors: list[Any] = []
        names = [type(message).__name__ for message in messages]
        return self._exchange(messages, names, timeout_s, errors).entries, errors

    def _exchange(
        self,
        messages: Sequence[Any],
        sent: Sequence[Message | str],
        timeout_s: float,
        errors: list[Any] | None = None,
    ) -> _Question:
        # Numbers are given one by one; nobody who waits for a reply waits for this.
        with self._numbering:
            data, numbers = wire.serialise(self.connection, messages)
        number, kind = numbers[-1], type(messages[-1]).__name__
        question = _Question(dict(zip(numbers, sent, strict=True)))
        question.errors = errors
        with self._lock:
            self._questions[number] = question
        try:
            # In pieces: the socket's own time-out holds for one piece, however much there is to send.
            for start in range(0, len(data), CHUNK_BYTES):
                if self._closed.is_set() or not self.connection.send(data[start : start + CHUNK_BYTES]):
                    raise SwitchSilent(f"{self.name} is not connected any more")
            if not question.done.wait(timeout_s):
                raise SwitchSilent(f"{self.name} did not answer {kind} in {timeout_s:g} s")
            if self._closed.is_set():
                raise SwitchSilent(f"{self.name} went while it was asked for {kind}")
        finally:
            with self._lock:
                del self._questions[number]
        return question

    def _entries(self, request: Any, timeout_s: float) -> list[Any]:
        question = self._ask(request, timeout_s=timeout_s)
        if question.error is not None:
            self._on_error(f"{self.name} refused {type(request).__name__}: {question.error}")
        return question.entries

    def flow_statistics(self, cookie: int = 0, mask: int = 0, timeout_s: float = ANSWER_S) -> list[Any]:
        """Entries of the switch's flow statistics, of flows whose cookie agrees under the mask. Raises
        SwitchSilent."""
        return self._entries(wire.flow_statistics_request(self.connection, cookie, mask), timeout_s)

    def port_statistics(self, timeout_s: float = ANSWER_S) -> list[Any]:
        """Entries of the switch's port statistics. Raises SwitchSilent."""
        return self._entries(wire.port_statistics_request(self.connection), timeout_s)

    def meter_statistics(self, meter: int | None = None, timeout_s: float = ANSWER_S) -> list[Any]:
        """Entries of the switch's meter statistics, of one meter or all. Raises SwitchSilent."""
        return self._entries(wire.meter_statistics_request(self.connection, meter), timeout_s)

    def meter_configurations(self, meter: int | None = None, timeout_s: float = ANSWER_S) -> list[Meter]:
        """The meters that the switch has, those of others included, or one of them. Raises SwitchSilent."""
        entries = self._entries(wire.meter_configuration_request(self.connection, meter), timeout_s)
        return [wire.from_meter_configuration(entry) for entry in entries]

    # The thread.

    def _read_maximum_meters(self) -> int:
        # A switch without meters may know no such question: its error says as much as a zero.
        entries = self._ask(wire.meter_features_request(self.connection)).entries
        return max((int(entry.max_meter) for entry in entries), default=0)

    def _read(self) -> Contents:
        entries = self.flow_statistics(COOKIE_OURS, COOKIE_OURS_MASK)
        meters = self.meter_configurations() if self.maximum_meters else []
        return Contents(
            tuple(wire.from_statistics(entry) for entry in entries),
            tuple(meter for meter in meters if meter.id <= LAST_METER),
        )

    def _run(self) -> None:
        present: Contents | None = None
        first = True
        while not self._closed.is_set():
            try:
                if first:
                    self.maximum_meters = self._read_maximum_meters()
                if present is None:
                    present = self._read()
                if first:
                    first = False
                    self._on_read(present, self.maximum_meters)
                present = self._pass(present)
            except SwitchSilent as problem:
                if not self._closed.is_set():
                    self._on_error(f"{problem}; disconnected, it will connect again")
                    self.connection.disconnect()
                return
            if not self._wake.wait(self._audit_s):
                present = None
            self._wake.clear()

    def _pass(self, present: Contents) -> Contents | None:
        """Bring the switch to what it should have. Returns what it has now; None where that has to be read
        again."""
        with self._progress:
            ticket = self._asked
        wanted = self._wanted()
        after, refusals = self._send_difference(wanted, present)
        if refusals:
            # What was read before may not hold any more (somebody deleted a meter): once more from what is there.
            wanted = self._wanted()
            after, refusals = self._send_difference(wanted, self._read())
        for refusal in refusals[:SHOWN_REFUSALS]:
            self._on_error(refusal.text)
        if len(refusals) > SHOWN_REFUSALS:
            self._on_error(f"{self.name} refused {len(refusals) - SHOWN_REFUSALS} messages more")
        if after is not None:
            self.confirmed = {**{f.key: f for f in after.flows}, **{m.id: m for m in after.meters}}
            self.flow_count = len(after.flows)
        with self._progress:
            # What it refused stays wanted: it is tried again at the next audit, and REST shows the errors until
            # then.
            self.installed = after is not None and ticket == self._asked and not self._closed.is_set()
            self._done, self._refusals = ticket, tuple(refusals)
            self._progress.notify_all()
        return after

    def _send_difference(
        self, wanted: Contents | None, present: Contents
    ) -> tuple[Contents | None, list[Refusal]]:
        if wanted is None:
            return None, []
        messages = reconcile(wanted, present)
        if not messages:
            return wanted, []
        timeout_s = ANSWER_S + len(messages) * FLOW_S
        question = self._ask(wire.to_openflow(self.connection, Barrier()), messages[:-1], timeout_s)
        meters = sum(isinstance(message, MeterMod) for message in messages)
        changes = sum(not isinstance(message, Barrier) for message in messages) - meters
        self._on_sent(changes + meters)
        LOG.info(
            "switch %s: %d flow changes, %d flows; %d meter changes, %d meters",
            self.name,
            changes,
            len(wanted.flows),
            meters,
            len(wanted.meters),
        )
        return (None if question.refusals else wanted), question.refusals


def words(message: Message) -> str:
    """A message for people: `to add flow table=10 ...`."""
    if isinstance(message, Barrier):
        return "a barrier"
    if isinstance(message, MeterMod):
        return f"to {message.command} meter {message.meter}"
    return f"to {message.command} flow {message.flow}"
