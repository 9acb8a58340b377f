"""What the events of an FL process say of its run, as numbers: round, quality, durations, bytes, failures.

`learn` takes one event after the other; the same events give the same state. No clock, no I/O, and no event, however
odd, raises. Knows nothing of Prometheus.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
Directed = dict[tuple[str, str], int]
"""Bytes by (client, direction)."""

BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
PHASES = ("train", "evaluate", "query")
REASONS = ("application", "lost", "no-reply")
"""Of failures of a client that has joined; counted from 0, so that the first one shows as an increase."""
LEAST_REPLIES = 3
"""Of fewer, none is called a straggler."""
STRAGGLER_FACTOR = 2.0
"""A straggler's reply took more than this times the median of its phase."""
_QUALITY = {"loss": ("loss",), "accuracy": ("accuracy", "acc")}


@dataclass
class Durations:
    """A histogram of seconds, and the last of them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total_s: float = 0.0
    last_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds
        self.last_s = seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many up to it), cumulative, the last bound infinite."""
        found: list[tuple[str, float]] = []
        count = 0
        for bound, here in zip((*BUCKETS_S, math.inf), self.counts, strict=True):
            count += here
            found.append(("+Inf" if bound == math.inf else str(bound), count))
        return found


class ServerState:
    """The state of a run at its server."""

    def __init__(self) -> None:
        self.running = False
        self.round: int | None = None
        self.rounds_planned: int | None = None
        self.round_began: float | None = None
        """Wall time, in seconds of the epoch."""
        self.joined = 0
        self.expected = 0
        self.model_bytes: int | None = None
        self.memory_bytes: int | None = None
        self.quality: dict[str, dict[str, float]] = {}
        """Loss and accuracy by source (server, distributed, train), of the latest round that had them."""
        self.durations: dict[str, Durations] = {}
        self.message_bytes: Directed = {}
        self.round_bytes: Directed = {}
        """Of the last round that has ended."""
        self.samples: dict[str, int] = {}
        self.client_seconds: dict[tuple[str, str], float] = {}
        self.stragglers = 0
        self.failures: dict[tuple[str, str], int] = {}
        self.failed_at: dict[str, float] = {}
        self._over = False
        self._open_bytes: Directed = {}
        self._replies_s: dict[tuple[object, str], list[float]] = {}
        """Of phases that have not ended."""
        self._learns: dict[str, Callable[[Event], None]] = {
            "client.joined": self._joined,
            "client.reconnected": self._present,
            "client.left": self._left,
            "run.started": self._started,
            "phase.started": self._phase_started,
            "client.reply": self._reply,
            "phase.finished": self._phase_finished,
            "aggregate.finished": lambda event: self._took("aggregate", event),
            "server_evaluate.finished": lambda event: self._took("server_evaluate", event),
            "round.metrics": self._metrics,
            "round.finished": self._round_finished,
            "run.finished": self._run_over,
            "run.failed": self._run_over,
        }

    def learn(self, event: Event) -> None:
        """Take in the next event; kinds that say nothing here are passed over."""
        kind = event.get("kind")
        act = self._learns.get(kind) if isinstance(kind, str) else None
        if act is not None:
            act(event)

    def end(self) -> None:
        """The process has ended, with or without a word."""
        self.running = False
        self._over = True
        self._replies_s.clear()

    def _present(self, event: Event) -> None:
        self.joined = _whole(event.get("joined"), self.joined)
        self.expected = _whole(event.get("expected"), self.expected)

    def _joined(self, event: Event) -> None:
        self._present(event)
        for reason in REASONS:
            self.failures.setdefault((str(event.get("client")), reason), 0)

    def _left(self, event: Event) -> None:
        self._present(event)
        if event.get("final") is True and not self._over:
            self._failed(event, "lost")

    def _failed(self, event: Event, reason: str) -> None:
        client = str(event.get("client"))
        self.failures[client, reason] = self.failures.get((client, reason), 0) + 1
        at = _number(event.get("time"))
        if at is not None:
            self.failed_at[client] = at

    def _started(self, event: Event) -> None:
        self.running = True
        self.expected = _whole(event.get("num_clients"), self.expected)
        config = event.get("config")
        declared = config.get("num-server-rounds") if isinstance(config, dict) else None
        planned = _number(event.get("num_rounds"))
        planned = _number(declared) if planned is None else planned
        self.rounds_planned = None if planned is None else int(planned)
        size = _number(event.get("model_bytes"))
        self.model_bytes = None if size is None else int(size)

    def _phase_started(self, event: Event) -> None:
        number = event.get("round")
        if not isinstance(number, int) or isinstance(number, bool) or number == self.round:
            return
        self._close_round()
        self.round, self.round_began = number, _number(event.get("time"))

    def _close_round(self) -> None:
        if self._open_bytes:
            self.round_bytes, self._open_bytes = self._open_bytes, {}

    def _reply(self, event: Event) -> None:
        client, phase = str(event.get("client")), _phase(event)
        for direction in ("down", "up"):
            size = _whole(event.get(f"bytes_{direction}"), 0)
            for ledger in (self.message_bytes, self._open_bytes):
                ledger[client, direction] = ledger.get((client, direction), 0) + size
        if event.get("error"):
            # What a client that is gone still owed is part of its loss, which `client.left` has told of.
            if event.get("failure") != "gone":
                self._failed(event, str(event.get("failure") or "error"))
            return
        seconds = _number(event.get("seconds"))
        if seconds is not None:
            self.client_seconds[client, phase] = seconds
            self._replies_s.setdefault((_key(event), phase), []).append(seconds)
        if phase == "train":
            examples = _number(event.get("num_examples"))
            if examples is not None:
                self.samples[client] = int(examples)

    def _phase_finished(self, event: Event) -> None:
        phase = _phase(event)
        self._took(phase, event)
        seconds = self._replies_s.pop((_key(event), phase), [])
        if len(seconds) >= LEAST_REPLIES:
            limit = STRAGGLER_FACTOR * statistics.median(seconds)
            self.stragglers += sum(each > limit for each in seconds)

    def _took(self, phase: str, event: Event) -> None:
        seconds = _number(event.get("seconds"))
        if seconds is not None:
            self.durations.setdefault(phase, Durations()).observe(max(0.0, seconds))

    def _metrics(self, event: Event) -> None:
        source = event.get("source")
        if source in ("server", "distributed", "train"):
            self.quality[source] = quality(event.get("metrics"))

    def _round_finished(self, event: Event) -> None:
        self._took("round", event)
        self._close_round()
        size = _number(event.get("memory_bytes"))
        self.memory_bytes = self.memory_bytes if size is None else int(size)

    def _run_over(self, _: Event) -> None:
        self._close_round()
        self.end()


