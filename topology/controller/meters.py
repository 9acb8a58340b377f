"""A meter as users name it: what is limited, in which direction, to which rate; and what can be wrong with it.

Pure values. `meter_body` reads them, `meterbook` has which there are, `placement` where they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from topology.errors import Problem

TARGET_KEYS = ("kind", "name", "switch", "port", "address")

Direction = Literal["up", "down"]
Kind = Literal["invalid", "unknown", "conflict"]
Force = Literal["drop", "queue"]

FRAME_BITS = 1518 * 8
QUEUE_BURST_S = 0.05
"""A queue holds what comes too fast, so it needs no second of burst, as a meter that drops does: HTB reaches the rate
with ten milliseconds."""


@dataclass(frozen=True)
class Fault:
    """A problem, and which kind of refusal follows from it: invalid (400), unknown (404), conflict (409)."""

    kind: Kind
    problem: Problem


@dataclass(frozen=True)
class Target:
    """What is limited; keys that its kind does not have are None."""

    kind: str
    name: str | None = None
    switch: str | None = None
    port: int | None = None
    address: str | None = None

    def __str__(self) -> str:
        if self.kind == "port":
            return f"port {self.port} of {self.switch}"
        return f"{self.kind} {self.name or self.address}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without the keys that its kind does not have."""
        values = {key: getattr(self, key) for key in TARGET_KEYS}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class MeterSpec:
    """A named limit. `rate` in bit/s or packet/s (`unit` says which), `burst` in bits or packets, None where the user
    gave none: then `burst_for` says what it is."""

    name: str
    target: Target
    direction: str
    unit: str
    rate: int
    burst: int | None
    enforce: str

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions one by one."""
        both: tuple[Direction, ...] = ("up", "down")
        return tuple(way for way in both if self.direction in (way, "both"))

    def burst_for(self, force: Force) -> int:
        """The burst in force: the user's; else one second of the rate where it drops, and where it queues
        `QUEUE_BURST_S`, at least two full frames."""
        if self.burst is not None:
            return self.burst
        return self.rate if force == "drop" else max(round(self.rate * QUEUE_BURST_S), 2 * FRAME_BITS)

    def as_body(self) -> dict[str, Any]:
        """Plain data as `meter_body.read_spec` takes it."""
        return {
            "name": self.name,
            "target": self.target.as_dict(),
            "direction": self.direction,
            "unit": self.unit,
            "rate": self.rate,
            **({} if self.burst is None else {"burst": self.burst}),
            "enforce": self.enforce,
        }
