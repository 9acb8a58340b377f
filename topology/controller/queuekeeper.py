"""The thread that keeps the queues (HTB) what they should be: meters that are enforced by queueing.

Decides nothing: takes the limits from the meter plan and hands them to `queues.QueueEnforcer`. A testbed without
such meters never starts it on anything.
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


class QueueKeeper:
    """Applies limits whenever it is woken, and every `audit_s` seconds where there are any.

    Args:
        limits: gives those that should be in force.
        inventory: gives the inventory as it is now.
        mark: a file that is there while queues of ours may be in place: a controller that starts and finds it
            looks after them, even where no meter wants one any more.
        on_error: called with each text that the enforcer gives, once.
    """

    def __init__(
        self,
        limits: Callable[[], Sequence[QueueLimit]],
        inventory: Callable[[], Mapping[str, Any]],
        mark: Path,
        on_error: Callable[[str], None],
        audit_s: float,
    ) -> None:
        self._limits, self._inventory, self._mark, self._on_error = limits, inventory, mark, on_error
        self._audit_s = audit_s
        self._enforcer: tuple[Mapping[str, Any], QueueEnforcer] | None = None
        self._using = threading.Lock()
        self._progress = threading.Condition()
        self._asked = self._done = 0
        self._stopped = False
        self._applied: tuple[tuple[QueueLimit, ...], Mapping[str, Any]] | None = None
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

    def settled(self, ticket: int, timeout_s: float) -> tuple[str, ...] | None:
        """Wait until the limits of that time were applied; gives what went wrong, None where it took too long."""
        with self._progress:
            self._progress.wait_for(lambda: self._done >= ticket or self._stopped, timeout_s)
            return self.problems if self._done >= ticket else None

    def statistics(self, limit: QueueLimit) -> dict[str, Any]:
        """Counters of a limit that is in force."""
        with self._using:
            return self._enforcer_now().statistics(limit)

    def _enforcer_now(self) -> QueueEnforcer:
        inventory = self._inventory()
        if self._enforcer is None or self._enforcer[0] is not inventory:
            from topology.controller.queues import QueueEnforcer

            self._enforcer = inventory, QueueEnforcer(inventory)
        return self._enforcer[1]

    def _apply(self, audit: bool) -> None:
        limits = tuple(self._limits())
        state = limits, self._inventory()
        if state == self._applied and not audit:
            return
        self._applied = None
        if not limits and not self._mark.exists():
            self.in_force, self.problems = (), ()
            return
        if limits:
            self._mark.touch()
        with self._using:
            problems = tuple(self._enforcer_now().apply(limits))
        if not limits and not problems:
            self._mark.unlink(missing_ok=True)
        for problem in set(problems) - set(self.problems):
            self._on_error(problem)
        self.in_force = tuple(limit for limit in limits if not concerning(limit, problems))
        self.problems = problems
        self._applied = None if problems else state

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


def concerning(limit: QueueLimit, problems: Sequence[str]) -> list[str]:
    """Those of the enforcer's texts that speak of this limit's meter, or of its interface."""
    words = [rf"(?<![\w.-]){re.escape(word)}(?![\w-])" for word in (limit.meter, limit.interface)]
    return [text for text in problems if any(re.search(word, text) for word in words)]
