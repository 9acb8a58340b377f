"""Who is in a cohort of a testbed that is up: clients that join one, and leave it.

Takes names; writes plan and inventory, which orchestrators read again when they were replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from topology.engine.change import Change, changing
from topology.errors import Problem, TestbedProblems, TopologyError


def join_cohort(testbed: str, name: str, cohort: str) -> dict[str, Any]:
    """Make a client the last one of a cohort; gives the new inventory. Raises TopologyError where that cannot be."""
    with changing(testbed) as change:
        role = change.entry(name)["role"]
        if role != "client":
            raise TopologyError(f"node {name!r} is {role}, and a cohort has clients")
        member = next((item.name for item in change.plan.cohorts if name in item.clients), None)
        if member is not None:
            raise TopologyError(f"node {name!r} is in cohort {member!r} already")
        if cohort not in {item.name for item in change.plan.cohorts}:
            raise TopologyError(f"{testbed!r} has no cohort {cohort!r}")
        _regroup(change, lambda found, clients: (*clients, name) if found == cohort else clients)
        change.plan = replace(change.plan, nodes=tuple(
            replace(node, cohort=cohort) if node.name == name else node for node in change.plan.nodes
        ))  # fmt: skip
        change.entry(name)["cohort"] = cohort
        change.save()
        change.wait_for_flows()
        return change.inventory


def leave_cohort(change: Change, name: str) -> None:
    """Take a client out of its cohort, if it has one; the caller saves.

    Raises:
        TestbedProblems: where the cohort cannot do without it: its server, or its last client.
    """
    for cohort in change.plan.cohorts:
        what = "server" if cohort.server == name else "last client" if cohort.clients == (name,) else None
        if what is not None:
            raise TestbedProblems([Problem(name, "needed", f"{name!r} is the {what} of cohort {cohort.name!r}",
                                           "a cohort keeps its server and a client")])  # fmt: skip
    _regroup(change, lambda _, clients: tuple(client for client in clients if client != name))


def _regroup(change: Change, clients_of: Callable[[str, tuple[str, ...]], tuple[str, ...]]) -> None:
    """Give each cohort the clients that `clients_of` says, from its name and those it has."""
    change.plan = replace(change.plan, cohorts=tuple(
        replace(cohort, clients=clients_of(cohort.name, cohort.clients)) for cohort in change.plan.cohorts
    ))  # fmt: skip
    change.inventory["cohorts"] = [asdict(cohort) for cohort in change.plan.cohorts]
