"""Raises whole testbeds for the tests of this folder, through the command line as a user would, and always takes them
down."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str, timeout_s: float = 300.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line; shows what it printed where it fails."""
    command = [sys.executable, "-m", "cohortnet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=REPOSITORY, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def delay_options() -> list[str]:
    """`--allow-unsupported delay` where this kernel needs it."""
    from topology.doctor import capabilities

    return [] if capabilities().netem else ["--allow-unsupported", "delay"]


Raise = Callable[..., dict[str, Any]]


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Raise]:
    """Call it as testbed("name", "--cohorts", "2", ...) to get the inventory; everything is removed after the test."""
    names: list[str] = []

    def up(name: str, *arguments: str) -> dict[str, Any]:
        names.append(name)
        options = ["--name", name, *arguments] if not arguments or arguments[0].startswith("--") else [*arguments]
        done = run("up", *options, *delay_options(), "--runs", str(tmp_path / "runs"), "--json", timeout_s=300.0)
        inventory: dict[str, Any] = json.loads(done.stdout)
        return inventory

    yield up
    for name in names:
        run("down", name, timeout_s=120.0)
