"""Questions to one switch and its answers: numbers every message, knows which errors belong to which.

Every question has a deadline. Any thread may ask; what the switch says comes from the one that handles os-ken's
events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topology.controller import wire
from topology.controller.flows import Barrier, Message, Meter, MeterMod

ANSWER_S = 10.0
"""Deadline of a switch's answer to a question."""
FLOW_S = 0.01
"""What each flow message adds to it; one takes about 0.1 ms, and many switches may be served at once."""
CHUNK_BYTES = 256 * 1024


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


class Conversation:
    """Asks a connected switch. `on_error` is called with OpenFlow errors that nobody waits for."""

    def __init__(self, connection: Any, name: str, on_error: Callable[[str], None]) -> None:
        self.connection = connection
        self.name = name
        self._on_error = on_error
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._numbering = threading.Lock()
        self._questions: dict[int, _Question] = {}

    def fail_questions(self) -> None:
        """The connection ended: every question in the air fails."""
        self._closed.set()
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

    def ask(self, request: Any, before: Sequence[Message] = (), timeout_s: float = ANSWER_S) -> _Question:
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
        question = self.ask(request, timeout_s=timeout_s)
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

    def table_statistics(self, timeout_s: float = ANSWER_S) -> list[Any]:
        """Entries of the switch's table statistics, of each table that it can have. Raises SwitchSilent."""
        return self._entries(wire.table_statistics_request(self.connection), timeout_s)

    def meter_statistics(self, meter: int | None = None, timeout_s: float = ANSWER_S) -> list[Any]:
        """Entries of the switch's meter statistics, of one meter or all. Raises SwitchSilent."""
        return self._entries(wire.meter_statistics_request(self.connection, meter), timeout_s)

    def meter_configurations(self, meter: int | None = None, timeout_s: float = ANSWER_S) -> list[Meter]:
        """The meters that the switch has, those of others included, or one of them. Raises SwitchSilent."""
        entries = self._entries(wire.meter_configuration_request(self.connection, meter), timeout_s)
        return [wire.from_meter_configuration(entry) for entry in entries]


def words(message: Message) -> str:
    """A message for people: `to add flow table=10 ...`."""
    if isinstance(message, Barrier):
        return "a barrier"
    if isinstance(message, MeterMod):
        return f"to {message.command} meter {message.meter}"
    return f"to {message.command} flow {message.flow}"
