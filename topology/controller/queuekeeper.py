"""The thread that keeps the queues (HTB) what they should be: meters that are enforced by queueing.

Decides nothing: takes the limits from the meter plan and hands them to `queues.QueueEnforcer`, which it makes only
where there are, or were, such meters.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topology.controller.queues import QueueEnforcer, QueueLimit

LOG = logging.getLogger("controller.queues")

KEPT = "queues.json"
"""The enforcer's own file, beside the book: it is there where a former controller made queues."""


class QueueKeeper:
    """Applies limits whenever it is woken, and every `audit_s` seconds where there are any.

    Args:
        limits: gives those that should be in force.
        inventory: gives the inventory as it is now; another object where it changed.
        state: the testbed's state folder.
        on_error: called with each text that the enforcer gives, once.
    """

    def __init__(
        self,
        limits: Callable[[], Sequence[QueueLimit]],
        inventory: Callable[[], Mapping[str, Any]],
        state: Path,
        on_error: Callable[[str], None],
        audit_s: float,
    ) -> None:
        self._limits, self._inventory, self._on_error = limits, inventory, on_error
        self._audit_s = audit_s
        self._needed = (state / KEPT).exists()
        self._making = threading.Lock()
        self._enforcer: tuple[Mapping[str, Any], QueueEnforcer] | None = None
        self._applied: tuple[tuple[QueueLimit, ...], Mapping[str, Any]] | None = None
        self._progress = threading.Condition()
        self._asked = self._done = 0
        self._stopped = False
        self.in_force: tuple[QueueLimit, ...] = ()
        """What the enforcer confirmed; limits that failed are missing."""
        self.problems: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._run, name="queues", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; queues stay as they are."""
        with self._progress:
            self._stopped = True
            self._progress.notify_all()

    def wake(self) -> int:
        """Limits may have changed. Gives a ticket for `settled`."""
        with self._progress:
            self._asked += 1
            self._progress.notify_all()
            return self._asked

    @property
    def pending(self) -> bool:
        """Whether somebody asked for limits that were not applied yet."""
        with self._progress:
            return self._asked > self._done

    def settled(self, ticket: int, timeout_s: float) -> tuple[str, ...] | None:
        """Wait until the limits of that time were applied; gives what went wrong, None where it took too long."""
        with self._progress:
            self._progress.wait_for(lambda: self._done >= ticket or self._stopped, timeout_s)
            return self.problems if self._done >= ticket else None

    def statistics(self, limit: QueueLimit) -> dict[str, Any]:
        """Counters of a limit that is in force."""
        return self._enforcer_now().statistics(limit)

    def _enforcer_now(self) -> QueueEnforcer:
        with self._making:
            inventory = self._inventory()
            if self._enforcer is None or self._enforcer[0] is not inventory:
                from topology.controller.queues import QueueEnforcer

                self._enforcer = inventory, QueueEnforcer(inventory)
            return self._enforcer[1]

    def _apply(self, audit: bool) -> None:
        limits, inventory = tuple(self._limits()), self._inventory()
        self._needed = self._needed or bool(limits)
        before = self._applied
        same = before is not None and before[0] == limits and before[1] is inventory
        if not self._needed or (same and not (audit and limits)):
            return
        self._applied = None
        problems = tuple(self._enforcer_now().apply(limits))
        for problem in dict.fromkeys(problems):
            if problem not in self.problems:
                self._on_error(problem)
        self.in_force = tuple(limit for limit in limits if not concerning(limit, problems))
        self.problems = problems
        if not problems:
            self._applied = limits, inventory

    def _run(self) -> None:
        audit = False
        while True:
            with self._progress:
                ticket = self._asked
            try:
                self._apply(audit)
            except Exception as error:
                # Whatever goes wrong with one attempt, the next one must come: the thread is the only one.
                LOG.exception("queues could not be applied")
                self.in_force, self.problems = (), (f"queues could not be applied: {error!r}",)
                self._on_error(self.problems[0])
            with self._progress:
                self._done = ticket
                self._progress.notify_all()
                woken = self._progress.wait_for(lambda: self._stopped or self._asked > self._done, self._audit_s)
                audit = not woken
                if self._stopped:
                    return


def _speaks_of(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", text) is not None


def concerning(limit: QueueLimit, problems: Sequence[str]) -> list[str]:
    """Those of the enforcer's texts that speak of this limit's meter, of its interface (and node), or of neither
    any meter nor interface at all."""
    found = []
    for text in problems:
        here = _speaks_of(text, limit.interface) and (limit.node is None or _speaks_of(text, limit.node))
        general = "meter " not in text and "interface " not in text
        if here or general or _speaks_of(text, limit.meter):
            found.append(text)
    return found
