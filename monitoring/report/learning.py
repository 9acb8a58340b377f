"""What the events of a run say of its learning: rounds, phases, clients, the timeline's stretches. Pure.

Seconds count from the start of the run (`Record.start`); bytes are serialised message bytes, down is server to client.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

KINDS = ("client.reply", "client.joined", "client.reconnected", "client.left", "client.finished")
"""Events that say something of one client."""
SOURCES = ("server", "distributed", "train")
STRAGGLER = 2.0
"""A reply that took more than so many times the median of its phase (with three replies or more) is a straggler's."""


@dataclass
class Round:
    """One round; 0 is the evaluation before any training. Durations are seconds by phase."""

    number: int
    loss: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By source: when it was known (seconds), and the value."""
    accuracy: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    start: float | None = None
    end: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    replies: int = 0
    errors: int = 0


@dataclass
class Client:
    """What one client did in the run."""

    name: str
    rounds: int = 0
    samples: int | None = None
    train_seconds: list[float] = field(default_factory=list)
    evaluate_seconds: list[float] = field(default_factory=list)
    bytes_down: int = 0
    bytes_up: int = 0
    loss: float | None = None
    accuracy: float | None = None
    accuracies: list[tuple[int, float, float]] = field(default_factory=list)
    """Round, seconds, accuracy of its evaluations, or of its trainings where it evaluates nothing."""
    losses: list[tuple[int, float, float]] = field(default_factory=list)
    stragglers: int = 0
    errors: list[str] = field(default_factory=list)
    left: int = 0
    """How often its link was lost during the run; one that never came back counts once."""
    joined: float | None = None
    interface_sent: int | None = None
    interface_received: int | None = None


def metric(metrics: Mapping[str, Any], *wanted: str) -> float | None:
    """The first of these metrics, also under `eval-` and `train-`; None where none is a finite number."""
    for name, value in metrics.items():
        plain = name.replace("_", "-").lower()
        for want in wanted:
            if plain in (want, f"eval-{want}", f"train-{want}") and isinstance(value, int | float):
                return float(value) if math.isfinite(value) else None
    return None


def rounds(events: Sequence[Mapping[str, Any]], start: float) -> list[Round]:
    """Every round that an event names, in order."""
    found: dict[int, Round] = {}
    finished: float | None = None
    for event in events:
        kind, now = event["kind"], float(event["time"]) - start
        if kind in ("run.finished", "run.failed"):
            finished = now
        if not isinstance(event.get("round"), int):
            continue
        item = found.setdefault(event["round"], Round(event["round"]))
        if kind == "round.metrics":
            metrics = event.get("metrics") or {}
            for values, names in ((item.loss, ("loss",)), (item.accuracy, ("accuracy", "acc"))):
                value = metric(metrics, *names)
                if value is not None:
                    values[str(event.get("source"))] = (now, value)
        elif kind == "phase.started":
            item.start = now if item.start is None else min(item.start, now)
        elif kind in ("phase.finished", "aggregate.finished", "server_evaluate.finished"):
            phase = str(event["phase"]) if kind == "phase.finished" else kind.removesuffix(".finished")
            item.seconds[phase] = item.seconds.get(phase, 0.0) + float(event.get("seconds") or 0.0)
            item.end = now
            for name in ("bytes_down", "bytes_up", "replies", "errors") if kind == "phase.finished" else ():
                setattr(item, name, getattr(item, name) + int(event.get(name) or 0))
        elif kind == "round.finished":
            item.seconds["round"] = float(event.get("seconds") or 0.0)
            item.end = now
    listed = [found[number] for number in sorted(found)]
    for item, following in zip(listed, [*listed[1:], None], strict=True):
        end = following.start if following else finished
        if item.number > 0 and item.start is not None:
            if end is not None and "round" not in item.seconds:
                item.seconds["round"] = end - item.start
                item.end = end
            known = sum(value for phase, value in item.seconds.items() if phase not in ("round", "rest"))
            if "round" in item.seconds and item.seconds["round"] - known > 0.001:
                item.seconds["rest"] = item.seconds["round"] - known
    return listed


def clients(events: Sequence[Mapping[str, Any]], names: Iterable[str], start: float) -> list[Client]:
    """Every client of the run, also those that never answered, in the order of `names`."""
    found = {name: Client(name) for name in names}
    phases: dict[tuple[int, str], list[tuple[str, float]]] = {}
    away: set[str] = set()
    over = False
    for event in events:
        kind, name = event["kind"], str(event.get("client") or "")
        over = over or kind in ("run.finished", "run.failed")
        if not name or kind not in KINDS:
            continue
        item = found.setdefault(name, Client(name))
        if kind in ("client.joined", "client.reconnected"):
            away.discard(name)
            if kind == "client.joined" and item.joined is None:
                item.joined = float(event["time"]) - start
        elif kind == "client.left":
            # A lost link is told of when it is lost, and once more when it is given up; after the run, clients leave.
            item.left += name not in away and not over
            away.add(name)
        elif kind == "client.finished":
            _interface(item, event)
        elif kind == "client.reply":
            _reply(item, event, float(event["time"]) - start)
            if not event.get("error"):
                key = (int(event.get("round") or 0), str(event.get("phase")))
                phases.setdefault(key, []).append((name, float(event.get("seconds") or 0.0)))
    for replies in phases.values():
        if len(replies) >= 3:
            middle = median(seconds for _, seconds in replies)
            for name, seconds in replies:
                found[name].stragglers += seconds > STRAGGLER * middle
    return list(found.values())


def _interface(item: Client, event: Mapping[str, Any]) -> None:
    before, after = event.get("interface_start"), event.get("interface_end")
    if before and after:
        item.interface_sent = int(after["tx_bytes"]) - int(before["tx_bytes"])
        item.interface_received = int(after["rx_bytes"]) - int(before["rx_bytes"])


def _reply(item: Client, event: Mapping[str, Any], now: float) -> None:
    item.bytes_down += int(event.get("bytes_down") or 0)
    item.bytes_up += int(event.get("bytes_up") or 0)
    if event.get("error"):
        item.errors.append(f"round {event.get('round')}, {event.get('phase')}: {event['error']}")
        return
    seconds = float(event.get("seconds") or 0.0)
    number = int(event.get("round") or 0)
    metrics = event.get("metrics") or {}
    loss, accuracy = metric(metrics, "loss"), metric(metrics, "accuracy", "acc")
    if event.get("phase") == "train":
        item.rounds += 1
        item.train_seconds.append(seconds)
        item.samples = int(event["num_examples"]) if event.get("num_examples") is not None else item.samples
    elif event.get("phase") == "evaluate":
        item.evaluate_seconds.append(seconds)
        if accuracy is not None:
            item.accuracy = accuracy
            item.accuracies.append((number, now, accuracy))
        if loss is not None:
            item.loss = loss
            item.losses.append((number, now, loss))


def headline(listed: Sequence[Round], kind: str) -> tuple[str, int, float] | None:
    """Source, round and value of the last loss or accuracy: the server's where it evaluates, else the clients'."""
    for source in SOURCES:
        for item in reversed(listed):
            values = item.accuracy if kind == "accuracy" else item.loss
            if source in values:
                return source, item.number, values[source][1]
    return None
