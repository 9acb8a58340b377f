"""The preset with its delay, in the kernel datapath, with our controller: round trips, meters, limits, removal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.inside import declared, probe
from tests.system.leftovers import wait_for_none
from tests.topology.engine import lab
from topology.engine import engine, execution, namespaces, shaping
from topology.plan import Plan

pytestmark = pytest.mark.live

ADDED_RTT_MS = 48.0
"""Two satellite links of 12 ms, there and back."""


@pytest.fixture(scope="module")
def preset_plan() -> Plan:
    return lab.preset(
        "t-kernel-preset", clients=2, cohorts=1, allow_unsupported=[],
        nodes=[{"name": "slow", "cpu": 0.2, "memory": "64 MiB", "cpuset": "0"}],
        links=[{"a": "slow", "b": "swCampus1"}],
    )  # fmt: skip


@pytest.fixture(scope="module")
def preset(preset_plan: Plan) -> Iterator[dict[str, Any]]:
    with lab.up(preset_plan) as inventory:
        yield inventory


def round_trip_ms(inventory: dict[str, Any], source: str, target: str, count: int = 400) -> float:
    """The least of ping's own figures: a busy machine only adds to what links add. Many a second: a processor that
    sleeps in between comes late to each of the four delays.
    """
    text = lab.run(inventory, source, "ping", "-c", str(count), "-i", "0.004", "-W", "2", target)
    times = [float(found) for found in re.findall(r"time=([\d.]+) ms", text)]
    assert len(times) >= 0.98 * count, text[-500:]
    return min(times)


def set_delay(inventory: dict[str, Any], plan: Plan, on: bool) -> None:
    """Give the satellite links their declared delay, or none, as a change under way does."""
    lines = []
    for link in plan.links:
        for interface, shape in ((link.a_interface, link.a_to_b), (link.b_interface, link.b_to_a)):
            if shape.delay_s:
                other = replace(shape, delay_s=0.0)
                lines += shaping.change_commands(interface, *((other, shape) if on else (shape, other)))
    shaping.apply(namespaces.named(inventory["core"]["namespace"]), lines, "core")


def test_tc_reports_what_the_preset_declares(preset: dict[str, Any]) -> None:
    assert preset["core"]["datapath"] == "system" and preset["unsupported"] == []
    wrong, compared = declared.differences(preset)
    assert wrong == [] and compared == 7 * 2 * len(preset["links"])


def test_the_satellite_path_adds_48_ms_to_a_round_trip(preset: dict[str, Any], preset_plan: Plan) -> None:
    set_delay(preset, preset_plan, False)
    try:
        without = round_trip_ms(preset, "fc.10", "fed.1")
    finally:
        set_delay(preset, preset_plan, True)
    for ends in (("fc.10", "fed.1"), ("fed.1", "fc.10")):
        # Timers are never early, and late while the host is busy with something else: the least of up to four looks.
        with_delay = round_trip_ms(preset, *ends)
        for _ in range(3):
            if with_delay - without > ADDED_RTT_MS + 0.8:
                with_delay = min(with_delay, round_trip_ms(preset, *ends))
        print(f"RTT {ends[0]} to {ends[1]}: {with_delay:.2f} ms with delay, {without:.2f} ms without")
        probe.assert_near("added RTT in ms", with_delay - without, ADDED_RTT_MS, 1.0)


def put_meter(inventory: dict[str, Any], name: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Set a meter through the published REST of the controller, or delete it (None)."""
    published = next(item for item in inventory["published"] if item["node"] is None)
    address = f"http://{published['host']}:{published['host_port']}/v1/meters/{name}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, method="DELETE" if body is None else "PUT")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(json.loads(answer.read() or b"{}"))


def rate_bps(inventory: dict[str, Any], source: str, sink: str, *, offered_bps: float, after_s: float) -> float:
    """What arrives of a steady stream of full frames, in three seconds that begin when a burst is spent."""
    count = round(offered_bps * (after_s + 3.5) / 8 / 1514)
    train = probe.train(inventory, source, sink, count, frame_bytes=1514, interval_s=1514 * 8 / offered_bps)
    assert train.sending_s < after_s + 6, f"{count} frames took {train.sending_s:.1f} s: this machine is too busy"
    return train.frames_per_s(after_s, after_s + 3) * 1514 * 8


