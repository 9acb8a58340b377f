"""Each property of a link, declared alone, against what a train of packets through it measures. Kernel datapath, no
controller.
"""

from __future__ import annotations

import math
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.inside import declared, probe
from tests.kernel.inside.conftest import LINKS
from tests.topology.controller import tcp_flows
from topology.engine import namespaces, shaping
from topology.plan import Shape

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
    wrong, compared = declared.differences(star)
    assert wrong == [] and compared == 7 * 2 * (len(LINKS) + 1)


def test_delay(star: dict[str, Any]) -> None:
    without = probe.train(star, "plain", "sink", 300, interval_s=0.002)
    delayed = probe.train(star, "delayed", "sink", 300, interval_s=0.002)
    assert without.lost == delayed.lost == 0
    probe.assert_near("delay in ms", (delayed.least_s - without.least_s) * 1e3, 20, 0.5)
    back = probe.train(star, "sink", "delayed", 100, interval_s=0.002)
    probe.assert_near("the other direction's delay in ms", (back.least_s - without.least_s) * 1e3, 0, 0.5)


def test_jitter_is_spread_evenly_around_the_delay(star: dict[str, Any]) -> None:
    steady = probe.train(star, "delayed", "sink", 600, interval_s=0.001)
    train = probe.train(star, "jittery", "sink", 1200, interval_s=0.001)
    assert train.lost == 0
    # A machine that is busy for a moment disturbs a few chunks of the train, and not their median; what its timers are
    # late by is seen at the link that only delays.
    mean, deviation = _chunk_figures(train)
    late, spread = _chunk_figures(steady)
    probe.assert_near("mean delay in ms", mean - (late - 20), 30, 0.7)
    # Uniform within +-5 ms: the standard deviation is 5 over the square root of three.
    probe.assert_near("deviation in ms", math.sqrt(max(0.0, deviation**2 - spread**2)), 2.89, 0.4)
    least = min(train.delays_s.values()) * 1e3
    print(f"least {least:.1f} ms")
    assert 25 <= least <= 26.5


def _chunk_figures(train: probe.Train) -> tuple[float, float]:
    """The medians of mean and deviation of sixty packets in a row, in milliseconds."""
    chunks = [[delay * 1e3 for delay in chunk] for chunk in train.chunks_s(60)]
    return statistics.median(map(statistics.fmean, chunks)), statistics.median(map(statistics.stdev, chunks))


@pytest.mark.parametrize(("node", "share"), [("plain", 0.0), ("lossy1", 0.01), ("lossy3", 0.03)])
def test_loss(star: dict[str, Any], node: str, share: float) -> None:
    train = probe.train(star, node, "sink", 15_000 if share else 5_000)
    assert train.extra == train.altered == 0
    probe.assert_share("lost", train.lost, train.sent, share)
    if share:
        back = probe.train(star, "sink", node, 1_000)
        assert back.lost == 0, "loss is declared for one direction"


def test_duplicate(star: dict[str, Any]) -> None:
    train = probe.train(star, "doubling", "sink", 6_000)
    assert train.lost == train.altered == 0
    probe.assert_share("doubled", train.extra, train.sent, 0.02)


def test_corrupt(star: dict[str, Any]) -> None:
    frame = 1000
    train = probe.train(star, "corrupting", "sink", 5_000, frame_bytes=frame)
    # One bit of one byte is turned over: the packet arrives altered, or is dropped where its headers no longer fit. The
    # sender's MAC and port (eight bytes) are looked at by nobody.
    probe.assert_share("altered", train.lost, train.sent, 0.05 * (1 - 8 / frame))
    assert train.altered >= 0.8 * train.lost


