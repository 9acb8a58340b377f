"""An intent's pipeline (ITU-T Y.3172): what will run, on which nodes, with which numbers. Pure: no clock, no
I/O.

``resolve`` turns what the user wrote (intent and form) into a Pipeline by means of the catalogue and the
inventory, and finds every contradiction at once. The server in it is the plan's; ``on_server`` gives the same
pipeline on the one allocated.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mlfo.catalogue import Application, Catalogue
from mlfo.errors import IntentRefused, Problem
from mlfo.intent import Form, Intent
from mlfo.inventory import Inventory
from mlfo.selection import plan_server, select_clients

DEFAULT_ROUNDS = 3
DEFAULT_SAMPLES = 2000
# Config keys with a field of their own in the intent: said once, in one place.
OWN_FIELDS = {
    "num-server-rounds": "rounds (or numround)",
    "fraction-train": "fracfit",
    "min-train-nodes": "minfit",
    "min-available-nodes": "minav",
    "dataset": "data.dataset",
    "model": "model",
    "partitioner": "data.partitioner.kind",
    "dirichlet-alpha": "data.partitioner.alpha",
    "samples-per-client": "data.samples_per_client",
}


@dataclass(frozen=True)
class PipelineNode:
    """A node of the standard's pipeline: its kind, what it is, and the testbed nodes that carry it."""

    kind: str
    name: str
    placed: tuple[str, ...]
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """Everything that a run needs. ``clients`` own the data; ``participants`` run an FL client (the server
    alone if centralised)."""

    intent_id: str
    target: str
    operand: str
    operation: str
    application: str
    source: str
    model: str
    strategy: str
    privacylevel: str
    clients: tuple[str, ...]
    cohort: str
    server: str
    edge: str
    seed: int
    config: dict[str, Any]
    sameserver: str | None
    goal_accuracy: float | None
    deadline_s: float | None
    nodes: tuple[PipelineNode, ...]
    notes: tuple[str, ...]

    @property
    def participants(self) -> tuple[str, ...]:
        """The nodes that run an FL client, in the order of their partition ids."""
        return self.clients if self.privacylevel == "high" else (self.server,)

    def on_server(self, server: str) -> Pipeline:
        """The same pipeline with another server."""
        if server == self.server:
            return self
        nodes = tuple(
            replace(n, placed=tuple(server if p == self.server else p for p in n.placed)) for n in self.nodes
        )
        return replace(self, server=server, nodes=nodes)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Pipeline:
        nodes = tuple(
            PipelineNode(n["kind"], n["name"], tuple(n["placed"]), n["detail"]) for n in content["nodes"]
        )
        plain: dict[str, Any] = {
            k: tuple(v) if k in ("clients", "notes") else v for k, v in content.items() if k != "nodes"
        }
        return cls(nodes=nodes, **plain)


def stable_seed(testbed_seed: int, cohort: str) -> int:
    """A run's seed where the intent gives none: the same for the same testbed seed and cohort, on every
    machine."""
    return int.from_bytes(hashlib.sha256(f"{testbed_seed}/{cohort}".encode()).digest()[:4], "big") % 2**31