def test_a_meter_of_the_controller_holds_in_the_kernel(preset: dict[str, Any]) -> None:
    target = {"kind": "cohort", "name": "1"}
    view = put_meter(preset, "first", {"target": target, "direction": "up", "rate": "5 Mbit/s"})
    try:
        assert view["in_force"] == "drop" and view["problem"] is None, view
        measured = rate_bps(preset, "fc.10", "fed.1", offered_bps=9e6, after_s=2.5)
        rundir = Path(preset["core"]["ovs_rundir"])
        pid = (rundir / "ovs-vswitchd.pid").read_text().strip()
        command = ["ovs-appctl", "-t", f"{rundir}/ovs-vswitchd.{pid}.ctl", "dpctl/dump-flows"]
        flows = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        assert "meter(" in flows, flows  # in the kernel's own flows
    finally:
        put_meter(preset, "first", None)
    probe.assert_near("Mbit/s with a meter", measured / 1e6, 5, 0.15)
    free = rate_bps(preset, "fc.10", "fed.1", offered_bps=9e6, after_s=0.2)
    print(f"{free / 1e6:.2f} Mbit/s after it is gone")
    assert free >= 5.5e6  # the guest is slow: what counts is that the meter is gone


def test_a_queued_limit_on_the_satellite_port_keeps_its_delay(preset: dict[str, Any]) -> None:
    """The tree of queues that replaces the port's own shaping has netem in its leaves."""
    before = round_trip_ms(preset, "fc.10", "fed.1")
    port = next(port["number"] for switch in preset["switches"] if switch["name"] == "satsw11"
                for port in switch["ports"] if port["peer"] == "aggsw10")  # fmt: skip
    target = {"kind": "port", "switch": "satsw11", "port": port}
    view = put_meter(preset, "sat", {"target": target, "direction": "up", "rate": "5 Mbit/s", "enforce": "queue"})
    try:
        assert view["in_force"] == "queue" and view["problem"] is None, view
        probe.assert_near("RTT in ms", round_trip_ms(preset, "fc.10", "fed.1"), before, 1.0)
        measured = rate_bps(preset, "fc.10", "fed.1", offered_bps=9e6, after_s=2.5)
        probe.assert_near("Mbit/s", measured / 1e6, 5, 0.15)
    finally:
        put_meter(preset, "sat", None)
    probe.assert_near("RTT in ms after the limit is gone", round_trip_ms(preset, "fc.10", "fed.1"), before, 1.0)


def test_limits_hold_in_cgroups_of_version_2(preset: dict[str, Any]) -> None:
    assert lab.version() == 2
    assert lab.group_value(preset, "slow", "cpu.max") == "20000 100000"
    assert lab.group_value(preset, "slow", "memory.max") == str(64 * 2**20)
    assert lab.group_value(preset, "slow", "cpuset.cpus.effective") == "0"
    folder = Path(next(node["cgroups"][0] for node in preset["nodes"] if node["name"] == "slow"))

    def used_us() -> int:
        return int(re.search(r"usage_usec (\d+)", (folder / "cpu.stat").read_text()).group(1))  # type: ignore[union-attr]

    start, before = time.monotonic(), used_us()
    execution.execute(preset, "slow", ["timeout", "4", "sh", "-c", "while :; do :; done"], timeout_s=60)
    share = (used_us() - before) / 1e6 / (time.monotonic() - start)
    print(f"a busy loop got {share:.3f} of a core, limit 0.2, allowed up to 0.23")
    assert 0.05 < share <= 0.23
    assert "Cpus_allowed_list:\t0\n" in lab.run(preset, "slow", "cat", "/proc/self/status")
    hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]
    assert execution.execute(preset, "slow", hungry, timeout_s=60).returncode == -signal.SIGKILL
    assert "oom_kill 1" in lab.group_value(preset, "slow", "memory.events")


def test_after_kill_9_of_its_daemons_nothing_of_a_testbed_is_left() -> None:
    plan = lab.star("t-kernel-killed", {"a": "10 Mbit/s", "b": None})
    inventory = engine.raise_testbed(plan)
    try:
        for daemon in ("ovs-vswitchd", "ovsdb-server"):
            os.kill(int(Path(inventory["core"]["ovs_rundir"], f"{daemon}.pid").read_text()), signal.SIGKILL)
    finally:
        result = engine.remove_testbed(plan.testbed)
    assert result.left == ()
    assert wait_for_none(plan.testbed) == []
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, timeout=30, check=True).stdout
    # A datapath is its namespace's own: the guest's first namespace has never seen one.
    assert "ovs-system" not in links
    assert not Path("/run/netns", plan.core_namespace).exists()
