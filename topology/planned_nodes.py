"""The nodes of a plan: limits, program and environment of each, from the testbed and what was resolved before. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from topology.model import Cohort, Limits, Node, SpeedClass, Testbed
from topology.plan import STATE_ROOT, PlannedLink, PlannedNode

_T = TypeVar("_T")
NODE_INTERFACE = "eth0"
MANAGEMENT_INTERFACE = "mgmt0"
MLFO_GRPC_PORT = 9000


@dataclass(frozen=True)
class Management:
    """The management plane's addresses: its network, the host's own, and each node's by name."""

    network: IPv4Network
    host: IPv4Address
    addresses: Mapping[str, IPv4Address]


def plan_nodes(
    testbed: Testbed,
    nodes: Sequence[Node],
    cohorts: Sequence[Cohort],
    links: Sequence[PlannedLink],
    addresses: Mapping[str, IPv4Address],
    management: Management,
    drawn: Mapping[str, SpeedClass],
) -> list[PlannedNode]:
    """Every node in the order of `nodes`. `drawn` has the class of speed of those clients that have one."""
    place: dict[str, tuple[str, int]] = {}
    for link in links:
        if link.a_port is None and link.b_port is not None:
            place[link.a] = (link.b, link.b_port)
        elif link.b_port is None and link.a_port is not None:
            place[link.b] = (link.a, link.a_port)
    cohort_of = {name: c.name for c in cohorts for name in (c.server, *c.clients)}
    central = next((str(addresses[n.name]) for n in nodes if n.role == "mlfo-central"), None)
    root = STATE_ROOT / testbed.name
    planned = []
    for node in nodes:
        speed = drawn.get(node.name)
        # What is said of the node itself comes before its class of speed, and that before its role.
        levels = (node, speed, testbed.limits.get(node.role, Limits()))
        address = addresses[node.name]
        state = f"{root}/nodes/{node.name}"
        cohort = cohort_of.get(node.name)
        octets = address.packed
        planned.append(PlannedNode(
            name=node.name, role=node.role, cohort=cohort, address=str(address),
            prefix_length=testbed.address_pool.prefixlen,
            mac="02:00:" + ":".join(f"{octet:02x}" for octet in octets),
            interface=NODE_INTERFACE, management_address=str(management.addresses[node.name]),
            management_interface=MANAGEMENT_INTERFACE,
            switch=place[node.name][0], switch_port=place[node.name][1],
            cpu=_first(*(level.cpus if isinstance(level, SpeedClass) else level.cpu for level in levels if level)),
            memory_bytes=_first(*(level.memory for level in levels if level)),
            cpuset=_first(*(level.cpuset for level in levels if level)),
            speed=speed.name if speed else None,
            image=node.image or testbed.image, container=f"{testbed.container_prefix}{node.name}",
            program=tuple(node.command) if node.command is not None else _program(node, state, root, central),
            environment={**_environment(testbed, node, cohort, address, state, management.network), **node.environment},
            state=state,
        ))  # fmt: skip
    return planned


def _environment(
    testbed: Testbed, node: Node, cohort: str | None, address: IPv4Address, state: str, management_network: IPv4Network
) -> dict[str, str]:
    root = STATE_ROOT / testbed.name
    environment = {
        "COHORTNET_TESTBED": testbed.name,
        "COHORTNET_NODE": node.name,
        "COHORTNET_ROLE": node.role,
        "COHORTNET_COHORT": cohort or "",
        "COHORTNET_ADDRESS": str(address),
        "COHORTNET_STATE": state,
        "COHORTNET_INVENTORY": f"{root}/shared/inventory.json",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": f"{state}/flwr",
        "COHORTNET_MANAGEMENT": str(management_network),
    }
    if testbed.runtime == "namespace":
        environment["COHORTNET_SPAWNER"] = f"{root}/shared/spawner.sock"
    return environment


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)


def _program(node: Node, state: str, root: object, central: str | None) -> tuple[str, ...] | None:
    if node.role in ("client", "server"):
        return ("python", "-m", "fl_node.agent")
    if node.role not in ("mlfo-edge", "mlfo-central"):
        return None
    role = node.role.removeprefix("mlfo-")
    command = ["python", "-m", "mlfo", "--role", role, "--node", node.name,
               "--inventory", f"{root}/shared/inventory.json", "--state", state]  # fmt: skip
    if role == "edge" and central is not None:
        command += ["--central", f"{central}:{MLFO_GRPC_PORT}"]
    return tuple(command)
