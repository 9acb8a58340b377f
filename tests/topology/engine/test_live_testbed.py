"""A raised preset: everything reaches everything, rates hold, limits hold, the management plane is no side path."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.links import set_link
from tests.topology.engine import lab
from topology.engine import execution, namespaces, openvswitch
from topology.errors import TopologyError

pytestmark = pytest.mark.live
PORT, LATE_PORT = lab.free_port(), lab.free_port()


@pytest.fixture(scope="module")
def testbed() -> Iterator[dict[str, Any]]:
    plan = lab.preset(
        "t-engine-live", clients=6,
        publish=[{"node": "mo.1", "port": 8000, "host_port": PORT},
                 {"node": "fc.11", "port": 8100, "host_port": LATE_PORT}],
        nodes=[{"name": "slow", "cpu": 0.2, "memory": "64 MiB", "cpuset": "0"}],
        links=[{"a": "slow", "b": "swCampus1"}],
    )  # fmt: skip
    with lab.up(plan) as inventory:
        yield inventory


def test_every_node_reaches_every_other(testbed: dict[str, Any]) -> None:
    names = [node["name"] for node in testbed["nodes"]]
    # By name: /etc/hosts is part of what is promised.
    script = "for n in " + " ".join(names) + "; do ping -c 1 -W 3 -q $n >/dev/null || echo $n; done"
    with ThreadPoolExecutor(max_workers=8) as pool:
        lost = dict(zip(names, pool.map(lambda name: lab.run(testbed, name, "sh", "-c", script), names), strict=True))
    assert {name: text.split() for name, text in lost.items() if text} == {}


def test_inventory_says_what_is_there(testbed: dict[str, Any]) -> None:
    assert testbed["state"] == "up"
    assert testbed == json.loads(Path(testbed["paths"]["shared"], "inventory.json").read_text())
    assert testbed["unsupported"] in (["delay"], [])
    text = lab.run(testbed, "fc.10", "ip", "-j", "address")
    interfaces = {item["ifname"]: item for item in json.loads(text)}
    entry = next(node for node in testbed["nodes"] if node["name"] == "fc.10")
    assert interfaces["eth0"]["address"] == entry["mac"]
    assert [(a["local"], a["prefixlen"]) for a in interfaces["eth0"]["addr_info"]] == [(entry["address"], 16)]
    assert interfaces["mgmt0"]["addr_info"][0]["local"] == entry["management_address"]
    assert "default" not in lab.run(testbed, "fc.10", "ip", "route")
    core = f"/run/netns/{testbed['core']['namespace']}"
    done = subprocess.run(["nsenter", f"--net={core}", "ip", "-j", "link"], capture_output=True, text=True, check=True)
    aliases = {item["ifname"]: item.get("ifalias") for item in json.loads(done.stdout)}
    for switch in testbed["switches"]:
        for port in switch["ports"]:
            assert aliases[port["interface"]] == port["name"]


def test_limits_are_set_and_hold(testbed: dict[str, Any]) -> None:
    if lab.version() == 1:
        assert lab.group_value(testbed, "slow", "cpu.cfs_quota_us") == "20000"
        assert lab.group_value(testbed, "slow", "memory.limit_in_bytes") == str(64 * 2**20)
    else:
        assert lab.group_value(testbed, "slow", "cpu.max") == "20000 100000"
        assert lab.group_value(testbed, "slow", "memory.max") == str(64 * 2**20)
    assert lab.group_value(testbed, "slow", "cpuset.cpus") == "0"
    # What is executed in the node is in its groups, not only in its namespaces.
    burn = "import time; s = time.monotonic()\nwhile time.monotonic() - s < 1.5: pass\nprint(time.process_time())"
    used = float(lab.run(testbed, "slow", "python3", "-c", burn))
    # A quota is an upper bound: what a busy machine gives may be less.
    print(f"processor time in 1.5 s: expected 0.30, measured {used:.2f}, allowed up to 0.42")
    assert 0 < used <= 0.42
    assert lab.run(testbed, "slow", "python3", "-c", "import os; print(os.sched_getaffinity(0))").strip() == "{0}"
    hungry = execution.execute(testbed, "slow", ["python3", "-c", "x = bytearray(200 * 2**20)"], timeout_s=30)
    assert hungry.returncode == -9, hungry


def test_a_node_is_a_machine_of_its_own(testbed: dict[str, Any]) -> None:
    assert lab.run(testbed, "fc.10", "hostname").strip() == "fc.10"
    lab.run(testbed, "fc.10", "sh", "-c", "echo mine > /tmp/t-engine-mark")
    assert execution.execute(testbed, "fc.11", ["cat", "/tmp/t-engine-mark"], timeout_s=10).returncode != 0
    assert not Path("/tmp/t-engine-mark").exists()
    # The first process takes over orphans and does not leave them as zombies.
    lab.run(testbed, "fc.10", "sh", "-c", "(sleep 0.2 &) ; true")
    time.sleep(0.6)
    assert "Z" not in lab.run(testbed, "fc.10", "ps", "-eo", "stat=")


@contextlib.contextmanager
def at_standard_input(fd: int) -> Iterator[None]:
    before = os.dup(0)
    os.dup2(fd, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_execute_gives_status_output_and_errors(testbed: dict[str, Any]) -> None:
    done = execution.execute(testbed, "fc.10", ["sh", "-c", "cat; echo no >&2; exit 3"], input="yes", timeout_s=10)
    assert (done.returncode, done.stdout, done.stderr) == (3, "yes", "no\n")
    with pytest.raises(subprocess.TimeoutExpired):
        execution.execute(testbed, "fc.10", ["sh", "-c", "sleep 30; true"], timeout_s=0.3)
    assert "sleep" not in lab.run(testbed, "fc.10", "ps", "-eo", "comm=")
    # As `cohortnet exec` does, where no terminal is its input.
    with pytest.raises(subprocess.TimeoutExpired), open(os.devnull) as nothing, at_standard_input(nothing.fileno()):
        execution.execute(testbed, "fc.10", ["sh", "-c", "sleep 30; true"], tty=True, timeout_s=0.3)
    assert "sleep" not in lab.run(testbed, "fc.10", "ps", "-eo", "comm=")
    command = [sys.executable, "-m", "cohortnet", "exec", "--testbed", testbed["testbed"], "fc.10", "sh", "-c",
               "sleep 30; true"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as ended:
        deadline = time.monotonic() + 15
        while "sleep" not in lab.run(testbed, "fc.10", "ps", "-eo", "comm="):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ended.terminate()
        assert ended.wait(timeout=15) != 0
    assert "sleep" not in lab.run(testbed, "fc.10", "ps", "-eo", "comm="), "nothing outlives its `cohortnet exec`"
    with pytest.raises(TopologyError, match="`no-such-program` cannot be started"):
        execution.execute(testbed, "fc.10", ["no-such-program"])
    with pytest.raises(TopologyError, match="has no node 'nobody'"):
        execution.execute(testbed, "nobody", ["true"])


def test_management_reaches_the_host_and_nothing_else(testbed: dict[str, Any]) -> None:
    nodes = {node["name"]: node for node in testbed["nodes"]}
    host = testbed["network"]["management_host"]
    one, two = nodes["fc.10"], nodes["fed.1"]
    lab.run(testbed, "fc.10", "ping", "-c", "1", "-W", "2", host)
    subprocess.run(["ping", "-c", "1", "-W", "2", one["management_address"]], check=True, capture_output=True)
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    before = switch.read_text()
    own = Path(f"/proc/sys/net/ipv4/conf/{testbed['network']['host_interface']}/forwarding")
    received = lab.received(testbed, "fed.1").packets
    try:
        switch.write_text("1")  # sets every interface's own switch too
        own.write_text("1")  # the worst host that there can be
        routes = [f"{two['management_address']}/32", "172.30.99.0/24"]
        for route in routes:
            lab.run(testbed, "fc.10", "ip", "route", "add", route, "via", host, "dev", "mgmt0")
        lab.run(testbed, "fc.10", "ip", "neigh", "replace", two["management_address"], "lladdr",
                Path(f"/sys/class/net/{testbed['network']['host_interface']}/address").read_text().strip(),
                "dev", "mgmt0")  # fmt: skip
        for target in (two["management_address"], "172.30.99.1"):
            assert (
                execution.execute(testbed, "fc.10", ["ping", "-c", "2", "-i", "0.2", "-W", "1", target]).returncode == 1
            )
        # The other node's address in the emulated network is not heard on the management plane either.
        lab.run(testbed, "fc.10", "ip", "route", "add", f"{two['address']}/32", "via", host, "dev", "mgmt0")
        assert execution.execute(testbed, "fc.10", ["ping", "-c", "1", "-W", "1", two["address"]]).returncode == 1
        lab.run(testbed, "fc.10", "ip", "route", "del", f"{two['address']}/32", "via", host, "dev", "mgmt0")
    finally:
        switch.write_text(before)
        own.write_text("0")
    assert lab.received(testbed, "fed.1").packets - received < 20


def test_without_its_uplink_a_server_is_reached_by_no_path(testbed: dict[str, Any]) -> None:
    ping = ["ping", "-c", "2", "-i", "0.3", "-W", "1", "10.0.0.101"]
    assert execution.execute(testbed, "fc.10", ping, timeout_s=20).returncode == 0
    set_link(testbed, "aggsw10", "satsw11", False)
    try:
        assert execution.execute(testbed, "fc.10", ping, timeout_s=20).returncode == 1
        # Its neighbours at the same switch still reach it.
        lab.run(testbed, "fed.2", "ping", "-c", "1", "-W", "2", "10.0.0.101")
    finally:
        set_link(testbed, "aggsw10", "satsw11", True)
    deadline = time.monotonic() + 10
    while execution.execute(testbed, "fc.10", ping, timeout_s=20).returncode != 0:
        assert time.monotonic() < deadline, "the path did not come back in 10 s"


SERVER = """
import socket, time
s = socket.create_server(("0.0.0.0", 8000))
while True:
    c, _ = s.accept()
    request = c.recv(65536)
    if b"stream" in request:
        c.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
        for n in range(3):
            c.sendall(b"data: %d\\n\\n" % n)
            time.sleep(0.4)
    else:  # reads to the end before it answers: needs the other side's half-close
        while part := c.recv(65536):
            request += part
        c.sendall(b"%d" % len(request))
    c.close()
