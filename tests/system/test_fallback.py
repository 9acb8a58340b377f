"""A switch whose datapath has no meters: the same command limits by a queue instead, and says so (FEATURES S11)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.test_meters import LIMIT_BPS, in_switches, meter, total_goodput_bps
from tests.topology.engine import lab
from topology.engine import launch

pytestmark = pytest.mark.live
RELAY = Path(__file__).parents[1] / "topology" / "controller" / "meterless.py"
RELAY_PORT = 6700


def until(what: str, ready: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.05)


def test_where_switches_have_no_meters_the_same_limit_is_a_queue() -> None:
    plan = lab.preset("t-user-fallback", clients=4, cohorts=1)
    chosen = ("--testbed", plan.testbed)
    with lab.up(plan) as inventory:
        relay_log = plan.logs / "relay.log"
        launch.start_daemon(plan.testbed, [sys.executable, str(RELAY), str(RELAY_PORT), "6653"], relay_log,
                            namespace=inventory["core"]["namespace"])  # fmt: skip
        until("the relay listens", lambda: relay_log.exists() and "ready" in relay_log.read_text())
        database = f"--db=unix:{inventory['core']['ovs_rundir']}/db.sock"
        for switch in inventory["switches"]:
            subprocess.run(["ovs-vsctl", database, "--timeout=10", "set-controller", switch["bridge"],
                            f"tcp:127.0.0.1:{RELAY_PORT}"], check=True, timeout=20)  # fmt: skip
        log = plan.logs / "controller.log"
        until("the controller knows", lambda: log.read_text().count("has no meters") >= len(inventory["switches"]))

        (view,) = meter("set", "c1", "--cohort", "1", "--up", "20mbit", *chosen)
        assert (view["enforce"], view["in_force"], view["pending"]) == ("auto", "queue", False), view
        assert in_switches(inventory) == []
        expected = LIMIT_BPS * lab.GOODPUT_SHARE
        found = total_goodput_bps(inventory, ["fc.10", "fc.11", "fc.12", "fc.13"], "fed.1", "up")
        assert abs(found - expected) <= 0.05 * expected, f"{found:.0f} bit/s, expected {expected:.0f} +-5 %"
        refused = subprocess.run([sys.executable, "-m", "cohortnet", "meter", "set", "c2", "--cohort", "1", "--down",
                                  "20mbit", "--enforce", "drop", *chosen], capture_output=True, text=True,
                                 timeout=60, check=False)  # fmt: skip
        assert refused.returncode == 2 and "has no meters" in refused.stderr, refused.stderr
