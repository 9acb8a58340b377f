"""Meters at the command line and in sendmeter.py without a testbed: names and targets, ports, exit statuses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cohortnet.controller_client import ControllerError, controller_url, with_name
from cohortnet.show_controller import meter_line
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "sendmeter.py"
NOBODY = "http://127.0.0.1:9"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sendmeter", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def topology_of(plan: Plan) -> dict[str, Any]:
    """As the controller's `/v1/topology` says it."""
    names = {switch.name for switch in plan.switches}
    return {
        "switches": [{"name": switch.name} for switch in plan.switches],
        "nodes": [{"name": node.name, "switch": node.switch, "port": node.switch_port} for node in plan.nodes],
        "links": [{"a": link.a, "a_port": link.a_port, "b": link.b, "b_port": link.b_port}
                  for link in plan.links if link.a in names and link.b in names],
    }  # fmt: skip


@pytest.mark.parametrize("clients", [3, 12, 50, 77])
def test_the_campuses_uplink_is_found_for_any_number_of_cohorts(clients: int) -> None:
    script = load_script()
    for cohorts in range(1, 21):
        numbers = {"cohorts": cohorts, "clients": clients, "campuses": 3}
        plan = make_plan(parse_testbed({"name": "x", "preset": numbers}))
        for switch in plan.switches:
            if switch.name in script.CAMPUSES:
                wanted = [port.number for port in switch.ports if port.peer == "swEdge12"]
                assert [script.uplink(topology_of(plan), switch.name)] == wanted


def test_a_testbed_without_three_campuses_is_refused() -> None:
    script = load_script()
    plan = make_plan(parse_testbed({"name": "x", "preset": {"campuses": 2}}))
    with pytest.raises(script.Wrong, match="swCampus1, swCampus2; raise it with --campuses 3"):
        script.uplink(topology_of(plan), "swCampus3")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "limit what?"),
        (["--cohort", "1"], "which rate?"),
        (["--cohorts", "0", "--up", "1mbit"], "--cohorts 0"),
        (["--show", "--up", "1mbit"], "no effect"),
        (["--remove"], "remove what?"),
        (["--show", "--remove", "--cohort", "1"], "cannot be combined"),
        (["--preset", "campus44"], "campus33"),
        (["--cohort", "1", "--up", "1mbit", "--url", NOBODY], "no controller answers"),
        (["--preset", "campus33", "--url", NOBODY], "no controller answers"),
    ],
)
def test_wrong_use_of_the_script_ends_with_status_2(arguments: list[str], said: str) -> None:
    done = run(str(SCRIPT), *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_the_script_explains_itself() -> None:
    done = run(str(SCRIPT), "--help")
    assert done.returncode == 0 and "Examples:" in done.stdout and "Exit status:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "m", "--up", "1mbit"], "exactly one thing, found none"),
        (["set", "m", "--cohort", "1", "--client", "fc.10", "--up", "1mbit"], "found --cohort and --client"),
        (["set", "m", "--switch", "s1", "--up", "1mbit"], "belong together"),
        (["set", "m", "--cohort", "1", "--port", "1", "--up", "1mbit"], "belong together"),
        (["set", "m", "--cohort", "1"], "which rate?"),
        (["set", "m", "--cohort", "1", "--up", "1mbit", "--rate", "1mbit"], "cannot be combined"),
        (["set", "m", "--cohort", "1", "--up", "1mbit", "--direction", "up"], "belongs to --rate"),
        (["rm"], "or --all"),
        (["rm", "m", "--all"], "or --all"),
    ],
)
def test_wrong_use_of_the_command_ends_with_status_2(arguments: list[str], said: str) -> None:
    done = run("-m", "cohortnet", "meter", *arguments, "--url", NOBODY)
    told = " ".join(done.stderr.replace("│", " ").split())
    assert done.returncode == 2 and said in told and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("typed", ["meter show", "show flows", "meter set m --cohort 1 --rate 1mbit"])
def test_a_controller_that_does_not_answer_is_named(typed: str) -> None:
    done = run("-m", "cohortnet", *typed.split(), "--url", NOBODY)
    assert done.returncode == 1 and NOBODY in done.stderr and "switches go on" in done.stderr


def inventory(kind: str, published: list[dict[str, Any]]) -> dict[str, Any]:
    controller = {"kind": kind, "address": "192.0.2.7:6653"}
    return {"testbed": "x", "core": {"controller": controller}, "published": published}


def test_the_controller_is_found_by_its_published_port() -> None:
    ports: list[dict[str, Any]] = [{"node": "mo.1", "port": 8000, "host": "127.0.0.1", "host_port": 8000},
             {"node": None, "port": 8080, "host": "127.0.0.1", "host_port": 18080}]  # fmt: skip
    assert controller_url(inventory("builtin", ports)) == "http://127.0.0.1:18080"
    with pytest.raises(ControllerError, match="192.0.2.7:6653"):
        controller_url(inventory("external", []))
    with pytest.raises(ControllerError, match="no controller"):
        controller_url(inventory("none", []))


def test_a_name_means_its_meter_or_its_pair() -> None:
    names = ["a", "a.up", "b.up", "b.down", "c.down"]
    found = {wanted: with_name(names, wanted) for wanted in ("a", "b", "c", "b.up", "d")}
    assert found == {"a": ["a"], "b": ["b.up", "b.down"], "c": ["c.down"], "b.up": ["b.up"], "d": []}


def test_a_meter_is_told_in_one_line() -> None:
    meter = {
        "name": "c1.up", "target": {"kind": "cohort", "name": "1"}, "direction": "up", "unit": "bit/s",
        "rate": 20_000_000, "burst": 20_000_000, "in_force": "drop", "pending": False,
        "entries": [{"direction": "up", "switch": "aggsw10", "meter_id": 7, "packets": 1, "bytes": 2}],
    }  # fmt: skip
    assert meter_line(meter) == (
        "c1.up: 20 Mbit/s up on cohort 1, burst 20 Mbit; in force: drop at aggsw10 meter 7"
    )
