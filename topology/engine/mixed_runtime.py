"""A plan whose nodes are of several runtimes: each part goes to its own runtime, at the same time.

Owns nothing itself. Takes a plan, gives `runtime_for` it: the one runtime of a plan that has only one, else a
`MixedRuntime` over those it names. A plan with any container says `docker` as its own runtime, so that a removal asks
Docker too.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from topology.engine import removal
from topology.engine.runtime import NodeMaker, Progress
from topology.errors import Problem
from topology.inventory import NodeFacts
from topology.plan import Plan, PlannedNode


def runtime_for(plan: Plan) -> NodeMaker:
    """The runtime that makes this plan's nodes. Raises TopologyError where one of them cannot be loaded."""
    kinds = {plan.runtime_of(node) for node in plan.nodes} or {plan.runtime}
    if len(kinds) == 1:
        return removal.pick_runtime(kinds.pop())
    return MixedRuntime({kind: removal.pick_runtime(kind) for kind in sorted(kinds)})


class MixedRuntime:
    """Delegates to the runtimes of the nodes. (Removal asks each runtime itself: a plan may be lost.)"""

    name = "mixed"

    def __init__(self, parts: dict[str, NodeMaker]) -> None:
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
