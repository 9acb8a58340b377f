"""Nodes that come, go, get another address or other limits while the testbed is up.

Takes a testbed's name and planned nodes; whatever their runtime is, what is made carries the testbed's name as all else
does, so that a removal finds it. Links are `change_links`' business: a node comes without one, and takes its own with
it when it goes.
"""

from __future__ import annotations

import errno
import math
import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from topology import plan_check
from topology.capabilities import capabilities
from topology.engine import (
    cgroups,
    change_cohorts,
    change_links,
    links,
    namespace_runtime,
    namespaces,
    netlink,
    removal,
)
from topology.engine.change import Change, changing
from topology.engine.runtime import Progress, quiet
from topology.errors import Problem, TestbedProblems, TopologyError
from topology.inventory import NodeFacts, node_entry
from topology.plan import Plan, PlannedNode


def add_node(testbed: str, node: PlannedNode, progress: Progress = quiet) -> dict[str, Any]:
    """Make a node that is linked to nothing yet; gives the new inventory.

    Its `management_address` is given here where it is empty. Its program is started by nobody but Docker.

    Raises:
        TestbedProblems: where this machine cannot make it as it is planned.
        TopologyError: where it fails; nothing of it is left then.
    """
    with changing(testbed) as change:
        plan = change.plan
        if any(other.name == node.name for other in plan.nodes) or any(s.name == node.name for s in plan.switches):
            raise TopologyError(f"{testbed!r} has a node or switch {node.name!r} already")
        address = node.management_address or str(free_management_address(plan))
        node = replace(node, management_address=address, switch="", switch_port=0)
        runtime = removal.pick_runtime(plan.runtime_of(node))
        alone = replace(plan, nodes=(node,), switches=(), links=(), meters=(), published=())
        problems = [*plan_check.check_plan(alone, capabilities()), *runtime.check(alone)]
        problems = [problem for problem in problems if problem.code != "already-there"]
        if problems:
            raise TestbedProblems(problems)
        grown = replace(
            plan,
            nodes=(*plan.nodes, node),
            # From the first container on, a removal has to ask Docker: the plan says so before it is made.
            runtime="docker" if plan.runtime_of(node) == "docker" else plan.runtime,
        )
        if grown.runtime != plan.runtime:  # all others keep what they are
            grown = replace(grown, nodes=tuple(replace(n, runtime=plan.runtime_of(n)) for n in grown.nodes))
        change.plan = grown
        Path(node.state).mkdir(parents=True, exist_ok=True)
        change.save()
        try:
            facts = runtime.create(grown, [node], progress)[node.name]
            join_management(change, node, facts)
        except BaseException:
            runtime.remove_node(testbed, node.name)
            change.plan = plan
            _forget(change, node)
            change.save()
            raise
        change.inventory["nodes"].append(node_entry(grown, node, facts))
        change.inventory["runtime"] = grown.runtime
        change.save()
        return change.inventory


def remove_node(testbed: str, name: str) -> dict[str, Any]:
    """End a node with all that runs in it, and take its links away; gives the new inventory.

    A client leaves its cohort. A meter on it stays, pending, until it is deleted or a node of that name comes.

    Raises:
        TestbedProblems: where its cohort, a published port or background traffic needs it.
        TopologyError: where there is none of that name.
    """
    with changing(testbed) as change:
        change.entry(name)
        node = change.plan.node(name)
        _check_unneeded(change.plan, node)
        change_cohorts.leave_cohort(change, name)
        change_links.drop(change, [link for link in change.plan.links if name in (link.a, link.b)])
        removal.pick_runtime(change.plan.runtime_of(node)).remove_node(testbed, name)
        change.plan = replace(change.plan, nodes=tuple(n for n in change.plan.nodes if n.name != name))
        change.inventory["nodes"] = [entry for entry in change.inventory["nodes"] if entry["name"] != name]
        _forget(change, node)
        change.save()
        change.wait_for_flows()
        return change.inventory


def _check_unneeded(plan: Plan, node: PlannedNode) -> None:
    reasons = [f"its port {port.port} is published" for port in plan.published if port.node == node.name]
    reasons += [f"flow {flow.name!r} goes to or comes from it" for flow in plan.traffic
                if node.name in (flow.source, flow.destination)]  # fmt: skip
    reasons += [f"it is the testbed's {node.role}"] if node.role in ("mlfo-edge", "mlfo-central") else []
    if reasons:
        hint = "change the testbed file, and raise it anew"
        said = [f"{node.name!r} cannot go: {reason}" for reason in reasons]
        raise TestbedProblems([Problem(node.name, "needed", message, hint) for message in said])


