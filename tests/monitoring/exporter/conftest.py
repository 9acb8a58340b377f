"""A small real testbed for the exporter's tests: nodes around a learning switch, with limits and shaped links."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from monitoring.exporter import namespaces
from monitoring.exporter.sampler import Sampler
from monitoring.exporter.samples import Samples
from tests.topology.engine import lab

NAME = "t-exporter"


@dataclass
class Bed:
    """The testbed and a copy of its inventory that a test may change."""

    inventory: dict[str, Any]
    path: Path
    open: ExitStack = field(default_factory=ExitStack)

    def node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.inventory["nodes"] if node["name"] == name)

    def tool(self, place: str, *command: str) -> str:
        """A program's output in a node's network namespace, or in the core's ("core")."""
        namespace = (f"/run/netns/{self.inventory['core']['namespace']}" if place == "core"
                     else f"/proc/{self.node(place)['pid']}/ns/net")  # fmt: skip
        done = subprocess.run(["nsenter", f"--net={namespace}", *command], capture_output=True, text=True, timeout=30,
                              check=True)  # fmt: skip
        return done.stdout

    def connect(self, client: str, server: str, port: int) -> tuple[socket.socket, socket.socket]:
        """A TCP connection between two nodes over the emulated network; closed with the test."""
        address = (self.node(server)["address"], port)
        listening = namespaces.inside(f"/proc/{self.node(server)['pid']}/ns/net",
                                      partial(socket.create_server, address))  # fmt: skip
        with listening:
            listening.settimeout(10)
            near = namespaces.inside(f"/proc/{self.node(client)['pid']}/ns/net",
                                     partial(socket.create_connection, address, 10))  # fmt: skip
            far, _ = listening.accept()
        far.settimeout(10)
        self.open.callback(near.close)
        self.open.callback(far.close)
        return near, far


@pytest.fixture(scope="module")
def testbed() -> Iterator[dict[str, Any]]:
    nodes = [
        {"name": "fc.1", "role": "client", "cpu": 0.1, "memory": "256 MiB"}, {"name": "fed.1", "role": "server"},
        {"name": "prom.0", "role": "prometheus"}, {"name": "gone.1"},
    ]  # fmt: skip
    links = [{"a": "fc.1", "b": "s1", "rate": "20 Mbit/s"}, {"a": "fed.1", "b": "s1", "rate": "50 Mbit/s"},
             {"a": "prom.0", "b": "s1"}, {"a": "gone.1", "b": "s1"}]  # fmt: skip
    plan = lab.make_plan(lab.parse_testbed({
        "name": NAME, "runtime": "namespace", "nodes": nodes, "links": links, "switches": [{"name": "s1"}],
        "cohorts": [{"name": "1", "server": "fed.1", "clients": ["fc.1"]}], "controller": {"kind": "none"},
        "publish": [],
    }))  # fmt: skip
    with lab.up(plan) as inventory:
        yield inventory


@pytest.fixture
def bed(testbed: dict[str, Any], tmp_path: Path) -> Iterator[Bed]:
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(testbed))
    made = Bed(testbed, path)
    with made.open:
        yield made


@pytest.fixture
def sampler(bed: Bed) -> Iterator[Sampler]:
    with Sampler(bed.path) as made:
        yield made


def series(samples: Samples, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """Values of one metric by all its labels, those series only that have the given ones."""
    found = {}
    for family, rows in samples.values.items():
        if family.name == name:
            for own, value in rows:
                named = dict(zip(family.labels, own.values, strict=True))
                if all(named[key] == wanted for key, wanted in labels.items()):
                    found[own.values] = value
    return found


def one(samples: Samples, name: str, **labels: str) -> float:
    """The value of the one series with these labels."""
    found = series(samples, name, **labels)
    assert len(found) == 1, f"{name} {labels}: {found}"
    return next(iter(found.values()))
