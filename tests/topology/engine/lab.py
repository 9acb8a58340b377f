"""What the engine's live tests share: plans under own names, testbeds that always go, a look at the host."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from topology.engine import cgroups, engine, execution, launch, namespaces
from topology.model import parse_testbed
from topology.plan import Plan, Shape
from topology.planning import make_plan

GOODPUT_SHARE = 1448 / 1514
"""TCP payload in a full Ethernet frame, with time stamps."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def preset(name: str, *, clients: int = 6, cohorts: int = 2, **more: Any) -> Plan:
    """A small factory-satellite testbed on the namespace runtime, its ports free ones."""
    data: dict[str, Any] = {
        "name": name,
        "runtime": "namespace",
        "preset": {"cohorts": cohorts, "clients": clients},
        "publish": [],
        "controller": {"rest_host_port": free_port()},
        "allow_unsupported": ["delay"],
    }
    return make_plan(parse_testbed({**data, **more}))


def star(name: str, rates: dict[str, str | None], **more: Any) -> Plan:
    """Nodes around one learning switch, each with the rate of its link in both directions."""
    nodes = [{"name": node} for node in rates]
    links = [{"a": node, "b": "s1", **({"rate": rate} if rate else {})} for node, rate in rates.items()]
    data = {"name": name, "runtime": "namespace", "nodes": nodes, "switches": [{"name": "s1"}], "links": links,
            "controller": {"kind": "none"}}  # fmt: skip
    return make_plan(parse_testbed({**data, **more}))


def unshaped(plan: Plan) -> Plan:
    return replace(plan, links=tuple(replace(link, a_to_b=Shape(), b_to_a=Shape()) for link in plan.links))


@contextlib.contextmanager
def up(plan: Plan) -> Iterator[dict[str, Any]]:
    """The testbed's inventory while it is up; afterwards nothing of it may be left."""
    start = time.monotonic()
    inventory = engine.raise_testbed(plan)
    print(f"{plan.testbed}: {len(plan.nodes)} nodes up in {time.monotonic() - start:.2f} s")
    try:
        yield inventory
    finally:
        result = engine.remove_testbed(plan.testbed)
        print(f"{plan.testbed}: removed in {result.seconds:.2f} s")
        assert result.left == ()
        assert traces(plan) == []


def traces(plan: Plan) -> list[str]:
    """What of a testbed is to be seen on this host, looked up without the engine's own finding of things."""
    found = []
    for line in subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines():
        if plan.host_interface in line or f"cohortnet:{plan.testbed}" in line:
            found.append(line)
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout.split()
    found += [name for name in names if name == plan.core_namespace]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if plan.testbed in line]
    for pattern in (f"*/cohortnet/{plan.testbed}", f"cohortnet/{plan.testbed}"):
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(pattern)]
    found += [str(plan.state)] if plan.state.exists() else []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                # A zombie is gone but for its parent's look at it; in cgroups of version 2 it keeps its group's name.
                zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not zombie and f"/cohortnet/{plan.testbed}/" in (process / "cgroup").read_text():
                    found.append(f"process {process.name}: {(process / 'cmdline').read_bytes()!r}")
    return found


def run(inventory: dict[str, Any], node: str, *argv: str, timeout_s: float = 60) -> str:
    """The output of a program in a node; it has to succeed."""
    done = execution.execute(inventory, node, argv, timeout_s=timeout_s)
    assert done.returncode == 0, f"{node}: {argv}: {done.stdout}{done.stderr}"
    return done.stdout


def leave_running(inventory: dict[str, Any], node: str, argv: Sequence[str]) -> None:
    """Start a program in a node, in its groups and a session of its own, and leave it; its output goes nowhere."""
    entry = launch.find_node(inventory, node)
    nowhere = subprocess.DEVNULL
    namespaces.start_in_node(entry["pid"], entry["cgroups"], argv, env=launch.node_environment(entry), new_session=True,
                             stdin=nowhere, stdout=nowhere, stderr=nowhere)  # fmt: skip


class Received(NamedTuple):
    """What a node's interface in the emulated network has received."""

    bytes: int
    packets: int


def received(inventory: dict[str, Any], node: str) -> Received:
    entry = next(entry for entry in inventory["nodes"] if entry["name"] == node)
    lines = Path(f"/proc/{entry['pid']}/net/dev").read_text().splitlines()
    fields = next(line.partition(":")[2].split() for line in lines if line.strip().startswith(f"{entry['interface']}:"))
    return Received(int(fields[0]), int(fields[1]))


def goodput_bps(
    inventory: dict[str, Any], client: str, server: str, *, reverse: bool, seconds: float = 5, congestion: str = "cubic"
) -> float:
    """TCP goodput of one flow, what the receiver got after the first second.

    Only the network namespaces are entered: iperf3 is the host's in both runtimes, and no limit of a node slows it.
    """
    nodes = {node["name"]: node for node in inventory["nodes"]}

    def within(node: str, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{nodes[node]['pid']}/ns/net", "--", *argv]

    with subprocess.Popen(within(server, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL) as listening:
        try:
            deadline = time.monotonic() + 10
            while ":5201 " not in subprocess.check_output(within(server, "ss", "-Hltn"), text=True):
                assert time.monotonic() < deadline, "iperf3 does not listen"
                time.sleep(0.05)
            options = ["-t", str(seconds), "-O", "1", "-C", congestion, "-J", *(["-R"] if reverse else [])]
            command = within(client, "iperf3", "-c", nodes[server]["address"], *options)
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True)
        finally:
            listening.kill()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])


def group_value(inventory: dict[str, Any], node: str, *names: str) -> str:
    """The content of the first of these files that the node's groups have."""
    entry = next(entry for entry in inventory["nodes"] if entry["name"] == node)
    for folder in entry["cgroups"]:
        for name in names:
            if Path(folder, name).exists():
                return Path(folder, name).read_text().strip()
    raise AssertionError(f"none of {names} in {entry['cgroups']}")


def version() -> int:
    """The version of the cgroups in use."""
    return cgroups.hierarchies()[0].version