def set_limits(
    testbed: str,
    name: str,
    *,
    cpu: float | None = None,
    memory_bytes: int | None = None,
    cpuset: str | None = None,
    docker: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Change limits of a running node; gives the new inventory. None leaves a limit as it is.

    `cpu` in cores; `math.inf` takes the limit of a bare node away. `docker` are further arguments of docker-py's
    `update_container`, for a container; they stand where they name the same limit.

    Raises:
        TestbedProblems: where this machine has not that much, or no controller for it, or it is less than a node of
            its runtime needs.
        TopologyError: where the kernel or Docker refuses.
    """
    with changing(testbed) as change:
        entry = change.entry(name)
        node = change.plan.node(name)
        unlimited = cpu == math.inf
        if unlimited and entry["container_id"]:
            raise TopologyError(f"node {name!r} is a container: its limit of processor time cannot be taken away")
        given: dict[str, Any] = {"cpu": cpu, "memory_bytes": memory_bytes, "cpuset": cpuset}
        wanted = replace(node, **{key: value for key, value in given.items() if value is not None})
        wanted = replace(wanted, cpu=None) if unlimited else wanted
        alone = replace(change.plan, nodes=(wanted,), switches=(), links=())
        problems = plan_check.check_plan(alone, capabilities())
        if entry["container_id"]:
            from topology.engine import docker_checks

            problems += docker_checks.check_limits(alone)
        else:
            problems += namespace_runtime.check_limits(alone)
        if problems:
            raise TestbedProblems(problems)
        if entry["container_id"]:
            from topology.engine import docker_containers
            from topology.engine.docker_runtime import DockerRuntime

            changes = {**docker_containers.limits(cpu, memory_bytes, cpuset), **(docker or {})}
            DockerRuntime().limit(name, entry["container_id"], changes)
        elif docker:
            raise TopologyError(f"node {name!r} is no container: {', '.join(docker)} cannot be set")
        else:
            groups = cgroups.change_node(testbed, name, cpu=cpu, memory_bytes=memory_bytes, cpuset=cpuset)
            entry["cgroups"] = list(groups)
        change.replace_node(wanted)
        change.save()
        return change.inventory


def set_address(
    testbed: str, name: str, interface: str, *, address: str | None = None, prefix_length: int = 0,
    mac: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Give an interface of a running node another IPv4 address, another hardware address, or both; the new inventory.

    Former IPv4 addresses of the interface go. Raises TopologyError where the kernel refuses.
    """
    with changing(testbed) as change:
        node = change.plan.node(name)
        owner = None if mac is None else change.macs().get(mac)
        if owner is not None and owner != name:
            raise TopologyError(f"node {name!r}: the hardware address {mac} belongs to {owner!r}")
        place = change.namespace_of(name)
        if address is not None:
            namespaces.inside(place, lambda: _readdress(interface, address, prefix_length, name))
        if mac is not None:
            batch = netlink.Batch()
            batch.change(f"interface {interface} of {name}", name=interface, mac=mac)
            with netlink.socket_in(place) as connection:
                netlink.send(connection, batch)
        for place_of in change.entry(name).get("further", ()):
            if place_of["interface"] == interface:
                if address is not None:
                    place_of |= {"address": address, "prefix_length": prefix_length}
                place_of["mac"] = mac or place_of["mac"]
                change.save()
                change.wait_for_flows()
        if node.switch and interface == node.interface:
            if address is not None:
                node = replace(node, address=address, prefix_length=prefix_length)
            change.replace_node(replace(node, mac=mac or node.mac))
            change.save()
            change.wait_for_flows()
        return change.inventory


def _readdress(interface: str, address: str, prefix_length: int, name: str) -> None:
    from pyroute2 import IPRoute

    index = socket.if_nametoindex(interface)
    with IPRoute() as route:
        route.flush_addr(index=index, family=socket.AF_INET)
    batch = netlink.Batch()
    batch.address(index, address, prefix_length, f"address of {name}")
    with netlink.socket_here() as connection:
        netlink.send(connection, batch)


def free_management_address(plan: Plan) -> IPv4Address:
    """The lowest address of the management network that nobody has. Pure. Raises TopologyError where all are taken."""
    taken = {plan.management_host, *(node.management_address for node in plan.nodes)}
    for address in IPv4Network(plan.management).hosts():
        if str(address) not in taken:
            return address
    raise TopologyError(f"the management network {plan.management} of {plan.testbed!r} has no address left")


def _management_port(plan: Plan, node: PlannedNode) -> str:
    # By the address, which is the node's alone: numbers by position would move when a node goes.
    return f"mgmt.a{int(IPv4Address(node.management_address)) - int(IPv4Network(plan.management).network_address)}"


def join_management(change: Change, node: PlannedNode, facts: NodeFacts) -> None:
    """Give a node its port in the management network. One that it had in a former namespace goes. Raises TopologyError.
    """
    port = _management_port(change.plan, node)

    def bridge_and_port() -> None:
        bridge = socket.if_nametoindex(links.MANAGEMENT_BRIDGE)
        gone, batch = netlink.Batch(), netlink.Batch()
        gone.delete(port)
        peer = netlink.Peer(node.management_interface, links.management_mac(node), pid=facts.pid)
        batch.veth(port, peer, master=bridge)
        with netlink.socket_here() as connection:
            netlink.send(connection, gone, ignore=(errno.ENODEV, errno.EINVAL))
            netlink.send(connection, batch)
            index = socket.if_nametoindex(port)
            second = netlink.Batch()
            if capabilities().bridge_isolation is not False:
                second.isolate(index, f"management port of {node.name}")
            second.change(f"management port of {node.name}", index=index,
                          alias=f"{node.name}-{node.management_interface}")  # fmt: skip
            netlink.send(connection, second)

    def configure() -> None:
        links.write_sysctls(links.node_settings(node))
        index = socket.if_nametoindex(node.management_interface)
        batch = netlink.Batch()
        prefix = IPv4Network(change.plan.management).prefixlen
        batch.address(index, node.management_address, prefix, f"management address of {node.name}")
        batch.change(f"management interface of {node.name}", index=index, up=True)
        with netlink.socket_here() as connection:
            netlink.send(connection, batch)

    namespaces.inside(change.core, bridge_and_port)
    namespaces.inside(namespaces.of_process(facts.pid), configure)


def _forget(change: Change, node: PlannedNode) -> None:
    """What is left of a node that has ended: its management port, its folder."""
    batch = netlink.Batch()
    batch.delete(_management_port(change.plan, node))
    with netlink.socket_in(change.core) as connection:  # most often gone with the node's own end
        netlink.send(connection, batch, ignore=(errno.ENODEV, errno.EINVAL))
    shutil.rmtree(node.state, ignore_errors=True)
