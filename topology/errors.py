"""Errors of the package: one base class, and the problem as a value, so that all of them can be shown at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


class TopologyError(Exception):
    """Base of every error that this package raises on purpose; its text is meant for the user."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a testbed.

    `path` is where the value stands (`links[3].rate`), `code` a short stable word, `message` names the value found and
    what is
    allowed, `hint` says what to type next (may be empty). `file`, `line` and `column` (from 1) are where it stands in
    the testbed file, None where it came from none.
    """

    path: str
    code: str
    message: str
    hint: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        text = f"{self.path or 'testbed'}: {self.message} [{self.code}]"
        if self.file is not None:
            text = f"{self.file}:{self.line}: {text}" if self.line is not None else f"{self.file}: {text}"
        return f"{text}\n    -> {self.hint}" if self.hint else text

    def as_dict(self) -> dict[str, Any]:
        """The problem as plain data, for `--json` and REST answers; a place only where there is one."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class TestbedProblems(TopologyError):
    """A testbed that cannot be built, with every problem that was found (never only the first).

    `unchecked` names what could not be judged before these are mended.
    """

    __test__ = False  # the name starts with "Test": keep pytest from collecting it

    def __init__(self, problems: Sequence[Problem], unchecked: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        self.unchecked = tuple(unchecked)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CommandError(TopologyError):
    """A program that we ran and that failed: keeps the command, its exit status and its stderr.

    Without a status it never ended by itself (it could not be started, or took too long); `stderr` is the reason then.
    """

    def __init__(self, command: Sequence[str], status: int | None, stderr: str, subject: str = "") -> None:
        self.command = tuple(command)
        self.status = status
        self.stderr = stderr.strip()
        ended = "was not carried out" if status is None else f"ended with status {status}"
        where = f"{subject}: " if subject else ""
        super().__init__(f"{where}`{' '.join(command)}` {ended}: {self.stderr or 'no message'}")
