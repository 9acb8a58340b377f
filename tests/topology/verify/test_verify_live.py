"""Verification of raised testbeds: what is as declared is said to be, and what is not is found."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.links import set_link
from tests.topology.engine import lab
from topology.engine import namespaces
from topology.verify.verification import Row, verify

pytestmark = pytest.mark.live
RATES: dict[str, dict[str, Any]] = {
         "a": {"rate": "10 Mbit/s"}, "b": {"up": {"rate": "20 Mbit/s"}, "down": {"rate": "40 Mbit/s"}},
         "c": {"rate": "60 Mbit/s"}, "d": {}}  # fmt: skip


@pytest.fixture(scope="module")
def inventory() -> Iterator[dict[str, Any]]:
    nodes = [{"name": name} for name in RATES]
    wires = [{"a": name, "b": "s1", **shape} for name, shape in RATES.items()]
    plan = lab.star("t-verify", {}, nodes=nodes, links=wires)
    with lab.up(plan) as raised:
        yield raised


def rows(found: tuple[Row, ...], kind: str) -> dict[str, Row]:
    return {row.subject: row for row in found if row.kind == kind}


def test_rates_in_both_directions_are_as_declared(inventory: dict[str, Any]) -> None:
    found = verify(inventory, tolerance=0.03)
    rates = rows(found.rows, "rate")
    assert set(rates) == {"a -> s1", "s1 -> a", "b -> s1", "s1 -> b", "c -> s1", "s1 -> c"}, "d declares none"
    for subject, row in rates.items():
        assert row.ok, f"{subject}: declared {row.declared}, measured {row.measured} ({row.note})"
    assert (rates["b -> s1"].declared, rates["s1 -> b"].declared) == (20e6, 40e6)
    assert found.pairs == 12 and found.all_pairs and found.unreachable == ()


def test_a_rate_that_somebody_changed_is_found_and_a_dead_link_is_named(inventory: dict[str, Any]) -> None:
    core = namespaces.named(inventory["core"]["namespace"])
    port = next(p["interface"] for p in inventory["switches"][0]["ports"] if p["peer"] == "c")
    change = ["tc", "class", "change", "dev", port, "parent", "1:", "classid", "1:1", "htb", "rate"]

    def at(rate: str) -> None:
        namespaces.inside(core, lambda: subprocess.run([*change, rate, "ceil", rate], check=True, timeout=20))

    at("30mbit")
    set_link(inventory, "a", "s1", False)
    try:
        command = [sys.executable, "-m", "cohortnet", "verify", "--testbed", "t-verify", "--json", "--tolerance", "3 %"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1, done.stderr
        answer = json.loads(done.stdout)
    finally:
        at("60mbit")
        set_link(inventory, "a", "s1", True)
    assert not answer["ok"]
    kept = json.loads((Path(inventory["paths"]["state"]) / "verification.json").read_text())
    assert kept == answer
    changed = next(row for row in answer["rows"] if row["kind"] == "rate" and row["subject"] == "s1 -> c")
    assert not changed["ok"] and 25e6 < changed["measured"] < 33e6, changed
    assert {"a -> b", "b -> a", "a -> c", "d -> a"} <= set(answer["unreachable"])
    assert next(row for row in answer["rows"] if row["subject"] == "a -> s1")["measured"] is None


@pytest.mark.parametrize("words", [["--tolerance", "2"], ["--tolerance", "80 %"], ["--duration", "1 ms"]])
def test_senseless_options_are_refused(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "cohortnet", "verify", *words], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr and words[1] in done.stderr


def test_what_a_killed_verify_leaves_goes_with_the_testbed() -> None:
    plan = lab.star("t-verify-killed", {"a": "10 Mbit/s", "b": "10 Mbit/s"})
    with lab.up(plan) as inventory:
        command = [sys.executable, "-m", "cohortnet", "verify", "--testbed", plan.testbed, "--duration", "60 s"]
        namespaces_of_nodes = {os.stat(f"/proc/{node['pid']}/ns/net").st_ino for node in inventory["nodes"]}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as verifying:
            deadline = time.monotonic() + 30
            while len(iperfs(namespaces_of_nodes)) < 2:
                assert time.monotonic() < deadline and verifying.poll() is None
                time.sleep(0.05)
            verifying.kill()
        assert iperfs(namespaces_of_nodes), "killed, it ends nothing itself"
    assert iperfs(namespaces_of_nodes) == []


def iperfs(spaces: set[int]) -> list[str]:
    """Processes of iperf3 in these network namespaces, in whatever cgroup they are."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text() == "iperf3\n" and os.stat(process / "ns/net").st_ino in spaces:
                found.append(process.name)
    return found
