"""A plan whose nodes are of several runtimes: each part goes to its own runtime, at the same time.

Owns nothing itself. Takes a plan, gives `runtime_for` it: the one runtime of a plan that has only one, else a
`MixedRuntime` over those it names. A plan with any container says `docker` as its own runtime, so that a removal asks
Docker too.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from topology.engine import removal
from topology.engine.runtime import Progress, Runtime
from topology.errors import Problem
from topology.inventory import NodeFacts
from topology.plan import Plan, PlannedNode


def runtime_for(plan: Plan) -> Runtime:
    """The runtime that makes this plan's nodes. Raises TopologyError where one of them cannot be loaded."""
    kinds = {plan.runtime_of(node) for node in plan.nodes} or {plan.runtime}
    if len(kinds) == 1:
        return removal.pick_runtime(kinds.pop())
    return MixedRuntime({kind: removal.pick_runtime(kind) for kind in sorted(kinds)})


class MixedRuntime:
    """Delegates to the runtimes of the nodes."""

    name = "mixed"

    def __init__(self, parts: dict[str, Runtime]) -> None:
        self._parts = parts

    def check(self, plan: Plan) -> list[Problem]:
        """What stands against each part of the plan."""
        problems: list[Problem] = []
        for kind, runtime in self._parts.items():
            own = tuple(node for node in plan.nodes if plan.runtime_of(node) == kind)
            problems += runtime.check(replace(plan, nodes=own))
        return problems

    def create(self, plan: Plan, nodes: Sequence[PlannedNode], progress: Progress) -> dict[str, NodeFacts]:
        """All parts at the same time. Raises the first part's TopologyError once every part has ended."""
        facts: dict[str, NodeFacts] = {}
        with ThreadPoolExecutor(max_workers=len(self._parts), thread_name_prefix="runtime") as pool:
            made = [
                pool.submit(runtime.create, plan, [n for n in nodes if plan.runtime_of(n) == kind], progress)
                for kind, runtime in self._parts.items()
            ]
        for part in made:
            facts |= part.result()
        return facts

    def starts_programs(self) -> bool:
        """True only where every part does: else somebody has to start those of the others."""
        return all(runtime.starts_programs() for runtime in self._parts.values())

    def remove(self, testbed: str, state: Path, progress: Progress) -> list[str]:
        """All nodes of all parts."""
        return [name for runtime in self._parts.values() for name in runtime.remove(testbed, state, progress)]

    def remove_node(self, testbed: str, node: str) -> None:
        """One node, whichever part it belongs to: the others have none of that name."""
        for runtime in self._parts.values():
            runtime.remove_node(testbed, node)