def resolve(
    intent: Intent, form: Form, catalogue: Catalogue, inventory: Inventory, edge: str = ""
) -> Pipeline:
    """The pipeline of an intent. Raises IntentRefused with every contradiction found."""
    problems: list[Problem] = []
    notes: list[str] = []
    target = intent.targets[0]
    limits = target.constraints
    operand = catalogue.operands[target.operand]
    if target.operation not in operand.operations:
        problems.append(
            Problem(
                "targets[0].operation",
                "unknown_operation",
                f"'{target.operation}' cannot be done to {target.operand}",
                f"valid: {', '.join(operand.operations)}",
            )
        )
    application_name = intent.application or operand.application
    application = catalogue.applications[application_name]
    wanted_source = (
        _one(
            problems,
            {"data.dataset": intent.data.dataset, "targets[0].constraints.sourcekind": limits.sourcekind},
        )
        or operand.source
    )
    wanted_model = (
        _one(problems, {"model": intent.model, "targets[0].constraints.modelkind": limits.modelkind})
        or operand.model
    )
    in_yaml = _one(
        problems,
        {
            "strategy.name": intent.strategy.name if intent.strategy else None,
            "targets[0].constraints.avgalgo": limits.avgalgo,
        },
    )
    strategy = form.avgalgo or in_yaml or "FedAvg"
    rounds = (
        form.numround
        or _one(problems, {"rounds": intent.rounds, "targets[0].constraints.numround": limits.numround})
        or DEFAULT_ROUNDS
    )
    same_in_yaml = _one(
        problems,
        {
            "targets[0].constraints.sameserver": limits.sameserver,
            "targets[0].constraints.sameserv": limits.sameserv,
        },
    )
    source, dataset = _settled(catalogue, application, "source", wanted_source, notes, problems)
    model, model_name = _settled(catalogue, application, "model", wanted_model, notes, problems)
    if strategy not in application.strategies:
        problems.append(
            Problem(
                "strategy.name",
                "unknown_strategy",
                f"application {application_name} does not offer '{strategy}'",
                f"it offers: {', '.join(application.strategies)}",
            )
        )

    clients = select_clients(intent, form, inventory, notes, problems)
    cohort, server = plan_server(intent, form, clients, inventory, problems)
    config = _config(intent, application, catalogue, strategy, problems)
    fractions = _participation(intent, form, len(clients), notes, problems)
    federated = limits.privacylevel == "high"
    config.update({"num-server-rounds": rounds, "dataset": dataset, "model": model_name})
    config.update(_data(intent, application, len(clients), federated, notes, problems))
    config.update(
        fractions if federated else {"fraction-train": 1.0, "min-train-nodes": 1, "min-available-nodes": 1}
    )
    if application.strategy_key is not None:
        config[application.strategy_key] = strategy
    config.setdefault("fraction-evaluate", 1.0)
    config.setdefault("min-evaluate-nodes", config["min-train-nodes"])
    if config["min-evaluate-nodes"] > (len(clients) if federated else 1):
        problems.append(
            Problem(
                "config.min-evaluate-nodes",
                "range",
                f"{config['min-evaluate-nodes']} nodes to evaluate, but the run has fewer",
                "lower it",
            )
        )
    if problems:
        raise IntentRefused(problems)

    if intent.seed is None:
        notes.append(f"seed from the testbed's seed {inventory.seed} and cohort {cohort or 'none'}")
    return Pipeline(
        intent_id=intent.intentID,
        target=target.id,
        operand=target.operand,
        operation=target.operation,
        application=application_name,
        source=source,
        model=model,
        strategy=strategy,
        privacylevel=limits.privacylevel,
        clients=tuple(clients),
        cohort=cohort,
        server=server,
        edge=edge,
        seed=intent.seed if intent.seed is not None else stable_seed(inventory.seed, cohort),
        config=dict(sorted(config.items())),
        sameserver=form.sameserver or same_in_yaml,
        goal_accuracy=intent.goal.accuracy,
        deadline_s=intent.goal.deadline,
        nodes=_nodes(
            catalogue, operand.sink, source, model, strategy, tuple(clients), server, edge, config, federated
        ),
        notes=tuple(notes),
    )


def _one(problems: list[Problem], said: dict[str, Any]) -> Any:
    """The one value among several places that may say it; a contradiction is a problem."""
    given = {path: value for path, value in said.items() if value is not None}
    if len(set(given.values())) > 1:
        first, second = list(given)[:2]
        problems.append(
            Problem(
                second,
                "conflict",
                f"'{second}' says {given[second]!r}, but '{first}' says {given[first]!r}",
                f"keep one of the two (leave out '{second}')",
            )
        )
    return next(iter(given.values()), None)


def _settled(
    catalogue: Catalogue,
    application: Application,
    kind: str,
    wanted: str,
    notes: list[str],
    problems: list[Problem],
) -> tuple[str, str]:
    path = {"source": "data.dataset", "model": "model"}[kind]
    try:
        if kind == "source":
            name, source, said = catalogue.source(wanted)
            inside, offered = source.dataset, application.datasets
        else:
            name, model, said = catalogue.model(wanted)
            inside, offered = model.model, application.models
    except LookupError as error:
        problems.append(Problem(path, "not_installed", str(error), "install it, or choose another"))
        return wanted, wanted
    notes.extend(said)
    if inside not in offered:
        problems.append(
            Problem(
                path,
                f"unknown_{kind}",
                f"{kind} '{wanted}' ({inside}) is not offered by the application",
                f"it offers: {', '.join(offered)}",
            )
        )
    return name, inside


def _config(
    intent: Intent, application: Application, catalogue: Catalogue, strategy: str, problems: list[Problem]
) -> dict[str, Any]:
    """The application's own keys: ``config`` and the strategy's parameters."""
    config: dict[str, Any] = {}
    wanted: list[tuple[str, str, Any]] = [
        (f"config.{key}", key, value) for key, value in intent.config.items()
    ]
    parameters = catalogue.strategies[strategy].parameters
    for name, value in (intent.strategy.parameters if intent.strategy else {}).items():
        path = f"strategy.parameters.{name}"
        if name not in parameters:
            problems.append(
                Problem(
                    path,
                    "unknown_key",
                    f"strategy {strategy} has no parameter '{name}' here",
                    f"known: {', '.join(parameters) or 'none'}",
                )
            )
            continue
        wanted.append((path, parameters[name], value))
    for path, key, value in wanted:
        if key in OWN_FIELDS:
            problems.append(
                Problem(path, "conflict", f"'{key}' has its own field", f"say it with {OWN_FIELDS[key]}")
            )
        elif key not in application.config:
            problems.append(
                Problem(
                    path,
                    "unknown_key",
                    f"the application has no config key '{key[:60]}'",
                    f"known: {', '.join(application.config)}",
                )
            )
        elif fault := application.config[key].fault(value):
            problems.append(Problem(path, "value", f"{key} {fault}", "change the value"))
        elif key in config and config[key] != value:
            problems.append(
                Problem(
                    path, "conflict", f"'{key}' is given twice, as {config[key]!r} and {value!r}", "keep one"
                )
            )
        else:
            config[key] = value
    return config


