"""Who takes part in an intent, and which server the plan gives it. Pure; faults are added to the list handed
in."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from mlfo.errors import Problem
from mlfo.intent import Form, Intent
from mlfo.inventory import Inventory


def select_clients(
    intent: Intent, form: Form, inventory: Inventory, notes: list[str], problems: list[Problem]
) -> list[str]:
    """The clients, in order: the form's range, else the YAML's, else a whole cohort."""
    if form.ipstart is not None or form.cohortsize is not None:
        if form.ipstart is None:
            cohort = form.cohort or intent.cohort
            if cohort is None:
                problems.append(
                    Problem(
                        "form.ipstart",
                        "missing",
                        "cohortsize without a first client",
                        "add ipstart=10 (or cohort=1)",
                    )
                )
                return []
            members = inventory.cohorts[cohort].clients
            size = form.cohortsize or 0
            if size > len(members):
                problems.append(
                    Problem(
                        "form.cohortsize",
                        "range",
                        f"{size} clients asked for; cohort '{cohort}' has {len(members)}",
                        f"at most {len(members)}",
                    )
                )
            return list(members[:size])
        if form.cohortsize is None:
            problems.append(
                Problem("form.cohortsize", "missing", "ipstart without cohortsize", "add cohortsize=4")
            )
            return []
        return _range(inventory, form.ipstart, form.cohortsize, "form.ipstart", problems)
    written = intent.clients
    if isinstance(written, list):
        twice = (
            sorted({name for name in written if written.count(name) > 1})
            if len(set(written)) < len(written)
            else []
        )
        if twice:
            problems.append(
                Problem(
                    "clients",
                    "duplicate",
                    f"clients named twice: {', '.join(twice[:20])}",
                    "name each client once",
                )
            )
        return list(written)
    if written is not None:
        address = inventory.nodes[written.first].address
        offset = _offset(inventory, address)
        return _range(inventory, offset, written.count, "clients", problems)
    name = form.cohort or intent.cohort
    if name is None:
        if not inventory.cohorts:
            problems.append(
                Problem(
                    "clients",
                    "missing",
                    "the testbed has no cohorts, so the clients must be named",
                    "add 'clients: {first: NAME, count: 4}'",
                )
            )
            return []
        name = next(iter(inventory.cohorts))
        notes.append(f"no clients named: the whole of cohort '{name}', the first of the plan, is taken")
    members = inventory.cohorts[name].clients
    if not members:
        problems.append(
            Problem("cohort", "empty", f"cohort '{name}' has no clients", "name another, or name clients")
        )
    return list(members)


def _offset(inventory: Inventory, address: str) -> int:
    return int(ipaddress.ip_address(address)) - inventory.client_base


def _range(inventory: Inventory, offset: int, count: int, path: str, problems: list[Problem]) -> list[str]:
    addresses: Sequence[str] = []
    try:
        addresses = [inventory.client_address(offset + i) for i in range(count)]
    except ValueError:
        problems.append(
            Problem(
                path,
                "unknown_client",
                f"{count} addresses from offset {offset} leave the address space",
                "give fewer",
            )
        )
        return []
    found = {a: inventory.at(a) for a in addresses}
    missing = [a for a, node in found.items() if node is None or node.role != "client"]
    if missing:
        shown = ", ".join(missing[:20]) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
        there = inventory.with_role("client")
        hint = (
            f"the testbed has {len(there)} clients, {there[0].address} to {there[-1].address}"
            if there
            else "the testbed has no clients"
        )
        problems.append(Problem(path, "unknown_client", f"no client at {shown}", hint))
    return [node.name for node in found.values() if node is not None and node.role == "client"]


def plan_server(
    intent: Intent, form: Form, clients: list[str], inventory: Inventory, problems: list[Problem]
) -> tuple[str, str]:
    """The plan's cohort and server: of the cohort named, else of the first client."""
    name = form.cohort or intent.cohort
    cohort = inventory.cohorts[name] if name else inventory.cohort_of(clients[0]) if clients else None
    if cohort is not None:
        return cohort.name, cohort.server
    if clients:
        problems.append(
            Problem(
                "cohort",
                "missing",
                f"client {clients[0]} belongs to no cohort of the plan",
                f"add 'cohort: ...', one of {', '.join(inventory.cohorts) or 'none'}",
            )
        )
    return "", ""
