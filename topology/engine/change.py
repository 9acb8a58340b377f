"""Changing a testbed that is up: its lock, its plan and its inventory, held together for the time of one change.

Takes a testbed's name, gives a `Change` to work on; what `save` is given is what exists from then on: the plan for a
later removal, the inventory for the controller and everybody else who reads it again when it was replaced.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from topology.engine import daemons, hosts, namespaces, state
from topology.errors import Problem, TestbedProblems, TopologyError
from topology.inventory import read_inventory, write_inventory
from topology.plan import Plan, PlannedLink, PlannedNode

LOCK_WAIT_S = 20.0


@dataclass
class Change:
    """A testbed that is up and locked."""

    plan: Plan
    inventory: dict[str, Any]

    @property
    def core(self) -> Path:
        """The core's network namespace."""
        return namespaces.named(self.plan.core_namespace)

    @property
    def offloads(self) -> bool:
        """Whether nodes may leave checksums to the switch: in the kernel's datapath, and with user-space segmentation
        offload.
        """
        core = self.inventory["core"]
        return core["datapath"] == "system" or any(note.startswith("userspace segmentation") for note in core["notes"])

    def entry(self, node: str) -> dict[str, Any]:
        """A node's entry in the inventory. Raises TestbedProblems where there is none."""
        for entry in self.inventory["nodes"]:
            if entry["name"] == node:
                found: dict[str, Any] = entry
                return found
        names = ", ".join(item["name"] for item in self.inventory["nodes"][:12])
        raise TestbedProblems([Problem(node, "unknown-node", f"{self.plan.testbed!r} has no node {node!r}",
                                       f"its nodes: {names}")])  # fmt: skip

    def macs(self) -> dict[str, str]:
        """Hardware addresses in use, with the node of each."""
        places = [(entry["name"], place) for entry in self.inventory["nodes"]
                  for place in (*([entry] if entry["switch"] else []), *entry.get("further", ()))]  # fmt: skip
        return {place["mac"]: name for name, place in places}

    def namespace_of(self, node: str) -> Path:
        """A node's network namespace. Raises TopologyError where the node is unknown or has ended."""
        entry = self.entry(node)
        place = namespaces.of_process(entry["pid"] or 0)
        if not place.exists():
            raise TopologyError(f"node {node!r} of {self.plan.testbed!r} is not running")
        return place

    def replace_node(self, node: PlannedNode) -> None:
        """Put a node of the same name in place of the planned one, and its fields into the inventory's entry."""
        self.plan = replace(self.plan, nodes=tuple(node if n.name == node.name else n for n in self.plan.nodes))
        keys = ("address", "prefix_length", "mac", "interface", "switch", "switch_port", "cpu", "memory_bytes",
                "cpuset")  # fmt: skip
        self.entry(node.name).update({key: getattr(node, key) for key in keys})

    def note_links(self, links: Mapping[str, PlannedLink]) -> None:
        """Put links, by name, in the place of the inventory's entries."""
        self.inventory["links"] = [
            asdict(links[entry["name"]]) if entry["name"] in links else entry for entry in self.inventory["links"]
        ]

    def save(self) -> None:
        """Write plan and inventory, each in one step, and the nodes' `/etc/hosts` where it is another now."""
        state.keep_plan(self.plan)
        write_inventory(self.plan.inventory, self.inventory)
        hosts.write(self.plan)

    def wait_for_flows(self, *, timeout_s: float = 30.0) -> None:
        """Wait until our controller has read the inventory as it was saved, every switch has its flows, and limits that
        queue were set for it.

        Raises:
            TopologyError: where it cannot use it, or does not come to an end in time. What was saved stays.
        """
        if self.plan.controller != "builtin":
            return
        saved = self.plan.inventory.stat().st_mtime_ns
        deadline = time.monotonic() + timeout_s
        last = "it does not answer"
        while time.monotonic() < deadline:
            try:
                status = daemons.get_in_core(self.plan, "/v1/status")
                read, switches = status["inventory"], status["switches"]
                if read["mtime_ns"] == saved and read["problem"]:
                    raise TopologyError(f"the controller cannot use the changed inventory: {read['problem']}")
                installed, listed = switches["flows_installed"], switches["listed"]
                if read["mtime_ns"] == saved and installed == listed and not status["queues"]["pending"]:
                    return
                last = f"{installed} of {listed} switches have their flows"
            except (OSError, ValueError, KeyError) as error:
                last = f"its REST: {error}"
            time.sleep(0.02)
        raise TopologyError(f"the controller did not follow the change in {timeout_s:g} s: {last}; see "
                            f"{daemons.controller_log(self.plan)}")  # fmt: skip


@contextlib.contextmanager
def changing(testbed: str) -> Iterator[Change]:
    """Hold a testbed for one change.

    Raises:
        TopologyError: where it is not up, or another process holds it for too long.
    """
    with state.lock(testbed, wait_s=LOCK_WAIT_S):
        known = state.load(testbed)
        if known is None or known.phase != "up":
            raise TopologyError(f"testbed {testbed!r} is not up; `cohortnet ls` shows those that are")
        yield Change(known.plan, read_inventory(known.plan.inventory))
