"""Fixtures of the orchestrator's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mlfo.harness import Testbed


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Callable[..., Testbed]]:
    """Makes a testbed with both orchestrators started; everything ends with the test, also where it fails."""
    made: list[Testbed] = []

    def make(
        cohorts: int = 2, clients: int = 4, round_s: float = 0.03, edge: tuple[str, ...] = ()
    ) -> Testbed:
        bed = Testbed(tmp_path, cohorts, clients, round_s)
        made.append(bed)
        bed.start("central")
        bed.start("edge", *edge)
        return bed

    yield make
    for bed in made:
        bed.close()