def _participation(
    intent: Intent, form: Form, size: int, notes: list[str], problems: list[Problem]
) -> dict[str, Any]:
    """fracfit, minfit, minav: the form's, else the YAML's, else from the number of clients."""
    limits = intent.targets[0].constraints
    fraction = form.fracfit or limits.fracfit or 1.0
    minfit, minav = form.minfit or limits.minfit, form.minav or limits.minav
    where = {
        name: f"form.{name}" if getattr(form, name) else f"targets[0].constraints.{name}"
        for name in ("minfit", "minav")
    }
    low = minfit if minfit is not None else max(1, min(int(fraction * size), minav or size))
    available = minav if minav is not None else size
    if size:
        for name, value in (("minfit", minfit), ("minav", minav)):
            if value is not None and value > size:
                problems.append(
                    Problem(
                        where[name],
                        "range",
                        f"{name} is {value}, but the intent has {size} clients: the run would wait for ever",
                        f"at most {size}",
                    )
                )
        if minfit is not None and minav is not None and minav < minfit:
            problems.append(
                Problem(
                    where["minav"],
                    "range",
                    f"minav {minav} is below minfit {minfit}: no round could find enough clients",
                    f"minav must be {minfit} or more",
                )
            )
    if limits.privacylevel == "low" and (minfit or minav or form.fracfit or limits.fracfit):
        notes.append(
            "privacylevel low: the server learns alone on the cohort's data, "
            "so fracfit, minfit and minav become 1"
        )
    return {"fraction-train": float(fraction), "min-train-nodes": low, "min-available-nodes": available}


def _data(
    intent: Intent,
    application: Application,
    size: int,
    federated: bool,
    notes: list[str],
    problems: list[Problem],
) -> dict[str, Any]:
    kind, alpha = intent.data.partitioner.kind, intent.data.partitioner.alpha
    config: dict[str, Any] = {"partitioner": kind}
    if kind not in application.partitioners:
        problems.append(
            Problem(
                "data.partitioner.kind",
                "unknown_partitioner",
                f"unknown partitioner '{kind[:60]}'",
                f"valid: {', '.join(application.partitioners)}",
            )
        )
    elif kind == "dirichlet":
        if alpha is None:
            problems.append(
                Problem("data.partitioner.alpha", "missing", "dirichlet needs alpha", "add 'alpha: 0.5'")
            )
        else:
            config["dirichlet-alpha"] = float(alpha)
    elif alpha is not None:
        problems.append(
            Problem(
                "data.partitioner.alpha",
                "conflict",
                f"partitioner '{kind}' has no alpha",
                "leave it out, or choose dirichlet",
            )
        )
    samples = intent.data.samples_per_client or DEFAULT_SAMPLES
    config["samples-per-client"] = samples
    if not federated:
        # One client at the server holds the union of what the cohort's clients would have had.
        config["samples-per-client"] = samples * max(size, 1)
        if kind != "iid":
            notes.append(
                f"privacylevel low: one partition holds all data, so the partitioner '{kind}' divides nothing"
            )
    return config


def _nodes(
    catalogue: Catalogue,
    sink: str,
    source: str,
    model: str,
    strategy: str,
    clients: tuple[str, ...],
    server: str,
    edge: str,
    config: dict[str, Any],
    federated: bool,
) -> tuple[PipelineNode, ...]:
    learners = clients if federated else (server,)
    sink_at = {"clients": clients, "server": (server,), "edge": (edge,)}[catalogue.sinks[sink].placed]
    partition: dict[str, Any] = {
        k: config[k] for k in ("partitioner", "dirichlet-alpha", "samples-per-client") if k in config
    }
    return (
        PipelineNode("source", source, learners, {"dataset": config["dataset"]}),
        PipelineNode("collector", "local" if federated else "union", learners),
        PipelineNode("preprocessor", config["partitioner"], learners, partition),
        PipelineNode(
            "model", model, (*learners, server) if federated else (server,), {"model": config["model"]}
        ),
        PipelineNode(
            "policy",
            strategy,
            (edge, server),
            {
                k: config[k]
                for k in ("fraction-train", "min-train-nodes", "min-available-nodes", "num-server-rounds")
            },
        ),
        PipelineNode("distributor", "fl-server", (server,)),
        PipelineNode("sink", sink, sink_at),
    )
