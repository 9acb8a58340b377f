"""What a runtime is to the engine: the few things that differ between containers and namespaces.

A runtime makes nodes without network (their own network namespace with only `lo`), with their limits applied, and gives
back the pid of each node's first process and its cgroup folders. Links, addresses, switches and programs of nodes are
the engine's business, the same for each runtime. Everything that a runtime makes carries the testbed's name, so that
`remove` finds exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from topology.errors import Problem
from topology.inventory import NodeFacts
from topology.plan import Plan, PlannedNode

Progress = Callable[[str, int, int], None]
"""Called as progress(step, done, total), from any thread."""


def quiet(step: str, done: int, total: int) -> None:
    """A progress that says nothing."""


class NodeMaker(Protocol):
    """What raising a plan needs: a runtime, or a `mixed_runtime.MixedRuntime` over several."""

    name: str

    def check(self, plan: Plan) -> list[Problem]:
        """What stands against raising this plan here (daemon not running, image missing, ...), each with what to type
        next."""
        ...

    def create(self, plan: Plan, nodes: Sequence[PlannedNode], progress: Progress) -> dict[str, NodeFacts]:
        """Make and start the nodes, in parallel with bounded workers. Raises TopologyError naming the node that
        failed."""
        ...


class Runtime(NodeMaker, Protocol):
    """Implemented by `docker_runtime.DockerRuntime` and `namespace_runtime.NamespaceRuntime`."""

    def remove(self, testbed: str, state: Path, progress: Progress) -> list[str]:
        """Remove all nodes of that testbed, also half-made ones, also twice; gives back the names of what was
        removed."""
        ...

    def remove_node(self, testbed: str, node: str) -> None:
        """Remove one node of a testbed that is up, also twice. Raises TopologyError where it does not go."""
        ...
