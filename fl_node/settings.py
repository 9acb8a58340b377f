"""The JSON files that the server and the client process are started with, checked before anything heavy is
loaded.

The keys are those of the agent's `POST /v1/server` and `POST /v1/client` bodies, and a few more that the
agent adds. Unknown keys are refused, every problem is named at once.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T", bound="_Settings")


class SettingsError(Exception):
    """A configuration file cannot be used; the message names every key at fault."""


def node_name() -> str:
    """This node's name in the testbed."""
    return os.environ.get("COHORTNET_NODE") or socket.gethostname()


@dataclass(frozen=True)
class _Settings:
    @classmethod
    def read(cls: type[_T], path: str | Path) -> _T:
        """Read and check a file. Raises SettingsError."""
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: cannot be read as JSON: {error}") from error
        try:
            return cls.parse(raw)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error

    @classmethod
    def parse(cls: type[_T], raw: Any) -> _T:
        """Check a decoded object. Raises SettingsError."""
        if not isinstance(raw, dict):
            raise SettingsError(f"found {type(raw).__name__}, expected an object")
        known = {item.name: item for item in fields(cls)}
        problems = [
            f"{key}: unknown key, known are {', '.join(sorted(known))}" for key in raw if key not in known
        ]
        values: dict[str, Any] = {}
        for name, item in known.items():
            if name not in raw:
                if item.default is MISSING and item.default_factory is MISSING:
                    problems.append(f"{name}: missing")
                continue
            value = raw[name]
            kind = item.metadata["kind"]
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            check = item.metadata.get("check")
            kinds = kind if isinstance(kind, tuple) else (kind,)
            if type(value) not in kinds:
                allowed = " or ".join(each.__name__ for each in kinds)
                problems.append(f"{name}: found {type(value).__name__} {value!r}, expected {allowed}")
            elif check is not None and not check[0](value):
                problems.append(f"{name}: found {value!r}, expected {check[1]}")
            else:
                values[name] = value
        if problems:
            raise SettingsError("; ".join(problems))
        return cls(**values)


def _field(kind: type | tuple[type, ...], check: Any = None, **default: Any) -> Any:
    return field(metadata={"kind": kind, "check": check}, **default)


_FILLED = (bool, "a text that is not empty")
_PORT = (lambda value: 0 <= value <= 65535, "0 to 65535 (0: any free port)")
_POSITIVE = (lambda value: value > 0, "a number of seconds above 0")
_COUNT = (lambda value: value >= 1, "1 or more")
_INDEX = (lambda value: value >= 0, "0 or more")
_CLIENTS = (
    lambda value: (
        value >= 1
        if isinstance(value, int)
        else bool(value) and all(isinstance(n, str) and n for n in value) and len(set(value)) == len(value)
    ),
    "a list of different node names, at least one, or how many of any name are waited for",
)
_ADDRESS = (
    lambda value: value.rpartition(":")[2].isdigit() and bool(value.rpartition(":")[0]),
    'IP:port, such as "10.0.0.101:6000"',
)


@dataclass(frozen=True)
class ServerSettings(_Settings):
    """What `python -m fl_node.server` is told. Times in seconds."""

    run_id: str = _field(str, _FILLED)
    application: str = _field(str, _FILLED)
    clients: list[str] | int = _field((list, int), _CLIENTS)
    events: str = _field(str, _FILLED)
    config: dict[str, Any] = _field(dict, default_factory=dict)
    seed: int = _field(int, _INDEX, default=1)
    host: str = _field(str, _FILLED, default="0.0.0.0")
    port: int = _field(int, _PORT, default=6000)
    name: str = _field(str, _FILLED, default_factory=node_name)
    join_timeout_s: float = _field(
        float, _POSITIVE, default=120.0
    )  # for the cohort, and for waits inside the run
    message_timeout_s: float = _field(float, _POSITIVE, default=600.0)
    grace_s: float = _field(float, _POSITIVE, default=30.0)
    keepalive_s: float = _field(float, _POSITIVE, default=10.0)
    keepalive_timeout_s: float = _field(float, _POSITIVE, default=20.0)

    @property
    def names(self) -> list[str]:
        """The expected clients, where they are named."""
        return [] if isinstance(self.clients, int) else self.clients

    @property
    def num_clients(self) -> int:
        """How many clients make the cohort."""
        return self.clients if isinstance(self.clients, int) else len(self.clients)


@dataclass(frozen=True)
class ClientSettings(_Settings):
    """What `python -m fl_node.client` is told. Times in seconds."""

    run_id: str = _field(str, _FILLED)
    application: str = _field(str, _FILLED)
    server: str = _field(str, _ADDRESS)
    partition_id: int = _field(int, _INDEX)
    num_partitions: int = _field(int, _COUNT)
    events: str = _field(str, _FILLED)
    state: str = _field(str, _FILLED)
    config: dict[str, Any] = _field(dict, default_factory=dict)
    seed: int = _field(int, _INDEX, default=1)
    name: str = _field(str, _FILLED, default_factory=node_name)
    connect_timeout_s: float = _field(float, _POSITIVE, default=60.0)
    keepalive_s: float = _field(float, _POSITIVE, default=10.0)
    keepalive_timeout_s: float = _field(float, _POSITIVE, default=20.0)
