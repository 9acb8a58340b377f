"""The example scripts as a user runs them, and what no example shows; real containers, namespaces and switches."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.topology.engine import lab
from tests.topology.engine.lab import traces
from topology.capabilities import capabilities
from topology.containernet import CPULimitedHost, Mininet, Node, OVSBridge, TCLink
from topology.engine import engine
from topology.face.arguments import NotHonoured

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "containernet"
IMAGE = "python:3.11-slim"


def environment(testbed: str, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COHORTNET_TESTBED": testbed, "PYTHONUNBUFFERED": "1", **more}


def check_image() -> None:
    with contextlib.closing(docker.APIClient("unix:///var/run/docker.sock", timeout=10)) as client:
        assert client.images(IMAGE), f"the image {IMAGE} is not here; `scripts/build_image.sh` brings it"


def assert_gone(testbed: str) -> None:
    from topology.face.planned import Declared, make_plan

    nothing = Mininet(testbed=testbed)
    plan = make_plan(Declared(testbed, [], [], [], [], [], nothing.ip_network))
    assert traces(plan) == []
    with contextlib.closing(docker.APIClient("unix:///var/run/docker.sock", timeout=10)) as client:
        assert client.containers(all=True, filters={"label": f"cohortnet.testbed={testbed}"}) == []


@pytest.fixture
def testbed(request: pytest.FixtureRequest) -> Iterator[str]:
    name = "t-face-" + re.sub(r"[^a-z]+", "-", request.node.name.lower())[-20:].strip("-")
    try:
        yield name
    finally:
        assert engine.remove_testbed(name).left == ()


def run_example(name: str, testbed: str, *, typed: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(EXAMPLES / name)], env=environment(testbed, **more), input=typed,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150)  # fmt: skip


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return float(found.group(1))


def test_two_containers_at_a_switch_and_mininets_own_command_line(testbed: str) -> None:
    check_image()
    typed = "nodes\nnet\ndump\nlinks\nports\nintfs\npingall\nd1 echo address d2\npy d1.IP()\nlink d1 s1 down\n" \
            "pingall 1\nlink d1 s1 up\npingall\ndpctl dump-flows\ns1 hostname\nexit\n"  # fmt: skip
    done = run_example("single_switch.py", testbed, typed=typed)
    said = done.stdout
    assert done.returncode == 0, said
    assert "loss 0 %" in said
    rate = number(r"rates \['([\d.]+) Mbits/sec'", said)
    assert 12 < rate < 20.2, f"20 Mbit/s declared, {rate} Mbit/s measured (19.1 is the goodput of the wire rate)"
    for expected in ("c0 d1 d2 s1", "d1 d1-eth0:s1-eth1", "<Docker d1: d1-eth0:10.0.0.251 pid=", "(OK OK)",
                     "address 10.0.0.252", "10.0.0.251", "cookie="):  # fmt: skip
        assert expected in said, f"{expected!r} is not in:\n{said}"
    losses = re.findall(r"Results: (\d+)% dropped", said)
    assert losses == ["0", "0", "100", "0"], said
    assert_gone(testbed)


def test_volume_and_environment(testbed: str) -> None:
    check_image()
    done = run_example("volume_environment.py", testbed)
    assert done.returncode == 0, done.stdout
    for expected in ("answer: hello a page of this machine", "environment: hello", "note: written in the container"):
        assert expected in done.stdout, done.stdout
    assert_gone(testbed)


def test_limits_changed_while_running(testbed: str) -> None:
    check_image()
    done = run_example("limits.py", testbed)
    assert done.returncode == 0, done.stdout
    before, after = number(r"cpu at 0.5: ([\d.]+)", done.stdout), number(r"cpu at 0.2: ([\d.]+)", done.stdout)
    # A busy machine gives less than a limit, and never more (a tenth for one period).
    assert before < 0.6 and 0.02 < after < 0.27, f"0.5 and 0.2 declared, {before} and {after} measured"
    assert "100 MB at 64m: 104857600" not in done.stdout and "100 MB at 256m: 104857600" in done.stdout, done.stdout
    assert_gone(testbed)


def test_hosts_and_links_come_and_go(testbed: str) -> None:
    check_image()
    done = run_example("live_hosts.py", testbed)
    assert done.returncode == 0, done.stdout
    for expected in ("at the start 0 % lost", "with d2 0 % lost", "h3 to h2's second interface 0 % lost",
                     "without its link 100 % lost", "at another switch 0 % lost", "left: h1 h2 d1 h3 s1 s2 s3 c0",
                     "at the end 0 % lost"):  # fmt: skip
        assert expected in done.stdout, f"{expected!r} is not in:\n{done.stdout}"
    assert_gone(testbed)


def test_delay_and_loss_are_done_refused_by_name_or_left_out_on_the_users_word(testbed: str) -> None:
    netem = capabilities().netem is not False
    done = run_example("tree_delay.py", testbed)
    if netem:
        assert done.returncode == 0, done.stdout
        assert 39 < number(r"= [\d.]+/([\d.]+)/", done.stdout) < 45, done.stdout
    else:
        assert done.returncode != 0
        assert "`delay`" in done.stdout and "`loss`" in done.stdout
        assert "allow_unsupported=['delay']" in done.stdout
        done = run_example("tree_delay.py", testbed, COHORTNET_ALLOW_UNSUPPORTED="delay,loss")
        assert done.returncode == 0, done.stdout
        assert "0% packet loss" in done.stdout
        assert "rates ['20M'" in done.stdout
    assert_gone(testbed)


SCRIPT = """
import os, sys, time
from topology.containernet import Mininet, SingleSwitchTopo
net = Mininet(topo=SingleSwitchTopo(2))
net.start()
net["h1"].cmd("sleep 1000 &")
print("up", flush=True)
if sys.argv[1] == "raise":
    raise ValueError("in the middle")
