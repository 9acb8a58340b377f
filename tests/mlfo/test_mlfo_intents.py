"""Reading, checking and resolving intents: no process, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlfo import catalogue, document
from mlfo.errors import IntentRefused, SetupError
from mlfo.intent import Form, Known, check_form, check_intent
from mlfo.inventory import Inventory
from mlfo.pipeline import Pipeline, resolve, stable_seed
from tests.mlfo.harness import ROOT, SEED_INTENT, inventory

CATALOGUE = catalogue.load(ROOT / "intents" / "catalogue.yaml")
INVENTORY = Inventory(inventory(3, 4))
PARTICIPATION = ("fraction-train", "min-train-nodes", "min-available-nodes", "num-server-rounds")
KNOWN = Known(CATALOGUE, INVENTORY)


def resolved(text: str, **fields: str) -> Pipeline:
    intent, problems = check_intent(document.read(text.encode()), KNOWN)
    assert intent is not None, problems
    form, problems = check_form(fields, KNOWN)
    assert form is not None, problems
    return resolve(intent, form, CATALOGUE, INVENTORY, "mo.1")


def refusal(text: str, **fields: str) -> dict[str, str]:
    """path -> code of every problem."""
    try:
        intent, problems = check_intent(document.read(text.encode()), KNOWN)
        form, more = check_form(fields, KNOWN)
        problems += more
        if intent is not None:
            resolve(intent, form or Form(), CATALOGUE, INVENTORY, "mo.1")
    except IntentRefused as refused:
        problems = [*refused.problems]
    assert problems and all(p.message for p in problems)
    return {p.path: p.code for p in problems}


@pytest.mark.parametrize(
    ("name", "source", "model", "substitutions"),
    [
        ("welding", "digits", "complex", 1),
        ("drilling", "fashionmnist", "complex", 0),
        ("cutting", "fashionmnist", "lenet", 2),
    ],
)
def test_the_seed_intents_resolve_and_every_substitution_is_said(
    name: str, source: str, model: str, substitutions: int
) -> None:
    p = resolved((ROOT / "intents" / f"{name}.yaml").read_text(), ipstart="14", cohortsize="4")
    assert (p.source, p.model, p.config["model"], p.server) == (source, model, "lenet", "fed.2")
    assert sum("not installed" in note for note in p.notes) == substitutions
    assert [n.kind for n in p.nodes] == [
        "source",
        "collector",
        "preprocessor",
        "model",
        "policy",
        "distributor",
        "sink",
    ]
    assert {n.kind: n.placed for n in p.nodes}["distributor"] == ("fed.2",)
    assert Pipeline.from_json(json.loads(json.dumps(p.to_json()))) == p
    assert p.on_server("fed.3").nodes[5].placed == ("fed.3",)


def test_defaults_come_from_the_number_of_clients() -> None:
    p = resolved(SEED_INTENT, cohort="2")
    assert {k: p.config[k] for k in PARTICIPATION} == {
        "fraction-train": 1.0,
        "min-train-nodes": 4,
        "min-available-nodes": 4,
        "num-server-rounds": 3,
    }
    assert p.config["samples-per-client"] == 2000 and p.seed == stable_seed(1, "2")
    assert resolved(SEED_INTENT, cohort="2", fracfit="0.5").config["min-train-nodes"] == 2
    assert resolved(SEED_INTENT, cohort="2", minav="3").config["min-train-nodes"] == 3


def test_the_form_overrides_the_yaml() -> None:
    text = SEED_INTENT.replace("high", 'high\n      numround: "7"\n      minfit: 2\n      sameserver: no')
    assert (
        (p := resolved(text)).config["num-server-rounds"] == 7
        and p.sameserver == "no"
        and p.config["min-train-nodes"] == 2
    )
    p = resolved(text, numround="9", sameserver="nor", minfit="1", ipstart="10", cohortsize="2")
    assert (p.config["num-server-rounds"], p.sameserver, p.config["min-train-nodes"], p.clients) == (
        9,
        "nor",
        1,
        ("fc.10", "fc.11"),
    )


def test_ipstart_is_arithmetic_beyond_an_octet() -> None:
    big = Inventory(inventory(10, 50))
    intent, _ = check_intent(document.read(SEED_INTENT.encode()), Known(CATALOGUE, big))
    assert intent is not None
    p = resolve(intent, Form(ipstart=254, cohortsize=4), CATALOGUE, big)
    assert p.clients == ("fc.254", "fc.255", "fc.256", "fc.257") and p.cohort == "5"


def test_clients_by_name_by_range_and_by_cohort() -> None:
    assert resolved(SEED_INTENT + "clients: [fc.15, fc.10]").clients == ("fc.15", "fc.10")
    assert resolved(SEED_INTENT + "clients: [fc.15, fc.10]").server == "fed.2"
    assert resolved(SEED_INTENT + "clients: {first: fc.12, count: 3}").clients == ("fc.12", "fc.13", "fc.14")
    assert resolved(SEED_INTENT + "clients: {first: fc.12, count: 3}\ncohort: 3").server == "fed.3"
    assert any("no clients named" in n for n in resolved(SEED_INTENT).notes)


def test_everything_of_the_long_form_arrives_in_the_run() -> None:
    p = resolved(
        SEED_INTENT
        + """
