"""Meters in real switches: an Open vSwitch of its own, TCP and UDP through it, the controller as a process."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.topology.controller.lab import Lab, command, until
from tests.topology.controller.meterworld import two_cohorts
from topology.controller.flows import TABLE_COHORT_UP, meter_cookie
from topology.model import parse_testbed
from topology.planning import make_plan

pytestmark = pytest.mark.live

COHORT = {"kind": "cohort", "name": "1"}
RECEIVER = """
import socket, sys, threading, time
# Counts what arrives at a TCP port: total bytes at the moments asked for, in seconds from the first connection.
port, moments = int(sys.argv[1]), [float(text) for text in sys.argv[2:]]
listener = socket.create_server(("", port), backlog=32)
print("ready", flush=True)
count, started, lock = 0, threading.Event(), threading.Lock()
def take(peer):
    global count
    while True:
        data = peer.recv(65536)
        if not data:
            return
        with lock:
            count += len(data)
def accept():
    while True:
        peer, _ = listener.accept()
        started.set()
        threading.Thread(target=take, args=(peer,), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
assert started.wait(20)
begun, found = time.monotonic(), []
for moment in moments:
    time.sleep(max(0, begun + moment - time.monotonic()))
    found.append((time.monotonic() - begun, count))
for at, total in found:
    print(at, total, flush=True)
"""
SENDER = """
import socket, sys, time
peer = socket.socket()
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
peer.settimeout(20)
peer.connect((sys.argv[1], int(sys.argv[2])))
end, block = time.monotonic() + float(sys.argv[3]), bytes(65536)
try:
    while time.monotonic() < end:
        peer.sendall(block)
except OSError:
    pass
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three switches in a line with two cohorts. TCP is cubic in every sender, whatever the machine's default is."""
    with Lab(two_cohorts("t-core-meters"), tso=True) as made:
        made.start_controller(audit_s=2)
        yield made


@pytest.fixture(autouse=True)
def no_meters(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "lab" in request.fixturenames:
        made = request.getfixturevalue("lab")
        assert made.curl("/v1/meters", "-X", "DELETE")[0] == 204, made.log()[-3000:]
        assert all(meters(made, switch.bridge) == {} for switch in made.plan.switches)


def call(lab: Lab, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    options = ["-X", method]
    if body is not None:
        file = lab.folder / "body.json"
        file.write_text(json.dumps(body))
        options += ["--data-binary", f"@{file}"]
    return lab.curl(f"/v1/meters{path}", *options)


def put(lab: Lab, name: str, target: dict[str, Any], rate: str, **more: Any) -> dict[str, Any]:
    status, view = call(lab, "PUT", f"/{name}", {"target": target, "rate": rate, **more})
    assert status in (200, 201), (status, view)
    assert isinstance(view, dict)
    return view


def show(lab: Lab, name: str) -> dict[str, Any]:
    status, view = call(lab, "GET", f"/{name}")
    assert status == 200, (status, view)
    assert isinstance(view, dict)
    return view


def flows(lab: Lab, bridge: str) -> list[str]:
    lines = lab.ofctl("dump-flows", bridge, "--no-stats").splitlines()
    return sorted(line.strip() for line in lines if "table=" in line or "priority=" in line)


def meters(lab: Lab, bridge: str) -> dict[int, tuple[int, int]]:
    """(rate, burst) in OpenFlow's units by meter id, as the switch dumps them itself."""
    text = lab.ofctl("dump-meters", bridge)
    found = re.findall(r"meter=(\d+).*?rate=(\d+) burst_size=(\d+)", text, re.DOTALL)
    return {int(number): (int(rate), int(burst)) for number, rate, burst in found}


def goodput(lab: Lab, pairs: list[tuple[str, str]], *, settle: float = 3, seconds: float = 4) -> list[float]:
    """Mbit/s of one TCP flow a pair, all at once, at the receivers' sockets, in a window after `settle` seconds."""
    receivers = []
    for number, (_, target) in enumerate(pairs):
        arguments = ["python3", "-c", RECEIVER, str(5200 + number), str(settle), str(settle + seconds)]
        process = subprocess.Popen(
            ["ip", "netns", "exec", lab.namespace(target), *arguments], stdout=subprocess.PIPE, text=True
        )
        lab.processes[f"receiver-{number}"] = process  # type: ignore[assignment]
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        receivers.append(process)
    with ThreadPoolExecutor(len(pairs)) as pool:
        for number, (source, target) in enumerate(pairs):
            address = lab.plan.node(target).address
            words = ["python3", "-c", SENDER, address, str(5200 + number), str(settle + seconds + 0.5)]
            pool.submit(lab.execute, source, *words, check=False, timeout=60)
        rates = []
        for number, process in enumerate(receivers):
            output, _ = process.communicate(timeout=settle + seconds + 30)
            (a, x), (b, y) = (map(float, line.split()) for line in output.splitlines())
            rates.append((y - x) * 8 / (b - a) / 1e6)
            del lab.processes[f"receiver-{number}"]
    return rates


def near(measured: float, expected: float, within: float = 0.05) -> None:
    # Goodput counts what the application gets; the meter counts whole Ethernet frames.
    assert (1 - within) * expected <= measured <= (1 + within) * expected, (
        f"expected {expected:g} Mbit/s within {within:.0%}, measured {measured:.2f}"
    )


def test_a_meter_is_set_changed_in_place_read_and_deleted_without_a_trace(lab: Lab) -> None:
    before = {s.bridge: flows(lab, s.bridge) for s in lab.plan.switches}
    body = {"target": COHORT, "direction": "both", "rate": "20 Mbit/s"}
    status, view = call(lab, "PUT", "/m1", body)
    assert status == 201 and (view["in_force"], view["pending"], view["problem"]) == ("drop", False, None)
    ids = {entry["direction"]: entry["meter_id"] for entry in view["entries"]}
    assert meters(lab, "s3") == dict.fromkeys(ids.values(), (20_000, 20_000)) and not meters(lab, "s1")
    assert lab.ping("c1", "fed.1", count=5)
    view = show(lab, "m1")
    up = view["entries"][0]
    assert (up["direction"], up["switch"], up["datapath_id"]) == ("up", "s3", 3)
    assert up["packets"] >= 5 and up["bytes"] >= 490 and up["duration_s"] > 0
    assert up["bands"] == [{"type": "drop", "rate": 20_000_000, "burst": 20_000_000, "packets": 0, "bytes": 0}]
    macs = {lab.plan.node(name).mac for name in ("c1", "c2", "c3")}
    assert {flow["match"]["eth_src"] for flow in up["flows"]} == macs

    def counted() -> dict[str, int]:
        return {flow["match"]["eth_src"]: flow["packets"] for flow in show(lab, "m1")["entries"][0]["flows"]}

    # Open vSwitch brings the counters of flows up to date about every half second.
    until("the flow counted its packets", lambda: counted()[lab.plan.node("c1").mac] >= 5, 3)
    assert counted()[lab.plan.node("c2").mac] == 0
    assert {flow["table"] for flow in up["flows"]} == {TABLE_COHORT_UP}

    status, again = call(lab, "PUT", "/m1", body)
    assert status == 200 and again["entries"][0]["packets"] >= up["packets"], "the same again is no news to the switch"
    status, changed = call(lab, "PUT", "/m1", {**body, "rate": "5 Mbit/s", "burst": "4 Mbit"})
    assert status == 200 and {e["direction"]: e["meter_id"] for e in changed["entries"]} == ids
    assert meters(lab, "s3") == dict.fromkeys(ids.values(), (5000, 4000))
    assert [m["name"] for m in call(lab, "GET", "")[1]["meters"]] == ["m1"]
    assert call(lab, "DELETE", "/m1")[0] == 204
    assert {s.bridge: flows(lab, s.bridge) for s in lab.plan.switches} == before and meters(lab, "s3") == {}
    assert call(lab, "GET", "/m1")[0] == 404 and call(lab, "DELETE", "/m1")[0] == 404


def test_refusals_name_what_is_wrong(lab: Lab) -> None:
    put(lab, "m1", COHORT, "20 Mbit/s", direction="up")
    good = {"target": {"kind": "client", "name": "c1"}, "rate": "1 Mbit/s"}
    cases: list[tuple[str, str, Any, int, list[tuple[str, str]]]] = [
        ("PUT", "/x", {**good, "target": {"kind": "cohort", "name": "9"}}, 404, [("target.name", "unknown-cohort")]),
        ("PUT", "/x", {**good, "target": COHORT}, 409, [("target", "limited-twice")]),
        ("PUT", "/x", {**good, "rate": "1", "burst": 3.5, "q": 1}, 400, [("q", "unknown-key"), ("rate", "bad-value")]),
        ("PUT", "/x", {**good, "burst": "100 kbit"}, 400, [("burst", "small-burst")]),
        ("PUT", "/x", [good], 400, [("", "bad-value")]),
        ("PUT", "/x?force=1", good, 400, [("force", "unknown-key")]),
        ("PUT", "?replace=maybe", {"meters": []}, 400, [("replace", "bad-value")]),
        ("PUT", "", {"meters": {}}, 400, [("meters", "bad-value")]),
        ("PUT", "", {"meters": [{**good, "name": "a"}, {**good, "name": "a"}, {"name": "b"}]}, 400,
         [("meters[1].name", "duplicate-name"), ("meters[2].target", "bad-value"), ("meters[2].rate", "bad-value")]),
        ("PUT", "", {"meters": [{**good, "name": "a"}, {**good, "name": "b"}]}, 409,
         [("meters[1].target", "limited-twice")]),
        ("GET", "/nothing", None, 404, [("nothing", "unknown-meter")]),
        ("POST", "/x", good, 405, [("/v1/meters/x", "method-not-allowed")]),
    ]  # fmt: skip
    for method, path, body, expected, problems in cases:
        status, answer = call(lab, method, path, body)
        found = [(error["path"], error["code"]) for error in answer["errors"]]
        assert (status, found) == (expected, problems), (path, body, answer)
    assert "m1" in call(lab, "PUT", "/x", {**good, "target": COHORT})[1]["errors"][0]["message"]
    assert lab.curl("/v1/meters/x", "-X", "PUT", "-d", "{")[1]["errors"][0]["code"] == "bad-json"
    assert [m["name"] for m in call(lab, "GET", "")[1]["meters"]] == ["m1"], "nothing of all that was set"


def test_the_cohorts_total_is_shared_over_switches_and_the_rate_is_reached(lab: Lab) -> None:
    """c1 is two switches away, c2 one. Cubic; after the burst of one second is spent; the median of three runs."""
    for direction, rate in (("up", 10), ("down", 20)):
        put(lab, "m1", COHORT, f"{rate} Mbit/s", direction=direction)
        pairs = [("c1", "fed.1"), ("c2", "fed.1")]
        if direction == "down":
            pairs = [(b, a) for a, b in pairs]
        totals = sorted(sum(goodput(lab, pairs)) for _ in range(3))
        print(f"cohort {direction} {rate} Mbit/s, two clients: {totals}")
        near(totals[1], rate)
        view = show(lab, "m1")["entries"][0]
        assert view["bands"][0]["packets"] > 0 and view["bytes"] > rate * 1e6
        assert call(lab, "DELETE", "/m1")[0] == 204
    put(lab, "m1", COHORT, "10 Mbit/s", direction="up")
    single = sorted(goodput(lab, [("c1", "fed.1")])[0] for _ in range(3))
    print(f"cohort up 10 Mbit/s, one client: {single}")
    near(single[1], 10)
    # What is not of the cohort is not limited, in the same direction and to the same server.
    assert goodput(lab, [("app", "fed.1")], settle=1, seconds=1)[0] > 40


def test_limits_nest(lab: Lab) -> None:
    put(lab, "all", COHORT, "20 Mbit/s", direction="up")
    put(lab, "one", {"kind": "client", "name": "c1"}, "5 Mbit/s", direction="up")
    rates = goodput(lab, [("c1", "fed.1"), ("c3", "fed.1")])
    print(f"client 5 in cohort 20: {rates}")
    assert rates[0] <= 5.25, f"expected at most 5 Mbit/s, measured {rates[0]:.2f}"
    near(sum(rates), 20)
    assert goodput(lab, [("c1", "fed.1")])[0] == pytest.approx(5, rel=0.05)


def test_a_change_under_traffic_takes_hold_in_place(lab: Lab) -> None:
    put(lab, "m1", COHORT, "4 Mbit/s", direction="up")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(goodput, lab, [("c2", "fed.1")], settle=7, seconds=4)
        time.sleep(3)
        assert call(lab, "PUT", "/m1", {"target": COHORT, "rate": "12 Mbit/s", "direction": "up"})[0] == 200
        near(running.result()[0], 12, 0.1)


def test_a_killed_controller_loses_no_packet_and_its_meters_go_on(lab: Lab) -> None:
    put(lab, "m1", COHORT, "10 Mbit/s", direction="up")
    put(lab, "m2", {"kind": "client", "name": "c4"}, "5 Mbit/s")
    before = {s.bridge: (flows(lab, s.bridge), meters(lab, s.bridge)) for s in lab.plan.switches}
    counted = show(lab, "m1")["entries"][0]
    ping = subprocess.Popen(
        ["ip", "netns", "exec", lab.namespace("c4"), "ping", "-i", "0.02", "-c", "300", lab.plan.node("fed.2").address],
        stdout=subprocess.PIPE,
        text=True,
    )
    lab.processes["ping"] = ping  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(goodput, lab, [("c1", "fed.1")], settle=3, seconds=4)
        time.sleep(1.5)
        lab.end("controller", kill=True)
        time.sleep(1)
        lab.start_controller(audit_s=2)
        rate = running.result()[0]
    output = ping.communicate(timeout=20)[0]
    del lab.processes["ping"]
    assert " 0% packet loss" in output, output[-300:]
    near(rate, 10)
    after = {s.bridge: (flows(lab, s.bridge), meters(lab, s.bridge)) for s in lab.plan.switches}
    assert after == before
    entry = show(lab, "m1")["entries"][0]
    assert entry["meter_id"] == counted["meter_id"] and entry["duration_s"] > counted["duration_s"] + 6
    log = lab.log().rsplit("INFO testbed", 1)[1]
    assert "changes" not in log, f"nothing had to be sent: {log}"


def test_a_restarted_vswitchd_has_its_meters_back_within_5_seconds(lab: Lab) -> None:
    put(lab, "m1", COHORT, "10 Mbit/s")
    put(lab, "m2", {"kind": "port", "switch": "s1", "port": 1}, "500 packet/s")
    before = {s.bridge: (flows(lab, s.bridge), meters(lab, s.bridge)) for s in lab.plan.switches}
    lab.end("vswitchd", kill=True)
    until("the meter is pending", lambda: show(lab, "m1")["pending"], 5)
    assert "not connected" in show(lab, "m1")["problem"]
    status, view = call(lab, "PUT", "/m3", {"target": {"kind": "client", "name": "c2"}, "rate": "1 Mbit/s"})
    assert status == 201 and view["pending"], "accepted while the switch is away"
    assert call(lab, "DELETE", "/m3")[0] == 204
    started = time.monotonic()
    lab.start_vswitchd()
    until("the meters are back", lambda: not any(show(lab, name)["pending"] for name in ("m1", "m2")), 5)
    print(f"meters back after {time.monotonic() - started:.2f} s")
    assert time.monotonic() - started < 5
    lab.wait_installed(5)
    assert {s.bridge: (flows(lab, s.bridge), meters(lab, s.bridge)) for s in lab.plan.switches} == before
    near(goodput(lab, [("c1", "fed.1")])[0], 10)


def test_leftovers_of_ours_go_those_of_strangers_stay_and_what_was_taken_comes_back(lab: Lab) -> None:
    put(lab, "m1", COHORT, "10 Mbit/s", direction="up")
    number = show(lab, "m1")["entries"][0]["meter_id"]
    before = flows(lab, "s3"), meters(lab, "s3")
    lab.end("controller")
    lab.ofctl("add-meter", "s3", "meter=777,kbps,burst,stats,band=type=drop,rate=1000,burst_size=1000")
    lab.ofctl("add-meter", "s3", "meter=100000,kbps,burst,stats,band=type=drop,rate=9000,burst_size=9000")
    left = f"table=2,priority=100,cookie={meter_cookie(777):#x},dl_src=02:00:00:00:00:77,actions=meter:777,goto_table:3"
    theirs = "table=0,priority=9,cookie=0x1234,in_port=1,actions=meter:100000,goto_table:1"
    lab.ofctl("add-flow", "s3", left)
    lab.ofctl("add-flow", "s3", theirs)
    lab.ofctl("mod-meter", "s3", f"meter={number},kbps,burst,stats,band=type=drop,rate=1,burst_size=1")
    lab.start_controller(audit_s=1)
    found_flows, found_meters = flows(lab, "s3"), meters(lab, "s3")
    assert [flow for flow in found_flows if flow not in before[0]] == [f for f in found_flows if "0x1234" in f]
    assert found_meters == {**before[1], 100_000: (9000, 9000)}
    # Somebody deletes our meter (and so its flows) while the controller runs.
    lab.ofctl("del-meter", "s3", f"meter={number}")
    assert number not in meters(lab, "s3")
    until("the audit put it back", lambda: number in meters(lab, "s3") and not show(lab, "m1")["pending"], 4)
    assert flows(lab, "s3") == found_flows
    # A change that meets a switch from which it was taken is carried out all the same.
    lab.ofctl("del-meter", "s3", f"meter={number}")
    view = put(lab, "m1", COHORT, "5 Mbit/s", direction="up")
    assert not view["pending"] and meters(lab, "s3")[number] == (5000, 5000)
    lab.ofctl("del-flows", "s3", "cookie=0x1234/-1")
    lab.ofctl("del-meter", "s3", "meter=100000")


def test_what_a_switch_refuses_is_the_error_of_that_call_and_leaves_nothing(lab: Lab) -> None:
    table = ("--", "--id=@t", "create", "Flow_Table", "flow_limit=2", "overflow_policy=refuse")
    lab.vsctl(*table, "--", "set", "bridge", "s3", f"flow_tables:{TABLE_COHORT_UP}=@t")
    before = flows(lab, "s3")
    try:
        status, answer = call(lab, "PUT", "/m1", {"target": COHORT, "rate": "1 Mbit/s"})
        assert status == 502, answer
        error = answer["errors"][0]
        assert error["code"] == "openflow-error" and "s3 refused to add flow table=6" in error["message"]
        assert "OFPFMFC_TABLE_FULL" in error["message"]
        assert call(lab, "GET", "/m1")[0] == 404
        assert flows(lab, "s3") == before and meters(lab, "s3") == {}
        assert call(lab, "PUT", "/m2", {"target": {"kind": "client", "name": "c3"}, "rate": "1 Mbit/s"})[0] == 201
    finally:
        lab.vsctl("clear", "bridge", "s3", "flow_tables")
    assert call(lab, "PUT", "/m1", {"target": COHORT, "rate": "1 Mbit/s"})[0] == 201


def test_a_board_is_metered_by_its_address_once_it_appears(lab: Lab) -> None:
    view = put(lab, "board", {"kind": "address", "address": "10.0.9.9"}, "8 Mbit/s")
    assert view["pending"] and view["entries"] == [] and "10.0.9.9 was seen yet" in view["problem"]
    board = f"{lab.prefix}-board"
    lab._namespace(board)
    command("ip", "-n", lab.core, "link", "add", "plug", "type", "veth", "peer", "name", "eth0", "netns", board)
    command("ip", "-n", lab.core, "link", "set", "plug", "up")
    lab.vsctl("add-port", "s2", "plug", "--", "set", "interface", "plug", "ofport_request=40")
    for words in ("link set eth0 address 0a:00:00:00:00:99", "addr add 10.0.9.9/16 dev eth0", "link set eth0 up"):
        command("ip", "-n", board, *words.split())
    server = lab.plan.node("fed.1").address
    talk = ["ip", "netns", "exec", board, "ping", "-c", "3", "-i", "0.1", "-W", "1"]
    until("the board is learnt with its port", lambda: "received" in command(*talk, server, check=False))
    until("its meter is in force", lambda: not show(lab, "board")["pending"], 5)
    view = show(lab, "board")
    assert [(e["direction"], e["switch"]) for e in view["entries"]] == [("up", "s2"), ("down", "s2")]
    assert lab.topology()["boards"][0]["addresses"] == ["10.0.9.9"]
    near(goodput(lab, [("board", "fed.1")])[0], 8)
    assert show(lab, "board")["entries"][0]["bands"][0]["packets"] > 0
    # A second address of the same board is learnt too, although the board itself is no news any more.
    command("ip", "-n", board, "addr", "add", "10.0.9.10/16", "dev", "eth0")
    put(lab, "second", {"kind": "address", "address": "10.0.9.10"}, "2 Mbit/s")
    command(*talk, "-I", "10.0.9.10", server, check=False)
    until("the second address is known", lambda: not show(lab, "second")["pending"], 5)
    lab.end("controller", kill=True)
    lab.start_controller(audit_s=2)
    assert not show(lab, "board")["pending"] and not show(lab, "second")["pending"], "remembered in the flows"
    lab.vsctl("del-port", "s2", "plug")
    until("pending again", lambda: show(lab, "board")["pending"], 5)


def test_metrics_have_bytes_packets_and_drops_of_each_band(lab: Lab) -> None:
    began = time.time()
    put(lab, "m1", COHORT, "2 Mbit/s", direction="up")
    put(lab, "m2", {"kind": "client", "name": "c4"}, "2 Mbit/s", direction="up")
    put(lab, "m3", {"kind": "port", "switch": "s1", "port": 1}, "500 packet/s", direction="up")
    put_by = time.time()
    goodput(lab, [("c1", "fed.1")], settle=1.5, seconds=0.5)
    put(lab, "m1", COHORT, "2 Mbit/s", direction="up")  # the same again is no change
    text = lab.curl("/metrics")[1]
    labels = r'\{cohort="1",direction="up",kind="cohort",meter="m1",meter_id="\d+",switch="s3",target="1",'
    labels += r'testbed="[\w-]+"\}'
    for name in ("packets", "bytes"):
        found = re.search(rf"cohortnet_meter_{name}_total{labels} (\S+)", text)
        assert found and float(found[1]) > 0, name
        found = re.search(rf'cohortnet_meter_band_drop_{name}_total\{{band="0",{labels[2:]} (\S+)', text)
        assert found and float(found[1]) > 0, f"drop {name}"
    assert re.search(r'cohortnet_meter_rate\{.*in_force="drop".*unit="bit/s"\} 2e\+06', text)
    assert dict(re.findall(r'meter_rate\{cohort="(\w*)".*meter="(m\d)"', text)) == {"1": "m1", "2": "m2", "": "m3"}
    changed = re.findall(r'meter_changed_timestamp_seconds\{cohort="\w*",meter="(m\d)",testbed="[\w-]+"\} (\S+)', text)
    assert [name for name, _ in changed] == ["m1", "m2", "m3"]
    assert all(began <= float(at) <= put_by for _, at in changed), changed
    assert began <= show(lab, "m1")["changed"] <= put_by


def test_a_queue_has_a_small_burst_unless_it_is_said_otherwise(lab: Lab) -> None:
    interface = next(link.a_interface if link.b == "fed.1" else link.b_interface
                     for link in lab.plan.links if "fed.1" in (link.a, link.b))  # fmt: skip
    for rate, more, expected in (("10 Mbit/s", {}, 500_000), ("100 kbit/s", {}, 2 * 1518 * 8),
                                 ("10 Mbit/s", {"burst": "6 Mbit"}, 6_000_000)):  # fmt: skip
        view = put(lab, "q", COHORT, rate, direction="up", enforce="queue", **more)
        assert (view["in_force"], view["pending"], view["burst"]) == ("queue", False, expected), view
        assert [entry["burst"] for entry in show(lab, "q")["entries"]] == [expected]
        words = command("ip", "netns", "exec", lab.core, "tc", "-d", "class", "show", "dev", interface)
        found = re.search(r"class htb 2:\w+ root rate .* cburst (\d+)(K?)b", words)
        assert found, words
        size = int(found[1]) * (1024 if found[2] else 1)
        assert size == pytest.approx(expected / 8, rel=0.02), words
    assert put(lab, "q", COHORT, "10 Mbit/s", direction="up", enforce="drop")["burst"] == 10_000_000


def test_meters_of_the_inventory_are_set_from_the_start() -> None:
    body = {"name": "first", "target": COHORT, "direction": "down", "rate": 7_000_000, "unit": "bit/s"}
    with Lab(two_cohorts("t-core-first"), hosts=False, meters=[body]) as made:
        made.start_controller()
        assert list(meters(made, "s3").values()) == [(7000, 7000)]
        assert call(made, "DELETE", "/first")[0] == 204
        made.end("controller")
        made.start_controller()
        assert meters(made, "s3") == {} and call(made, "GET", "")[1]["meters"] == [], "deleted is deleted"


def test_a_thousand_meters_are_set_in_one_call_in_under_3_seconds() -> None:
    """500 clients behind 10 switches, one meter up and one down each."""
    clients = [f"c{i}" for i in range(500)]
    switches = [f"s{i}" for i in range(10)]
    plan = make_plan(
        parse_testbed(
            {
                "name": "t-core-thousand",
                "runtime": "namespace",
                "switches": [{"name": name} for name in switches],
                "nodes": [{"name": name, "role": "client"} for name in clients],
                "links": [
                    *({"a": name, "b": switches[i % 10]} for i, name in enumerate(clients)),
                    *({"a": "s0", "b": name} for name in switches[1:]),
                ],
            }
        )
    )
    with Lab(plan, hosts=False) as made:
        process = made.start_controller(wait=False)
        made.wait_installed(30)
        bodies = [
            {"name": f"{c}.{d}", "target": {"kind": "client", "name": c}, "direction": d, "rate": "4 Mbit/s"}
            for c in clients
            for d in ("up", "down")
        ]
        for rate, word in (("4 Mbit/s", "created"), ("5 Mbit/s", "changed"), ("5 Mbit/s", "same")):
            started = time.monotonic()
            status, answer = call(made, "PUT", "", {"meters": [{**body, "rate": rate} for body in bodies]})
            took = time.monotonic() - started
            print(f"1,000 meters {word}: {took:.2f} s")
            assert status == 200 and answer[word] == 1000 and took < 3, (status, took, str(answer)[:300])
            assert not any(meter["pending"] for meter in answer["meters"])
        assert sum(len(meters(made, switch)) for switch in switches) == 1000
        started = time.monotonic()
        assert len(call(made, "GET", "")[1]["meters"]) == 1000
        print(f"1,000 meters read: {time.monotonic() - started:.2f} s")
        with open(f"/proc/{process.pid}/status") as file:
            rss = int(file.read().split("VmRSS:")[1].split()[0])
        print(f"RSS {rss / 1024:.0f} MB")
        status, _ = call(made, "PUT", "?replace=true", {"meters": bodies[:1]})
        assert status == 200 and sum(len(meters(made, switch)) for switch in switches) == 1
