"""From what the user typed (a file, or a preset and its numbers) to a Testbed. Used by `cohortnet` and `topo.py`
alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topology.errors import Problem, TestbedProblems
from topology.model import Testbed, load_testbed, parse_testbed


@dataclass(frozen=True)
class Choice:
    """What was typed; None and empty mean "not typed", so that a file's own value stays."""

    file: Path | None = None
    preset: str | None = None
    cohorts: int | None = None
    clients: int | None = None
    campuses: int | None = None
    name: str | None = None
    runtime: str | None = None
    seed: int | None = None
    allow_unsupported: Sequence[str] = field(default_factory=tuple)
    monitoring: bool = False
    """Switched on; what a file says of it stays."""


def choose_testbed(choice: Choice) -> Testbed:
    """The testbed that the choice names.

    Raises:
        TestbedProblems: with every problem found, among them options that contradict one another.
    """
    numbers = {"cohorts": choice.cohorts, "clients": choice.clients, "campuses": choice.campuses}
    typed = {key: value for key, value in numbers.items() if value is not None}
    if choice.file is not None and (choice.preset is not None or typed):
        names = ", ".join(f"--{key}" for key in (["preset"] if choice.preset else []) + list(typed))
        hint = "write `preset:` into the file, or leave the file out"
        raise TestbedProblems([Problem("", "contradiction", f"{names} cannot be combined with {choice.file}", hint)])
    if choice.file is not None:
        testbed = load_testbed(choice.file)
        changes = _changes(choice, testbed.allow_unsupported)
        if testbed.monitoring is not None:
            changes.pop("monitoring", None)
        return testbed.model_copy(update=_checked(changes))
    kind = choice.preset or "factory-satellite"
    data: dict[str, Any] = {"name": choice.name or kind, "preset": {"kind": kind, **typed}}
    return parse_testbed({**data, **_changes(choice, [])})


def _changes(choice: Choice, allowed: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {"allow_unsupported": [*allowed, *choice.allow_unsupported]}
    if choice.monitoring:
        changes["monitoring"] = True
    for key in ("name", "runtime", "seed"):
        value = getattr(choice, key)
        if value is not None:
            changes[key] = value
    return changes


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    # Options go through the same strict types as the file; a name is needed there and taken away again where none was
    # typed.
    testbed = parse_testbed({"name": "unnamed", **changes})
    return {key: getattr(testbed, key) for key in changes}