class ClientState:
    """What a client says of its own work: the quality of the last thing that it did, and its memory."""

    def __init__(self) -> None:
        self.quality: dict[str, float] = {}
        self.memory_bytes: int | None = None

    def learn(self, event: Event) -> None:
        """Take in the next event."""
        if event.get("kind") != "client.handled":
            return
        found = quality(event.get("metrics"))
        self.quality = found or self.quality
        size = _number(event.get("memory_bytes"))
        self.memory_bytes = self.memory_bytes if not size else int(size)

    def end(self) -> None:
        """Nothing changes: the last values are the last."""


def quality(metrics: object) -> dict[str, float]:
    """`loss` and `accuracy` among an application's metrics: under that name, or the only name that ends so
    (`train_loss`, `eval-acc`). Values that are no finite numbers are left out."""
    if not isinstance(metrics, dict):
        return {}
    found: dict[str, float] = {}
    for name, endings in _QUALITY.items():
        alike = [key for key in metrics if isinstance(key, str) and key.replace("-", "_").lower().endswith(
            tuple(f"_{ending}" for ending in endings))]  # fmt: skip
        keys = [name] if name in metrics else alike
        value = _number(metrics[keys[0]]) if len(keys) == 1 else None
        if value is not None:
            found[name] = value
    return found


def _phase(event: Event) -> str:
    phase = event.get("phase")
    return phase if phase in PHASES else "other"


def _key(event: Event) -> object:
    number = event.get("round")
    return number if isinstance(number, int) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: object, otherwise: int) -> int:
    number = _number(value)
    return otherwise if number is None else int(number)
