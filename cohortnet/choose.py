"""From what the user typed (a file, or a preset and its numbers) to a Testbed and its Plan. Used by `cohortnet` and
`topo.py` alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topology.errors import Problem, TestbedProblems
from topology.model import Testbed, parse_testbed
from topology.plan import Plan
from topology.validation import check_data, check_file


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


def choose_testbed(choice: Choice) -> tuple[Testbed, Plan]:
    """The testbed that the choice names, and its plan.

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
        return check_file(choice.file, _options(choice), choice.allow_unsupported)
    kind = choice.preset or "factory-satellite"
    data: dict[str, Any] = {"name": choice.name or kind, "preset": {"kind": kind, **typed}}
    return check_data({**data, **_options(choice), "allow_unsupported": list(choice.allow_unsupported)})


def _options(choice: Choice) -> dict[str, Any]:
    """What replaces keys of a file. Options go through the same strict types, and are refused by themselves."""
    typed = {key: getattr(choice, key) for key in ("name", "runtime", "seed") if getattr(choice, key) is not None}
    parse_testbed({"name": "unnamed", **typed, "allow_unsupported": list(choice.allow_unsupported)})
    return typed
