"""One connected switch: a thread that makes its flows what they should be, and asks it questions.

Wakes when the network's belief changed, and every `audit_s` seconds to see whether somebody took a flow away.
Every question has a deadline; a switch that does not answer is disconnected, and comes back by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from topology.controller import wire
from topology.controller.flows import (
    COOKIE_FORWARDING,
    COOKIE_MASK,
    Barrier,
    Flow,
    Message,
)
from topology.controller.reconcile import reconcile

LOG = logging.getLogger("controller.session")

ANSWER_S = 10.0
"""Deadline of a switch's answer to a question."""
FLOW_S = 0.01
"""What each flow message adds to it; one takes about 0.1 ms, and many switches may be served at once."""
CHUNK_BYTES = 256 * 1024


class SwitchSilent(Exception):
    """The switch did not answer in time, or its connection ended meanwhile."""


class _Question:
    """A request that waits for the parts of its reply."""

    def __init__(self, sent: Mapping[int, str]) -> None:
        self.sent = sent
        """What went out for it, in words, by transaction id."""
        self.entries: list[Any] = []
        self.refused = 0
        self.errors: list[Any] | None = None
        """A list where whoever asks wants the OpenFlow errors of its messages; else they are a trouble."""
        self.done = threading.Event()


class Session:
    """The conversation with one switch, from its connection to its end.

    Args:
        wanted: gives the flows that it should have, None where it is not known.
        on_read: called once, with the flows of ours that the switch had when it connected; returns after the
        other switches
            were heard too, or not (then their links are believed up).
        on_error: called with the text of each OpenFlow error.
        on_sent: called with the number of flow messages sent.
        audit_s: seconds between two looks at what the switch really has.
    """

    def __init__(
        self,
        connection: Any,
        name: str,
        wanted: Callable[[], list[Flow] | None],
        on_read: Callable[[list[Flow]], None],
        on_error: Callable[[str], None],
        on_sent: Callable[[int], None],
        audit_s: float,
    ) -> None:
        self._audit_s = audit_s
        self.connection = connection
        self.name = name
        self.connected_since = time.time()
        self.installed = False
        """The switch confirmed all flows that it should have by now."""
        self.flow_count = 0
        self._wanted, self._on_read, self._on_error, self._on_sent = wanted, on_read, on_error, on_sent
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._questions: dict[int, _Question] = {}
        self._thread = threading.Thread(target=self._run, name=f"session-{name}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wake(self) -> None:
        """What the switch should have may have changed."""
        self.installed = False
        self._wake.set()

    def close(self) -> None:
        """The connection ended: every question in the air fails, the thread ends."""
        self.installed = False
        self._closed.set()
        self._wake.set()
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
        """The switch refused something: say what it was."""
        cause = f"message {error.xid:#x}"
        with self._lock:
            question = next((q for q in self._questions.values() if error.xid in q.sent), None)
            answered = self._questions.get(error.xid)
        if question is not None and question.errors is not None:
            question.errors.append(error)
            if answered is not None:
                answered.done.set()
            return
        if question is not None:
            question.refused += 1
            cause = question.sent[error.xid]
        self._on_error(f"{self.name} refused {cause}: {wire.describe_error(error)}")
        if answered is not None:
            answered.done.set()

    # Questions; any thread may ask.

    def _ask(
        self,
        request: Any,
        before: Sequence[Any] = (),
        timeout_s: float = ANSWER_S,
        errors: list[Any] | None = None,
    ) -> _Question:
        """Send the messages `before` and the request in one go, wait for the reply to the request.

        Raises:
            SwitchSilent: where it does not come in time.
        """
        messages = [
            message if hasattr(message, "serialize") else wire.to_openflow(self.connection, message)
            for message in before
        ]
        words = [*map(_words, before), type(request).__name__]
        with self._lock:
            data, numbers = wire.serialise(self.connection, [*messages, request])
            number = numbers[-1]
            question = self._questions[number] = _Question(dict(zip(numbers, words, strict=True)))
            question.errors = errors
        try:
            # In pieces: the socket's own time-out holds for one piece, however much there is to send.
            for start in range(0, len(data), CHUNK_BYTES):
                if self._closed.is_set() or not self.connection.send(data[start : start + CHUNK_BYTES]):
                    raise SwitchSilent(f"{self.name} is not connected any more")
            if not question.done.wait(timeout_s):
                raise SwitchSilent(f"{self.name} did not answer {type(request).__name__} in {timeout_s:g} s")
            if self._closed.is_set():
                raise SwitchSilent(f"{self.name} went while it was asked for {type(request).__name__}")
        finally:
            with self._lock:
                del self._questions[number]
        return question

    def exchange(self, messages: Sequence[Any], timeout_s: float) -> tuple[list[Any], list[Any]]:
        """Send os-ken messages of a REST call in one go, wait for the reply to the last.

        Gives the reply's entries, and the OpenFlow errors that the messages met: they are the caller's to
        tell, and no trouble of the controller's.

        Raises:
            SwitchSilent: where the reply does not come in time.
        """
        errors: list[Any] = []
        question = self._ask(messages[-1], messages[:-1], timeout_s, errors)
        return question.entries, errors

    def flow_statistics(self, ours_only: bool = False, timeout_s: float = ANSWER_S) -> list[Any]:
        """Entries of the switch's flow statistics. Raises SwitchSilent."""
        cookie, mask = (COOKIE_FORWARDING, COOKIE_MASK) if ours_only else (0, 0)
        return self._ask(
            wire.flow_statistics_request(self.connection, cookie, mask), timeout_s=timeout_s
        ).entries

    def port_statistics(self, timeout_s: float = ANSWER_S) -> list[Any]:
        """Entries of the switch's port statistics. Raises SwitchSilent."""
        return self._ask(wire.port_statistics_request(self.connection), timeout_s=timeout_s).entries

    # The thread.

    def _run(self) -> None:
        present: list[Flow] | None = None
        first = True
        while not self._closed.is_set():
            try:
                if present is None:
                    present = [wire.from_statistics(entry) for entry in self.flow_statistics(ours_only=True)]
                    if first:
                        first = False
                        self._on_read(present)
                present = self._reconcile(present)
            except SwitchSilent as problem:
                if not self._closed.is_set():
                    self._on_error(f"{problem}; disconnected, it will connect again")
                    self.connection.disconnect()
                return
            if not self._wake.wait(self._audit_s):
                present = None
            self._wake.clear()

    def _reconcile(self, present: list[Flow]) -> list[Flow] | None:
        """Send the difference. Returns what the switch has now; None where that has to be read again."""
        wanted = self._wanted()
        if wanted is None:
            self.installed = False
            return None
        messages = reconcile(wanted, present)
        if messages:
            timeout_s = ANSWER_S + len(messages) * FLOW_S
            question = self._ask(wire.to_openflow(self.connection, Barrier()), messages[:-1], timeout_s)
            self._on_sent(len(messages) - 1)
            LOG.info("switch %s: %d flow changes, %d flows", self.name, len(messages) - 1, len(wanted))
            if question.refused:
                # What it refused stays wanted: it is tried again at the next audit, and REST shows the errors
                # until then.
                self.installed = False
                return None
        self.flow_count = len(wanted)
        self.installed = not self._closed.is_set()
        return wanted


def _words(message: Any) -> str:
    if not isinstance(message, Message):
        return type(message).__name__
    return "a barrier" if isinstance(message, Barrier) else f"to {message.command} flow {message.flow}"
