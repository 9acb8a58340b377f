"""Background traffic on real testbeds: rates that are reached, changed and stopped, failures that are told and mended,
nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.links import set_link
from tests.system.conftest import REPOSITORY, run
from tests.topology.engine import lab
from topology.engine import namespaces
from topology.model import parse_testbed
from topology.planning import make_plan
from topology.traffic import client

pytestmark = pytest.mark.live

NAME = "t-traffic-live"
FLOWS = [
    {"name": "one", "from": "n1", "to": "n2", "rate": "20 Mbit/s"},
    {"name": "waves", "from": "n1", "to": "n3", "rate": "4 Mbit/s", "pattern": "on-off", "period": "3 s", "on": "1 s"},
    {"name": "datagrams", "from": "n3", "to": "n1", "rate": "3 Mbit/s", "protocol": "udp"},
    {"name": "doomed", "from": "n4", "to": "n1", "rate": "1 Mbit/s"},
    {"name": "bare", "from": "n5", "to": "n1", "rate": "1 Mbit/s"},
]


@pytest.fixture(scope="module")
def inventory() -> Iterator[dict[str, Any]]:
    data = {
        "name": NAME, "runtime": "namespace", "controller": {"kind": "none"}, "switches": [{"name": "s1"}],
        "nodes": [*({"name": f"n{i}"} for i in (1, 2, 3, 4)), {"name": "n5", "environment": {"PATH": "/nowhere"}}],
        "links": [{"a": f"n{i}", "b": "s1", "rate": "50 Mbit/s"} for i in (1, 2, 3, 4, 5)], "traffic": FLOWS,
    }  # fmt: skip
    with lab.up(make_plan(parse_testbed(data))) as made:
        assert client.begin(made) == []
        yield made


@pytest.fixture(autouse=True)
def all_stopped(inventory: dict[str, Any]) -> Iterator[None]:
    yield
    client.command(inventory, {"op": "stop", "flows": None})


def pid_of(inventory: dict[str, Any], node: str) -> int:
    return int(next(entry["pid"] for entry in inventory["nodes"] if entry["name"] == node))


def received(inventory: dict[str, Any], node: str) -> int:
    """Bytes that have come in at the node's eth0."""
    table = Path(f"/proc/{pid_of(inventory, node)}/net/dev").read_text()
    return int(next(line for line in table.splitlines() if "eth0:" in line).split(":")[1].split()[0])


def payload(inventory: dict[str, Any], node: str, ports: tuple[int, int]) -> int:
    """Payload bytes that the node's open iperf3 data connections have received, of the larger one."""
    command = ["nsenter", f"--net=/proc/{pid_of(inventory, node)}/ns/net", "--", "ss", "-tinH"]
    found = subprocess.check_output(command, text=True)
    blocks = re.findall(r":(\d+)\s+\S+\s*\n(.*)", found)
    counts = [re.search(r"bytes_received:(\d+)", info) for port, info in blocks if int(port) in ports]
    return max(int(count.group(1)) for count in counts if count is not None)


def mean_bps(count: Callable[[], int], seconds: float) -> float:
    first, begin = count(), time.monotonic()
    time.sleep(seconds)
    last, end = count(), time.monotonic()
    return (last - first) * 8 / (end - begin)


def flow(inventory: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in client.listed(inventory) if entry["name"] == name)


def wait_for(inventory: dict[str, Any], name: str, state: str, timeout_s: float = 20.0) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while (found := flow(inventory, name))["state"] != state:
        assert time.monotonic() < deadline, f"{name} is not {state}: {found}"
        time.sleep(0.1)
    return found


