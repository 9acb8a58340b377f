"""A flow as a plain value, the messages about it, and the cookie by which we know our own. Pure; no os-ken.

`wire` turns these into OpenFlow 1.3 and back; tests give them to a fake switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

TABLE_METERS = 0
TABLE_FORWARDING = 1
TABLE_BOARDS = 2

TO_CONTROLLER = 0xFFFFFFFD
"""OFPP_CONTROLLER."""
LAST_PORT = 0xFFFFFF00
"""OFPP_MAX: port numbers from here on are reserved (LOCAL, CONTROLLER, ...)."""

# Cookie: 24 bits that say "ours", 8 bits that say what for, 32 bits that say by which layout of the tables.
_OWNER = 0xC0407E
_FORWARDING = 1
LAYOUT = 1
"""Raise it when the meaning of the tables changes: flows of another layout are replaced or removed at the
next connection."""
COOKIE_FORWARDING = _OWNER << 40 | _FORWARDING << 32 | LAYOUT
COOKIE_MASK = 0xFFFFFFFF00000000
"""Selects all flows of ours for one purpose, of any layout. Other purposes (metering) have other bits and are
never touched."""

Value: TypeAlias = int | str | tuple[int | str, int | str]
"""A match value; a pair is (value, mask)."""


@dataclass(frozen=True)
class Match:
    """What a flow matches: (OXM field name, value), sorted by name. Empty matches everything."""

    fields: tuple[tuple[str, Value], ...] = ()


def match(**fields: Value) -> Match:
    """`match(in_port=1, eth_dst="02:..")`."""
    return Match(tuple(sorted(fields.items())))


@dataclass(frozen=True)
class Flow:
    """A flow entry: outputs in this order, then `goto`. `other` is text of whatever else a switch reports
    (ours have none)."""

    table: int
    priority: int
    match: Match
    outputs: tuple[int, ...] = ()
    goto: int | None = None
    cookie: int = COOKIE_FORWARDING
    other: str = ""

    @property
    def key(self) -> tuple[int, int, Match]:
        """What OpenFlow tells entries apart by."""
        return self.table, self.priority, self.match

    def __str__(self) -> str:
        fields = ",".join(f"{name}={value}" for name, value in self.match.fields) or "any"
        actions = [f"output:{'CONTROLLER' if port == TO_CONTROLLER else port}" for port in self.outputs[:8]]
        actions += ["..."] if len(self.outputs) > 8 else []
        actions += [f"goto:{self.goto}"] if self.goto is not None else []
        return f"table={self.table} priority={self.priority} {fields} -> {' '.join(actions) or 'drop'}"


@dataclass(frozen=True)
class FlowMod:
    """Add (or replace) a flow, or delete exactly the entry with its key."""

    command: Literal["add", "delete"]
    flow: Flow


@dataclass(frozen=True)
class Barrier:
    """The switch answers once everything before is done."""


Message: TypeAlias = FlowMod | Barrier
