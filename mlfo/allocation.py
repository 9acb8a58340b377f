"""Which server serves a run. ``choose`` is the pure rule; ``Allocator`` applies it to what the store holds,
one at a time.

The rule: the server of the plan's cohort. ``sameserver``: not given, ``no`` and ``nor`` mean just that
(``nor`` first forgets which server served what); anything else means the server that last served the same
source and model. Only where another live run holds the wanted server is the next free one in plan order
taken, and the answer says so. Where none is free, nobody gets one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlfo.store import Store

# A run that waits asks again within this time; one that has not is taken to have given up (seconds).
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Choice:
    """The server, why (``plan``, ``reuse``, ``fallback``, ``held``), and what the user is to be told."""

    server: str
    reason: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Busy:
    """No server for now: who holds them (server -> run), and how many runs asked before."""

    holders: Mapping[str, str]
    ahead: int = 0
    notes: tuple[str, ...] = field(default=())

    def message(self) -> str:
        held = ", ".join(f"{server} by {run}" for server, run in self.holders.items()) or "none"
        return f"no free server; held: {held}" + (f"; {self.ahead} run(s) asked before" if self.ahead else "")


def wants_reuse(sameserver: str | None) -> bool:
    return sameserver not in (None, "", "no", "nor")


def choose(
    order: Sequence[str],
    planned: str | None,
    last: str | None,
    held: Mapping[str, str],
    run: str,
    sameserver: str | None,
    ahead: int = 0,
) -> Choice | Busy:
    """The rule of this module's docstring.

    order: all servers in plan order. planned: the plan's server, None where the asker named no cohort. last:
    who last served this source and model. held: server -> run, live only. ahead: runs that wait for any
    server and asked earlier; a wanted server that is free is given regardless of them, another's is not.
    """
    for server, holder in held.items():
        if holder == run:
            return Choice(server, "held")
    notes: list[str] = []
    wanted, reason = planned, "plan"
    if wants_reuse(sameserver):
        if last is not None and last in order:
            wanted, reason = last, "reuse"
            notes.append(f"server {last} used again: it last served this source and model")
        else:
            notes.append(
                f"sameserver '{sameserver}': no server has served this source and model yet, "
                "so the plan's is used"
            )
    if wanted in order and wanted not in held:
        return Choice(str(wanted), reason, tuple(notes))
    start = order.index(wanted) + 1 if wanted in order else 0
    free = [s for s in (*order[start:], *order[:start]) if s not in held]
    if len(free) <= ahead:
        return Busy({s: held[s] for s in order if s in held}, ahead)
    if wanted in order:
        notes = [
            f"server {wanted} is held by the live run {held[str(wanted)]}: {free[0]}, "
            "the next free one in plan order, is used"
        ]
    else:
        notes.append(f"no cohort named: {free[0]}, the first free server in plan order, is used")
    return Choice(free[0], "fallback", tuple(notes))


class Allocator:
    """Applies ``choose`` atomically, and keeps the result."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, tuple[float, float]] = {}  # run -> first and last time it asked (monotonic)
        self._lock = threading.Lock()

    def allocate(
        self,
        run: str,
        order: Sequence[str],
        planned: str | None,
        source: str,
        model: str,
        sameserver: str | None,
    ) -> Choice | Busy:
        now = time.monotonic()
        with self._lock, self._store.transaction():
            self._waiting = {r: t for r, t in self._waiting.items() if now - t[1] < PATIENCE_S}
            first = self._waiting.get(run, (now, now))[0]
            ahead = sum(1 for r, t in self._waiting.items() if r != run and t[0] < first)
            held = {server: a["run"] for server, a in self._store.allocations().items()}
            if sameserver == "nor" and run not in held.values():
                self._store.forget_registry()
            chosen = choose(
                order, planned, self._store.registered(source, model), held, run, sameserver, ahead
            )
            if isinstance(chosen, Busy):
                self._waiting[run] = (first, now)
                return chosen
            self._waiting.pop(run, None)
            if chosen.reason != "held":
                self._store.hold(chosen.server, run, source, model)
            return chosen

    def release(self, run: str) -> str | None:
        with self._lock:
            self._waiting.pop(run, None)
            return self._store.free(run)

    def forget(self) -> None:
        with self._lock:
            self._store.forget_registry()
            self._waiting.clear()
