"""The shipped application: Flower's own tool accepts it, its data and settings are checked."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_classification import data
from image_classification.settings import parse

from fl_node import flower
from fl_node.applications import ApplicationError, available, resolve

FOLDER = resolve("image_classification")


def _config(**changes: Any) -> dict[str, Any]:
    return flower.run_config(FOLDER, {key.replace("_", "-"): value for key, value in changes.items()})


def test_flower_builds_the_folder(tmp_path: Path) -> None:
    """`flwr build` makes a bundle of it, data file included: `flwr run` would take it as it is."""
    flwr = Path(sys.executable).with_name("flwr")
    environment = os.environ | {"FLWR_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [str(flwr), "build", "--app", str(FOLDER)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    bundles = list(tmp_path.glob("*.fab"))
    assert len(bundles) == 1
    assert b"digits.json" in bundles[0].read_bytes()


def test_names_and_folders_resolve(tmp_path: Path) -> None:
    """By name with dash or underscore, by folder; otherwise the shipped ones are listed."""
    assert "image_classification" in available()
    assert resolve("image-classification") == FOLDER == resolve(str(FOLDER))
    for wrong in ("image_clasification", str(tmp_path), ""):
        with pytest.raises(ApplicationError, match="image_classification"):
            resolve(wrong)


def test_run_config_is_checked_and_seeded() -> None:
    """Types are those declared, unknown keys are refused, the request's seed reaches the application."""
    config = flower.run_config(FOLDER, {"learning-rate": 1, "num-server-rounds": 7}, seed=9)
    assert config["learning-rate"] == 1.0 and config["num-server-rounds"] == 7 and config["seed"] == 9
    assert flower.run_config(FOLDER, {"seed": 3}, seed=9)["seed"] == 3
    with pytest.raises(ApplicationError) as caught:
        flower.run_config(FOLDER, {"momentum": "0.9", "batch-size": True, "rounds": 3})
    for text in ("momentum: found str '0.9'", "batch-size: found bool True", "rounds: the application"):
        assert text in str(caught.value)


def test_settings_name_every_problem() -> None:
    """All at once, each with what is allowed."""
    assert parse(_config(strategy="FedAvg", model="LeNet")).model == "lenet"
    with pytest.raises(ValueError) as caught:
        parse(_config(model="resnet", fraction_train=1.5, batch_size=0))
    for text in (
        "model: found 'resnet', allowed: lenet or mlp",
        "fraction-train: found 1.5",
        "batch-size: found 0",
    ):
        assert text in str(caught.value)


def test_the_data_sets_are_what_they_should_be() -> None:
    """Sizes, classes, scaling; digits keep their pixels through the enlargement."""
    for name, train, test in (("fashionmnist", 60_000, 10_000), ("digits", 1437, 360)):
        for is_train, count in ((True, train), (False, test)):
            split = data.load(name, is_train)
            assert split.images.shape == (count, 28, 28) and split.images.dtype == np.uint8
            assert set(split.labels.tolist()) == set(range(10))
        scaled = data.scale(name, data.load(name, True).images[:1400])
        assert scaled.shape == (1400, 1, 28, 28)
        assert abs(float(scaled.mean())) < 0.1 and abs(float(scaled.std()) - 1) < 0.1


def test_clients_have_their_own_samples() -> None:
    """The cap holds, and the held-out part is another one."""
    settings = parse(_config(dataset="fashionmnist", samples_per_client=500))
    first, second = (data.client_data(settings, index, 10) for index in (0, 1))
    assert len(first[0].labels) == 500 and len(first[1].labels) == 56
    assert not np.array_equal(first[0].images, second[0].images)
    assert first[0].images.base is None  # a copy: the data set itself can be freed


def test_a_missing_data_set_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setenv("COHORTNET_FASHION_MNIST", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        data.load("fashionmnist", True)


def test_every_key_is_declared_and_checked() -> None:
    """No key of the run config that nothing reads, and none read that is not declared."""
    declared = tomllib.loads((FOLDER / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert {key.replace("-", "_") for key in declared} == set(vars(parse(declared)))
