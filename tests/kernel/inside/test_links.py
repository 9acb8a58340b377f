"""Each property of a link, declared alone, against what a train of packets through it measures. Kernel datapath, no
controller.
"""

from __future__ import annotations

import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.inside import declared, probe
from tests.kernel.inside.conftest import LINKS
from tests.topology.controller import tcp_flows
from topology.engine import namespaces

pytestmark = pytest.mark.live


def test_switches_are_in_the_kernel(star: dict[str, Any]) -> None:
    assert star["core"]["datapath"] == "system" and star["unsupported"] == []
    rundir = star["core"]["ovs_rundir"]
    database = f"--db=unix:{rundir}/db.sock"
    done = subprocess.run(["ovs-vsctl", database, "get", "bridge", "s1", "datapath_type"], capture_output=True,
                          text=True, timeout=30, check=True)  # fmt: skip
    assert done.stdout.strip() == "system"
    probe.train(star, "plain", "sink", 10)
    pid = Path(rundir, "ovs-vswitchd.pid").read_text().strip()
    command = ["ovs-appctl", "-t", f"{rundir}/ovs-vswitchd.{pid}.ctl", "dpctl/dump-flows"]
    flows = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "eth_type(0x0800)" in flows, flows  # the kernel has flows: packets do not pass user space


def test_tc_reports_what_the_plan_declares(star: dict[str, Any]) -> None:
    compared = 0
    for what, namespace, interface, shape in declared.places(star):
        said = declared.reported(namespace, interface)
        for key, value in said.items():
            assert value == pytest.approx(shape[key], rel=1e-3), f"{what}: {key} is {value}, declared {shape[key]}"
            compared += 1
    assert compared == 7 * 2 * (len(LINKS) + 1)


def test_delay(star: dict[str, Any]) -> None:
    without = probe.train(star, "plain", "sink", 300, interval_s=0.002)
    delayed = probe.train(star, "delayed", "sink", 300, interval_s=0.002)
    assert without.lost == delayed.lost == 0
    probe.assert_near("delay in ms", (delayed.median_s - without.median_s) * 1e3, 20, 0.5)
    back = probe.train(star, "sink", "delayed", 100, interval_s=0.002)
    probe.assert_near("the other direction's delay in ms", (back.median_s - without.median_s) * 1e3, 0, 0.5)


def test_jitter_is_spread_evenly_around_the_delay(star: dict[str, Any]) -> None:
    without = probe.train(star, "plain", "sink", 200, interval_s=0.002)
    train = probe.train(star, "jittery", "sink", 1500, interval_s=0.001)
    assert train.lost == 0
    delays = sorted((delay - without.median_s) * 1e3 for delay in train.delays_s.values())
    probe.assert_near("mean delay in ms", statistics.fmean(delays), 30, 0.6)
    # Uniform within +-5 ms: its standard deviation is 5 over the square root of three.
    probe.assert_near("deviation in ms", statistics.stdev(delays), 2.89, 0.4)
    within = sum(24.5 <= delay <= 36 for delay in delays)
    print(f"between {delays[0]:.1f} and {delays[-1]:.1f} ms, {within / len(delays):.1%} within 25 to 35")
    assert within >= 0.98 * len(delays)


@pytest.mark.parametrize(("node", "share"), [("plain", 0.0), ("lossy1", 0.01), ("lossy3", 0.03)])
def test_loss(star: dict[str, Any], node: str, share: float) -> None:
    train = probe.train(star, node, "sink", 20_000)
    assert train.extra == train.altered == 0
    probe.assert_share("lost", train.lost, train.sent, share)
    if share:
        back = probe.train(star, "sink", node, 2_000)
        assert back.lost == 0, "loss is declared for one direction"


def test_duplicate(star: dict[str, Any]) -> None:
    train = probe.train(star, "doubling", "sink", 10_000)
    assert train.lost == train.altered == 0
    probe.assert_share("doubled", train.extra, train.sent, 0.02)


def test_corrupt(star: dict[str, Any]) -> None:
    frame = 1000
    train = probe.train(star, "corrupting", "sink", 6_000, frame_bytes=frame)
    # One bit of one byte is turned over. Nobody looks at the sender's MAC, IP's identification does not pass its
    # checksum, UDP's ports and length do not match: lost or altered is all but the six bytes of that MAC.
    probe.assert_share("altered or lost", train.altered + train.lost, train.sent, 0.05 * (1 - 6 / frame))
    assert train.altered > 0.8 * train.lost


def test_reorder(star: dict[str, Any]) -> None:
    without = probe.train(star, "plain", "sink", 200, interval_s=0.002)
    train = probe.train(star, "reordering", "sink", 2_000, interval_s=0.001)
    assert train.lost == 0
    delays = [(delay - without.median_s) * 1e3 for delay in train.delays_s.values()]
    early = sum(delay < 10 for delay in delays)
    probe.assert_share("sent ahead", early, train.sent, 0.25)
    probe.assert_near("delay of the others in ms", statistics.median(d for d in delays if d >= 10), 20, 0.5)


def test_a_queue_takes_what_it_is_declared_to_take(star: dict[str, Any]) -> None:
    train = probe.train(star, "short", "sink", 200, frame_bytes=1514)
    # Twenty wait; HTB lets ten milliseconds of the rate pass at once, and some leave while the train is being sent.
    passed = train.sent - train.lost
    print(f"queue of 20 at 10 Mbit/s: {passed} of {train.sent} passed")
    assert 20 <= passed <= 20 + 8 + 25


def test_a_delay_takes_no_place_in_the_queue(star: dict[str, Any]) -> None:
    """82 frames are on their way at 20 Mbit/s and 50 ms: a queue of 20 is for those that wait."""
    steady = probe.train(star, "far", "sink", 1_500, frame_bytes=1514, interval_s=1514 * 8 / 18e6)
    print(f"18 of 20 Mbit/s: {steady.lost} of {steady.sent} lost")
    assert steady.lost <= 0.01 * steady.sent
    burst = probe.train(star, "far", "sink", 400, frame_bytes=1514)
    passed = burst.sent - burst.lost
    print(f"burst of 400: {passed} passed")
    assert 20 <= passed <= 20 + 17 + 60


def test_a_queue_after_a_delay_is_as_long_as_one_without(star: dict[str, Any]) -> None:
    """Under load a packet waits 100 ms at most, also where offloading hands the queue many frames as one packet."""
    nodes = {node["name"]: node for node in star["nodes"]}
    ends = [namespaces.of_process(nodes[name]["pid"]) for name in ("deep", "sink")]
    with tcp_flows.flows([(ends[0], ends[1], nodes["sink"]["address"])]) as flows:
        rate = tcp_flows.rates(flows, 2.0, after=1.5)[0]
        train = probe.train(star, "deep", "sink", 200, interval_s=0.01)
    slowest = max(train.delays_s.values()) * 1e3
    print(f"TCP {rate / 1e6:.1f} Mbit/s; probes took up to {slowest:.0f} ms, {train.lost} lost")
    assert rate >= 0.9 * 50e6 * tcp_flows.GOODPUT_SHARE
    assert slowest <= 10 + 100 + 15
