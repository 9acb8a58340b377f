"""The Docker runtime on a real daemon: nodes, limits, named failures, removal that leaves others alone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest

from topology.cgroup_mounts import mounts
from topology.engine.docker_containers import NODE_LABEL, TESTBED_LABEL
from topology.engine.docker_runtime import DockerRuntime
from topology.errors import TestbedProblems, TopologyError
from topology.plan import Plan

pytestmark = pytest.mark.live
Make = Callable[..., Plan]


def quiet(step: str, done: int, total: int) -> None:
    """No progress wanted."""


def of_testbed(client: docker.APIClient, plan: Plan) -> list[str]:
    found = client.containers(all=True, filters={"label": f"{TESTBED_LABEL}={plan.testbed}"})
    return sorted(item["Names"][0].lstrip("/") for item in found)


def run_in(client: docker.APIClient, container: str, *command: str) -> tuple[int, str]:
    call = client.exec_create(container, list(command))["Id"]
    output = client.exec_start(call).decode()
    return client.exec_inspect(call)["ExitCode"], output.strip()


@contextlib.contextmanager
def foreign(client: docker.APIClient, image: str, name: str, **options: Any) -> Iterator[str]:
    """A container that somebody made by hand."""
    alone = client.create_host_config(network_mode="none")
    identity = client.create_container(image, ["sleep", "600"], name=name, host_config=alone, **options)["Id"]
    try:
        client.start(identity)
        yield identity
    finally:
        with contextlib.suppress(docker.errors.NotFound):
            client.remove_container(identity, force=True)


@pytest.fixture
def runtime(docker_url: str) -> DockerRuntime:
    return DockerRuntime(docker_url)


def limit(cgroups: tuple[str, ...], *names: str) -> str:
    """The first of these files (version 1 and version 2 call them differently) in one of the folders."""
    for folder in cgroups:
        for name in names:
            if (Path(folder) / name).exists():
                return (Path(folder) / name).read_text().strip()
    raise AssertionError(f"none of {names} in {cgroups}")


def test_a_node_has_its_limits_names_and_folders_and_no_network(
    make: Make, runtime: DockerRuntime, client: docker.APIClient
) -> None:
    limited = {"cpu": 0.5, "memory": "64 MiB", "cpuset": "0", "environment": {"COLOUR": "green"}}
    idle = {"command": ["sleep", "300"]}
    plan = make([{**limited, **idle}, idle, idle])
    plan.shared.mkdir(parents=True)
    (plan.shared / "inventory.json").write_text("{}")
    steps: list[tuple[str, int, int]] = []
    assert runtime.check(plan) == []
    facts = runtime.create(plan, plan.nodes, lambda *step: steps.append(step))
    assert steps == [("containers", n, 3) for n in (1, 2, 3)]
    assert set(facts) == {"h.0", "h.1", "h.2"}
    node, found = plan.nodes[0], facts["h.0"]
    # Its own network namespace with nothing but lo in it.
    devices = Path(f"/proc/{found.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    spaces = {os.readlink(f"/proc/{f.pid}/ns/net") for f in facts.values()} | {
        os.readlink("/proc/self/ns/net")
    }
    assert len(spaces) == 4
    # Cgroups: the pid is in each, there is one for each hierarchy with controllers, and they hold the limits.
    for folder in found.cgroups:
        assert str(found.pid) in (Path(folder) / "cgroup.procs").read_text().split(), folder
    assert len(found.cgroups) >= sum(bool(mount.controllers) for mount in mounts())
    assert limit(found.cgroups, "memory.limit_in_bytes", "memory.max") == str(64 * 2**20)
    assert limit(found.cgroups, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert limit(found.cgroups, "cpuset.cpus") == "0"
    assert limit(found.cgroups, "pids.max") == "4096"
    # Names, labels, environment, hosts.
    data = client.inspect_container(node.container)
    assert data["Id"] == found.container_id
    assert data["Config"]["Labels"] == {TESTBED_LABEL: plan.testbed, NODE_LABEL: "h.0"}
    assert run_in(client, node.container, "hostname") == (0, "h.0")
    assert run_in(client, node.container, "sh", "-c", "echo $COLOUR $COHORTNET_NODE $COHORTNET_STATE") == (
        0,
        f"green h.0 {node.state}",
    )
    hosts = run_in(client, node.container, "cat", "/etc/hosts")[1]
    assert all(f"{other.address}\t{other.name}" in hosts for other in plan.nodes)
    # What is shared may be read only, the node's own folder is its own.
    assert run_in(client, node.container, "cat", f"{plan.shared}/inventory.json") == (0, "{}")
    assert run_in(client, node.container, "touch", f"{plan.shared}/mine")[0] != 0
    assert run_in(client, node.container, "touch", f"{node.state}/mine")[0] == 0
    assert (Path(node.state) / "mine").exists()
    assert run_in(client, node.container, "cat", f"{plan.state}/nodes/h.1")[0] != 0
    # Not privileged, and process 1 reaps what is orphaned.
    assert not data["HostConfig"]["Privileged"] and data["HostConfig"]["NetworkMode"] == "none"
    orphan = "(sleep 0.2 & ) ; exit 0"
    assert run_in(client, node.container, "sh", "-c", orphan)[0] == 0
    time.sleep(0.6)
    states = run_in(client, node.container, "sh", "-c", "cat /proc/[0-9]*/stat")[1]
    assert " Z " not in states
    # Down.
    assert runtime.remove(plan.testbed, plan.state, quiet) == sorted(n.container for n in plan.nodes)
    assert of_testbed(client, plan) == []
    assert not any(Path(folder).exists() for f in facts.values() for folder in f.cgroups)
    assert runtime.remove(plan.testbed, plan.state, quiet) == [], "twice is as good as once"


def test_commands_entry_points_and_users_of_images(
    make: Make, runtime: DockerRuntime, client: docker.APIClient, images: Any
) -> None:
    plan = make([
        {"image": images.bare},
        {"image": images.shell},
        {"image": images.entry, "command": ["sleep", "300"]},
        {"image": images.user, "command": ["sleep", "300"]},
    ])  # fmt: skip
    assert runtime.check(plan) == []
    facts = runtime.create(plan, plan.nodes, quiet)
    time.sleep(0.5)
    running = {node.name: client.inspect_container(node.container)["State"]["Running"] for node in plan.nodes}
    assert running == {"h.0": True, "h.1": True, "h.2": True, "h.3": True}
    # The entry point was passed through: the program that it started has what it exported.
    children = Path(f"/proc/{facts['h.2'].pid}/task/{facts['h.2'].pid}/children").read_text().split()
    assert b"CAME_THROUGH_ENTRY=yes" in Path(f"/proc/{children[0]}/environ").read_bytes()
    folder = plan.node("h.3").state
    assert run_in(client, plan.node("h.3").container, "touch", f"{folder}/mine")[0] == 0
    assert (Path(folder) / "mine").stat().st_uid == 1000


def test_removal_leaves_everything_else_alone(
    make: Make, runtime: DockerRuntime, client: docker.APIClient, images: Any
) -> None:
    ours, theirs = make(2, "-a"), make(1, "-b")
    runtime.create(ours, ours.nodes, quiet)
    runtime.create(theirs, theirs.nodes, quiet)
    # Half-made: created, never started.
    labels = {TESTBED_LABEL: ours.testbed}
    client.create_container(images.bare, ["sleep", "9"], name=f"{ours.testbed}.half", labels=labels)
    with foreign(client, images.bare, f"{ours.testbed}.by-hand") as hand:
        client.pause(ours.nodes[0].container)
        removed = runtime.remove(ours.testbed, ours.state, quiet)
        assert removed == [f"{ours.testbed}.h.0", f"{ours.testbed}.h.1", f"{ours.testbed}.half"]
        assert of_testbed(client, ours) == []
        assert of_testbed(client, theirs) == [theirs.nodes[0].container]
        assert client.inspect_container(hand)["State"]["Running"]


def test_removals_at_the_same_time_both_end_well(
    make: Make, runtime: DockerRuntime, client: docker.APIClient
) -> None:
    plan = make(6)
    runtime.create(plan, plan.nodes, quiet)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: runtime.remove(plan.testbed, plan.state, quiet), range(2)))
    assert set(done[0]) | set(done[1]) == {node.container for node in plan.nodes}
    assert of_testbed(client, plan) == []


def test_names_that_are_taken_are_named_with_what_to_type(
    make: Make, runtime: DockerRuntime, client: docker.APIClient, images: Any
) -> None:
    plan = make(2)
    name = plan.nodes[1].container
    with foreign(client, images.bare, name) as hand:
        (problem,) = runtime.check(plan)
        assert problem.code == "name-taken" and repr(name) in problem.message
        assert f"`docker rm -f {name}`" in problem.hint and "container_prefix" in problem.hint
        with pytest.raises(TopologyError, match="name is taken") as raised:
            runtime.create(plan, plan.nodes, quiet)
        assert f"docker rm -f {name}" in str(raised.value) and "'h.1'" in str(raised.value)
        runtime.remove(plan.testbed, plan.state, quiet)
        assert client.inspect_container(hand)["State"]["Running"], "what was there is untouched"
    with foreign(client, images.bare, name, labels={TESTBED_LABEL: "another"}):
        (problem,) = runtime.check(plan)
        assert "`cohortnet down another`" in problem.hint
    runtime.create(plan, plan.nodes, quiet)
    (problem,) = runtime.check(plan)
    assert problem.code == "already-there" and f"`cohortnet down {plan.testbed}`" in problem.hint


def test_one_node_that_fails_is_named_and_the_rest_is_found_again(
    make: Make, runtime: DockerRuntime, client: docker.APIClient, images: Any
) -> None:
    good = {"command": ["sleep", "300"]}
    plan = make([good, good, {"command": ["no-such-program"]}, good, good, good, good, good])
    with pytest.raises(TopologyError) as raised:
        runtime.create(plan, plan.nodes, quiet)
    text = str(raised.value)
    assert "node 'h.2'" in text and images.bare in text and "no-such-program" in text
    left = of_testbed(client, plan)
    assert plan.nodes[2].container in left
    assert runtime.remove(plan.testbed, plan.state, quiet) == left
    # The first one ends while the others are still being made.
    broken = {"command": ["sh", "-c", "echo it is broken; exit 3"]}
    ended = make([broken, *[good] * 11], "-ended")
    with pytest.raises(TopologyError, match=r"node 'h.0'.*ended at once with status 3: it is broken"):
        runtime.create(ended, ended.nodes, quiet)


def test_images_that_lack_something_are_refused_before_anything_is_made(
    make: Make, runtime: DockerRuntime, client: docker.APIClient
) -> None:
    plan = make([
        {"command": ["python", "-m", "json.tool"]},
        {"command": ["python", "-m", "fl_node.agent"]},
        {"command": ["iperf3", "-s"]},
        {"image": "t-docker-none:1"},
        {"image": "cohortnet/node:no-such-tag"},
    ])  # fmt: skip
    problems = runtime.check(plan)
    found = sorted((p.code, p.message) for p in problems)
    assert [code for code, _ in found] == ["missing-image", "missing-image", "unfit-image", "unfit-image"]
    texts = " | ".join(message for _, message in found)
    assert "lacks the program `iperf3`" in texts and "lacks the Python package `fl_node`" in texts
    assert "json" not in texts
    ours = next(p for p in problems if "no-such-tag" in p.message)
    assert "`sudo ./scripts/build_image.sh`" in ours.hint
    assert of_testbed(client, plan) == [], "the container that looked inside is gone"
    begun = time.monotonic()
    runtime.check(plan)
    assert time.monotonic() - begun < 0.3, "an image is looked into once"


def test_an_image_without_shell_is_said_to_be_unfit(
    make: Make, docker_url: str, client: docker.APIClient
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    name = f"t-docker-empty-{os.getpid()}"
    client.import_image_from_data(buffer.getvalue(), repository=name, tag="1")
    try:
        plan = make([{"image": f"{name}:1", "command": ["python", "-m", "x"]}])
        (problem,) = DockerRuntime(docker_url).check(plan)
        assert problem.code == "unfit-image" and "sh" in problem.message
        assert of_testbed(client, plan) == []
    finally:
        client.remove_image(f"{name}:1", force=True)


def test_limits_that_docker_refuses_are_found_before(make: Make, runtime: DockerRuntime) -> None:
    plan = make([{"memory": "1 MiB"}])
    assert [(p.path, p.code) for p in runtime.check(plan)] == [("memory", "too-small")]
    with pytest.raises(TestbedProblems, match="0.01"):  # the model's own least is Docker's
        make([{"cpu": 0.005}])


def test_without_a_daemon_the_way_on_is_named(make: Make, tmp_path: Path) -> None:
    plan = make(1)
    lost = DockerRuntime(f"unix://{tmp_path}/none.sock")
    (problem,) = lost.check(plan)
    assert problem.code == "no-docker" and "none.sock" in problem.message
    assert "systemctl start docker" in problem.hint and "--runtime namespace" in problem.hint
    (problem,) = DockerRuntime("tcp://192.0.2.1:2375").check(plan)
    assert "DOCKER_HOST" in problem.hint
    with pytest.raises(TopologyError, match="does not answer"):
        lost.create(plan, plan.nodes, quiet)
    # Nothing says that Docker was used: nothing to remove. The state says so: say that something may be left.
    assert lost.remove(plan.testbed, tmp_path, quiet) == []
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "inventory.json").write_text(json.dumps({"runtime": "namespace"}))
    assert lost.remove(plan.testbed, tmp_path, quiet) == []
    (tmp_path / "shared" / "inventory.json").write_text(json.dumps({"runtime": "docker"}))
    with pytest.raises(TopologyError, match=f"cohortnet down {plan.testbed}"):
        lost.remove(plan.testbed, tmp_path, quiet)


def test_a_daemon_that_hangs_ends_by_a_time_out(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topology.engine.docker_runtime.QUICK_TIMEOUT_S", 0.5)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen()
        begun = time.monotonic()
        (problem,) = DockerRuntime(f"unix://{tmp_path}/silent.sock").check(make(1))
        assert problem.code == "no-docker" and time.monotonic() - begun < 3


def test_the_daemon_dies_and_comes_back(own_daemon: Any, make: Make) -> None:
    plan = make([{"image": "t-docker:own"} for _ in range(3)], "-own")
    runtime = DockerRuntime(own_daemon.url)
    facts = runtime.create(plan, plan.nodes, quiet)
    (plan.shared / "inventory.json").write_text(json.dumps({"runtime": "docker"}))
    own_daemon.kill()
    assert all(Path(f"/proc/{f.pid}").exists() for f in facts.values()), "containers outlive their daemon"
    with pytest.raises(TopologyError, match="may still be there"):
        runtime.remove(plan.testbed, plan.state, quiet)
    own_daemon.start()
    assert len(runtime.remove(plan.testbed, plan.state, quiet)) == 3
    assert not any(Path(f"/proc/{f.pid}").exists() for f in facts.values())


CREATE = """
import sys
from topology.engine.docker_runtime import DockerRuntime
from topology.plan import plan_from_dict
import json
plan = plan_from_dict(json.load(sys.stdin))
print("begun", flush=True)
DockerRuntime(sys.argv[1]).create(plan, plan.nodes, lambda *_: None)
"""


def test_killed_while_creating_nothing_appears_after_removal(
    make: Make, runtime: DockerRuntime, docker_url: str, client: docker.APIClient
) -> None:
    plan = make(16)
    for after in (0.15, 0.4, 0.8):
        child = subprocess.Popen(
            [sys.executable, "-c", CREATE, docker_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        try:
            assert child.stdin and child.stdout
            child.stdin.write(json.dumps(plan.as_dict()))
            child.stdin.close()
            assert child.stdout.readline().strip() == "begun"
            time.sleep(after)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        removed = runtime.remove(plan.testbed, plan.state, quiet)
        print(f"killed after {after} s: {len(removed)} of 16 containers were there and are removed")
        time.sleep(1.0)
        assert of_testbed(client, plan) == []


def test_creation_and_removal_stay_near_the_daemon_s_own_limit(
    make: Make, runtime: DockerRuntime, docker_url: str, client: docker.APIClient, images: Any
) -> None:
    """20 containers against 20 bare `docker run -d --network none`, eight at a time, on the same machine."""
    plan = make(20)
    begun = time.monotonic()
    runtime.create(plan, plan.nodes, quiet)
    created = time.monotonic() - begun
    begun = time.monotonic()
    assert len(runtime.remove(plan.testbed, plan.state, quiet)) == 20
    removed = time.monotonic() - begun
    label = f"t-docker-bare={os.getpid()}"
    program = shutil.which("docker")
    assert program, "the docker command is not installed here: `apt-get install docker.io`"

    def bare(_: int) -> None:
        command = [program, "-H", docker_url, "run", "-d", "--network", "none", "--label", label, images.bare]
        subprocess.run([*command, "sleep", "300"], check=True, capture_output=True, timeout=60)

    try:
        begun = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(bare, range(20)))
        least = time.monotonic() - begun
    finally:
        names = [item["Id"] for item in client.containers(all=True, filters={"label": label})]
        begun = time.monotonic()
        subprocess.run(
            [program, "-H", docker_url, "rm", "-f", *names], check=True, capture_output=True, timeout=60
        )
    least_removed = time.monotonic() - begun
    print(
        f"20 containers: created in {created:.2f} s (bare {least:.2f}), "
        f"removed in {removed:.2f} s (bare {least_removed:.2f})"
    )
    assert created < 2 * least + 1
    assert removed < 2 * least_removed + 1.5
