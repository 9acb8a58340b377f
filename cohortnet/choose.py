"""From what the user typed (a file, or a preset and its numbers) to a Testbed and its Plan. Used by `cohortnet` and
`topo.py` alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    monitoring: bool = False
    """Switched on; what a file says of it stays."""


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
        _options(choice, {})  # by themselves: what is wrong with them stands in no file
        return check_file(choice.file, lambda data: _options(choice, data))
    kind = choice.preset or "factory-satellite"
    data: dict[str, Any] = {"name": choice.name or kind, "preset": {"kind": kind, **typed}}
    return check_data(_options(choice, data))


def _options(choice: Choice, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a file with what was typed: it goes through the same strict types as the file."""
    typed = {key: getattr(choice, key) for key in ("name", "runtime", "seed") if getattr(choice, key) is not None}
    if choice.allow_unsupported and isinstance(data.get("allow_unsupported", []), list):
        typed["allow_unsupported"] = [*data.get("allow_unsupported", []), *choice.allow_unsupported]
    if choice.monitoring and data.get("monitoring") in (None, False):
        typed["monitoring"] = True
    if not data:
        parse_testbed({"name": "unnamed", **typed})
    return {**data, **typed}
