"""Flows and meters as plain values, the messages about them, the tables, and the cookie by which we know our own.
Pure; no os-ken.

`wire` turns these into OpenFlow 1.3 and back; tests give them to a fake switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

TABLE_PORT_IN, TABLE_PORT_OUT = 0, 1
TABLE_CLIENT_UP, TABLE_CLIENT_DOWN = 2, 3
TABLE_ADDRESS_UP, TABLE_ADDRESS_DOWN = 4, 5
TABLE_COHORT_UP, TABLE_COHORT_DOWN = 6, 7
TABLE_SERVER_UP, TABLE_SERVER_DOWN = 8, 9
METER_TABLES = range(10)
"""Each kind of meter and direction has its own, so that a packet passes every meter that concerns it."""
TABLE_FORWARDING = 10
TABLE_BOARDS = 11

TO_CONTROLLER = 0xFFFFFFFD
"""OFPP_CONTROLLER."""
LAST_PORT = 0xFFFFFF00
"""OFPP_MAX: port numbers from here on are reserved (LOCAL, CONTROLLER, ...)."""

LAST_METER = 99_999
"""Our meter ids are 1 to this; ids above it belong to others and are never touched."""

# Cookie: 24 bits that say "ours", 8 bits that say what for. Then forwarding: 32 bits that say by which layout of
# the tables; metering: 24 bits of meter id, 8 bits of layout.
_OWNER = 0xC0407E
_FORWARDING, _METERING = 1, 2
LAYOUT = 2
"""Raise it when the meaning of the tables changes: flows of another layout are replaced or removed at the
next connection."""
COOKIE_OURS = _OWNER << 40
COOKIE_OURS_MASK = 0xFFFFFF0000000000
"""Selects all flows of ours, for any purpose and of any layout. Flows with other bits are never touched."""
COOKIE_FORWARDING = COOKIE_OURS | _FORWARDING << 32 | LAYOUT
COOKIE_METERS = COOKIE_OURS | _METERING << 32
COOKIE_PURPOSE_MASK = 0xFFFFFFFF00000000
_COOKIE_ID_SHIFT = 8


def meter_cookie(meter: int) -> int:
    """The cookie of the flows that use this meter of ours."""
    return COOKIE_METERS | meter << _COOKIE_ID_SHIFT | LAYOUT


def meter_of(cookie: int) -> int | None:
    """The meter that a cookie of ours speaks of; None where it speaks of none."""
    if cookie & COOKIE_PURPOSE_MASK != COOKIE_METERS:
        return None
    return (cookie & 0xFFFFFFFF) >> _COOKIE_ID_SHIFT


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
    """A flow entry: first `meter`, then outputs in this order, then `goto`. `other` is text of whatever else a
    switch reports (ours have none)."""

    table: int
    priority: int
    match: Match
    outputs: tuple[int, ...] = ()
    goto: int | None = None
    cookie: int = COOKIE_FORWARDING
    other: str = ""
    meter: int | None = None

    @property
    def key(self) -> tuple[int, int, Match]:
        """What OpenFlow tells entries apart by."""
        return self.table, self.priority, self.match

    def __str__(self) -> str:
        fields = ",".join(f"{name}={value}" for name, value in self.match.fields) or "any"
        actions = [f"meter:{self.meter}"] if self.meter is not None else []
        actions += [f"output:{'CONTROLLER' if port == TO_CONTROLLER else port}" for port in self.outputs[:8]]
        actions += ["..."] if len(self.outputs) > 8 else []
        actions += [f"goto:{self.goto}"] if self.goto is not None else []
        return f"table={self.table} priority={self.priority} {fields} -> {' '.join(actions) or 'drop'}"


@dataclass(frozen=True)
class FlowMod:
    """Add (or replace) a flow, or delete exactly the entry with its key."""

    command: Literal["add", "delete"]
    flow: Flow


@dataclass(frozen=True)
class Meter:
    """A meter with one band that drops. `rate` in kbit/s or packet/s, `burst` in kbit or packets, as OpenFlow
    counts. `other` is text of whatever else a switch reports (ours have none)."""

    id: int
    unit: str
    rate: int
    burst: int
    other: str = ""

    def __str__(self) -> str:
        return f"{self.id}: {self.rate} {'kbit/s' if self.unit == 'bit/s' else self.unit}, burst {self.burst}"


@dataclass(frozen=True)
class MeterMod:
    """Add a meter, change it in place, or delete it."""

    command: Literal["add", "modify", "delete"]
    meter: Meter


@dataclass(frozen=True)
class Barrier:
    """The switch answers once everything before is done."""


@dataclass(frozen=True)
class Contents:
    """What a switch has, or should have: flows and meters of ours."""

    flows: tuple[Flow, ...] = ()
    meters: tuple[Meter, ...] = ()


Message: TypeAlias = FlowMod | MeterMod | Barrier
