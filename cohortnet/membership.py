"""Nodes that join and leave a testbed that is up, with their programs: what the engine makes, and what the spawner runs
in it.

The one place where both meet while a testbed is up, as `lifecycle` is while it is raised.
"""

from __future__ import annotations

from typing import Any

from cohortnet.lifecycle import ProgressCall, wait_ready
from fl_node.spawner_client import Spawned, Spawner, SpawnerError
from topology.engine import change_cohorts, change_life, change_links, change_nodes, interrupts, state
from topology.engine.growth import node_like
from topology.errors import TopologyError


def add(
    testbed: str, name: str, like: str, switch: str, *, cohort: str | None, address: str | None, progress: ProgressCall
) -> dict[str, Any]:
    """Add a node as one that is there; gives its entry in the inventory, once its agent answers. It joins the cohort
    last, so that no run is given a client that is not ready.

    Raises:
        TestbedProblems: with everything that stands against it; nothing was made then.
        TopologyError: where a step fails; nothing of it is left then.
    """
    known = state.load(testbed)
    if known is None or known.phase != "up":
        raise TopologyError(f"testbed {testbed!r} is not up; `cohortnet ls` shows those that are")
    growth = node_like(known.plan, name, like, switch, cohort=cohort, address=address)
    change_nodes.add_node(testbed, growth.node, progress)
    try:
        inventory = change_links.add_link(testbed, growth.link, {name: growth.end})
        _start(inventory, name, progress)
        if cohort is not None:
            inventory = change_cohorts.join_cohort(testbed, name, cohort)
    except BaseException:
        with interrupts.uninterrupted():
            change_nodes.remove_node(testbed, name)
        raise
    return _entry(inventory, name)


def restart(testbed: str, name: str, progress: ProgressCall) -> dict[str, Any]:
    """End all that runs in a node and start its program again; gives its entry, once its agent answers.

    Raises TopologyError where it cannot be ended or does not start.
    """
    known = state.load(testbed)
    if known is None or known.phase != "up":
        raise TopologyError(f"testbed {testbed!r} is not up; `cohortnet ls` shows those that are")
    node = next((node for node in known.plan.nodes if node.name == name), None)
    if node is not None and known.plan.runtime_of(node) == "docker":
        inventory = change_life.restart_container(testbed, name)
    else:
        inventory = change_life.end_programs(testbed, name)
    _start(inventory, name, progress)
    return _entry(inventory, name)


def _entry(inventory: dict[str, Any], name: str) -> dict[str, Any]:
    return next(dict(entry) for entry in inventory["nodes"] if entry["name"] == name)


def _start(inventory: dict[str, Any], name: str, progress: ProgressCall) -> None:
    """Start a node's program where a container does not do so by itself, and wait until it answers."""
    entry = _entry(inventory, name)
    if not entry["program"]:
        return
    started: dict[str, Spawned] = {}
    if entry["container"] is None:
        try:
            started[name] = Spawner(inventory["paths"]["spawner"]).start(
                name, entry["program"], env=entry["environment"], log=entry["log"], lease=False
            )
        except SpawnerError as error:
            raise TopologyError(f"{name}: its program did not start: {error}") from None
    try:
        wait_ready({**inventory, "nodes": [entry]}, started, progress)
    finally:
        for spawned in started.values():
            spawned.close()
