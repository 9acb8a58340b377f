"""What the catalogue lets through is what the application takes: both tables, key by key, at every edge."""

from __future__ import annotations

import math
import sys
import tomllib
from typing import Any

import pytest

from mlfo import catalogue
from tests.mlfo.harness import ROOT

APPLICATION = ROOT / "fl_node" / "apps" / "image-classification"
sys.path.insert(0, str(APPLICATION))

from image_classification.partition import PARTITIONERS  # noqa: E402
from image_classification.settings import DATASETS, MODELS, STRATEGIES, parse  # noqa: E402

CATALOGUE = catalogue.load(ROOT / "intents" / "catalogue.yaml")
ENTRY = CATALOGUE.applications["image_classification"]
DEFAULTS = tomllib.loads((APPLICATION / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def takes(key: str, value: object) -> bool:
    """Whether the application runs with it."""
    try:
        parse({**DEFAULTS, key: value})
    except ValueError as error:
        assert f"{key}: " in str(error), error
        return False
    return True


def probes(spec: catalogue.ConfigKey) -> list[Any]:
    """Every bound that either table may have, and the nearest values on both sides of it."""
    bounds = {0, 1, *(b for b in (spec.minimum, spec.maximum, spec.above, spec.below) if b is not None)}
    if spec.type == "int":
        return sorted({int(b) + d for b in bounds for d in (-1, 0, 1)} | {10**9, -(10**9)})
    near = {
        f(float(b))
        for b in bounds
        for f in (lambda x: math.nextafter(x, -1e9), float, lambda x: math.nextafter(x, 1e9))
    }
    return [*sorted(near | {0.5, 2.0, -1.0, 1e9, math.inf, -math.inf}), math.nan]


@pytest.mark.parametrize("key", sorted(ENTRY.config))
def test_both_tables_have_the_same_bounds(key: str) -> None:
    spec = ENTRY.config[key]
    assert key in DEFAULTS, "the catalogue lets set what the application does not know"
    assert spec.type == type(DEFAULTS[key]).__name__
    found = {repr(value): (spec.fault(value) is None, takes(key, value)) for value in probes(spec)}
    assert {value: both for value, both in found.items() if both[0] != both[1]} == {}, (
        "value: (the catalogue lets it through, the application takes it)"
    )
    assert {True, False} <= {both[0] for both in found.values()}, "the probes meet no bound"


def test_both_know_the_same_names() -> None:
    assert set(ENTRY.models) == set(MODELS) and set(ENTRY.datasets) == set(DATASETS)
    assert set(ENTRY.partitioners) == set(PARTITIONERS)
    assert {name.lower() for name in ENTRY.strategies} == set(STRATEGIES)
    sources = {source.dataset for source in CATALOGUE.sources.values() if source.available}
    assert sources <= set(DATASETS)
    assert {model.model for model in CATALOGUE.models.values() if model.available} <= set(MODELS)
    keys = {key for s in ENTRY.strategies for key in CATALOGUE.strategies[s].parameters.values()}
    assert keys <= set(ENTRY.config)
