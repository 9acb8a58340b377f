"""Whatever ends a testbed, `down` leaves nothing of it, and everything else as it was."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.topology.engine import lab
from topology.engine import engine, launch, links, removal, state, switch_end
from topology.engine.namespace_runtime import NamespaceRuntime
from topology.errors import TestbedProblems, TopologyError
from topology.plan import Plan

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[3]

RAISE = """
import json, sys
from topology.engine import engine
from topology.plan import plan_from_dict
plan = plan_from_dict(json.load(sys.stdin))
def progress(step, done, total):
    print(step, flush=True)
engine.raise_testbed(plan, progress)
print("raised", flush=True)
sys.stdin.close()
import time
time.sleep(60)
"""


def raise_elsewhere(plan: Plan) -> subprocess.Popen[str]:
    """A process that raises the testbed and stays, as the command line's shell does."""
    process = subprocess.Popen([sys.executable, "-c", RAISE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(plan.as_dict()))
    process.stdin.close()
    return process


@pytest.fixture
def foreign() -> Iterator[None]:
    """A bridge and a namespace made by hand, which nobody may touch."""
    commands = ["ip link add t-eng-foreign type bridge", "ip netns add t-engine-foreign"]
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)
    try:
        yield
        links_there = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
        assert "t-eng-foreign" in links_there
        assert "t-engine-foreign" in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run(["ip", "link", "del", "t-eng-foreign"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", "t-engine-foreign"], check=False, capture_output=True)


def sysctls() -> dict[str, str]:
    return {
        name: Path("/proc/sys", name).read_text()
        for name in (
            "net/core/rmem_default",
            "net/core/rmem_max",
            "net/ipv4/ip_forward",
            "net/ipv6/conf/all/disable_ipv6",
        )
    }


def test_killed_at_any_moment_of_its_making_it_leaves_nothing(foreign: None) -> None:
    plan = lab.preset("t-engine-kill", clients=12)
    before = sysctls()
    start = time.monotonic()
    process = raise_elsewhere(plan)
    assert process.stdout is not None
    for line in process.stdout:  # how long does it take here, now?
        if line.strip() == "raised":
            break
    whole = time.monotonic() - start
    random_moments = random.Random(2)
    try:
        for turn in range(3):  # benchmarks/soak.py has the many
            if turn:
                process = raise_elsewhere(plan)
                # The first part is Python's own start: nothing is made then.
                time.sleep(whole * random_moments.uniform(0.25, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
            assert process.stdout is not None
            steps = process.stdout.read().split("\n")
            process.stdout.close()
            result = engine.remove_testbed(plan.testbed)
            print(
                f"killed after {steps[-2:] if turn else 'raised'}: {len(result.removed)} gone, {result.seconds:.2f} s"
            )
            assert result.left == ()
            assert lab.traces(plan) == []
            assert sysctls() == before
    finally:
        process.kill()
        engine.remove_testbed(plan.testbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_removes_itself(number: int) -> None:
    plan = lab.preset("t-engine-term", clients=12)
    process = raise_elsewhere(plan)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "nodes":
                break
        process.send_signal(number)
        output = process.stdout.read()
        assert process.wait(timeout=30) != 0
        assert "KeyboardInterrupt" in output
        assert lab.traces(plan) == []
    finally:
        process.kill()
        engine.remove_testbed(plan.testbed)


def test_twice_down_and_down_of_nothing() -> None:
    plan = lab.star("t-engine-twice", {"a": None, "b": None})
    with lab.up(plan):
        pass
    again = engine.remove_testbed(plan.testbed)
    assert (again.removed, again.left) == ((), ())
    assert lab.traces(plan) == []


def test_two_testbeds_at_once_and_one_goes() -> None:
    one, two = (lab.star(f"t-engine-{name}", {"a": None, "b": None}) for name in ("one", "two"))
    with lab.up(one) as first:
        with lab.up(two) as second:
            for inventory in (first, second):
                lab.run(inventory, "a", "ping", "-c", "1", "-W", "2", "b")
            listed = [s.name for s in engine.list_testbeds() if s.state == "up"]
            assert [name for name in listed if name in (one.testbed, two.testbed)] == [
                one.testbed, two.testbed,
            ]  # fmt: skip
        lab.run(first, "a", "ping", "-c", "1", "-W", "2", "b")


def test_a_testbed_that_is_up_is_not_raised_again() -> None:
    plan = lab.star("t-engine-again", {"a": None, "b": None})
    with lab.up(plan) as inventory:
        with pytest.raises(TopologyError, match="already up; `cohortnet down t-engine-again`"):
            engine.raise_testbed(plan)
        lab.run(inventory, "a", "ping", "-c", "1", "-W", "2", "b")


def test_a_broken_testbed_is_called_so_and_goes() -> None:
    plan = lab.star("t-engine-broken", {"a": None, "b": None})
    with lab.up(plan) as inventory:
        os.kill(int(Path(inventory["core"]["ovs_rundir"], "ovs-vswitchd.pid").read_text()), signal.SIGKILL)
        time.sleep(0.2)
        assert next(s.state for s in engine.list_testbeds() if s.name == plan.testbed) == "broken"


def test_without_its_state_folder_it_is_found_by_name() -> None:
    plan = lab.star("t-engine-lost", {"a": None, "b": None})
    engine.raise_testbed(plan)
    try:
        subprocess.run(["rm", "-r", str(plan.state)], check=True)
    finally:
        result = engine.remove_testbed(plan.testbed)
    assert result.left == ()
    assert lab.traces(plan) == []


def test_programs_that_hide_are_found() -> None:
    """One that left its session and ignores SIGTERM, in a node and in the core."""
    plan = lab.star("t-engine-hide", {"a": None, "b": None})
    stubborn = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nif os.fork() == 0:\n os.setsid()\n"
        " if os.fork() == 0: time.sleep(300)\n os._exit(0)\nos.wait()"
    )
    inventory = engine.raise_testbed(plan)
    try:
        lab.leave_running(inventory, "a", [sys.executable, "-c", stubborn])
        launch.start_daemon(plan.testbed, [sys.executable, "-c", stubborn], plan.logs / "b.log").wait(timeout=20)
    finally:
        result = engine.remove_testbed(plan.testbed)
    assert result.left == ()
    assert lab.traces(plan) == []


def test_a_taken_port_is_refused_before_anything_is_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plan = lab.star("t-engine-port", {"a": None, "b": None}, publish=[{"node": "a", "port": 80, "host_port": port}])
        with pytest.raises(TestbedProblems, match=f"(?s)127.0.0.1:{port}.*write `publish:") as caught:
            engine.raise_testbed(plan)
        assert caught.value.problems[0].path == "publish[0].host_port"
    assert lab.traces(plan) == []


def test_a_management_network_that_is_routed_already_is_refused() -> None:
    plan = lab.star("t-engine-route", {"a": None, "b": None})
    other = replace(plan, testbed="t-engine-route2", host_interface="cnm-t-engine", core_namespace="cn.t-engine-route2")
    with lab.up(plan), pytest.raises(TestbedProblems, match="management_pool"):
        engine.raise_testbed(other)
    assert lab.traces(other) == []


def test_a_step_that_fails_takes_everything_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lab.preset("t-engine-fail", clients=4)

    def fail(*_: object, **__: object) -> None:
        raise TopologyError("the cable is too short")

    for module, name in ((links, "make_all"), (engine.openvswitch, "start"), (NamespaceRuntime, "create")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(TopologyError, match="the cable is too short"):
                engine.raise_testbed(plan)
        assert lab.traces(plan) == []


def test_a_dead_controller_ends_the_raising_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lab.preset("t-engine-dead", clients=2)
    program = [sys.executable, "-c", "raise SystemExit('no such protocol')"]
    monkeypatch.setattr(
        engine.daemons, "start_controller",
        lambda plan: launch.start_daemon(plan.testbed, program, engine.daemons.controller_log(plan)),
    )  # fmt: skip
    with pytest.raises(TopologyError, match="the controller ended with status 1(.|\n)*no such protocol"):
        engine.raise_testbed(plan)
    assert lab.traces(plan) == []


def test_a_held_lock_names_its_holder() -> None:
    with state.lock("t-engine-lock"), pytest.raises(TopologyError, match=f"by process {os.getpid()}"):
        engine.raise_testbed(lab.star("t-engine-lock", {"a": None, "b": None}))
    assert removal.remains("t-engine-lock") == []


HOLDER = """
import fcntl, os, socket, struct, sys, time
sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(150)]
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"t0", 0x1002))  # TUNSETIFF: a tap without packet information
print("open", flush=True)
time.sleep(60)
"""


def test_the_end_of_a_switch_takes_its_sockets_with_it_and_leaves_taps_to_their_namespace() -> None:
    open_files, limit = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
    command = ["unshare", "--net", sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "open\n"
            switch_end.end(holder.pid)
            assert holder.wait(timeout=20) == -signal.SIGKILL
        finally:
            holder.kill()
    # Nothing of it is held on to: a copy that stayed open would keep its network namespace.
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limit
    with pytest.raises(ProcessLookupError):
        switch_end.end(holder.pid)


def test_twenty_rounds_of_the_soak_leave_nothing() -> None:
    """Killed while it is raised, when it is up and while it is taken down, at moments drawn from a fixed seed."""
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--rounds", "20", "--clients", "2", "--network",
               "--seed", "5", "--name", "t-eng-up-soak"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    print(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "something left in 0 of them" in done.stdout
    assert {phase for phase in ("raised", "up", "taken down") if f"being {phase}" in done.stdout} == {
        "raised", "up", "taken down",
    }  # fmt: skip


def test_docker_testbed_killed_while_containers_are_made() -> None:
    star: dict[str, str | None] = {"a": None, "b": None, "c": None, "d": None}
    plan = lab.star("t-engine-dkill", star, runtime="docker", container_prefix="t-engine-dkill.")
    listing = ["docker", "ps", "-aq", "--filter", f"label=cohortnet.testbed={plan.testbed}"]
    process = raise_elsewhere(plan)
    try:
        deadline = time.monotonic() + 60
        while not subprocess.check_output(listing):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    finally:
        process.kill()
        result = engine.remove_testbed(plan.testbed)
    assert result.left == ()
    assert subprocess.check_output(listing) == b""
    assert lab.traces(plan) == []
