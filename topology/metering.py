"""The meters of a testbed file, checked against what the testbed has. Pure: takes the model, gives planned meters.

What a meter does in the switches is the controller's business; here its names are resolved and what can never be right
is refused before anything starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from topology.errors import Problem
from topology.model import Cohort, Meter, Node, Testbed
from topology.plan import PlannedMeter, PlannedSwitch
from topology.units import format_rate

KINDS = ("cohort", "client", "server", "address", "switch")
LEAST_RATE = {"bit/s": 16_000, "packet/s": 1}
"""Below 16 kbit/s a second of the rate holds no full Ethernet frame: nothing large would ever pass."""
MOST_RATE = {"bit/s": 10**12, "packet/s": 10**9}
FRAME_BITS = 1518 * 8
MOST_BURST = {"bit/s": (2**32 - 1) * 1000, "packet/s": 2**32 - 1}
"""OpenFlow counts kbit, and packets, in 32 bits."""
LEAST_BURST_S = 0.5
"""A burst of 100 ms halves TCP's goodput at any rate, one of a second reaches the rate (measured)."""


class _Checker:
    def __init__(
        self,
        testbed: Testbed,
        nodes: Sequence[Node],
        cohorts: Sequence[Cohort],
        switches: Sequence[PlannedSwitch],
    ) -> None:
        self.testbed = testbed
        self.roles = {node.name: node.role for node in nodes}
        self.cohorts = [cohort.name for cohort in cohorts]
        self.switches = {switch.name: switch for switch in switches}
        self.problems: list[Problem] = []

    def report(self, path: str, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(path, code, message, hint))

    def _known(self, path: str, name: str, what: str, known: Sequence[str]) -> None:
        if name not in known:
            listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            self.report(path, f"unknown-{what}", f"no {what} is called {name!r}",
                        f"one of: {listed}" if known else f"this testbed has no {what}")  # fmt: skip

    def target(self, path: str, meter: Meter) -> dict[str, str | int]:
        """The target as REST has it; an empty one where it is wrong (and reported)."""
        named = [kind for kind in KINDS if getattr(meter, kind) is not None]
        if meter.port is not None and meter.switch is None:
            self.report(f"{path}.port", "missing-key", "a port needs its switch", "add `switch:`")
            return {}
        if len(named) != 1:
            found = f"found {' and '.join(f'`{kind}`' for kind in named)}" if named else "found none"
            self.report(path, "one-target", f"a meter limits exactly one thing, {found}",
                        "write one of `cohort:`, `client:`, `server:`, `address:`, or `switch:` with `port:`"
                        )  # fmt: skip
            return {}
        kind = named[0]
        if kind == "switch":
            return self._port(path, meter)
        if kind == "address":
            return self._address(path, meter)
        name = str(getattr(meter, kind))
        # A node of another role (a host, background traffic) may be limited as either.
        other = "server" if kind == "client" else "client"
        if kind == "cohort":
            self._known(f"{path}.{kind}", name, kind, self.cohorts)
        elif self.roles.get(name, other) == other:
            self._known(f"{path}.{kind}", name, kind, [n for n, role in self.roles.items() if role == kind])
        return {"kind": kind, "name": name}

    def _port(self, path: str, meter: Meter) -> dict[str, str | int]:
        name = str(meter.switch)
        self._known(f"{path}.switch", name, "switch", list(self.switches))
        if meter.port is None:
            self.report(f"{path}.port", "missing-key", "a switch is limited at one of its ports", "add `port:`")
            return {}
        if name in self.switches:
            ports = {port.number: port.peer for port in self.switches[name].ports}
            if meter.port not in ports:
                listed = ", ".join(f"{number} ({peer})" for number, peer in list(ports.items())[:12])
                self.report(f"{path}.port", "unknown-port", f"{name} has no port {meter.port}",
                            f"one of: {listed}")  # fmt: skip
        return {"kind": "port", "switch": name, "port": meter.port}

    def _address(self, path: str, meter: Meter) -> dict[str, str | int]:
        pool = self.testbed.address_pool
        assert meter.address is not None
        if meter.address not in pool:
            self.report(f"{path}.address", "outside-pool", f"{meter.address} is no address of {pool}",
                        "change it, or `address_pool:`")  # fmt: skip
        return {"kind": "address", "address": str(meter.address)}

    def amounts(self, path: str, meter: Meter) -> None:
        """Rate, burst and enforcement fit one another."""
        rate, unit = meter.rate
        if not LEAST_RATE[unit] <= rate <= MOST_RATE[unit]:
            self.report(f"{path}.rate", "bad-value", f"{_rate(rate, unit)} is no rate for a meter",
                        f"from {_rate(LEAST_RATE[unit], unit)} to {_rate(MOST_RATE[unit], unit)}")  # fmt: skip
        if unit == "packet/s" and meter.enforce == "queue":
            self.report(f"{path}.enforce", "cannot-queue", "a queue is limited in bit/s, not in packets",
                        "write `rate:` in bit/s, or `enforce: drop`")  # fmt: skip
        if meter.burst is None:
            return
        burst, counted = meter.burst
        least = math.ceil(LEAST_BURST_S * rate)
        if counted != unit.removesuffix("/s"):
            self.report(f"{path}.burst", "wrong-unit", f"the burst counts {counted}s and the rate is in {unit}",
                        f"write it in {'Mbit' if unit == 'bit/s' else 'packets'}")  # fmt: skip
        elif burst < least:
            self.report(f"{path}.burst", "small-burst",
                        f"a burst of {burst / rate:.3g} s of the rate keeps TCP far below the rate (100 ms halve it)",
                        f"at least half a second: `{_burst(least, unit)}`; or leave it out for one second"
                        )  # fmt: skip
        elif unit == "bit/s" and burst < FRAME_BITS:
            self.report(f"{path}.burst", "small-burst", f"a burst of {burst} bit holds no full Ethernet frame",
                        f"at least `{FRAME_BITS} bit`")  # fmt: skip
        elif burst > MOST_BURST[unit]:
            self.report(f"{path}.burst", "bad-value",
                        f"a burst of {_burst(burst, unit)} is more than a switch can count",
                        f"at most `{_burst(MOST_BURST[unit], unit)}`")  # fmt: skip


