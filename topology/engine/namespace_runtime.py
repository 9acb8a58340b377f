"""Nodes as bare namespaces: no daemon and no image, a few milliseconds and about a megabyte a node.

Owns the nodes' first processes and their groups. Takes planned nodes, gives back pids and cgroup folders. Programs are
not started here (the command line does, through the spawner), interfaces and addresses are the engine's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from topology.engine import cgroups, launch
from topology.engine.runtime import Progress
from topology.errors import Problem, TopologyError
from topology.inventory import NodeFacts
from topology.plan import Plan, PlannedNode

_INIT = Path(__file__).with_name("node_init.py")
_SECONDS_A_NODE = 1.0
_LEAST_MEMORY_BYTES = 16 * 2**20
_HELPERS = 2
"""Programs that fork nodes side by side: the work is the kernel's, two keep two cores busy."""


def _needed_below_tmp() -> list[str]:
    # The interpreter's environment and this project itself, where they lie below /tmp.
    folders = {str(launch.PACKAGE_ROOT), sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix)}
    return sorted(folder for folder in folders if folder.startswith("/tmp/"))


def check_limits(plan: Plan) -> list[Problem]:
    """Limits below what a node needs to exist. Pure."""
    return [
        Problem(node.name, "too-small",
                f"a `memory` of {node.memory_bytes} bytes does not hold even a node's first process",
                "give it at least 16 MiB")
        for node in plan.nodes if node.memory_bytes is not None and node.memory_bytes < _LEAST_MEMORY_BYTES
    ]  # fmt: skip


class NamespaceRuntime:
    """The runtime `namespace`."""

    name = "namespace"

    def check(self, plan: Plan) -> list[Problem]:
        """Needs root; and nodes need the few megabytes of their first process."""
        problems = []
        if os.geteuid() != 0:
            problems.append(Problem("runtime", "no-root", "making namespaces needs root", "start it with `sudo`"))
        return problems + check_limits(plan)

    def create(self, plan: Plan, nodes: Sequence[PlannedNode], progress: Progress) -> dict[str, NodeFacts]:
        """Make the nodes' groups and fork their first processes.

        Raises:
            TopologyError: naming the node that failed.
        """
        shares = [nodes[start::_HELPERS] for start in range(_HELPERS)]
        helpers = [(self._start(plan), share) for share in shares if share]
        try:
            groups = self._hand_out(plan, nodes, [helper for helper, _ in helpers])
        except BaseException:
            for helper, _ in helpers:
                helper.kill()
                helper.communicate(timeout=10)
            raise
        progress("node groups", len(nodes), len(nodes))
        facts: dict[str, NodeFacts] = {}
        failures = []
        for helper, share in helpers:
            assert helper.stdout is not None and helper.stderr is not None
            try:
                output, said = helper.communicate(timeout=30 + _SECONDS_A_NODE * len(share))
            except subprocess.TimeoutExpired:
                helper.kill()
                output, said = helper.communicate(timeout=10)
            for line in output.splitlines():
                answer = json.loads(line)
                if "error" in answer:
                    failures.append(f"node {answer['name']!r}: {answer['error']}")
                else:
                    facts[answer["name"]] = NodeFacts(answer["pid"], groups[answer["name"]])
            progress("nodes", len(facts), len(nodes))
            if helper.returncode != 0 and not failures:
                failures.append(f"forking nodes ended with status {helper.returncode}: {said.strip()[-500:]}")
        missing = [node.name for node in nodes if node.name not in facts]
        if failures or missing:
            raise TopologyError("; ".join(failures[:5]) or f"node {missing[0]!r} did not come up")
        return facts

    @staticmethod
    def _start(plan: Plan) -> subprocess.Popen[str]:
        helper = subprocess.Popen(
            launch.in_core(plan.testbed, [sys.executable, "-I", "-S", str(_INIT)]), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={"PATH": os.environ.get("PATH", "/bin")},
        )  # fmt: skip
        return helper

    @staticmethod
    def _hand_out(
        plan: Plan, nodes: Sequence[PlannedNode], helpers: Sequence[subprocess.Popen[str]]
    ) -> dict[str, tuple[str, ...]]:
        """Make the nodes' groups, and give each node to a helper as soon as it has its own."""
        groups: dict[str, tuple[str, ...]] = {}
        keep = _needed_below_tmp()
        with suppress(BrokenPipeError):  # a helper that has ended tells why, later
            for helper in helpers:
                assert helper.stdin is not None
                helper.stdin.write(json.dumps({"hosts": str(plan.shared / "hosts")}) + "\n")
                helper.stdin.flush()
            for number, node in enumerate(nodes):
                groups[node.name] = cgroups.make_node(
                    plan.testbed, node.name, cpu=node.cpu, memory_bytes=node.memory_bytes, cpuset=node.cpuset
                )
                request = {"name": node.name, "hostname": node.name, "groups": groups[node.name],
                           "keep": ["/tmp"] if node.options.get("share_tmp") else keep}  # fmt: skip
                stdin = helpers[number % _HELPERS].stdin
                assert stdin is not None
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
        for helper in helpers:
            assert helper.stdin is not None
            with suppress(BrokenPipeError):
                helper.stdin.close()
            helper.stdin = None  # `communicate` shall not touch it again
        return groups

    def remove(self, testbed: str, state: Path, progress: Progress) -> list[str]:
        """End all that runs in the testbed's nodes; their groups give them away, whatever became of the state file."""
        names = cgroups.node_names(testbed)
        if names:
            cgroups.end_all(testbed, grace_s=0.0, below="nodes")
        progress("nodes removed", len(names), len(names))
        return names

    def remove_node(self, testbed: str, node: str) -> None:
        """End all that runs in one node, and remove its groups."""
        cgroups.remove_node(testbed, node)
