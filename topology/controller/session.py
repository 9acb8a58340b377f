"""One connected switch: a thread that makes its flows and meters what they should be.

Wakes when the network's belief changed, and every `audit_s` seconds to see whether somebody took a flow away.
Every question has a deadline; a switch that does not answer is disconnected, and comes back by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from topology.controller import wire
from topology.controller.conversation import ANSWER_S, FLOW_S, Conversation, Refusal, SwitchSilent
from topology.controller.flows import (
    COOKIE_OURS,
    COOKIE_OURS_MASK,
    LAST_METER,
    Barrier,
    Contents,
    Flow,
    Meter,
    MeterMod,
)
from topology.controller.reconcile import reconcile

LOG = logging.getLogger("controller.session")

SHOWN_REFUSALS = 20
"""Refusals of one attempt that are shown one by one."""


class Session(Conversation):
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
        super().__init__(connection, name, on_error)
        self._audit_s = audit_s
        self.connected_since = time.time()
        self.installed = False
        """The switch confirmed everything that it should have by now."""
        self.confirmed: dict[object, Flow | Meter] = {}
        """What it confirmed: flows by key, meters by id."""
        self.flow_count = 0
        self.maximum_meters = 0
        self._wanted, self._on_read, self._on_sent = wanted, on_read, on_sent
        self._wake = threading.Event()
        self._progress = threading.Condition()
        self._asked = 0
        self._done = 0
        self._refusals: tuple[Refusal, ...] = ()
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
        self.fail_questions()
        self._wake.set()
        with self._progress:
            self._progress.notify_all()

    # The thread.

    def _read_maximum_meters(self) -> int:
        # A switch without meters may know no such question: its error says as much as a zero.
        entries = self.ask(wire.meter_features_request(self.connection)).entries
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
        question = self.ask(wire.to_openflow(self.connection, Barrier()), messages[:-1], timeout_s)
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
