"""What exists: the file in which the parts of Cohortnet meet (docs/architecture.md has its form).

Made from a Plan and from what the engine found out while it made the plan real. Written atomically, read with a
deadline.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topology.errors import TopologyError
from topology.plain import plain
from topology.plan import STATE_ROOT, Plan, PlannedNode

VERSION = 1


@dataclass(frozen=True)
class NodeFacts:
    """What only the running node tells: its first process (host's pid), its cgroup folders, its container's id."""

    pid: int
    cgroups: tuple[str, ...] = ()
    container_id: str | None = None


@dataclass(frozen=True)
class CoreFacts:
    """What only the running core tells."""

    datapath: str
    """`netdev` (in user space) or `system` (in the kernel)."""
    ovs_rundir: str
    unsupported: tuple[str, ...] = ()
    """Declared properties that this kernel cannot do and that the user went on without."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """What sways measurements here (offloads, socket buffers), for the run record."""


def node_entry(plan: Plan, node: PlannedNode, facts: NodeFacts | None) -> dict[str, Any]:
    """The entry of one node; without facts its pid is null."""
    runtime = plan.runtime_of(node)
    return {
        **plain(node),
        "runtime": runtime,
        "program": None if node.program is None else list(node.program),
        "container": node.container if runtime == "docker" else None,
        "container_id": facts.container_id if facts else None,
        "pid": facts.pid if facts else None,
        "cgroups": list(facts.cgroups) if facts else [],
        "paused": False,
        "log": node.log,
    }


def build_inventory(plan: Plan, core: CoreFacts, nodes: Mapping[str, NodeFacts], *, up: bool) -> dict[str, Any]:
    """The inventory as plain data. Nodes without facts have a null pid and no cgroups."""
    entries = [node_entry(plan, node, nodes.get(node.name)) for node in plan.nodes]
    return {
        "version": VERSION,
        "testbed": plan.testbed,
        "state": "up" if up else "raising",
        "runtime": plan.runtime,
        "seed": plan.seed,
        "core": {
            "namespace": plan.core_namespace,
            "ovs_rundir": core.ovs_rundir,
            "datapath": core.datapath,
            "notes": list(core.notes),
            "controller": {"kind": plan.controller, "openflow": "127.0.0.1:6653", "rest": "127.0.0.1:8080",
                           "address": plan.controller_address},
            "fail_mode": plan.fail_mode,
        },
        "network": {
            "address_pool": plan.address_pool,
            "management": plan.management,
            "management_host": plan.management_host,
            "host_interface": plan.host_interface,
        },
        "nodes": entries,
        "switches": [plain(switch) for switch in plan.switches],
        "links": [plain(link) for link in plan.links],
        "cohorts": [plain(cohort) for cohort in plan.cohorts],
        "meters": [meter.as_body() for meter in plan.meters],
        "traffic": [plain(flow) for flow in plan.traffic],
        "published": [plain(port) for port in plan.published],
        "monitoring": plain(plan.monitoring) if plan.monitoring else None,
        "unsupported": list(core.unsupported),
        "paths": {
            "state": str(plan.state),
            "shared": str(plan.shared),
            "logs": str(plan.logs),
            "spawner": str(plan.spawner),
        },
    }


def as_text(inventory: Mapping[str, Any]) -> str:
    """The file's text: a line for each node, switch, link and the like, so that it can be read and searched. Pure.

    (json's own indentation is made by Python code, which takes twenty times as long.)
    """
    parts = []
    for key, value in inventory.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_inventory(path: Path, inventory: Mapping[str, Any]) -> None:
    """Replace the file in one step: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(as_text(inventory), encoding="utf-8")
    os.replace(temporary, path)


def read_inventory(path: Path, *, wait_s: float = 0.0, until_up: bool = False) -> dict[str, Any]:
    """The inventory; waits up to `wait_s` seconds for the file (and, with `until_up`, for the testbed to be up).

    Raises:
        TopologyError: where it is missing, of another version, or not up in time.
        PermissionError: where this user may not read it (a testbed's folder is root's).
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            problem = f"{path} does not exist"
        else:
            if data.get("version") != VERSION:
                raise TopologyError(f"{path} has version {data.get('version')!r}; this program reads version {VERSION}")
            if data["state"] == "up" or not until_up:
                return data
            problem = f"{path}: the testbed is still being raised"
        if time.monotonic() >= deadline:
            raise TopologyError(f"{problem}; `cohortnet ls` shows the testbeds that are up")
        time.sleep(0.05)


def inventory_path(testbed: str) -> Path:
    """Where the inventory of that testbed is."""
    if not testbed or "/" in testbed or testbed.startswith("."):
        raise TopologyError(f"{testbed!r} is no testbed's name; `cohortnet ls` lists the testbeds")
    return STATE_ROOT / testbed / "shared" / "inventory.json"
