"""The states of the FL processes of a node, for as long as their series are shown: until `KEPT_S` after the end.

Thread-safe. Takes what the supervisor reads, hands it to `run_state`. Never reads a file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fl_node.agent.run_state import ClientState, ServerState

KEPT_S = 600.0
"""So that the last value of a run is scraped, whatever the period."""
MAX_ENDED = 32
"""Ended runs that are shown at once; the oldest goes first."""


@dataclass
class ModelRun:
    """One process: `kind` is server or client."""

    kind: str
    run: str
    application: str
    state: ServerState | ClientState = field(init=False)
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self.state = ServerState() if self.kind == "server" else ClientState()


class ModelRuns:
    """All that are shown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str], ModelRun] = {}

    def begin(self, kind: str, run: str, application: str) -> None:
        """A process is started; one of before under the same name is shown no more."""
        with self._lock:
            self._runs.pop((kind, run), None)
            self._runs[kind, run] = ModelRun(kind, run, application)

    def learn(self, kind: str, run: str, event: dict[str, Any]) -> None:
        """An event of a process that has begun."""
        with self._lock:
            known = self._runs.get((kind, run))
            if known is not None:
                known.state.learn(event)

    def end(self, kind: str, run: str) -> None:
        """A process has ended; all of its events were taken in."""
        with self._lock:
            known = self._runs.get((kind, run))
            if known is not None:
                known.state.end()
                known.ended_at = self._clock()

    @contextmanager
    def held(self) -> Iterator[list[ModelRun]]:
        """Those that are shown now; none changes meanwhile."""
        with self._lock:
            self._drop_old()
            yield list(self._runs.values())

    def _drop_old(self) -> None:
        now = self._clock()
        ended = [key for key, run in self._runs.items() if run.ended_at is not None]
        ended.sort(key=lambda key: self._runs[key].ended_at or 0.0)
        surplus = max(0, len(ended) - MAX_ENDED)
        for index, key in enumerate(ended):
            if index < surplus or now - (self._runs[key].ended_at or 0.0) >= KEPT_S:
                del self._runs[key]