def test_reorder(star: dict[str, Any]) -> None:
    without = probe.train(star, "plain", "sink", 100, interval_s=0.002)
    train = probe.train(star, "reordering", "sink", 2_000, interval_s=0.001)
    assert train.lost == 0
    delays = [(delay - without.least_s) * 1e3 for delay in train.delays_s.values()]
    early = sum(delay < 15 for delay in delays)
    probe.assert_share("sent ahead", early, train.sent, 0.25)
    others = statistics.quantiles((delay for delay in delays if delay >= 15), n=20)[0]
    probe.assert_near("delay of the others in ms", others, 20, 0.5)


def test_a_change_takes_back_what_was_declared_before(star: dict[str, Any]) -> None:
    """Netem keeps what a change does not mention: the corruption must be mentioned."""
    place = next(item for item in declared.places(star) if item[0].endswith("from corrupting"))
    before, after = Shape(**place[3]), Shape(loss=0.02)
    node = namespaces.of_process(next(node["pid"] for node in star["nodes"] if node["name"] == "corrupting"))
    shaping.apply(node, shaping.change_commands(place[2], before, after), "node 'corrupting'")
    try:
        train = probe.train(star, "corrupting", "sink", 3_000, frame_bytes=1000)
    finally:
        shaping.apply(node, shaping.change_commands(place[2], after, before), "node 'corrupting'")
    assert train.altered == 0
    probe.assert_share("lost", train.lost, train.sent, 0.02)
    assert declared.differences(star)[0] == []


def frames_allowed(rate_bps: float, queue: int, sending_s: float) -> tuple[int, int]:
    """How many full frames of a sudden train pass: those that wait, at least, and what leaves meanwhile (HTB lets ten
    milliseconds of the rate pass at once), at most.
    """
    return queue, queue + round(rate_bps * (sending_s + 0.02) / 8 / 1514) + 5


def test_a_queue_takes_what_it_is_declared_to_take(star: dict[str, Any]) -> None:
    for node, rate_bps in (("short", 10e6), ("far", 20e6)):
        train = probe.train(star, node, "sink", 400, frame_bytes=1514)
        passed, (least, most) = train.sent - train.lost, frames_allowed(rate_bps, 20, train.sending_s)
        print(f"{node}: {passed} of {train.sent} in {train.sending_s * 1e3:.0f} ms passed, allowed {least} to {most}")
        assert least <= passed <= most


def test_a_delay_takes_no_place_in_the_queue(star: dict[str, Any]) -> None:
    """82 frames are on their way at 20 Mbit/s and 50 ms: a queue of 20 is for those that wait."""
    train = probe.train(star, "far", "sink", 1_200, frame_bytes=1514, interval_s=1514 * 8 / 15e6)
    # A sender that oversleeps sends bursts, of which a short queue may lose some. With the delay's frames in it, the
    # queue would pass 5 Mbit/s, and two thirds were lost.
    print(f"15 of 20 Mbit/s: {train.lost} of {train.sent} lost")
    assert train.lost <= 0.2 * train.sent


def test_a_queue_after_a_delay_is_as_long_as_one_without(star: dict[str, Any]) -> None:
    """Under load a packet waits 100 ms at most, also where offloading hands the queue many frames as one packet."""
    nodes = {node["name"]: node for node in star["nodes"]}
    ends = [namespaces.of_process(nodes[name]["pid"]) for name in ("deep", "sink")]
    for _ in range(3):  # a busy host may not fill the queue at the first look
        with tcp_flows.flows([(ends[0], ends[1], nodes["sink"]["address"])]) as flows:
            rate = tcp_flows.rates(flows, 2.0, after=1.5)[0]
            train = probe.train(star, "deep", "sink", 200, interval_s=0.01)
        slow = statistics.quantiles(train.delays_s.values(), n=20)[-1] * 1e3
        print(f"TCP {rate / 1e6:.1f} Mbit/s; 95 % of probes took {slow:.0f} ms at most, {train.lost} lost")
        assert slow <= 10 + 100 + 40
        if slow >= 50:
            return
    assert rate < 0.95 * 50e6 * 1448 / 1514, "TCP fills the link, and nothing waits: the queue is too short"
