"""Nodes of a raised testbed, in both runtimes: pinned at the start, paused, begun anew, joined by others."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.topology.engine import lab
from topology.engine import cgroups, change_life, change_links, change_nodes, engine, execution, launch
from topology.engine.growth import node_like
from topology.engine.state import load
from topology.errors import TestbedProblems, TopologyError
from topology.inventory import read_inventory
from topology.plan import Plan

pytestmark = pytest.mark.live
COUNT = ["sh", "-c", 'n=0; while :; do n=$((n+1)); echo $n > "$0/n"; sleep 0.01; done']
SPEEDS = {"seed": 1, "classes": [{"name": "slow", "count": 1, "cpus": 0.25, "cpuset": "0"},
                                 {"name": "fast", "share": "100 %", "cpus": 0.5, "cpuset": "1"}]}  # fmt: skip


def plan(name: str, runtime: str) -> Plan:
    nodes = [{"name": "a", "role": "client", "command": ["sleep", "infinity"]}, {"name": "b", "role": "client",
              "command": ["sleep", "infinity"]}, {"name": "c", "cpuset": "1"}]  # fmt: skip
    return lab.star(name, {"a": "50 Mbit/s", "b": None, "c": None}, nodes=nodes, runtime=runtime, speeds=SPEEDS,
                    controller={"rest_host_port": lab.free_port()}, container_prefix="eng-change.")  # fmt: skip


@contextlib.contextmanager
def up(made: Plan) -> Iterator[dict[str, Any]]:
    with lab.up(made) as inventory:
        yield inventory


def now(name: str) -> dict[str, Any]:
    known = load(name)
    assert known is not None
    return read_inventory(known.plan.inventory)


def entry(inventory: dict[str, Any], node: str) -> dict[str, Any]:
    return next(item for item in inventory["nodes"] if item["name"] == node)


def counts(folder: Path) -> bool:
    """Whether the counting program goes on."""
    before = (folder / "n").read_text()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if (folder / "n").read_text() not in ("", before):
            return True
    return False


def pinned(inventory: dict[str, Any], node: str) -> str:
    text = lab.run(inventory, node, "cat", "/proc/self/status")
    return next(line.split()[1] for line in text.splitlines() if line.startswith("Cpus_allowed_list"))


def join(name: str, node: str) -> dict[str, Any]:
    known = load(name)
    assert known is not None
    growth = node_like(known.plan, node, "a", "s1")
    change_nodes.add_node(name, growth.node)
    return change_links.add_link(name, growth.link, {node: growth.end})


def refuse_programs(inventory: dict[str, Any], node: str) -> None:
    """A program in a paused node would stop before its first instruction, and whoever starts it would wait for it."""
    with pytest.raises(TopologyError, match=f"node '{node}' is paused; `cohortnet node resume {node}` first"):
        execution.execute(inventory, node, ["true"], timeout_s=5)
    assert launch.running_node(inventory, node)["pid"], "which can be looked at"


def refuse_too_little_memory(name: str, node: str, size: int, least: str) -> None:
    """What `up` and `node add` refuse, `node limit` refuses too."""
    command = [sys.executable, "-m", "cohortnet", "node", "limit", node, "--testbed", name, "--memory", f"{size} B"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and str(size) in done.stderr and least in done.stderr, done.stderr
    assert entry(now(name), node)["memory_bytes"] != size


def test_bare_nodes() -> None:
    name = "t-eng-change-bare"
    made = plan(name, "namespace")
    with up(made) as inventory:
        # T16 and T17: as declared, from the start.
        speeds = {node["name"]: node["speed"] for node in inventory["nodes"]}
        assert sorted(str(speed) for speed in speeds.values()) == ["None", "fast", "slow"]
        for node in ("a", "b"):
            slow = speeds[node] == "slow"
            quota = lab.group_value(inventory, node, "cpu.cfs_quota_us", "cpu.max").split()[0]
            assert (pinned(inventory, node), quota) == (("0", "25000") if slow else ("1", "50000"))
        assert pinned(inventory, "c") == "1"

        folder = Path(entry(inventory, "a")["state"])
        lab.leave_running(inventory, "a", [*COUNT, str(folder)])
        time.sleep(0.3)
        assert counts(folder)
        assert entry(change_life.pause(name, "a"), "a")["paused"] is True
        assert not counts(folder)
        assert "1 received" in lab.run(inventory, "b", "ping", "-c", "1", "-W", "2", entry(inventory, "a")["address"])
        change_life.pause(name, "a")  # again changes nothing
        refuse_programs(inventory, "a")
        assert entry(change_life.resume(name, "a"), "a")["paused"] is False
        assert counts(folder)

        # Begun anew while paused: all programs end, the node and its address stay.
        change_life.pause(name, "a")
        renewed = change_life.end_programs(name, "a")
        assert cgroups.members(name, "nodes/a") == {entry(renewed, "a")["pid"]} and not counts(folder)
        assert "1 received" in lab.run(renewed, "b", "ping", "-c", "1", entry(inventory, "a")["address"])

        changed = change_nodes.set_limits(name, "c", cpu=0.75, memory_bytes=300 * 2**20, cpuset="0")
        assert pinned(changed, "c") == "0" and entry(now(name), "c")["cpuset"] == "0"
        assert lab.group_value(changed, "c", "cpu.cfs_quota_us", "cpu.max").split()[0] == "75000"
        with pytest.raises(TestbedProblems) as refused:
            change_nodes.set_limits(name, "c", cpu=4096, cpuset="4095", memory_bytes=2**60)
        assert {p.code for p in refused.value.problems} == {"too-many-cores", "no-such-core", "too-much-memory"}
        refuse_too_little_memory(name, "c", 2**20, "16 MiB")

        grown = join(name, "d")
        assert entry(grown, "d")["speed"] == speeds["a"] and pinned(grown, "d") == pinned(grown, "a")
        assert "1 received" in lab.run(grown, "d", "ping", "-c", "1", "-W", "2", entry(grown, "c")["address"])
        gone = entry(change_nodes.remove_node(name, "b"), "a")
        assert gone["name"] == "a" and "b" not in {item["name"] for item in now(name)["nodes"]}
        with pytest.raises(TopologyError, match="no node 'b'"):
            change_life.pause(name, "b")
        # Removed while something in it is paused: `up` looks that nothing is left.
        lab.leave_running(grown, "d", ["sleep", "600"])
        change_life.pause(name, "d")


def test_containers() -> None:
    name = "t-eng-change-box"
    client = docker.from_env(timeout=60)
    try:
        with up(plan(name, "docker")) as inventory:
            for item in inventory["nodes"][:2]:
                host = client.containers.get(item["container"]).attrs["HostConfig"]
                wanted = ("0", 25_000) if item["speed"] == "slow" else ("1", 50_000)
                assert (host["CpusetCpus"], host["CpuQuota"]) == wanted
            change_life.pause(name, "a")
            assert client.containers.get("eng-change.a").status == "paused"
            refuse_programs(inventory, "a")
            refuse_too_little_memory(name, "b", 5 * 2**20, "6 MiB")
            change_life.resume(name, "a")
            assert client.containers.get("eng-change.a").status == "running"

            before = entry(inventory, "a")
            after = entry(change_life.restart_container(name, "a"), "a")
            assert after["pid"] != before["pid"] and Path(f"/proc/{after['pid']}").exists()
            again = now(name)
            address = entry(again, "b")["address"]
            assert "1 received" in lab.run(again, "c", "ping", "-c", "1", "-W", "2", before["address"])
            assert "1 received" in lab.run(again, "a", "ping", "-c", "1", "-W", "2", address)
            goodput = lab.goodput_bps(again, "a", "b", reverse=False, seconds=2)
            assert goodput == pytest.approx(50e6 * lab.GOODPUT_SHARE, rel=0.05)

            changed = change_nodes.set_limits(name, "c", cpu=0.3, cpuset="0")
            assert pinned(changed, "c") == "0"
            grown = join(name, "d")
            assert "1 received" in lab.run(grown, "d", "ping", "-c", "1", "-W", "2", address)
            change_nodes.remove_node(name, "d")
            assert not client.containers.list(all=True, filters={"name": "eng-change.d$"})
            change_life.pause(name, "b")  # removed as it is
    finally:
        client.close()
        engine.remove_testbed(name)