def _rate(rate: int, unit: str) -> str:
    return format_rate(rate) if unit == "bit/s" else f"{rate} packet/s"


def _burst(burst: int, unit: str) -> str:
    return format_rate(burst).removesuffix("/s") if unit == "bit/s" else f"{burst} packets"


def plan_meters(
    testbed: Testbed, nodes: Sequence[Node], cohorts: Sequence[Cohort], switches: Sequence[PlannedSwitch]
) -> tuple[tuple[PlannedMeter, ...], list[Problem]]:
    """The file's meters with their targets resolved, and every problem that they have.

    `nodes`, `cohorts` and `switches` include those of the preset.
    """
    check = _Checker(testbed, nodes, cohorts, switches)
    if testbed.meters and testbed.controller.kind != "builtin":
        check.report("meters", "no-controller",
                     f"meters are set by the built-in controller, and this testbed has `kind: "
                     f"{testbed.controller.kind}`",
                     "write `controller: {kind: builtin}`, or leave the meters out")  # fmt: skip
    planned: list[PlannedMeter] = []
    limited: dict[tuple[object, ...], str] = {}
    names: set[str] = set()
    for index, meter in enumerate(testbed.meters):
        path = f"meters[{index}]"
        if meter.name in names:
            check.report(f"{path}.name", "duplicate-name", f"{meter.name!r} is used by another meter",
                         "give each its own name")  # fmt: skip
        names.add(meter.name)
        target = check.target(path, meter)
        check.amounts(path, meter)
        for direction in ("up", "down") if meter.direction == "both" else (meter.direction,):
            key = (*sorted(target.items()), direction)
            if target and limited.setdefault(key, meter.name) != meter.name:
                check.report(path, "limited-twice",
                             f"the meter {limited[key]!r} already limits the same thing in direction {direction}",
                             "keep one of them")  # fmt: skip
                break
        rate, unit = meter.rate
        burst = None if meter.burst is None else meter.burst[0]
        planned.append(PlannedMeter(meter.name, target, meter.direction, unit, rate, burst, meter.enforce))
    return tuple(planned), check.problems
