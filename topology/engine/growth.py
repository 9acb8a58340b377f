"""What a node that joins a testbed that is up will be: as one that is there, under its own name. Pure.

Takes a plan and what the user typed, gives the planned node, its link and its end of that; collects every problem
before it gives up. `change_nodes` and `change_links` make it real.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from topology.engine.change_links import NodeEnd, free_port, switch_interface
from topology.errors import Problem, TestbedProblems
from topology.model import NODE_NAME
from topology.plan import Plan, PlannedLink, PlannedNode
from topology.planned_nodes import NODE_INTERFACE

ROLES = ("client", "server", "host")
"""Of the others there is one of each, or more hangs on them than a node."""


@dataclass(frozen=True)
class Growth:
    """A node to be added, with its link to a switch."""

    node: PlannedNode
    link: PlannedLink
    end: NodeEnd


def node_like(
    plan: Plan, name: str, like: str, switch: str, *, cohort: str | None = None, address: str | None = None
) -> Growth:
    """A node of that name with the role, limits, program and link (as declared) of the node `like`, at that switch.

    Without an `address` it gets the one after the highest of its role, where that is free, else the lowest free one.

    Raises:
        TestbedProblems: with everything that stands against it.
    """
    problems: list[Problem] = []
    if not re.fullmatch(NODE_NAME, name):
        problems.append(Problem("NAME", "bad-value", f"{name!r} is no name of a node",
                                "letters, digits, dot, dash and underscore, at most 31, such as fc.60"))  # fmt: skip
    if name in {*(item.name for item in plan.nodes), *(item.name for item in plan.switches)}:
        problems.append(Problem("NAME", "duplicate-name", f"{name!r} is there already", "choose another name"))
    model = next((node for node in plan.nodes if node.name == like), None)
    link = next((link for link in plan.links if like in (link.a, link.b)), None)
    if model is None or link is None:
        known = ", ".join(node.name for node in plan.nodes if node.role in ROLES)
        what = f"no node is called {like!r}" if model is None else f"{like!r} has no link whose shape could be taken"
        problems.append(Problem("--like", "unknown-node", what, f"one of: {known[:200]}"))
    elif model.role not in ROLES:
        problems.append(Problem("--like", "one-of-a-kind", f"{like!r} is {model.role}, of which none can be added",
                                f"name a node that is one of: {', '.join(ROLES)}"))  # fmt: skip
    if switch not in {item.name for item in plan.switches}:
        names = ", ".join(item.name for item in plan.switches[:12])
        problems.append(Problem("--switch", "unknown-switch", f"no switch is called {switch!r}", f"one of: {names}"))
    if cohort is not None and cohort not in {item.name for item in plan.cohorts}:
        names = ", ".join(item.name for item in plan.cohorts[:12])
        problems.append(Problem("--cohort", "unknown-cohort", f"no cohort is called {cohort!r}",
                                f"one of: {names}" if names else "this testbed has none: leave it out"))  # fmt: skip
    elif cohort is not None and model is not None and model.role != "client":
        problems.append(Problem("--cohort", "no-client", f"{like!r} is a {model.role}, and cohorts gain clients",
                                "leave --cohort out, or take after a client"))  # fmt: skip
    found = _address(plan, model.role if model else "", address, problems)
    if problems or model is None or link is None or found is None:
        raise TestbedProblems(problems)
    return _grown(plan, name, model, link, switch, cohort, found)


def _address(plan: Plan, role: str, typed: str | None, problems: list[Problem]) -> IPv4Address | None:
    pool = IPv4Network(plan.address_pool)
    taken = {IPv4Address(node.address): node for node in plan.nodes if node.address}
    if typed is not None:
        try:
            address = IPv4Address(typed)
        except AddressValueError:
            problems.append(Problem("--address", "bad-value", f"{typed!r} is no IPv4 address", "such as 10.0.1.60"))
            return None
        if address not in pool or address in (pool.network_address, pool.broadcast_address):
            problems.append(Problem("--address", "outside-pool", f"{address} is no host address of {pool}",
                                    "leave it out to get a free one"))  # fmt: skip
        elif address in taken:
            problems.append(Problem("--address", "duplicate-address", f"{address} belongs to {taken[address].name!r}",
                                    "leave it out to get a free one"))  # fmt: skip
        return address
    last = max((address for address, node in taken.items() if node.role == role), default=None)
    if last is not None and last + 1 not in taken and last + 1 in pool and last + 1 != pool.broadcast_address:
        return last + 1
    free = next((address for address in pool.hosts() if address not in taken), None)
    if free is None:
        problems.append(Problem("--address", "pool-empty", f"{pool} has no address left", "remove a node first"))
    return free


def _grown(
    plan: Plan, name: str, model: PlannedNode, link: PlannedLink, switch: str, cohort: str | None, address: IPv4Address
) -> Growth:
    state = f"{plan.state}/nodes/{name}"
    own = {"COHORTNET_NODE": name, "COHORTNET_COHORT": cohort or "", "COHORTNET_ADDRESS": str(address),
           "COHORTNET_STATE": state, "FLWR_HOME": f"{state}/flwr"}  # fmt: skip
    mac = "02:00:" + ":".join(f"{octet:02x}" for octet in address.packed)
    node = replace(
        model, name=name, cohort=cohort, address=str(address), mac=mac, management_address="", interface=NODE_INTERFACE,
        switch="", switch_port=0, state=state, environment={**model.environment, **own},
        container=f"{model.container.removesuffix(model.name)}{name}",
    )  # fmt: skip
    declared = link.declared or link
    there, back = declared.a_to_b, declared.b_to_a
    if link.a != model.name:
        there, back = back, there
    port = free_port(plan.links, switch)
    made = PlannedLink(f"{name}--{switch}", name, switch, None, port, NODE_INTERFACE, switch_interface(switch, port),
                       there, back)  # fmt: skip
    return Growth(node, made, NodeEnd(mac, str(address), IPv4Network(plan.address_pool).prefixlen))
