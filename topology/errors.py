"""Errors of the package: one base class, and the problem as a value, so that all of them can be shown at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


class TopologyError(Exception):
    """Base of every error that this package raises on purpose; its text is meant for the user."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a testbed.

    `path` is where the value stands (`links[3].rate`), `code` a short stable word, `message` names the value found and
    what is
    allowed, `hint` says what to type next (may be empty).
    """

    path: str
    code: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path or 'testbed'}: {self.message} [{self.code}]"
        return f"{text}\n    -> {self.hint}" if self.hint else text

    def as_dict(self) -> dict[str, str]:
        """The problem as plain data, for `--json` and REST answers."""
        return asdict(self)


class TestbedProblems(TopologyError):
    """A testbed that cannot be built, with every problem that was found (never only the first)."""

    __test__ = False  # the name starts with "Test": keep pytest from collecting it

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CommandError(TopologyError):
    """A program that we ran and that failed: keeps the command, its exit status and its stderr."""

    def __init__(self, command: Sequence[str], status: int | None, stderr: str, subject: str = "") -> None:
        self.command = tuple(command)
        self.status = status
        self.stderr = stderr.strip()
        ended = "did not end in time" if status is None else f"ended with status {status}"
        where = f"{subject}: " if subject else ""
        super().__init__(f"{where}`{' '.join(command)}` {ended}: {self.stderr or 'no message'}")
