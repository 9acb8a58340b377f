"""The errors of this package: what was wrong, where, and what to type instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Problem:
    """One fault in what somebody sent: the path of the value, a short code, a message, and a hint that says
    what to type."""

    path: str
    code: str
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.path or '(document)'}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class MlfoError(Exception):
    """Base of all errors that this package raises on purpose."""


class SetupError(MlfoError):
    """The orchestrator cannot start: a file, an address or a role is wrong. The message says which."""


class IntentRefused(MlfoError):
    """An intent that is not accepted. Holds every problem found; ``status`` is the HTTP status to answer."""

    def __init__(self, problems: Iterable[Problem], status: int = 400) -> None:
        self.problems = list(problems)
        self.status = status
        super().__init__("; ".join(str(problem) for problem in self.problems))


class IntentFailed(MlfoError):
    """An accepted intent that cannot go on. ``nodes`` are those at fault; ``code`` is short and stable."""

    def __init__(self, reason: str, nodes: Iterable[str] = (), code: str = "failed") -> None:
        self.reason = reason
        self.nodes = list(nodes)
        self.code = code
        super().__init__(reason)


class AgentError(MlfoError):
    """A call to a node's agent failed. ``status`` is the HTTP status, or None where no answer came."""

    def __init__(self, node: str, message: str, status: int | None = None) -> None:
        self.node = node
        self.status = status
        super().__init__(message)
