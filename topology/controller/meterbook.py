"""Which meters there are: the desired state, the ids that they have in switches, kept in a file so that a restart
forgets nothing.

Only `metering` changes it. The file is replaced in one step before anything is sent to a switch.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topology.controller.flows import LAST_METER
from topology.controller.graph import Graph
from topology.controller.meter_body import read_spec
from topology.controller.meters import Fault, MeterSpec
from topology.controller.placement import Numbered
from topology.errors import Problem, TopologyError

VERSION = 1
FILE = "meters.json"
MAXIMUM_METERS = 5000
"""Meters at once: each direction costs a meter and some flows in a switch."""


class BookError(TopologyError):
    """The book cannot be written or read; the text names the file."""


@dataclass(frozen=True)
class BookState:
    """All meters by name, and the id that is given next. Never changed, only replaced."""

    entries: Mapping[str, Numbered] = field(default_factory=dict)
    next_id: int = 1

    def changed(self, specs: Iterable[MeterSpec], removed: Iterable[str] = (), at: float = 0.0) -> BookState:
        """With these meters set (at that wall time) and those removed. A meter keeps its ids as long as it keeps its
        name.

        Ids go round: one that was given up is the last to be given again, so that a switch that was away
        never takes a new meter for an old one.

        Raises:
            BookError: where more than `MAXIMUM_METERS` would be there.
        """
        entries = dict(self.entries)
        for name in removed:
            entries.pop(name, None)
        specs = list(specs)
        count = len(entries.keys() | {spec.name for spec in specs})
        if count > MAXIMUM_METERS:
            raise BookError(f"{count} meters are too many: at most {MAXIMUM_METERS}")
        used = {number for entry in entries.values() for number in entry.ids.values()}
        free = _free_ids(used, self.next_id)
        following = self.next_id
        for spec in specs:
            known = entries[spec.name].ids if spec.name in entries else {}
            ids: dict[str, int] = {}
            for direction in spec.directions:
                if direction in known:
                    ids[direction] = known[direction]
                else:
                    ids[direction] = next(free)
                    following = ids[direction] % LAST_METER + 1
            entries[spec.name] = Numbered(spec, ids, at)
        return BookState(entries, following)


def _free_ids(used: set[int], start: int) -> Iterator[int]:
    for number in (*range(start, LAST_METER + 1), *range(1, start)):
        if number not in used:
            yield number


def conflicts(state: BookState, changed: Mapping[str, str]) -> list[Fault]:
    """Faults of meters in `changed` (name to path) that limit what another limits in the same direction."""
    owners: dict[tuple[object, str], str] = {}
    faults = []
    # Those that were there come first, so that the fault is with the one that came.
    for entry in sorted(state.entries.values(), key=lambda entry: entry.spec.name in changed):
        spec = entry.spec
        for direction in spec.directions:
            other = owners.setdefault((spec.target, direction), spec.name)
            if other != spec.name:
                message = f"the meter {other!r} already limits {spec.target} in direction {direction}"
                hint = f"change that one, or delete it: DELETE /v1/meters/{other}"
                path = f"{changed.get(spec.name, '')}.target".strip(".")
                faults.append(Fault("conflict", Problem(path, "limited-twice", message, hint)))
                break
    return faults


class MeterBook:
    """The desired state, with its file."""

    def __init__(self, path: Path, state: BookState | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._state = state or BookState()
        self._version = 0

    @property
    def state(self) -> BookState:
        """The state in use (immutable)."""
        return self._state

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self._version

    def commit(self, state: BookState) -> None:
        """Write the state, then use it.

        Raises:
            BookError: where it cannot be written; then the former one stays in use.
        """
        with self._lock:
            self._write(state)
            self._state = state
            self._version += 1

    def _write(self, state: BookState) -> None:
        entries = [
            {**entry.spec.as_body(), "ids": dict(entry.ids), "changed": entry.changed}
            for entry in state.entries.values()
        ]
        data = {"version": VERSION, "next_id": state.next_id, "meters": entries}
        temporary = self.path.with_name(self.path.name + ".new")
        try:
            temporary.write_text(json.dumps(data) + "\n", encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError as error:
            raise BookError(f"{self.path} cannot be written: {error.strerror or error}") from error


def _ids(value: Any, spec: MeterSpec, taken: set[int]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for direction in spec.directions:
        number = value.get(direction) if isinstance(value, Mapping) else None
        if not isinstance(number, int) or not 1 <= number <= LAST_METER or number in taken:
            raise ValueError(f"the id {number!r} of {spec.name} {direction} is none, or used twice")
        taken.add(number)
        ids[direction] = number
    return ids


def _time(value: Any) -> float:
    """A book of before has none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)


def _read(text: str, graph: Graph) -> tuple[BookState, list[str]]:
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError("it is of another version")
    entries: dict[str, Numbered] = {}
    problems: list[str] = []
    taken: set[int] = set()
    for index, item in enumerate(data["meters"]):
        body = {key: value for key, value in item.items() if key not in ("ids", "changed")}
        # A device port counts as there: its switch has not said yet which it has.
        spec, faults = read_spec(body, graph, lambda *_: True, path=f"meters[{index}]")
        if spec is None:
            problems += [f"a meter is left out: {fault.problem}" for fault in faults]
        else:
            entries[spec.name] = Numbered(spec, _ids(item.get("ids"), spec, taken), _time(item.get("changed")))
    next_id = data["next_id"]
    if not isinstance(next_id, int) or not 1 <= next_id <= LAST_METER:
        raise ValueError(f"next_id is {next_id!r}")
    return BookState(entries, next_id), problems


def _initial(graph: Graph) -> tuple[BookState, list[str]]:
    """The meters that the inventory asks for; one that conflicts with those before it is left out."""
    bodies = graph.inventory.get("meters") or []
    read: list[tuple[str, MeterSpec]] = []
    faults: list[Fault] = []
    for index, body in enumerate(bodies if isinstance(bodies, list) else []):
        path = f"inventory: meters[{index}]"
        spec, found = read_spec(body, graph, lambda *_: True, path=path)
        faults += found
        if spec is not None:
            read.append((path, spec))
    specs = {spec.name: spec for _, spec in read}
    now = time.time()
    whole = BookState().changed(specs.values(), at=now)
    # All at once, since one by one takes the square of their number; one by one only to say which is at fault.
    if len(specs) == len(read) and not conflicts(whole, {spec.name: path for path, spec in read}):
        return whole, [f"a meter is left out: {fault.problem}" for fault in faults]
    specs = {}
    for path, spec in read:
        if spec.name in specs:
            problem = Problem(f"{path}.name", "duplicate-name", f"{spec.name!r} is used by another meter")
            found = [Fault("conflict", problem)]
        else:
            found = conflicts(BookState().changed([*specs.values(), spec]), {spec.name: path})
        if not found:
            specs[spec.name] = spec
        faults += found
    return BookState().changed(specs.values(), at=now), [f"a meter is left out: {fault.problem}" for fault in faults]


def open_book(graph: Graph, path: Path) -> tuple[MeterBook, list[str]]:
    """The book at `path`, or, where there is none, one with the meters of the inventory; and in words what could
    not be used. A file that cannot be read is kept beside as `meters.json.broken`."""
    problems: list[str] = []
    try:
        state, problems = _read(path.read_text(encoding="utf-8"), graph)
        return MeterBook(path, state), problems
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{path} cannot be used: {error}; the meters of the inventory are set instead")
        if path.is_file():
            os.replace(path, path.with_name(path.name + ".broken"))
    state, found = _initial(graph)
    return MeterBook(path, state), problems + found
