"""Fixtures of the FL node's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fl_node" / "apps" / "image-classification"))

from tests.fl_node.agents import Agent  # noqa: E402
from tests.fl_node.harness import Cohort  # noqa: E402


@pytest.fixture
def cohort(tmp_path: Path) -> Iterator[Callable[..., Cohort]]:
    """Makes cohorts, each in a folder of its own; all their processes end with the test."""
    made: list[Cohort] = []

    def make(clients: int, **options: Any) -> Cohort:
        made.append(Cohort(tmp_path / f"cohort-{len(made)}", clients, **options))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One agent for all tests of a file."""
    made = Agent(tmp_path_factory.mktemp("agent"))
    yield made
    made.close()


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent of the test's own, to be killed."""
    made = Agent(tmp_path / "node")
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()
