"""The guest is the machine that it is meant to be, and the doctor and the command line see it so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from topology.capabilities import capabilities
from topology.doctor import check_plan, findings
from topology.model import parse_testbed
from topology.planning import make_plan

pytestmark = pytest.mark.live

EVERYTHING = {"delay": "12 ms", "jitter": "1 ms", "loss": "1 %", "duplicate": "1 %", "corrupt": "1 %", "reorder": "1 %"}


def test_doctor_finds_netem_the_kernel_datapath_and_cgroups_of_version_2() -> None:
    found = {finding.name: finding for finding in findings()}
    for name in ("qdisc netem", "qdisc htb", "qdisc tbf", "veth pairs", "bridge isolation", "nftables for bridges",
                 "Open vSwitch", "datapath", "cgroups"):  # fmt: skip
        assert found[name].status == "ok", found[name]
    assert found["datapath"].detail == "in the kernel"
    assert found["cgroups"].detail.startswith("version 2:")
    for controller in ("cpu", "memory", "cpuset", "pids"):
        assert controller in found["cgroups"].detail


def test_nothing_is_refused_that_the_kernel_can_do() -> None:
    testbed = {"name": "t-kernel", "runtime": "namespace", "preset": {"cohorts": 2, "clients": 4},
               "nodes": [{"name": "x", "cpu": 0.5, "memory": "64 MiB", "cpuset": "0"}],
               "links": [{"a": "x", "b": "aggsw10", "rate": "2 Gbit/s", **EVERYTHING}]}  # fmt: skip
    plan = make_plan(parse_testbed(testbed))
    assert set(plan.needs_netem()) == set(EVERYTHING)
    assert check_plan(plan, capabilities()) == []


def test_validate_accepts_the_preset_with_its_delay(tmp_path: Path) -> None:
    file = tmp_path / "testbed.yaml"
    testbed = {"name": "t-kernel", "runtime": "namespace", "preset": {"cohorts": 1}, "publish": []}
    file.write_text(yaml.safe_dump(testbed), encoding="utf-8")
    command = [sys.executable, "-m", "cohortnet", "validate", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"valid": True, "errors": []}
