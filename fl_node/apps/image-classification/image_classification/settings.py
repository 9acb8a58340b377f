"""The run config as typed, checked values. Every problem is named at once, with what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from image_classification.partition import PARTITIONERS

STRATEGIES = ("fedavg",)
MODELS = ("lenet", "mlp")
DATASETS = ("fashionmnist", "digits")


@dataclass(frozen=True)
class Settings:
    """The run config; names are those of the keys with underscores."""

    strategy: str
    num_server_rounds: int
    fraction_train: float
    fraction_evaluate: float
    min_train_nodes: int
    min_evaluate_nodes: int
    min_available_nodes: int
    model: str
    dataset: str
    partitioner: str
    dirichlet_alpha: float
    samples_per_client: int
    validation_fraction: float
    test_samples: int
    seed: int
    local_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float


def _one_of(allowed: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in allowed), " or ".join(allowed)


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: low <= value <= high), f"{low} to {high}"


_AT_LEAST_1 = (lambda value: value >= 1), "1 or more"
_AT_LEAST_0 = (lambda value: value >= 0), "0 or more"
_FRACTION = (lambda value: 0 <= value <= 1), "0 to 1"
_POSITIVE = (lambda value: value > 0), "a number above 0"
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "strategy": _one_of(STRATEGIES),
    "num_server_rounds": _AT_LEAST_1,
    "fraction_train": _FRACTION,
    "fraction_evaluate": _FRACTION,
    "min_train_nodes": _AT_LEAST_1,
    "min_evaluate_nodes": _whole(0, 100_000),
    "min_available_nodes": _AT_LEAST_1,
    "model": _one_of(MODELS),
    "dataset": _one_of(DATASETS),
    "partitioner": _one_of(PARTITIONERS),
    "dirichlet_alpha": _POSITIVE,
    "samples_per_client": _AT_LEAST_0,
    "validation_fraction": ((lambda value: 0 < value < 1), "a number between 0 and 1"),
    "test_samples": _whole(0, 1_000_000),
    "seed": _AT_LEAST_0,
    "local_epochs": _whole(1, 1000),
    "batch_size": _whole(1, 65_536),
    "learning_rate": ((lambda value: 0 < value <= 100), "a number above 0, at most 100"),
    "momentum": ((lambda value: 0 <= value < 1), "0 to below 1"),
}
_KINDS = {"str": str, "int": int, "float": float}


def parse(config: Mapping[str, Any]) -> Settings:
    """Check a run config. Raises ValueError that names every key at fault."""
    values: dict[str, Any] = {}
    problems = []
    for item in fields(Settings):
        key = item.name.replace("_", "-")
        kind = _KINDS[str(item.type)]
        value = config.get(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is str and isinstance(value, str):
            value = value.lower()
        check, allowed = _CHECKS[item.name]
        if type(value) is not kind:
            problems.append(f"{key}: found {value!r}, expected {kind.__name__}, {allowed}")
        elif not check(value):
            problems.append(f"{key}: found {value!r}, allowed: {allowed}")
        else:
            values[item.name] = value
    if problems:
        raise ValueError("run config: " + "; ".join(problems))
    return Settings(**values)
