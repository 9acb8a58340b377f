"""Nodes of a testbed that is up, stopped where they stand, let go on, ended and begun anew.

Takes names of testbed and node. A bare node's programs are started by whoever has the spawner: here they are only
ended. A container that begins anew has a new network namespace, so its links and management port are made anew too.
"""

from __future__ import annotations

from typing import Any

from topology.engine import cgroups, change_links, change_nodes, freezer
from topology.engine.change import Change, changing
from topology.errors import TopologyError

GRACE_S = 5.0
"""For a program to end by itself when its node is restarted."""


def pause(testbed: str, name: str) -> dict[str, Any]:
    """Stop a node where it stands; its addresses stay, and its kernel answers pings. Gives the new inventory.

    Raises TopologyError where there is no such node, it has ended, or cannot be stopped.
    """
    with changing(testbed) as change:
        entry = change.entry(name)
        change.namespace_of(name)
        if entry["container_id"]:
            from topology.engine.docker_runtime import DockerRuntime

            if not entry.get("paused"):
                DockerRuntime().pause(name, entry["container_id"])
        else:
            freezer.pause(testbed, name)
        entry["paused"] = True
        change.save()
        return change.inventory


def resume(testbed: str, name: str) -> dict[str, Any]:
    """Let a paused node go on; gives the new inventory. Raises TopologyError as `pause` does."""
    with changing(testbed) as change:
        change.namespace_of(name)
        _resume(change, name)
        change.save()
        return change.inventory


def _resume(change: Change, name: str) -> None:
    entry = change.entry(name)
    if entry["container_id"] and entry.get("paused"):
        from topology.engine.docker_runtime import DockerRuntime

        DockerRuntime().resume(name, entry["container_id"])
    elif not entry["container_id"]:
        freezer.resume(change.plan.testbed, name)
    entry["paused"] = False


def end_programs(testbed: str, name: str) -> dict[str, Any]:
    """End all that runs in a bare node but its first process, paused or not; its network stays. Gives the inventory.

    Raises TopologyError where it is a container, has ended, or a program does not end.
    """
    with changing(testbed) as change:
        entry = change.entry(name)
        change.namespace_of(name)
        if entry["container_id"]:
            raise TopologyError(f"node {name!r} is a container: it begins anew as a whole")
        _resume(change, name)
        keep = {int(entry["pid"])}
        cgroups.end_all(testbed, grace_s=GRACE_S, below=f"nodes/{name}", keep=keep)
        left = cgroups.members(testbed, f"nodes/{name}") - keep
        if left:
            raise TopologyError(f"node {name!r}: process {min(left)} does not end; the kernel holds it")
        change.save()
        return change.inventory


def restart_container(testbed: str, name: str) -> dict[str, Any]:
    """Begin a container anew, and give it its links as they are now; gives the new inventory.

    Raises:
        TopologyError: where it is no container, a port of it is published (whoever carries that on has the old
            network namespace), it is linked to another node directly, or Docker or the kernel refuses.
    """
    with changing(testbed) as change:
        entry, node = change.entry(name), change.plan.node(name)
        if not entry["container_id"]:
            raise TopologyError(f"node {name!r} is no container")
        if any(port.node == name for port in change.plan.published):
            raise TopologyError(f"node {name!r} has published ports, which a new beginning would cut off; "
                                f"`cohortnet down {testbed}` and `cohortnet up` begin all anew")  # fmt: skip
        mine = [link for link in change.plan.links if name in (link.a, link.b)]
        for link in mine:
            change_links.check_remade(change, link)
        from topology.engine.docker_runtime import DockerRuntime

        runtime = DockerRuntime()
        if entry.get("paused"):
            runtime.resume(name, entry["container_id"])
        facts = runtime.restart(name, entry["container_id"])
        entry.update(pid=facts.pid, cgroups=list(facts.cgroups), paused=False)
        change_nodes.join_management(change, node, facts)
        for link in mine:
            change_links.remake(change, link)
        change.save()
        change_links.after_new_ports(change)
        change.wait_for_flows()
        return change.inventory
