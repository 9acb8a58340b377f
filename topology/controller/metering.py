"""Carries changes of meters out: checks them, writes the book, wakes who is concerned, waits, and takes all back
where a switch refuses.

The one writer of the book; one change at a time. Whoever reads takes the plan's layout.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from topology.controller.flows import FlowMod, Message, MeterMod
from topology.controller.meterbook import BookError, BookState, conflicts
from topology.controller.meterplan import MeterPlan
from topology.controller.meters import Fault, MeterSpec
from topology.controller.placement import Layout, Numbered
from topology.controller.queuekeeper import QueueKeeper, concerning
from topology.errors import Problem

if TYPE_CHECKING:
    from topology.controller.session import Session

CHANGE_S = 20.0
"""How long a call waits for the switches; what is not done by then is pending, and goes on."""
TURN_S = 25.0
"""How long a call waits for others that change meters."""

_STATUS = {"invalid": 400, "unknown": 404, "conflict": 409}


class MeterRefused(Exception):
    """A call about meters that fails with this HTTP status and these problems."""

    def __init__(self, http_status: int, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.http_status, self.problems = http_status, tuple(problems)


def refuse(faults: Sequence[Fault]) -> None:
    """Raise MeterRefused for faults, if there are any: 400 where one is invalid, else 404, else 409."""
    if faults:
        status = min(_STATUS[fault.kind] for fault in faults)
        raise MeterRefused(status, [fault.problem for fault in faults])


class Metering:
    """Changes of the desired state, and whether they are in force.

    Args:
        sessions: gives the connected switches by datapath id.
    """

    def __init__(self, plan: MeterPlan, keeper: QueueKeeper, sessions: Callable[[], Mapping[int, Session]]) -> None:
        self.plan, self.keeper = plan, keeper
        self._sessions = sessions
        self._turn = threading.Lock()

    # Changes.

    def put(self, specs: Mapping[str, MeterSpec], *, replace: bool = False) -> dict[str, str]:
        """Set meters; keys of `specs` are paths for the problems ("" where there is one).

        Returns:
            what happened to each, by name: created, changed or same.

        Raises:
            MeterRefused: 400, 404, 409 with every problem, 502 where a switch refused (nothing is changed then),
                503 where other changes took too long.
        """
        with self._my_turn():
            before = self.plan.book.state
            paths = {spec.name: path for path, spec in specs.items()}
            wanted = {spec.name: spec for spec in specs.values()}
            gone = before.entries.keys() - wanted.keys() if replace else set()
            there = {name: before.entries[name].spec for name in wanted if name in before.entries}
            changed = [spec for name, spec in wanted.items() if there.get(name) != spec]
            try:
                after = before.changed(changed, gone, time.time())
            except BookError as error:
                raise MeterRefused(400, [Problem("meters", "too-many", str(error))]) from None
            refuse(conflicts(after, paths))
            if changed or gone:
                self._refuse_impossible(after, {spec.name: paths[spec.name] for spec in changed})
                self._carry_out(before, after, [*gone, *(spec.name for spec in changed)])
            new = {spec.name for spec in changed}
            return {
                name: "same" if name not in new else "changed" if name in there else "created" for name in wanted
            }

    def remove(self, names: Iterable[str] | None = None) -> None:
        """Remove meters of those names, or all.

        Raises:
            MeterRefused: 404 where there is none of that name, 502, 503 as in `put`.
        """
        with self._my_turn():
            before = self.plan.book.state
            gone = list(before.entries if names is None else names)
            for name in gone:
                self.entry(name)
            if gone:
                self._carry_out(before, before.changed((), gone), gone)

    def entry(self, name: str) -> Numbered:
        """The meter of that name. Raises MeterRefused (404)."""
        found = self.plan.book.state.entries.get(name)
        if found is None:
            names = list(self.plan.book.state.entries)
            hint = f"there are: {', '.join(names[:20])}" if names else "there are none"
            problem = Problem(name[:80], "unknown-meter", f"no meter is called {name[:80]!r}", hint)
            raise MeterRefused(404, [problem])
        return found

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=TURN_S):
            message = f"other changes of meters took longer than {TURN_S:g} s"
            raise MeterRefused(503, [Problem("meters", "busy", message, "try again")])
        try:
            yield
        finally:
            self._turn.release()

    def _refuse_impossible(self, after: BookState, paths: Mapping[str, str]) -> None:
        layout = self.plan.layout_of(after)
        problems = [
            Problem(
                f"{path}.enforce".strip("."),
                "cannot-enforce",
                f"{name} {place.direction} cannot be enforced: {place.problem}",
                place.hint,
            )
            for name, path in paths.items()
            for place in layout.places[name]
            if place.forever
        ]
        if problems:
            raise MeterRefused(400, problems)

    def _carry_out(self, before: BookState, after: BookState, names: Sequence[str]) -> None:
        former = self.plan.layout()
        self._commit(after)
        problems = self._spread(former, names, (before, after))
        if problems:
            failed = self.plan.layout()
            self._commit(before)
            self._spread(failed, names, (before, after))
            raise MeterRefused(502, problems)

    def _commit(self, state: BookState) -> None:
        try:
            self.plan.book.commit(state)
        except BookError as error:
            hint = "make room there, or restore the testbed's state folder"
            raise MeterRefused(500, [Problem("meters", "not-kept", str(error), hint)]) from None

    def _spread(self, former: Layout, names: Sequence[str], states: Sequence[BookState]) -> list[Problem]:
        """Have switches and queues follow; gives what they refused of the meters of those names."""
        layout = self.plan.layout()
        deadline = time.monotonic() + CHANGE_S
        sessions = self._sessions()
        concerned = [
            at
            for at in former.contents.keys() | layout.contents.keys()
            if former.contents.get(at) != layout.contents.get(at)
        ]
        tickets = {at: sessions[at].wake() for at in concerned if at in sessions}
        queue_ticket = self.keeper.wake() if former.limits != layout.limits else None
        owners = {
            number: name
            for state in states
            for name in names
            if name in state.entries
            for number in state.entries[name].ids.values()
        }
        problems = []
        for at, ticket in tickets.items():
            for refusal in sessions[at].settled(ticket, max(0.0, deadline - time.monotonic())) or ():
                owner = owners.get(_meter_id(refusal.message) or 0)
                if owner is not None:
                    hint = f"nothing was changed; `/v1/flows?switch={sessions[at].name}` shows what the switch has"
                    problems.append(Problem(owner, "openflow-error", refusal.text, hint))
        if queue_ticket is not None:
            texts = self.keeper.settled(queue_ticket, max(0.0, deadline - time.monotonic())) or ()
            limits = [limit for layout_ in (former, layout) for limit in layout_.limits if limit.meter in names]
            found = dict.fromkeys(text for limit in limits for text in concerning(limit, texts))
            problems += [Problem("enforce", "queue-error", text, "nothing was changed") for text in found]
        return problems


def _meter_id(message: Message) -> int | None:
    if isinstance(message, MeterMod):
        return message.meter.id
    return message.flow.meter if isinstance(message, FlowMod) else None