cohort: "1"
strategy: {name: FedAvg, parameters: {fraction_evaluate: 0.5, min_evaluate_nodes: 2}}
rounds: 5
data: {dataset: digits, partitioner: {kind: dirichlet, alpha: 0.3}, samples_per_client: 64}
model: mlp
application: image_classification
seed: 7
config: {local-epochs: 2, learning-rate: 0.05}
goal: {accuracy: 0.9, deadline: 10 min}
"""
    )
    assert p.config == {
        "strategy": "FedAvg",
        "num-server-rounds": 5,
        "fraction-train": 1.0,
        "fraction-evaluate": 0.5,
        "min-train-nodes": 4,
        "min-evaluate-nodes": 2,
        "min-available-nodes": 4,
        "dataset": "digits",
        "model": "mlp",
        "partitioner": "dirichlet",
        "dirichlet-alpha": 0.3,
        "samples-per-client": 64,
        "local-epochs": 2,
        "learning-rate": 0.05,
    }
    assert (p.seed, p.goal_accuracy, p.deadline_s) == (7, 0.9, 600.0)


def test_all_faults_are_named_at_once() -> None:
    found = refusal(
        """
intentID: 5
targets:
  - operation: maximise
    operand: robots.driling.accuracy
    constraints: {privacylevel: middle, fracfit: 1.5, minfit: abc, foo: 1, numround: 4.5}
