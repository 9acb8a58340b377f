"""The two testbeds of the guest, each raised once for its module: a star of shaped links, and the preset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.topology.engine import lab
from topology.plan import Plan

LINKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "delayed": {"delay": "20 ms"},
    "jittery": {"delay": "30 ms", "jitter": "5 ms"},
    "lossy1": {"loss": "1 %"},
    "lossy3": {"loss": "3 %"},
    "doubling": {"duplicate": "2 %"},
    "corrupting": {"corrupt": "5 %"},
    "reordering": {"delay": "20 ms", "reorder": "25 %"},
    "short": {"rate": "10 Mbit/s", "queue_packets": 20},
    "far": {"rate": "20 Mbit/s", "delay": "50 ms", "queue_packets": 20},
    "deep": {"rate": "50 Mbit/s", "delay": "10 ms"},
}
"""Node -> what its link does to what the node sends. The other direction does nothing."""


@pytest.fixture(scope="session")
def star_plan() -> Plan:
    links = [{"a": node, "b": "s1", "up": shape} for node, shape in LINKS.items()]
    return lab.star("t-kernel-star", dict.fromkeys(LINKS), links=[*links, {"a": "sink", "b": "s1"}],
                    nodes=[{"name": name} for name in (*LINKS, "sink")])  # fmt: skip


@pytest.fixture(scope="module")
def star(star_plan: Plan) -> Iterator[dict[str, Any]]:
    with lab.up(star_plan) as inventory:
        yield inventory
