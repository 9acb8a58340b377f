"""The flows of a testbed file, checked against what the testbed has and given their ports. Pure: model in, plan out.

A TCP flow whose rate no link of its way can carry is refused, since it would be something else than what was declared.
A UDP flow sends it all the same and loses the rest: that is a way to fill a link, and only said.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from topology.errors import Problem
from topology.model import Testbed, Traffic
from topology.plan import PlannedFlow, PlannedLink
from topology.traffic import paths
from topology.traffic.schedule import USES, Pattern, wrong_numbers

FIRST_PORT = 5201
MOST_FLOWS = 50
"""Flows to one node: each takes two ports, and the port after the last (5301) belongs to measurements."""
DEFAULT_PERIOD_S = {"on-off": 10.0, "sine": 60.0}
DEFAULT_SIZE_BYTES = 1_000_000
_KEYS = ("period", "on", "size", "low", "seed")


class _Checker:
    def __init__(self, testbed: Testbed, nodes: Sequence[str], links: Sequence[PlannedLink]) -> None:
        self.testbed = testbed
        self.nodes = nodes
        self.links = paths.rates(links)
        self.problems: list[Problem] = []

    def report(self, path: str, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(path, code, message, hint))

    def ends(self, path: str, flow: Traffic) -> bool:
        """Whether both ends are nodes, and not the same one."""
        before = len(self.problems)
        for key, name in (("from", flow.source), ("to", flow.destination)):
            if name not in self.nodes:
                listed = ", ".join(self.nodes[:12]) + (", ..." if len(self.nodes) > 12 else "")
                self.report(f"{path}.{key}", "unknown-node", f"no node is called {name!r}", f"one of: {listed}")
        if flow.source == flow.destination:
            self.report(path, "same-node", f"{flow.source!r} would send to itself", "name another node in `to:`")
        return len(self.problems) == before

    def unused(self, path: str, flow: Traffic) -> None:
        """Keys that the pattern would ignore."""
        for key in _KEYS:
            if getattr(flow, key) is not None and key not in USES[flow.pattern]:
                users = " and ".join(f"`{kind}`" for kind, keys in USES.items() if key in keys)
                self.report(f"{path}.{key}", "unused-key", f"`pattern: {flow.pattern}` has no `{key}`",
                            f"leave it out; it belongs to {users}")  # fmt: skip

    def pattern(self, path: str, flow: Traffic) -> Pattern:
        """The pattern with its defaults; what cannot be is reported."""
        period = on = None
        if flow.pattern in DEFAULT_PERIOD_S:
            period = flow.period if flow.period is not None else DEFAULT_PERIOD_S[flow.pattern]
        if flow.pattern == "on-off" and period is not None:
            on = flow.on if flow.on is not None else period / 2
        size = seed = None
        if flow.pattern == "poisson":
            size = flow.size if flow.size is not None else DEFAULT_SIZE_BYTES
            # Each flow its own, so that two flows do not send in step; still the same at every start.
            own = (zlib.crc32(flow.name.encode()) ^ self.testbed.seed) % 2**31
            seed = flow.seed if flow.seed is not None else own
        low = (flow.low or 0) if flow.pattern == "sine" else None
        pattern = Pattern(flow.pattern, flow.rate, period, on, low, size, seed)
        for wrong in wrong_numbers(pattern):
            self.report(f"{path}.{wrong.key}", wrong.code, wrong.message, wrong.hint)
        return pattern

    def rate(self, path: str, flow: Traffic, pattern: Pattern) -> None:
        """The way can carry it (TCP)."""
        try:
            narrowest = paths.narrowest_bps(self.links, flow.source, flow.destination)
        except ValueError:
            return  # the links are wrong, and are reported themselves
        wrong = paths.beyond_path(pattern, flow.protocol, narrowest)
        if wrong is not None and flow.protocol == "tcp":
            self.report(f"{path}.{wrong.key}", wrong.code, wrong.message, wrong.hint)


def plan_traffic(
    testbed: Testbed, flows: Sequence[tuple[str, Traffic]], nodes: Sequence[str], links: Sequence[PlannedLink]
) -> tuple[tuple[PlannedFlow, ...], list[Problem]]:
    """The flows with all numbers and ports, and every problem that they have.

    `flows` come with their path in the testbed file; `nodes` and `links` include those of the preset.
    """
    check = _Checker(testbed, nodes, links)
    planned: list[PlannedFlow] = []
    names: set[str] = set()
    at_node: dict[str, int] = {}
    for path, flow in flows:
        if flow.name in names:
            check.report(f"{path}.name", "duplicate-name", f"{flow.name!r} is used by another flow",
                         "give each its own name")  # fmt: skip
        names.add(flow.name)
        ends = check.ends(path, flow)
        check.unused(path, flow)
        pattern = check.pattern(path, flow)
        if ends and not wrong_numbers(pattern):
            check.rate(path, flow, pattern)
        place = at_node[flow.destination] = at_node.get(flow.destination, 0) + 1
        if place == MOST_FLOWS + 1:
            check.report(f"{path}.to", "too-many-flows", f"{flow.destination!r} receives more than {MOST_FLOWS} flows",
                         "send some of them to another node")  # fmt: skip
        port = FIRST_PORT + 2 * (place - 1)
        planned.append(PlannedFlow(
            name=flow.name, source=flow.source, destination=flow.destination, protocol=flow.protocol,
            pattern=flow.pattern, rate_bps=flow.rate, period_s=pattern.period_s, on_s=pattern.on_s,
            low_bps=pattern.low_bps, size_bytes=pattern.size_bytes, seed=pattern.seed, start=flow.start,
            ports=(port, port + 1),
        ))  # fmt: skip
    return tuple(planned), check.problems