def programs(inventory: dict[str, Any]) -> list[int]:
    """iperf3 processes in the testbed's groups."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"cohortnet/{NAME}/" in (folder / "cgroup").read_text() and b"iperf3" in (
                    folder / "cmdline"
                ).read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def state_file(inventory: dict[str, Any]) -> dict[str, dict[str, Any]]:
    flows = json.loads(Path(inventory["paths"]["state"], "traffic.json").read_text())["flows"]
    return {entry["name"]: entry for entry in flows}


def test_a_flow_starts_has_its_rate_changes_it_without_a_gap_and_stops(inventory: dict[str, Any]) -> None:
    assert state_file(inventory)["one"]["running"] is False
    shown = json.loads(run("traffic", "start", "one", "--testbed", NAME, "--json").stdout)["flows"]
    assert [(entry["name"], entry["state"]) for entry in shown] == [("one", "running")]
    time.sleep(1)
    reached = mean_bps(lambda: payload(inventory, "n2", (5201, 5202)), 4)
    print(f"expected 20 Mbit/s +- 5 %, measured {reached / 1e6:.3f}")
    assert reached == pytest.approx(20e6, rel=0.05)
    before = state_file(inventory)["one"]
    assert before["running"] is True and before["rate_bps"] == 20_000_000

    at = time.monotonic()
    bins: list[float] = []
    setting = subprocess.Popen([sys.executable, "-m", "cohortnet", "traffic", "set", "one", "--rate", "10mbit",
                                "--testbed", NAME], cwd=REPOSITORY, stdout=subprocess.DEVNULL)  # fmt: skip
    while setting.poll() is None or len(bins) < 4:
        bins.append(mean_bps(lambda: received(inventory, "n2"), 0.25))
    assert setting.returncode == 0
    took = time.monotonic() - at
    print(f"set took {took:.2f} s; received meanwhile {[round(b / 1e6, 1) for b in bins]} Mbit/s")
    assert min(bins) > 4e6, "traffic stopped while its rate was changed"
    time.sleep(0.5)
    reached = mean_bps(lambda: payload(inventory, "n2", (5201, 5202)), 3)
    print(f"expected 10 Mbit/s +- 5 %, measured {reached / 1e6:.3f}")
    assert reached == pytest.approx(10e6, rel=0.05)
    after = state_file(inventory)["one"]
    assert after["rate_bps"] == 10_000_000 and after["changed"] > before["changed"]
    assert after["started"] == before["started"]

    run("traffic", "stop", "one", "--testbed", NAME)
    assert programs(inventory) == [] and state_file(inventory)["one"]["running"] is False
    assert mean_bps(lambda: received(inventory, "n2"), 0.5) < 1e5


def test_on_off_and_udp_at_the_same_time(inventory: dict[str, Any]) -> None:
    client.command(inventory, {"op": "start", "flows": ["waves", "datagrams"]})
    bins = []
    reached = received(inventory, "n1")
    begin = time.monotonic()
    while time.monotonic() < begin + 6.0:
        bins.append(mean_bps(lambda: received(inventory, "n3"), 0.25))
    udp = (received(inventory, "n1") - reached) * 8 / (time.monotonic() - begin) * 1448 / 1490
    # n1 also gets the acknowledgements of the other flow.
    print(f"UDP {udp / 1e6:.2f} Mbit/s of 3; on-off {[round(b / 1e6, 1) for b in bins]}")
    assert udp == pytest.approx(3e6, rel=0.06)
    mean = sum(bins) / len(bins)  # segments of up to 64 KiB: their headers hardly count
    assert mean == pytest.approx(4e6, rel=0.12), "two periods of 1 s of 12 Mbit/s and 2 s of silence"
    quiet = sum(b < 0.5e6 for b in bins) / len(bins)
    assert 0.45 < quiet < 0.75, "two thirds of the time nothing is sent"
    assert max(bins) > 9e6


def test_wrong_commands_are_refused_with_status_2(inventory: dict[str, Any]) -> None:
    unknown = run("traffic", "start", "nothing", "--testbed", NAME, check=False)
    assert unknown.returncode == 2 and "one of: one, waves" in unknown.stderr
    fast = run("traffic", "set", "one", "--rate", "60mbit", "--testbed", NAME, "--json", check=False)
    assert fast.returncode == 2 and json.loads(fast.stdout)["errors"][0]["code"] == "above-link-rate"
    bare = run("traffic", "set", "one", "--rate", "60", "--testbed", NAME, check=False)
    assert bare.returncode == 2 and "'20 Mbit/s'" in bare.stderr and "Traceback" not in bare.stderr
    fine = json.loads(run("traffic", "set", "datagrams", "--rate", "60mbit", "--testbed", NAME, "--json").stdout)
    assert fine["flows"][0]["rate_bps"] == 60_000_000 and not fine["flows"][0]["running"]
    client.command(inventory, {"op": "set", "flow": "datagrams", "rate_bps": 3_000_000})


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"not json\n", "not-an-object"), (b"[1]\n", "not-an-object"), (b"{}\n", "unknown-op"),
        (b'{"op": ["list"]}\n', "unknown-op"), (b'{"op": "list", "x": 1}\n', "unknown-key"),
        (b'{"op": "start", "flows": "one"}\n', "wrong-type"), (b'{"op": "start", "flows": [3]}\n', "unknown-flow"),
        (b'{"op": "set", "flow": "one", "rate_bps": "10mbit"}\n', "bad-value"),
        (b'{"op": "set", "flow": "one", "rate_bps": true}\n', "bad-value"),
        (b'{"op": "set", "flow": "one", "rate_bps": 5}\n', "bad-value"),
        (b'{"op": "set", "flow": null, "rate_bps": 10000000}\n', "unknown-flow"),
        (b"[" * 50000 + b"\n", "not-an-object"),
    ],
)  # fmt: skip
def test_the_socket_refuses_what_it_does_not_know_and_goes_on(
    inventory: dict[str, Any], line: bytes, code: str
) -> None:
    path = Path(inventory["paths"]["state"], "traffic.sock")
    client.command(inventory, {"op": "stop", "flows": None})  # it is there
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(path))
        for sent in (line, b'{"op": "list"}\n'):
            raw.sendall(sent)
            answer = b""
            while not answer.endswith(b"\n"):
                answer += raw.recv(65536)
            said = json.loads(answer)
            if sent is line:
                assert said["ok"] is False and said["code"] == code and said["error"]
    assert said["ok"] is True and len(said["flows"]) == len(FLOWS)


def test_a_taken_port_and_a_killed_program_are_told_and_the_flow_comes_back(inventory: dict[str, Any]) -> None:
    def occupy() -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections still stand there
        made.bind(("10.0.0.2", 5201))
        made.listen(1)
        return made

    assert next(n["address"] for n in inventory["nodes"] if n["name"] == "n2") == "10.0.0.2"
    taken = namespaces.inside(namespaces.of_process(pid_of(inventory, "n2")), occupy)
    with taken:
        failed = run("traffic", "start", "one", "--testbed", NAME, check=False)
        assert failed.returncode == 1
        assert "n2: iperf3 cannot listen on 10.0.0.2:5201" in failed.stderr and "already" in failed.stderr
        assert state_file(inventory)["one"]["running"] is False
    assert wait_for(inventory, "one", "running")["reason"] == ""

    sending = [pid for pid in programs(inventory) if b"--client" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(sending[0], signal.SIGKILL)
    lost = wait_for(inventory, "one", "retrying", 3.0)
    assert lost["reason"] == "n1: iperf3 ended with status -9" and lost["tries"] >= 2  # with the taken port
    wait_for(inventory, "one", "running", 5.0)


def test_a_link_that_is_down_is_named_and_the_flow_goes_on_when_it_is_up_again(inventory: dict[str, Any]) -> None:
    client.command(inventory, {"op": "start", "flows": ["one"]})
    set_link(inventory, "n2", "s1", False)
    try:
        lost = wait_for(inventory, "one", "retrying", 25.0)
        assert "n1: nothing has passed to n2" in lost["reason"]
    finally:
        set_link(inventory, "n2", "s1", True)
    wait_for(inventory, "one", "running", 20.0)


def test_a_killed_daemon_takes_its_programs_along_and_the_next_one_goes_on(inventory: dict[str, Any]) -> None:
    client.command(inventory, {"op": "start", "flows": ["one"]})
    client.command(inventory, {"op": "set", "flow": "one", "rate_bps": 7_000_000})
    daemons = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_daemon(p, inventory)]
    assert len(daemons) == 1
    os.kill(daemons[0], signal.SIGKILL)
    deadline = time.monotonic() + 5
    while programs(inventory):
        assert time.monotonic() < deadline, "iperf3 outlives the daemon"
        time.sleep(0.05)
    shown = json.loads(run("traffic", "list", "--testbed", NAME, "--json").stdout)["flows"]
    assert [(f["state"], f["running"]) for f in shown if f["name"] == "one"] == [("lost", False)]
    client.command(inventory, {"op": "start", "flows": ["one"]})
    again = wait_for(inventory, "one", "running")
    assert again["rate_bps"] == 7_000_000
    second = subprocess.run([sys.executable, "-m", "topology.traffic", "--inventory",
                             f"/run/cohortnet/{NAME}/shared/inventory.json"], cwd=REPOSITORY, capture_output=True,
                            text=True, timeout=30, check=False)  # fmt: skip
    assert second.returncode == 0 and "run by another process" in second.stdout
    client.command(inventory, {"op": "set", "flow": "one", "rate_bps": 20_000_000})


def _is_daemon(folder: Path, inventory: dict[str, Any]) -> bool:
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"topology.traffic" in words and f"/run/cohortnet/{NAME}/shared/inventory.json".encode() in words


def test_a_flow_of_a_node_that_is_gone_says_so(inventory: dict[str, Any]) -> None:
    client.command(inventory, {"op": "start", "flows": ["doomed"]})
    wait_for(inventory, "doomed", "running")
    os.kill(pid_of(inventory, "n4"), signal.SIGKILL)
    lost = wait_for(inventory, "doomed", "retrying", 5.0)
    deadline = time.monotonic() + 10
    while "is not running" not in lost["reason"]:
        assert time.monotonic() < deadline, lost
        time.sleep(0.2)
        lost = flow(inventory, "doomed")
    failed = run("traffic", "start", "doomed", "--testbed", NAME, check=False)
    assert failed.returncode == 1 and "n4" in failed.stderr


def test_a_node_without_iperf3_is_named(inventory: dict[str, Any]) -> None:
    (found,) = client.command(inventory, {"op": "start", "flows": ["bare"]})
    assert found["state"] == "retrying" and found["reason"] == "n5: iperf3 is not installed there"