clients: [fc.10, fc.99]
network: {latency: 5 ms}
goal: {deadline: soon, accuracy: .nan}
config: {local-epochs: [1]}
strategy: {name: FedFoo}
""",
        ipstart="x",
        cohortsize="0",
        colour="red",
    )
    assert found == {
        "intentID": "type",
        "targets[0].id": "missing",
        "targets[0].operand": "unknown_operand",
        "targets[0].constraints.privacylevel": "value",
        "targets[0].constraints.fracfit": "range",
        "targets[0].constraints.minfit": "type",
        "targets[0].constraints.foo": "unknown_key",
        "targets[0].constraints.numround": "type",
        "clients[1]": "unknown_client",
        "network": "unsupported",
        "goal.deadline": "type",
        "goal.accuracy": "range",
        "config.local-epochs": "type",
        "strategy.name": "unknown_strategy",
        "form.ipstart": "type",
        "form.cohortsize": "range",
        "form.colour": "unknown_key",
    }


@pytest.mark.parametrize(
    ("text", "fields", "path", "code"),
    [
        (SEED_INTENT, {"ipstart": "18", "cohortsize": "9"}, "form.ipstart", "unknown_client"),
        (SEED_INTENT, {"ipstart": "18"}, "form.cohortsize", "missing"),
        (SEED_INTENT, {"cohortsize": "2"}, "form.ipstart", "missing"),
        (SEED_INTENT, {"cohort": "1", "minfit": "5"}, "form.minfit", "range"),
        (SEED_INTENT, {"cohort": "1", "minfit": "3", "minav": "2"}, "form.minav", "range"),
        (SEED_INTENT, {"numround": "10001"}, "form.numround", "range"),
        (SEED_INTENT, {"avgalgo": "FedProx"}, "form.avgalgo", "unknown_strategy"),
        (SEED_INTENT + "clients: [fc.10, fc.10]", {}, "clients", "duplicate"),
        (SEED_INTENT + "config: {min-train-nodes: 2}", {}, "config.min-train-nodes", "conflict"),
        (SEED_INTENT + "config: {warp: 2}", {}, "config.warp", "unknown_key"),
        (SEED_INTENT + "config: {momentum: 2.0}", {}, "config.momentum", "value"),
        (SEED_INTENT + "strategy: {parameters: {mu: 1}}", {}, "strategy.parameters.mu", "unknown_key"),
        (SEED_INTENT + "data: {partitioner: {kind: dirichlet}}", {}, "data.partitioner.alpha", "missing"),
        (
            SEED_INTENT + "data: {partitioner: {kind: shard}}",
            {},
            "data.partitioner.kind",
            "unknown_partitioner",
        ),
        (SEED_INTENT.replace("maximise", "minimise"), {}, "targets[0].operation", "unknown_operation"),
        (
            SEED_INTENT.replace("high", "high\n      numround: 4") + "rounds: 5",
            {},
            "targets[0].constraints.numround",
            "conflict",
        ),
        ("intentID: a\nintentID: b", {}, "intentID", "duplicate"),
        ("a: &x [1]\nb: *x", {}, "", "alias"),
        ("[" * 40 + "]" * 40, {}, "", "depth"),
        ("a: [" + "1," * 30_000 + "]", {}, "", "too_large"),
        ("- 1", {}, "", "type"),
        ("", {}, "", "empty"),
        ("a: [", {}, "", "yaml"),
        ("a: !!python/object/apply:os.system [id]", {}, "", "yaml"),
        ("a: 1\n---\nb: 2", {}, "", "documents"),
        ("intentID: " + "9" * 5000, {}, "", "yaml"),
    ],
)
def test_refusals(text: str, fields: dict[str, str], path: str, code: str) -> None:
    found = refusal(text, **fields)
    assert found.get(path) == code, found


def test_missing_clients_are_named() -> None:
    with pytest.raises(IntentRefused) as refused:
        resolved(SEED_INTENT, ipstart="20", cohortsize="4")
    problem = refused.value.problems[0]
    assert "127.0.1.22, 127.0.1.23" in problem.message and "127.0.1.21" not in problem.message
    assert "127.0.1.10 to 127.0.1.21" in problem.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"models": {"complex": {"model": "lenet", "available": False, "fallback": "x"}}},
            ["models.complex.fallback", "'x'"],
        ),
        (
            {"operands": {"a": {"operations": ["maximise"], "source": "nix"}}},
            ["operands.a.model", "Field required"],
        ),
        ({"colour": 1}, ["colour", "not permitted"]),
        (
            {
                "sources": {
                    n: {"dataset": n, "fallback": o}
                    for n, o in (("handmnist", "cifar"), ("cifar", "handmnist"), ("fashionmnist", "cifar"))
                }
            },
            ["go round"],
        ),
    ],
)
def test_a_wrong_catalogue_is_refused_with_the_place(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    content = yaml.safe_load((ROOT / "intents" / "catalogue.yaml").read_text())
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(SetupError) as error:
        catalogue.load(tmp_path / "c.yaml")
    assert all(word in str(error.value) for word in words), error.value


def test_a_source_with_a_path_is_there_when_the_path_is(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "intents" / "catalogue.yaml").read_text())
    content["sources"]["cifar"] = {
        "dataset": "cifar10",
        "path": str(tmp_path / "cifar"),
        "fallback": "digits",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    c = catalogue.load(tmp_path / "c.yaml")
    assert c.source("cifar")[0] == "digits"
    (tmp_path / "cifar").mkdir()
    assert c.source("cifar")[0] == "cifar" and c.source("cifar")[2] == []


_keys = st.sampled_from(
    [
        "intentID",
        "targets",
        "id",
        "operation",
        "operand",
        "constraints",
        "privacylevel",
        "fracfit",
        "minfit",
        "clients",
        "first",
        "count",
        "cohort",
        "strategy",
        "name",
        "parameters",
        "rounds",
        "data",
        "partitioner",
        "kind",
        "alpha",
        "model",
        "seed",
        "config",
        "goal",
        "accuracy",
        "deadline",
        "sameserver",
        "network",
        "x",
    ]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["robots.drilling.accuracy", "maximise", "high", "low", "fc.10", "1", "FedAvg", "0.5", "5s", "digits"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(_keys, _values, max_size=8),
    st.dictionaries(st.sampled_from(list(Form.model_fields)), st.text(max_size=6), max_size=4),
)
def test_any_content_is_resolved_or_refused_with_complete_problems(
    content: dict[str, Any], fields: dict[str, str]
) -> None:
    base = yaml.safe_load(SEED_INTENT)
    for candidate in (content, {**base, **content}):
        try:
            text = yaml.safe_dump(candidate).encode("utf-8", "surrogatepass")
            intent, problems = check_intent(document.read(text), KNOWN)
            form, more = check_form(fields, KNOWN)
            assert (intent is None) == bool(problems) and (form is None) == bool(more)
            if intent is not None and form is not None:
                p = resolve(intent, form, CATALOGUE, INVENTORY, "mo.1")
                assert p.clients and p.server and json.dumps(p.to_json(), allow_nan=False)
        except IntentRefused as refused:
            problems = refused.problems
        for problem in [*problems]:
            assert problem.code and problem.message and isinstance(problem.path, str), problem
