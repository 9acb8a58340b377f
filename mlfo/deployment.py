"""What a Deploy asks for, checked: the request for the server's agent. Pure; every fault is collected.

A peer that knows this project's fields gets POST /v1/server. One that sends only the family's fields will
start its clients with the family's own form, so its server is started with the family's form too (POST
/serv), and the agent names the run.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mlfo.catalogue import Catalogue
from mlfo.errors import IntentRefused, Problem
from mlfo.intent import Constraints, Known, check_constraints
from mlfo.inventory import Inventory
from mlfo.pipeline import DEFAULT_ROUNDS
from mlfo.proto import momo_pb2

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Deployment:
    """Either ``body`` (of /v1/server) or ``form`` (of /serv) is empty."""

    source: str
    model: str
    sameserver: str
    cohort: str
    centralised: bool
    body: dict[str, Any]
    form: dict[str, str]


def read(
    request: momo_pb2.Intent, run: str, catalogue: Catalogue, inventory: Inventory, port: int
) -> Deployment:
    """Raises IntentRefused with all that is wrong with a request."""
    problems: list[Problem] = []
    if not RUN_ID.fullmatch(run):
        problems.append(Problem("run_id", "value", f"{run[:80]!r}: 1 to 64 of a-z, 0-9 and '-'"))
    if len(request.Targets) != 1:
        many = Problem("Targets", "range", f"{len(request.Targets)} targets; exactly one is carried out")
        raise IntentRefused([*problems, many])
    target = request.Targets[0]
    if (target.operation, target.operand) != ("aggregate.global", "model.federated"):
        known = "'aggregate.global' of 'model.federated' is done here"
        found = f"'{target.operation}' of '{target.operand}'"
        problems.append(Problem("Targets[0]", "unknown_operand", found, known))
    said = {field.name: value for field, value in target.Constraints.ListFields()}
    constraints, wrong = check_constraints(said, Known(catalogue, inventory))
    problems += wrong
    if request.cohort and request.cohort not in inventory.cohorts:
        known = f"known: {', '.join(inventory.cohorts) or 'none'}"
        problems.append(Problem("cohort", "unknown_cohort", f"unknown cohort '{request.cohort}'", known))
    body: dict[str, Any] = {}
    form: dict[str, str] = {}
    if request.clients or request.config_json or request.application:
        body = _body(request, run, catalogue, port, problems)
    elif constraints is not None:
        form = _form(constraints, catalogue, problems)
    if problems or constraints is None:
        raise IntentRefused(problems)
    return Deployment(
        source=constraints.sourcekind or "",
        model=constraints.modelkind or "",
        sameserver=constraints.sameserv or "",
        cohort=request.cohort,
        centralised=request.centralised,
        body=body,
        form=form,
    )


def _body(
    request: momo_pb2.Intent, run: str, catalogue: Catalogue, port: int, problems: list[Problem]
) -> dict[str, Any]:
    if request.application not in catalogue.applications:
        known = f"known: {', '.join(catalogue.applications)}"
        problems.append(
            Problem(
                "application", "unknown_application", f"unknown application '{request.application}'", known
            )
        )
    if not request.clients:
        problems.append(
            Problem("clients", "missing", "no client is named", "name those that the server waits for")
        )
    config: Any = {}
    try:
        config = json.loads(request.config_json or "{}")
    except ValueError as error:
        problems.append(Problem("config_json", "json", f"not JSON: {error}"))
    if not isinstance(config, dict):
        problems.append(Problem("config_json", "type", "not an object"))
    return {
        "run_id": run,
        "application": request.application,
        "config": config,
        "clients": list(request.clients),
        "seed": int(request.seed),
        "port": port,
        "join_timeout_s": request.join_timeout_s or 60.0 + 3.0 * len(request.clients),
        "message_timeout_s": request.message_timeout_s or 600.0,
        "grace_s": request.grace_s or 30.0,
    }


def _form(constraints: Constraints, catalogue: Catalogue, problems: list[Problem]) -> dict[str, str]:
    form = {
        "algo": constraints.avgalgo or "FedAvg",
        "fracfit": f"{constraints.fracfit or 1.0:g}",
        "minfit": str(constraints.minfit or 1),
        "minav": str(constraints.minav or 1),
        "numround": str(constraints.numround or DEFAULT_ROUNDS),
    }
    try:
        if constraints.sourcekind:
            form["source"] = catalogue.source(constraints.sourcekind)[1].dataset
        if constraints.modelkind:
            form["model"] = catalogue.model(constraints.modelkind)[1].model
    except LookupError as error:
        problems.append(Problem("Constraints", "not_installed", str(error)))
    return form
