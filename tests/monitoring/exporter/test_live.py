"""The sampler against the kernel's own tools, in the same namespaces; and what becomes of series whose subject is gone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.exporter.sampler import Sampler
from tests.monitoring.exporter.conftest import NAME, Bed, one, series

pytestmark = pytest.mark.live
BURN = """
import time
block = bytearray(40_000_000)
while time.process_time() < 0.2: pass
print(time.process_time(), flush=True)
input()
"""


def until(true: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def transfer(bed: Bed, octets: int = 400_000) -> None:
    near, far = bed.connect("fc.1", "fed.1", 6000)
    near.sendall(bytes(octets))
    received = 0
    while received < octets:
        received += len(far.recv(1 << 16))


def test_interfaces_and_queues_are_those_of_ip_and_tc(bed: Bed, sampler: Sampler) -> None:
    transfer(bed)
    until(lambda: one(sampler.collect(), "cohortnet_qdisc_backlog_bytes", link="fc.1--s1", direction="a_to_b",
                      kind="htb") == 0, "the queue runs empty")  # fmt: skip
    for _ in range(5):  # a broadcast in between changes a counter: then once more
        samples = sampler.collect()
        ip = {name: json.loads(bed.tool(name, "ip", "-s", "-s", "-j", "link", "show", "dev", "eth0"))[0]["stats64"]
              for name in ("fc.1", "fed.1")}  # fmt: skip
        tc = json.loads(bed.tool("fc.1", "tc", "-s", "-j", "qdisc", "show", "dev", "eth0"))
        back = json.loads(bed.tool("core", "tc", "-s", "-j", "qdisc", "show", "dev", "s1-eth1"))
        again = sampler.collect()
        ways = ("node_network_receive_bytes_total", "node_network_transmit_bytes_total", "cohortnet_qdisc_bytes_total")
        if all(series(again, name) == series(samples, name) for name in ways):
            break
    for name, stats in ip.items():
        for way, short in (("receive", "rx"), ("transmit", "tx")):
            for ours, theirs in (("bytes", "bytes"), ("packets", "packets"), ("errs", "errors"), ("drop", "dropped")):
                found = one(samples, f"node_network_{way}_{ours}_total", node=name, device=f"{name}-eth0")
                assert found == stats[short][theirs], f"{name} {way} {ours}"
    assert one(samples, "node_network_transmit_bytes_total", node="fc.1") > 400_000
    for direction, lines in (("a_to_b", tc), ("b_to_a", back)):
        shaped = [line for line in lines if line["kind"] != "noqueue"]
        assert {line["kind"] for line in shaped} == {"htb", "bfifo"}
        for line in shaped:
            own = {"link": "fc.1--s1", "direction": direction, "kind": line["kind"], "handle": line["handle"]}
            for ours, theirs in (("bytes_total", "bytes"), ("drops_total", "drops"), ("overlimits_total", "overlimits"),
                                 ("backlog_bytes", "backlog"), ("backlog_packets", "qlen")):  # fmt: skip
                assert one(samples, f"cohortnet_qdisc_{ours}", **own) == line[theirs], f"{own} {ours}"
    root = next(line for line in tc if line["kind"] == "htb")
    assert one(samples, "cohortnet_link_bytes_total", link="fc.1--s1", direction="a_to_b") == root["bytes"]
    assert one(samples, "cohortnet_link_packets_total", link="fc.1--s1", direction="a_to_b") == root["packets"]
    assert one(samples, "cohortnet_link_rate_bits_per_second", link="fed.1--s1", direction="b_to_a") == 50e6
    assert series(samples, "cohortnet_link_rate_bits_per_second", link="prom.0--s1") == {}
    assert series(samples, "cohortnet_qdisc_drops_total", link="prom.0--s1") == {}
    unshaped = json.loads(bed.tool("core", "ip", "-s", "-j", "link", "show", "dev", "s1-eth3"))[0]["stats64"]["tx"]
    assert one(sampler.collect(), "cohortnet_link_bytes_total", link="prom.0--s1",
               direction="b_to_a") >= unshaped["bytes"] > 0  # fmt: skip


def test_tcp_flows_are_those_of_ss(bed: Bed, sampler: Sampler) -> None:
    near, far = bed.connect("fc.1", "fed.1", 6000)
    near.sendall(bytes(200_000))
    received = 0
    while received < 200_000:
        received += len(far.recv(1 << 16))
    other, _ = bed.connect("fed.1", "fc.1", 40_001)
    time.sleep(0.3)  # the last acknowledgements
    samples = sampler.collect()
    line = bed.tool("fc.1", "ss", "-tinH", "dport", "=", "6000").split("\n", 1)[1]
    local = "{}:{}".format(*near.getsockname())
    remote = f"{bed.node('fed.1')['address']}:6000"
    own = {"node": "fc.1", "local": local, "remote": remote, "peer": "fed.1", "flow": "fl"}
    rtt, rttvar = map(float, re.search(r" rtt:([\d.]+)/([\d.]+)", line).groups())  # type: ignore[union-attr]
    found = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)\b", line)}
    assert one(samples, "tcp_rtt", **own) == pytest.approx(rtt, abs=0.001)
    assert one(samples, "tcp_rttvar", **own) == pytest.approx(rttvar, abs=0.001)
    assert one(samples, "tcp_cwnd", **own) == found["cwnd"]
    assert one(samples, "tcp_bytes_sent_total", **own) == found["bytes_sent"] >= 200_000
    assert one(samples, "tcp_bytes_received_total", node="fed.1", flow="fl") == 200_000
    assert one(samples, "tcp_retransmits_total", **own) == int((re.search(r"retrans:\d+/(\d+)", line) or [0, 0])[1])
    rate = re.search(r"delivery_rate (\d+)bps", line)
    assert rate and one(samples, "tcp_delivery_rate", **own) == pytest.approx(int(rate[1]), abs=8)
    assert one(samples, "tcp_rtt", node="fed.1", flow="other", peer="fc.1") > 0
    assert len(series(samples, "tcp_rtt")) == 4
    near.close()
    other.close()
    gone = sampler.collect()
    assert series(gone, "tcp_rtt", node="fc.1", flow="fl") == {}, "a flow that ended is still told of"


def test_round_trips_are_observed_once_a_flow_and_collection(bed: Bed, sampler: Sampler) -> None:
    bed.connect("fc.1", "fed.1", 6000)

    def counts() -> dict[str, float]:
        for metric in text_string_to_metric_families(sampler.text().decode()):
            if metric.name == "tcprtt":
                return {sample.name + sample.labels.get("le", ""): sample.value for sample in metric.samples
                        if sample.labels["cohort"] == "1"}  # fmt: skip
        return {}

    first = counts()
    assert first["tcprtt_count"] == first["tcprtt_bucket+Inf"] == 2  # a flow has a socket at either end
    sampler.text(node="fc.1")  # a look at one node is no collection
    second = counts()
    assert second["tcprtt_count"] == 4
    buckets = [value for name, value in second.items() if name.startswith("tcprtt_bucket")]
    assert buckets == sorted(buckets)


def test_processor_and_memory_are_those_of_the_node(bed: Bed, sampler: Sampler) -> None:
    node = bed.node("fc.1")
    groups = [os.open(f"{folder}/cgroup.procs", os.O_WRONLY) for folder in node["cgroups"]]

    def join() -> None:
        for fd in groups:
            os.write(fd, b"0")

    before = sampler.collect()
    process = subprocess.Popen([sys.executable, "-S", "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, preexec_fn=join)  # fmt: skip
    try:
        assert process.stdout is not None
        used_s = float(process.stdout.readline())
        after = sampler.collect()
    finally:
        process.communicate("\n", timeout=10)
        for fd in groups:
            os.close(fd)

    def grew(name: str) -> float:
        return one(after, name, node="fc.1") - one(before, name, node="fc.1")

    assert grew("container_cpu_usage_seconds_total") == pytest.approx(used_s, abs=0.15)
    assert one(after, "container_spec_cpu_limit_cores", node="fc.1") == 0.1
    # A machine that is busy otherwise gives the node less than its limit, so only that it was held back is sure.
    assert grew("container_cpu_cfs_periods_total") >= grew("container_cpu_cfs_throttled_periods_total") >= 1
    assert grew("container_cpu_cfs_throttled_seconds_total") > 0.01
    assert grew("container_memory_rss_bytes") > 38e6
    assert grew("container_memory_usage_bytes") > 38e6
    assert one(after, "container_spec_memory_limit_bytes", node="fc.1") == 256 * 2**20
    assert grew("container_processes") == 1
    assert one(after, "container_oom_kills_total", node="fc.1") == 0
    assert series(after, "container_cpu_cfs_periods_total", node="fed.1") == {}  # it has no limit
    assert series(after, "container_spec_memory_limit_bytes", node="fed.1") == {}


def test_a_link_that_goes_down_or_changes_its_rate_is_noticed(bed: Bed, sampler: Sampler) -> None:
    samples = sampler.collect()
    assert one(samples, "cohortnet_link_up", link="prom.0--s1") == 1
    assert series(samples, "cohortnet_link_changed_timestamp_seconds") == {}
    bed.open.callback(bed.tool, "core", "ip", "link", "set", "dev", "s1-eth3", "up")
    bed.tool("core", "ip", "link", "set", "dev", "s1-eth3", "down")
    start = time.time()
    samples = sampler.collect()
    assert one(samples, "cohortnet_link_up", link="prom.0--s1") == 0
    assert start <= one(samples, "cohortnet_link_changed_timestamp_seconds", link="prom.0--s1") <= time.time()
    bed.tool("core", "ip", "link", "set", "dev", "s1-eth3", "up")
    until(lambda: one(sampler.collect(), "cohortnet_link_up", link="prom.0--s1") == 1, "the link comes up")
    for place, interface, rate in (("core", "s1-eth1", "10mbit"), ("fed.1", "eth0", "30mbit")):
        link = "fc.1--s1" if place == "core" else "fed.1--s1"
        before = "20mbit" if place == "core" else "50mbit"
        assert series(sampler.collect(), "cohortnet_link_changed_timestamp_seconds", link=link) == {}
        change = ("tc", "class", "replace", "dev", interface, "parent", "1:", "classid", "1:1", "htb", "rate")
        bed.open.callback(bed.tool, place, *change, before)
        bed.tool(place, *change, rate)
        start = time.time()
        samples = sampler.collect()
        assert one(samples, "cohortnet_link_changed_timestamp_seconds", link=link) >= start


def test_without_our_controller_switches_are_read_as_ovs_ofctl_does(bed: Bed, sampler: Sampler) -> None:
    rundir = bed.inventory["core"]["ovs_rundir"]

    def ofctl(command: str, *arguments: str) -> str:
        return subprocess.run(
            ["ovs-ofctl", "-O", "OpenFlow13", command, f"unix:{rundir}/s1.mgmt", *arguments], check=True, timeout=20,
            capture_output=True, text=True, env={**os.environ, "OVS_RUNDIR": rundir},
        ).stdout  # fmt: skip

    ofctl("add-meter", "meter=7,kbps,burst,stats,band=type=drop,rate=3000,burst_size=300")
    bed.open.callback(ofctl, "del-meter", "meter=7")
    ofctl("add-flow", "table=3,priority=5,in_port=1,actions=drop")
    bed.open.callback(ofctl, "del-flows", "table=3")
    samples = sampler.collect()
    assert one(samples, "cohortnet_switch_flows", switch="s1", table="3") == 1
    assert one(samples, "cohortnet_switch_flows", switch="s1", table="0") == len(
        [line for line in ofctl("dump-flows").splitlines() if "table=0" in line]
    )
    assert one(samples, "cohortnet_meter_rate", meter="s1.7", unit="bit/s", target="s1") == 3e6
    assert one(samples, "cohortnet_meter_bytes_total", switch="s1", meter_id="7") == 0
    assert one(samples, "cohortnet_meter_band_drop_packets_total", meter_id="7", band="0") == 0
    text = ofctl("dump-ports", "1")
    received = int(re.search(r"rx pkts=(\d+)", text)[1])  # type: ignore[index]
    assert one(samples, "cohortnet_switch_port_receive_packets_total", port="s1-eth1", peer="fc.1") == received


def test_a_node_that_goes_takes_its_series_with_it(bed: Bed, sampler: Sampler) -> None:
    near, _ = bed.connect("gone.1", "fed.1", 6000)
    before = sampler.collect()
    assert one(before, "node_up", node="gone.1") == 1 and series(before, "tcp_rtt", node="gone.1")
    near.close()
    os.kill(bed.node("gone.1")["pid"], signal.SIGKILL)
    until(lambda: one(sampler.collect(), "node_up", node="gone.1") == 0, "the node is gone")
    after = sampler.collect()
    told = {family.name for family, rows in after.values.items() for labels, _ in rows
            if dict(zip(family.labels, labels.values, strict=True)).get("node") == "gone.1"}  # fmt: skip
    assert told == {"node_up", "cohortnet_node_info"}
    # Its namespace must be free to go: were a socket kept open there, the link's other end would stay.
    until(lambda: "s1-eth4" not in bed.tool("core", "ip", "-o", "link"), "the node's interfaces are gone")
    down = sampler.collect()
    assert one(down, "cohortnet_link_up", link="gone.1--s1") == 0
    assert series(down, "cohortnet_link_bytes_total", link="gone.1--s1") == {}
    shorter = {**bed.inventory, "nodes": [node for node in bed.inventory["nodes"] if node["name"] != "gone.1"]}
    fresh = bed.path.with_suffix(".new")
    fresh.write_text(json.dumps(shorter))
    fresh.replace(bed.path)
    text = sampler.text()
    assert b'node="gone.1"' not in text and b'node="fc.1"' in text
    with pytest.raises(KeyError):
        sampler.text(node="gone.1")
    bed.path.unlink()
    assert sampler.text() == b"" and sampler.errors["inventory"] == 1
    assert sampler.lives == {}


def test_one_answer_holds_all_of_the_testbed(bed: Bed, sampler: Sampler) -> None:
    metrics = {metric.name: metric for metric in text_string_to_metric_families(sampler.text().decode())}
    keys = [(sample.name, tuple(sorted(sample.labels.items()))) for metric in metrics.values()
            for sample in metric.samples]  # fmt: skip
    assert len(keys) == len(set(keys)), "a series is told twice"
    assert {sample.labels["testbed"] for metric in metrics.values() for sample in metric.samples} == {NAME}
    assert metrics["cohortnet_exporter_series"].samples[0].value > 100
    assert metrics["cohortnet_testbed_info"].samples[0].labels["controller"] == "none"
    assert all(sample.value == 0 for sample in metrics["cohortnet_exporter_errors"].samples)
