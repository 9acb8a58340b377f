"""The doctor: what it finds is what the kernel does; plans are refused for it; findings name the remedy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from topology import capabilities as probing
from topology import doctor, host_state, kernel_limits
from topology.errors import Problem
from topology.kernel_limits import KernelLimits, Room
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan
from topology.resources import MOST_NODES, nodes_that_fit

ABLE = doctor.Capabilities(
    root=True,
    kernel="6.1",
    python="3.11",
    cores=2,
    processors=(0, 1),
    memory_bytes=8 * 2**30,
    memory_available_bytes=6 * 2**30,
    netem=True,
    htb=True,
    tbf=True,
    veth=True,
    bridge_isolation=True,
    nft_bridge=True,
    kernel_datapath=True,
    tun=True,
    cgroup_version=2,
    controllers=("cpu", "memory", "cpuset", "pids"),
    cpu_quota=True,
    docker=doctor.DockerFacts(True, "20.10", "systemd", 2, "overlay2"),
    ovs_version="3.1.0",
    programs={name: f"/usr/bin/{name}" for name in probing.PROGRAMS},
)
"""A machine that can do everything."""


def plan(nodes: list[dict[str, Any]] | None = None, link: dict[str, Any] | None = None, **top: Any) -> Plan:
    nodes = nodes or [{}, {}]
    return make_plan(
        parse_testbed(
            {
                "name": "t-doctor",
                "nodes": [{"name": f"h{i}", **node} for i, node in enumerate(nodes)],
                "switches": [{"name": "s1"}],
                "links": [{"a": f"h{i}", "b": "s1", **(link or {})} for i in range(len(nodes))],
                **top,
            }
        )
    )


def codes(problems: list[Problem]) -> list[str]:
    return [problem.code for problem in problems]


# What the kernel does


@pytest.mark.live
def test_capabilities_agree_with_the_kernel_and_leave_nothing() -> None:
    def links() -> str:
        return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout

    def tc(*qdisc: str) -> bool:
        command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", *qdisc]
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0

    before, namespaces = links(), os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    probing.capabilities.cache_clear()
    begun = time.monotonic()
    found = doctor.capabilities()
    seconds = time.monotonic() - begun
    print(f"capabilities: {seconds:.3f} s, bound 2 s")
    assert seconds < 2
    assert found.netem is tc("netem", "delay", "3ms")
    assert found.htb is tc("htb")
    assert found.tbf is tc("tbf", "rate", "1mbit", "burst", "8kb", "latency", "9ms")
    assert found.veth is True, "this kernel makes no veth pairs?"
    assert links() == before
    assert (os.listdir("/run/netns") if os.path.isdir("/run/netns") else []) == namespaces
    assert doctor.capabilities() is found, "cached for the process"
    assert found.as_dict()["docker"]["answers"] == found.docker.answers


def test_a_netlink_family_is_told_from_none() -> None:
    assert probing.has_netlink_family("nlctrl")
    assert not probing.has_netlink_family("no_such_family")


def test_docker_without_a_daemon_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    facts = probing._docker()
    assert not facts.answers and "none.sock" in (facts.error or "")
    # A socket on which somebody listens and never answers ends by the time-out.
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/silent.sock")
        begun = time.monotonic()
        assert not probing._docker().answers
        assert time.monotonic() - begun < probing.PROBE_TIMEOUT_S + 1
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    assert "not a socket" in (probing._docker().error or "")


# Plans


def test_an_able_machine_raises_everything() -> None:
    everything = {"delay": "12 ms", "jitter": "1 ms", "loss": "1 %", "rate": "10 Mbit/s"}
    limited = [{"cpu": 2, "memory": "1 GiB", "cpuset": "0-1"}, {}]
    assert doctor.check_plan(plan(limited, everything), ABLE) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("delay", "12 ms"), ("jitter", "1 ms"), ("loss", "1 %"), ("duplicate", "1 %"), ("corrupt", "1 %")],
)
def test_what_netem_does_is_refused_without_netem(name: str, value: str) -> None:
    shape = {name: value} | ({"delay": "2 ms"} if name == "jitter" else {})
    kernel = replace(ABLE, netem=False)
    problems = {p.message.split("`")[1]: p for p in doctor.check_plan(plan(link=shape), kernel)}
    assert set(problems) == set(shape)
    assert problems[name].code == "unsupported"
    assert problems[name].path == "h0--s1, h1--s1"
    assert f"`--allow-unsupported {name}`" in problems[name].hint
    assert f"allow_unsupported: [{name}]" in problems[name].hint
    allowed = plan(link=shape, allow_unsupported=list(shape))
    assert doctor.check_plan(allowed, kernel) == []
    assert set(doctor.unsupported(allowed, kernel)) == set(shape)
    assert doctor.unsupported(allowed, ABLE) == ()


def test_the_preset_is_refused_for_its_delay_only() -> None:
    problems = doctor.check_plan(
        make_plan(parse_testbed({"name": "p", "preset": {}})), replace(ABLE, netem=False)
    )
    assert codes(problems) == ["unsupported"]
    assert problems[0].path == "aggsw10--satsw11, satsw11--swEdge12"


def test_a_rate_without_htb_is_refused() -> None:
    (problem,) = doctor.check_plan(plan(link={"rate": "1 Mbit/s"}), replace(ABLE, htb=False))
    assert problem.code == "unsupported" and "rate" in problem.message


def test_limits_beyond_the_machine_are_refused() -> None:
    nodes: list[dict[str, Any]] = [
        {"cpu": 3},
        {"cpuset": "0,5"},
        {"memory": "9 GiB"},
        {"cpuset": "0-9999999"},
    ]
    problems = doctor.check_plan(plan(nodes), ABLE)
    assert codes(problems) == ["too-many-cores", "no-such-core", "too-much-memory"]
    assert [p.path for p in problems] == ["h0", "h1, h3", "h2"]
    assert "2 cores" in problems[0].message


def test_limits_without_controllers_are_refused() -> None:
    limited = plan([{"cpu": 1, "memory": "64 MiB", "cpuset": "0"}, {}])
    none = replace(ABLE, controllers=(), cgroup_version=None, cpu_quota=False)
    assert codes(doctor.check_plan(limited, none)) == ["no-controller"] * 3
    (problem,) = doctor.check_plan(limited, replace(ABLE, cpu_quota=False))
    assert "quota" in problem.message


def test_root_and_programs_are_asked_for_only_where_it_is_raised() -> None:
    bare = replace(ABLE, root=False, programs={**ABLE.programs, "ovs-vswitchd": None, "nft": None})
    assert codes(doctor.check_plan(plan(), bare)) == ["needs-root", "missing-program"]
    assert "nftables openvswitch-switch" in doctor.check_plan(plan(), bare)[1].hint
    assert doctor.check_plan(plan(), bare, raising=False) == []


def test_a_side_path_and_a_missing_datapath_are_refused() -> None:
    open_bridge = replace(ABLE, bridge_isolation=False, nft_bridge=False)
    assert "side path" in doctor.check_plan(plan(), open_bridge)[0].message
    no_switch = replace(ABLE, kernel_datapath=False, tun=False)
    assert "tun" in doctor.check_plan(plan(), no_switch)[0].message


def test_what_could_not_be_tried_refuses_nothing() -> None:
    unknown = replace(ABLE, netem=None, htb=None, veth=None, bridge_isolation=None, nft_bridge=None, tun=None)
    assert doctor.check_plan(plan(link={"delay": "2 ms", "rate": "1 Mbit/s"}), unknown) == []


def test_tight_resources_are_warned_of() -> None:
    many: list[dict[str, Any]] = [{"role": "client", "cpu": 1} for _ in range(50)]
    warned = doctor.resource_warnings(plan(many), replace(ABLE, memory_available_bytes=2**30))
    assert [w.name for w in warned] == ["cores", "memory"]
    assert "--runtime namespace" in warned[1].remedy
    assert doctor.resource_warnings(plan(), ABLE) == []


def test_published_ports_that_are_taken_are_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        published = plan(publish=[{"node": "h0", "port": 80, "host_port": port}], controller={"kind": "none"})
        (problem,) = doctor.port_problems(published)
        assert problem.code == "port-in-use" and str(port) in problem.message
        held = next(f for f in doctor.findings(ABLE, [port]) if f.name == "published ports")
        assert held.status == "warning" and str(port) in held.detail
        if os.geteuid() == 0:
            assert str(os.getpid()) in held.detail
    assert doctor.port_problems(published) == []


# Findings


def test_every_finding_that_is_not_ok_says_cost_and_remedy() -> None:
    worst = replace(
        ABLE, root=False, cores=1, netem=False, htb=False, tbf=False, veth=False, bridge_isolation=False,
        nft_bridge=None, kernel_datapath=False, tun=False, cgroup_version=None, controllers=(),
        cpu_quota=False, docker=doctor.DockerFacts(False, error="there is no socket"), ovs_version=None,
        programs=dict.fromkeys(probing.PROGRAMS),
    )  # fmt: skip
    for found in (worst, ABLE, None):
        results = doctor.findings(found)
        names = [finding.name for finding in results]
        assert len(set(names)) == len(names)
        wanted = {"qdisc netem", "datapath", "cgroups", "Docker", "Open vSwitch", "published ports", "clock"}
        assert wanted | {"firewall", "ip_forward", "TCP"} <= set(names)
        for finding in results:
            assert finding.detail
            assert finding.status == "ok" or (finding.cost and finding.remedy), finding
    states = {finding.name: finding.status for finding in doctor.findings(worst)}
    assert (
        states["qdisc netem"]
        == states["Open vSwitch"]
        == states["datapath"]
        == states["cgroups"]
        == "missing"
    )
    assert states["nftables for bridges"] == "warning"


@pytest.mark.live
def test_without_root_the_doctor_says_what_it_could_not_try(tmp_path: Path) -> None:
    # First as root, so that all is imported: Python may be installed where an ordinary user cannot read.
    script = (
        "import ctypes, json, os\n"
        "from topology import doctor\n"
        "doctor.findings(); doctor.capabilities.cache_clear()\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(4, 1)\n"  # PR_SET_DUMPABLE: else /proc/self stays root's after setuid
        "print(json.dumps([f.as_dict() for f in doctor.findings()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = {item["name"]: item for item in json.loads(done.stdout)}
    assert results["rights"]["status"] == "warning"
    assert "sudo" in results["firewall"]["remedy"]
    assert results["firewall"]["detail"].startswith("policy of FORWARD could not be read")
    assert results["Docker"]["status"] in ("warning", "missing")


# Limits of the kernel, clock and firewall


def limits(**changed: Room) -> KernelLimits:
    wide = Room(10**6, 0, "sudo sysctl x=")
    values = dict.fromkeys(("threads", "neighbours", "files", "open_files", "inotify", "net_namespaces"), wide)
    return KernelLimits(**{**values, **changed})


def test_the_kernel_s_limits_are_warned_of_with_numbers() -> None:
    many = plan([{"role": "client", "cpu": 0.01} for _ in range(150)], runtime="docker")
    assert doctor.resource_warnings(many, replace(ABLE, memory_available_bytes=2**40), limits()) == []
    tight = limits(neighbours=Room(1024, 200, "sudo sysctl net.ipv4.neigh.default.gc_thresh3="),
                   threads=Room(4194304, 900, "sudo sysctl kernel.pid_max="),
                   open_files=Room(256, 0, "ulimit -n "),
                   inotify=Room(128, 0, "sudo sysctl fs.inotify.max_user_instances="))  # fmt: skip
    warned = {w.name: w for w in doctor.resource_warnings(many, replace(ABLE, memory_available_bytes=2**40), tight)}
    assert set(warned) == {"neighbours", "open files of a process", "inotify"}
    assert "150 nodes need about 900" in warned["neighbours"].detail and "200 in use" in warned["neighbours"].detail
    assert "gc_thresh3=4096" in warned["neighbours"].remedy
    older = replace(ABLE, cgroup_version=1, memory_available_bytes=2**40)
    assert "inotify" not in {w.name for w in doctor.resource_warnings(many, older, tight)}


def test_more_nodes_than_a_bridge_has_ports_are_refused() -> None:
    small = plan()
    large = replace(small, nodes=small.nodes * 512)
    assert len(large.nodes) == 1024
    assert codes(doctor.check_plan(large, ABLE)) == ["too-many-nodes"]


@pytest.mark.live
def test_a_bridge_of_this_kernel_has_as_many_ports_as_is_said() -> None:
    script = (
        "ip link add name br0 type bridge; for i in $(seq 1 1030); do "
        'echo "link add name v$i master br0 type veth peer name p$i"; done | ip -force -batch - 2>/dev/null; '
        "ip -o link show master br0 | wc -l"
    )
    command = ["unshare", "--net", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == MOST_NODES + 1, done


def test_the_kernel_s_limits_are_read() -> None:
    found = kernel_limits.kernel_limits()
    assert found.threads.most and 0 < found.threads.used < found.threads.most
    assert found.files.most and found.open_files.most and found.neighbours.most
    number, first = nodes_that_fit(ABLE, limits(neighbours=Room(1024, 24, "")))
    assert first == "memory" and number == (6 * 2**30 - 512 * 2**20) // (45 * 2**20)
    assert nodes_that_fit(ABLE, limits(neighbours=Room(128, 8, ""))) == (20, "neighbours (gc_thresh3)")


def test_time_services_say_how_far_the_clock_is_off() -> None:
    chrony = "A29FC801,192.0.2.1,3,1763798000.1,-0.000123456,0.000010,0.000200,-1.2,0.0,0.1,0.02,0.001,64.2,Normal\n"
    assert host_state.chrony_offset(chrony) == pytest.approx(0.000123456)
    assert host_state.chrony_offset("7F7F0101,,0,0.0,0.0,0,0,0,0,0,0,0,0,Not synchronised\n") is None
    assert host_state.chrony_offset("506 Cannot talk to daemon") is None
    text = "       Server: 192.0.2.1\n       Offset: +1.234ms\n        Delay: 20ms\n"
    assert host_state.timesyncd_offset(text) == pytest.approx(0.001234)
    assert host_state.timesyncd_offset("       Server: n/a\n") is None


@pytest.mark.parametrize(
    ("clock", "status", "said"),
    [
        (host_state.Clock("tsc", True, "chrony", 0.002), "ok", "2 ms off as chrony says"),
        (host_state.Clock("tsc", True, "chrony", 0.2), "warning", "200 ms off"),
        (host_state.Clock("hpet", True), "warning", "slow one"),
        (host_state.Clock("tsc", False), "warning", "no time service"),
        (host_state.Clock("tsc", None), "ok", "not known"),
    ],
)
def test_clocks_are_judged(
    clock: host_state.Clock, status: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_state, "clock", lambda: clock)
    (finding,) = [f for f in doctor.findings(ABLE) if f.name == "clock"]
    assert finding.status == status and said in finding.detail


@pytest.mark.live
def test_chains_of_nftables_that_drop_what_is_forwarded_are_seen() -> None:
    rules = (
        "table inet mine { chain through { type filter hook forward priority 0; policy drop; }; "
        "chain in { type filter hook input priority 0; policy drop; }; }; "
        "table bridge frames { chain between { type filter hook forward priority 0; policy drop; }; };"
    )
    command = ["unshare", "--net", "sh", "-c", f"nft '{rules}' && nft -j list chains"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert host_state.dropping_chains(done.stdout) == ("inet mine through", "bridge frames between")
    assert host_state.dropping_chains("no json") is None


@pytest.mark.parametrize(
    ("forwarding", "status"),
    [
        (host_state.Forwarding("DROP", False, ()), "ok"),
        (host_state.Forwarding("DROP", True, ()), "warning"),
        (host_state.Forwarding("ACCEPT", True, ()), "ok"),
        (host_state.Forwarding("ACCEPT", False, ("bridge frames between",)), "warning"),
        (host_state.Forwarding("ACCEPT", True, ("inet mine through",)), "warning"),
        (host_state.Forwarding(None, False, None), "warning"),
    ],
)
def test_firewalls_are_judged(
    forwarding: host_state.Forwarding, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_state, "forwarding", lambda: forwarding)
    (finding,) = [f for f in doctor.findings(ABLE) if f.name == "firewall"]
    assert finding.status == status and (status == "ok" or (finding.cost and finding.remedy))


def test_the_exit_status_says_whether_a_testbed_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from cohortnet.cli import app

    def run(found: doctor.Capabilities, *options: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(doctor, "findings", lambda: [f for f in findings(found) if f.name in WATCHED])
        result = CliRunner().invoke(app, ["doctor", "--json", *options])
        return result.exit_code, json.loads(result.stdout)

    WATCHED = ("qdisc netem", "Open vSwitch", "datapath", "veth pairs", "programs")
    findings = doctor.findings
    assert run(ABLE)[0] == 0 and run(ABLE, "--strict")[0] == 0
    status, answer = run(replace(ABLE, netem=False))
    assert status == 0 and answer["can_raise"] is True and answer["limits"]["threads"]["most"]
    assert run(replace(ABLE, netem=False), "--strict")[0] == 1
    status, answer = run(replace(ABLE, ovs_version=None))
    assert status == 1 and answer["can_raise"] is False
