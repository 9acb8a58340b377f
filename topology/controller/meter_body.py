"""Bodies of meters, as REST and the inventory have them: reads one, and says everything that is wrong with it at
once. Pure; asks no switch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from topology.controller.graph import Graph
from topology.controller.meters import FRAME_BITS, TARGET_KEYS, Fault, Kind, MeterSpec, Target
from topology.errors import Problem
from topology.units import format_rate, parse_burst, parse_meter_rate

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
KINDS = ("cohort", "client", "server", "port", "address")
DIRECTIONS = ("up", "down", "both")
UNITS = ("bit/s", "packet/s")
ENFORCEMENTS = ("auto", "drop", "queue")
_KEYS = ("name", "target", "direction", "rate", "unit", "burst", "enforce")
_NEEDED = {
    "cohort": ("name",),
    "client": ("name",),
    "server": ("name",),
    "port": ("switch", "port"),
    "address": ("address",),
}

LEAST_RATE_BPS = 16_000
"""Less, and a second of the rate holds no full Ethernet frame: nothing large would ever pass."""
MOST = {"bit/s": 10**12, "packet/s": 10**9}
MOST_BURST = {"bit/s": (2**32 - 1) * 1000, "packet/s": 2**32 - 1}
"""OpenFlow counts kbit, and packets, in 32 bits."""
LEAST_BURST_S = 0.5
"""Measured: with a burst of 100 ms TCP reaches half the rate, with one of a second 98 % of it."""


class _Reader:
    """Reads one body; collects what is wrong."""

    def __init__(self, graph: Graph, has_port: Callable[[int, int], bool], path: str) -> None:
        self._graph, self._has_port, self._path = graph, has_port, path
        self.faults: list[Fault] = []

    def fault(self, key: str, code: str, message: str, hint: str = "", kind: Kind = "invalid") -> None:
        path = f"{self._path}.{key}".strip(".")
        self.faults.append(Fault(kind, Problem(path, code, message, hint)))

    def only(self, found: Mapping[str, Any], allowed: Iterable[str], where: str = "") -> None:
        for key in found:
            if key not in allowed:
                hint = f"allowed are {', '.join(allowed)}"
                self.fault(f"{where}{key}"[:80], "unknown-key", f"{_shown(key)} is not known here", hint)

    def choice(self, value: Any, key: str, allowed: tuple[str, ...], default: str) -> str:
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            self.fault(key, "bad-value", f"{_shown(value)} is not allowed", f"one of {', '.join(allowed)}")
            return default
        return value

    def target(self, value: Any) -> Target | None:
        if not isinstance(value, Mapping):
            hint = 'such as {"kind": "cohort", "name": "1"}'
            self.fault("target", "bad-value", f"the target is {_shown(value)}, expected an object", hint)
            return None
        self.only(value, TARGET_KEYS, "target.")
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in _NEEDED:
            self.fault("target.kind", "bad-value", f"{_shown(kind)} is no kind", f"one of {', '.join(KINDS)}")
            return None
        before = len(self.faults)
        for key in TARGET_KEYS[1:]:
            given = value.get(key)
            if key in _NEEDED[kind]:
                wanted = int if key == "port" else str
                if not isinstance(given, wanted) or isinstance(given, bool):
                    text = f"a meter on a {kind} needs `{key}`, found {_shown(given)}"
                    example = "a number" if key == "port" else 'text, such as "1"' if key == "name" else "text"
                    self.fault(f"target.{key}", "bad-value", text, f"write {example}")
            elif given is not None:
                text = f"`{key}` does not belong to a meter on a {kind}"
                self.fault(f"target.{key}", "unknown-key", text, f"it has {', '.join(_NEEDED[kind])}")
        if len(self.faults) > before:
            return None
        if kind == "address":
            return self._address(value["address"])
        return self._port(value["switch"], value["port"]) if kind == "port" else self._named(kind, value["name"])

    def _address(self, text: str) -> Target | None:
        try:
            address = IPv4Address(text)
        except AddressValueError:
            self.fault("target.address", "bad-value", f"{_shown(text)} is no IPv4 address", "such as 10.0.1.77")
            return None
        if address.is_unspecified or address.is_multicast or address.is_loopback or address == _EVERYBODY:
            message = f"{address} is the address of no single board"
            self.fault("target.address", "bad-value", message, "such as 10.0.1.77")
            return None
        return Target("address", address=str(address))

    def _port(self, switch: str, port: int) -> Target | None:
        known = self._graph.switch_named(switch)
        if known is None:
            names = [entry.name for entry in self._graph.switches.values()]
            message = f"no switch is called {_shown(switch)}"
            self.fault("target.switch", "unknown-switch", message, _one(names), "unknown")
            return None
        if port not in known.ports and not self._has_port(known.datapath_id, port):
            hint = _one([f"{entry.number} ({entry.peer})" for entry in known.ports.values()])
            self.fault("target.port", "unknown-port", f"{switch} has no port {port}", hint, "unknown")
            return None
        return Target("port", switch=switch, port=port)

    def _named(self, kind: str, name: str) -> Target | None:
        if kind == "cohort":
            names = [cohort.name for cohort in self._graph.cohorts]
            if name not in names:
                message = f"no cohort is called {_shown(name)}"
                self.fault("target.name", "unknown-cohort", message, _one(names), "unknown")
                return None
            return Target(kind, name=name)
        host = self._graph.host_named(name)
        if host is None:
            names = [entry.name for entry in self._graph.hosts if entry.role == kind]
            self.fault("target.name", f"unknown-{kind}", f"no node is called {_shown(name)}", _one(names), "unknown")
            return None
        other = "server" if kind == "client" else "client"
        if host.role == other:
            message, hint = f"{name} is a {other}, not a {kind}", f'write "kind": "{other}"'
            self.fault("target.kind", "wrong-kind", message, hint)
            return None
        return Target(kind, name=name)

    def rate(self, value: Any, unit: Any) -> tuple[int, str] | None:
        if unit is not None and unit not in UNITS:
            self.fault("unit", "bad-value", f"{_shown(unit)} is no unit of a meter", f"one of {', '.join(UNITS)}")
            return None
        if isinstance(value, str):
            try:
                rate, found = parse_meter_rate(value[:80])
            except (ValueError, OverflowError) as error:
                self.fault("rate", "bad-value", str(error), 'such as "20 Mbit/s" or "500 packet/s"')
                return None
            if unit not in (None, found):
                self.fault("unit", "contradiction", f"the rate is in {found}, the unit says {unit}", "leave `unit` out")
                return None
        elif _is_number(value):
            if unit is None:
                self.fault("unit", "missing-key", f"the rate {value} has no unit", 'add "unit": "bit/s"')
                return None
            if unit == "packet/s" and value != int(value):
                self.fault("rate", "bad-value", f"{value} is no whole number of packets", "write a whole number")
                return None
            rate, found = round(value), unit
        else:
            self.fault("rate", "bad-value", f"{_shown(value)} is no rate", 'such as "20 Mbit/s" or "500 packet/s"')
            return None
        least = LEAST_RATE_BPS if found == "bit/s" else 1
        if not least <= rate <= MOST[found]:
            allowed = f"from {_amount(least, found)} to {_amount(MOST[found], found)}"
            self.fault("rate", "bad-value", f"{_amount(rate, found)} is no rate for a meter", f"allowed is {allowed}")
            return None
        return rate, found

    def burst(self, value: Any, rate: int, unit: str) -> int | None:
        if value is None:
            return None
        counted = unit.removesuffix("/s")
        if isinstance(value, str):
            try:
                burst, found = parse_burst(value[:80])
            except (ValueError, OverflowError) as error:
                self.fault("burst", "bad-value", str(error), "leave it out for one second of the rate")
                return None
            if found != counted:
                message = f"the burst counts {found}s, the rate is in {unit}"
                self.fault("burst", "wrong-unit", message, f"write it in {counted}s")
                return None
        elif _is_number(value):
            burst = math.floor(value)
        else:
            self.fault("burst", "bad-value", f"{_shown(value)} is no burst", 'such as "10 Mbit", or 10000000')
            return None
        least = math.ceil(LEAST_BURST_S * rate)
        if burst < least:
            message = (
                f"a burst of {_burst(burst, unit)} is {burst / rate:.3g} s of the rate: below half a second TCP stays "
                "far under the rate (100 ms halve it)"
            )
            hint = f"at least {_burst(least, unit)}, or leave it out for one second of the rate"
            self.fault("burst", "small-burst", message, hint)
        elif unit == "bit/s" and burst < FRAME_BITS:
            message = f"a burst of {burst} bit holds no full Ethernet frame"
            self.fault("burst", "small-burst", message, f"at least {FRAME_BITS} bit")
        elif burst > MOST_BURST[unit]:
            message = f"a burst of {_burst(burst, unit)} is more than a switch can count"
            self.fault("burst", "bad-value", message, f"at most {_burst(MOST_BURST[unit], unit)}")
        return burst


_EVERYBODY = IPv4Address("255.255.255.255")


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 128


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _one(names: list[str]) -> str:
    more = f", ... ({len(names) - 20} more)" if len(names) > 20 else ""
    return f"one of: {', '.join(names[:20])}{more}" if names else "this testbed has none"


def _amount(rate: int, unit: str) -> str:
    return format_rate(rate) if unit == "bit/s" else f"{rate} packet/s"


def _burst(burst: int, unit: str) -> str:
    return format_rate(burst).removesuffix("/s") if unit == "bit/s" else f"{burst} packets"


def read_spec(
    body: Any,
    graph: Graph,
    has_port: Callable[[int, int], bool],
    name: str | None = None,
    path: str = "",
) -> tuple[MeterSpec | None, list[Fault]]:
    """The meter that a body asks for, or everything that is wrong with it.

    Args:
        has_port: whether the switch of that datapath id has that port, although the inventory does not list it.
        name: its name where the call has it in its path; the body then may repeat it, not contradict it.
        path: what stands before each key in the faults.
    """
    reader = _Reader(graph, has_port, path)
    if not isinstance(body, Mapping):
        reader.fault("", "bad-value", f"a meter is {_shown(body)}, expected an object", 'such as {"target": ...}')
        return None, reader.faults
    reader.only(body, _KEYS)
    given = body.get("name", name)
    if not isinstance(given, str) or not NAME.fullmatch(given):
        hint = "1 to 63 letters, digits, '.', '_' or '-', a letter or digit first"
        reader.fault("name", "bad-value", f"{_shown(given)} is no name of a meter", hint)
    elif name is not None and given != name:
        message = f"the body says {_shown(given)}, the path says {name!r}"
        reader.fault("name", "contradiction", message, "leave `name` out of the body")
    target = reader.target(body.get("target"))
    direction = reader.choice(body.get("direction"), "direction", DIRECTIONS, "both")
    enforce = reader.choice(body.get("enforce"), "enforce", ENFORCEMENTS, "auto")
    rate = reader.rate(body.get("rate"), body.get("unit"))
    burst = None if rate is None else reader.burst(body.get("burst"), *rate)
    if rate is not None and rate[1] == "packet/s" and enforce == "queue":
        hint = "write `rate` in bit/s, or enforce: drop"
        reader.fault("enforce", "cannot-queue", "a queue counts bits, not packets", hint)
    if reader.faults or target is None or rate is None:
        return None, reader.faults
    return MeterSpec(str(given), target, direction, rate[1], rate[0], burst, enforce), []
