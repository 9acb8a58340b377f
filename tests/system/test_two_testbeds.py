"""Two testbeds on one host: each its own names, networks and ports; they work at the same time, one goes and the other
stays, and what both want is refused by name before anything is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import delay_options, run
from tests.system.leftovers import wait_for_none
from topology.engine import engine, execution, neighbours, state
from topology.errors import TestbedProblems, TopologyError
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan

ONE, TWO, THIRD = "t-eng-val-one", "t-eng-val-two", "t-eng-val-third"
PORTS = {ONE: (19110, 19111), TWO: (19120, 19121)}


def text_of(name: str, **more: Any) -> str:
    """A testbed file; JSON is YAML."""
    mlfo, rest = PORTS.get(name, (19130, 19131))
    data = {
        "name": name, "runtime": "namespace", "preset": {"cohorts": 1, "clients": 2, "campuses": 1},
        "publish": [{"node": "mo.1", "port": 8000, "host_port": mlfo}], "controller": {"rest_host_port": rest},
    }  # fmt: skip
    return json.dumps({**data, **more})


def listed_now() -> dict[str, Any]:
    return {entry["name"]: entry for entry in json.loads(run("ls", "--json").stdout)}


@pytest.mark.live
def test_two_testbeds_at_once(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    files = {name: tmp_path / f"{name}.yaml" for name in (ONE, TWO, THIRD)}
    for name, file in files.items():
        file.write_text(text_of(name))
    both = (ONE, TWO)
    try:

        def up(name: str) -> subprocess.CompletedProcess[str]:
            return run("up", str(files[name]), *delay_options(), "--runs", str(runs), "--json")

        with ThreadPoolExecutor(2) as pool:  # raised at the same moment
            done = list(pool.map(up, both))
        inventories = {name: json.loads(one.stdout) for name, one in zip(both, done, strict=True)}
        listed = listed_now()
        assert {listed[name]["state"] for name in both} == {"up"}
        assert all(f"127.0.0.1:{PORTS[name][0]}->mo.1:8000" in listed[name]["published"] for name in both)
        pools = [IPv4Network(inventories[name]["network"]["management"]) for name in both]
        assert not pools[0].overlaps(pools[1])
        # The same names and addresses, in two networks that know nothing of one another.
        addresses = [{node["name"]: node["address"] for node in inventories[name]["nodes"]} for name in both]
        assert addresses[0] == addresses[1]

        def intent(name: str) -> subprocess.CompletedProcess[str]:
            return run("intent", "send", "intents/drilling.yaml", "--ipstart", "10", "--cohortsize", "2",
                       "--numround", "1", "--wait", "--testbed", name, "--runs", str(runs))  # fmt: skip

        with ThreadPoolExecutor(2) as pool:
            for sent in pool.map(intent, both):
                assert "succeeded" in sent.stdout
        recorded = {json.loads(path.read_text())["testbed"] for path in runs.glob("*/manifest.json")}
        assert recorded == set(both)
        spans = [_span(path) for path in runs.glob("*/events.jsonl")]
        assert max(begun for begun, _ in spans) < min(ended for _, ended in spans), "they ran at the same time"

        _refused(files[THIRD], runs)

        before = {node["name"]: node["pid"] for node in inventories[TWO]["nodes"]}
        run("down", ONE)
        assert wait_for_none(ONE) == []
        assert set(listed_now()) & {ONE, TWO, THIRD} == {TWO}
        after = {name: Path(f"/proc/{pid}").exists() for name, pid in before.items()}
        assert all(after.values()), after
        ping = ["ping", "-c", "2", "-i", "0.2", "-W", "2", "fed.1"]
        assert execution.execute(inventories[TWO], "fc.10", ping, timeout_s=20).returncode == 0
        assert "succeeded" in intent(TWO).stdout
    finally:
        for name in (*both, THIRD):
            run("down", name)
    assert wait_for_none(TWO) == []


def _span(events: Path) -> tuple[float, float]:
    times = [json.loads(line)["time"] for line in events.read_text().splitlines()]
    return min(times), max(times)


def _refused(file: Path, runs: Path) -> None:
    """A third testbed that wants what the first two have is refused in their names, and nothing of it is made."""
    one, two = PORTS[ONE], PORTS[TWO]
    management = IPv4Network(state.load(TWO).plan.management)  # type: ignore[union-attr]
    file.write_text(text_of(
        THIRD, controller={"rest_host_port": one[1]}, management_pool=str(next(management.subnets(1))),
        publish=[{"node": "mo.1", "port": 8000, "host_port": two[0]}],
    ))  # fmt: skip
    done = run("up", str(file), *delay_options(), "--runs", str(runs), check=False)
    assert done.returncode == 2 and "nothing was done" in done.stderr
    for path, who in (("controller.rest_host_port", ONE), ("publish[0].host_port", TWO), ("management_pool", TWO)):
        (line,) = [line for line in done.stderr.splitlines() if f" {path}: " in line]
        assert f"the testbed '{who}'" in line
    assert wait_for_none(THIRD) == []
    # One that is up is said to be up, and not to have its own ports taken.
    again = run("up", str(file.with_name(f"{ONE}.yaml")), *delay_options(), "--runs", str(runs), check=False)
    assert again.returncode == 1 and "is already up" in again.stderr


@pytest.mark.live
def test_a_lock_of_one_testbed_keeps_no_other_waiting() -> None:
    script = (
        "import sys, time\nfrom topology.engine import state\n"
        f"with state.lock('{ONE}'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdin is not None and held.stdout is not None
        assert held.stdout.readline() == "held\n"
        said = f"being raised, changed or removed by process {held.pid}; try again when it has ended"
        with pytest.raises(TopologyError, match=said), state.lock(ONE):
            pass
        with pytest.raises(TopologyError, match=str(held.pid)):
            engine.raise_testbed(plan(ONE))
        with state.lock(TWO):
            pass
        held.stdin.close()
    with state.lock(ONE):
        pass
    assert not os.path.exists(f"/run/cohortnet/.{ONE}.lock")


# What two testbeds cannot both have


def plan(name: str, **more: Any) -> Plan:
    return make_plan(parse_testbed(json.loads(text_of(name, **more))))


def test_what_both_want_is_named_with_whose_it_is() -> None:
    assert neighbours.problems(plan(TWO), [plan(ONE)]) == []
    same = plan(TWO, management_pool=plan(ONE).management, controller={"rest_host_port": PORTS[ONE][0]},
                publish=[{"node": "mo.1", "port": 8000, "host_port": PORTS[ONE][1]}])  # fmt: skip
    found = {problem.path: problem for problem in neighbours.problems(same, [plan(ONE)])}
    assert {path: problem.code for path, problem in found.items()} == {
        "controller.rest_host_port": "port-taken", "publish[0].host_port": "port-taken",
        "management_pool": "pool-taken",
    }  # fmt: skip
    assert all(f"testbed {ONE!r}" in problem.message and problem.hint for problem in found.values())


def test_ports_of_monitoring_are_ports_too() -> None:
    monitored = {"monitoring": {"port": 19112, "exporter_port": 19113}}
    found = neighbours.problems(plan(TWO, **monitored), [plan(ONE, **monitored)])
    assert [problem.path for problem in found] == ["monitoring.exporter_port", "monitoring.port"]


def test_containers_of_two_testbeds_need_two_prefixes() -> None:
    one, two = plan(ONE, runtime="docker"), plan(TWO, runtime="docker")
    (problem,) = neighbours.problems(two, [one])
    assert problem.path == "container_prefix" and ONE in problem.message and "t-eng-val-two." in problem.hint
    assert neighbours.problems(plan(TWO, runtime="docker", container_prefix="two."), [one]) == []
    assert neighbours.problems(plan(TWO), [one]) == [], "namespaces have no names that Docker knows"


def test_of_two_that_want_one_port_only_the_first_claims_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (state, neighbours, sys.modules["topology.plan"]):
        monkeypatch.setattr(module, "STATE_ROOT", tmp_path)
    same = {"controller": {"rest_host_port": 19119}}
    plans = [plan(f"t-eng-val-{number}", **same, publish=[]) for number in range(8)]

    def claim(wanted: Plan) -> bool:
        try:
            neighbours.claim(wanted)
        except TestbedProblems:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(claim, plans)) == [False] * 7 + [True]
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1, "who is refused leaves nothing"