"""


def send_all(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def test_published_port_streams_and_half_closes(testbed: dict[str, Any]) -> None:
    lab.leave_running(testbed, "mo.1", [sys.executable, "-c", SERVER])
    deadline = time.monotonic() + 10
    while ":8000 " not in lab.run(testbed, "mo.1", "ss", "-Hltn"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with socket.create_connection(("127.0.0.1", PORT), timeout=10) as client:
        client.sendall(b"GET /stream")
        arrivals = []
        while data := client.recv(65536):
            arrivals += [time.monotonic()] * data.count(b"data:")
    assert len(arrivals) == 3
    assert 0.25 < arrivals[1] - arrivals[0] < 0.7, "events have to come one by one, not at the end"
    with socket.create_connection(("127.0.0.1", PORT), timeout=10) as client:
        sent = b"x" * 3_000_000
        threading.Thread(target=send_all, args=(client, sent), daemon=True).start()
        assert client.recv(100) == b"3000000"


def test_published_port_of_nobody_closes_at_once(testbed: dict[str, Any]) -> None:
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", LATE_PORT), timeout=10) as client, pytest.raises(ConnectionResetError):
        client.sendall(b"hello")
        if client.recv(10) == b"":
            raise ConnectionResetError
    assert time.monotonic() - start < 3


def test_controllers_rest_is_published(testbed: dict[str, Any]) -> None:
    port = next(entry["host_port"] for entry in testbed["published"] if entry["node"] is None)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/v1/topology")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert {switch["name"] for switch in answer["switches"]} == {switch["name"] for switch in testbed["switches"]}


def test_one_flow_passes_500_megabits_through_the_whole_unshaped_preset() -> None:
    plan = lab.unshaped(lab.preset("t-engine-fast", clients=5))
    with lab.up(plan) as inventory:
        for reverse in (False, True):
            rate = lab.goodput_bps(inventory, "fc.10", "fed.1", reverse=reverse)
            print(f"unshaped, {'down' if reverse else 'up'}: measured {rate / 1e6:.0f} Mbit/s, at least 500")
            assert rate >= 500e6


RATES = {"ten": "10 Mbit/s", "hundred": "100 Mbit/s", "free": None}


@pytest.fixture(scope="module", params=["namespace", "docker"])
def rated(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    plan = lab.star(f"t-engine-rate-{request.param}", RATES, runtime=request.param, container_prefix="t-engine.")
    with lab.up(plan) as inventory:
        yield inventory


@pytest.mark.parametrize(("node", "rate_bps"), [("ten", 10e6), ("hundred", 100e6)])
@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_goodput_is_what_the_rate_leaves(rated: dict[str, Any], node: str, rate_bps: float, reverse: bool) -> None:
    expected = rate_bps * lab.GOODPUT_SHARE
    measured = lab.goodput_bps(rated, node, "free", reverse=reverse)
    print(f"{node} {'down' if reverse else 'up'}: expected {expected / 1e6:.2f}, measured {measured / 1e6:.2f} Mbit/s, "
          f"allowed 3 % ({measured / expected - 1:+.2%})")  # fmt: skip
    assert abs(measured / expected - 1) <= 0.03


def test_the_switch_daemon_may_restart(rated: dict[str, Any]) -> None:
    """A new vswitchd leaves the shaping alone (by itself it deletes what it finds) and forwards as before."""
    core, rundir = namespaces.named(rated["core"]["namespace"]), Path(rated["core"]["ovs_rundir"])
    pid = int((rundir / "ovs-vswitchd.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    openvswitch.start_switch(lab.star(rated["testbed"], RATES))
    while execution.execute(rated, "ten", ["ping", "-c", "1", "-W", "1", "free"], timeout_s=10).returncode != 0:
        assert time.monotonic() < deadline + 10
    command = ["nsenter", f"--net={core}", "tc", "qdisc", "show", "dev", "s1-eth1"]
    assert "htb" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