time.sleep(60)
"""


def test_a_script_that_raises_leaves_nothing(testbed: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "raise"], env=environment(testbed), capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1 and "in the middle" in done.stderr and "could not" not in done.stderr, done.stderr
    assert_gone(testbed)


def test_a_script_that_is_killed_leaves_its_network_to_down(testbed: str) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT, "sleep"], env=environment(testbed), stdout=subprocess.PIPE,
                          text=True) as script:  # fmt: skip
        assert script.stdout is not None and script.stdout.readline() == "up\n"
        script.send_signal(signal.SIGKILL)
    with pytest.raises(Exception, match=f"cohortnet down {testbed}"):
        Mininet(testbed=testbed).start()
    down = subprocess.run([sys.executable, "-m", "cohortnet", "down", testbed], env=environment(testbed),
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert down.returncode == 0, down.stderr
    assert_gone(testbed)


class Router(Node):
    """As in Mininet's own example."""

    def config(self, **params: object) -> dict[str, object]:
        result = super().config(**params)  # type: ignore[arg-type]
        self.cmd("sysctl -w net.ipv4.ip_forward=1")
        return result


def test_a_router_a_lonely_host_a_shell_and_every_change_of_a_network_that_runs(testbed: str, tmp_path: Path) -> None:
    net = Mininet(testbed=testbed, switch=OVSBridge, controller=None)
    r0 = net.addHost("r0", cls=Router, ip="192.168.1.1/24")
    s1, s2 = net.addSwitch("s1"), net.addSwitch("s2")
    net.addLink(s1, r0, intfName2="r0-eth1", params2={"ip": "192.168.1.1/24"})
    net.addLink(s2, r0, intfName2="r0-eth2", params2={"ip": "172.16.0.1/12"})
    h1 = net.addHost("h1", ip="192.168.1.100/24", defaultRoute="via 192.168.1.1")
    h2 = net.addHost("h2", ip="172.16.0.100/12", defaultRoute="via 172.16.0.1", privateDirs=["/srv"])
    h3 = net.addHost("h3", ip=None, cls=CPULimitedHost, cpu=0.25)
    net.addLink(h1, s1, cls=TCLink, bw=10)
    net.addLink(h2, s2)
    net.addLink(h1, h2, params1={"ip": "192.168.9.1/30"}, params2={"ip": "192.168.9.2/30"})
    with net:
        assert net.ping([h1, h2, r0]) == 0
        assert net.ping([h1], manualdestip="192.168.9.2") == 0, "a link from host to host"
        # The shell keeps its folder, its variables and its jobs; the file system is the machine's.
        h1.cmd(f"cd {tmp_path}; X=3")
        assert h1.cmd("echo $X; pwd").split() == ["3", str(tmp_path)]
        assert h1.cmd("echo from h1 > file") == "" and (tmp_path / "file").read_text() == "from h1\n"
        assert h1.cmd("sleep 100 &") == "" and h1.lastPid is not None
        assert "sleep 100" in h1.cmd("jobs")
        h1.sendCmd("sleep 100")
        time.sleep(0.2)
        h1.sendInt()
        start = time.monotonic()
        h1.waitOutput()
        assert time.monotonic() - start < 5, "Ctrl-C interrupts"
        assert h1.pexec("sh", "-c", "echo out; echo err >&2; exit 3") == ("out\n", "err\n", 3)
        lines = []
        h1.sendCmd("echo one; echo two")
        for host, line in net.monitor([h1], timeoutms=500):
            if host is None:
                break
            lines.append(line.strip())
        assert lines == ["one", "two"]
        # Addresses.
        h1.setIP("192.168.1.7/24")
        assert "192.168.1.7 h1\n" in h2.cmd("cat /etc/hosts").replace("\r", "")
        h1.setMAC("00:00:00:00:00:99")
        h1.setDefaultRoute("via 192.168.1.1")
        assert (h1.intf().updateIP(), h1.intf().updateMAC()) == ("192.168.1.7", "00:00:00:00:00:99")
        assert net.ping([h1, h2]) == 0
        # A switch that fails, and comes back.
        s1.stop()
        assert net.ping([h1], manualdestip="192.168.1.1", timeout=1) == 100
        s1.start()
        assert net.ping([h1], manualdestip="192.168.1.1") == 0
        rate = net.iperf([h1, r0], seconds=2)[0]
        assert 6 < float(rate.split()[0]) < 10.2 and rate.endswith("Mbits/sec"), rate
        # What an interface sends is shaped anew while it runs; the other end keeps its own.
        h1.intf().config(bw=4)
        assert 2 < float(net.iperf([h1, r0], seconds=2)[0].split()[0]) < 4.2
        assert 6 < float(net.iperf([r0, h1], seconds=2)[0].split()[0]) < 10.2
        link = next(link for link in (net.inventory or {})["links"] if link["a"] == "h1" and link["b"] == "s1")
        assert (link["a_to_b"]["rate_bps"], link["b_to_a"]["rate_bps"]) == (4_000_000, 10_000_000)
        with pytest.raises(NotHonoured, match="plain Link"):
            h2.intf().config(bw=4)
        # A lonely host gets a link, and another share of the processors.
        assert "h3-eth0" not in h3.cmd("ip -br link")
        net.addLink(h3, s1, cls=TCLink, bw=5, params1={"ip": "192.168.1.33/24"})
        assert net.ping([h3, r0]) == 0
        assert isinstance(h3, CPULimitedHost)
        # It comes with its first link's address, in the hosts file of all.
        assert "192.168.1.33 h3\n" in h2.cmd("cat /etc/hosts").replace("\r", "")
        unlimited = "-1" if lab.version() == 1 else "max"
        h3.setCPUFrac(0.1)
        assert lab.group_value(net.inventory or {}, "h3", "cpu.cfs_quota_us", "cpu.max").split()[0] != unlimited
        for share in (0, 1.5, -0.5):
            with pytest.raises(NotHonoured, match=f"f={share} is not honoured.*above 0 and up to 1"):
                h3.setCPUFrac(share)
        h3.setCPUFrac(-1)
        assert lab.group_value(net.inventory or {}, "h3", "cpu.cfs_quota_us", "cpu.max").split()[0] == unlimited
        with pytest.raises(NotHonoured, match="addSwitch"):
            net.addSwitch("s9")
        with pytest.raises(NotHonoured, match="bw=3"):
            net.addLink(net.addHost("h4"), s1, bw=3)
        net.delHost(h3)
        assert "h3" not in net and net.ping([h1, h2]) == 0
    net.stop()
    assert_gone(testbed)
