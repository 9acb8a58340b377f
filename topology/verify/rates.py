"""Measures loads: TCP flows (cubic) between nodes, started in their network namespaces and in the core's cgroups,
outside of the nodes' limits of processor time, since it is the network that is measured.

What arrives is counted by the receivers and expressed as the rate of whole Ethernet frames, as links declare it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from topology.engine import launch, listeners
from topology.errors import TopologyError
from topology.verify.loads import Load

FRAME, PAYLOAD = 1514, 1448
"""Bytes of a full Ethernet frame, and of TCP payload in it (with time stamps)."""
FIRST_PORT = 5601
SETTLE_S = 1.0
"""Before the measured window: the start of the flows is over, and queues are full."""
LIMITED_SETTLE_S = 3.0
"""Where a meter holds: its first burst is spent."""
SLOW_BPS, SLOW_FACTOR = 3_000_000, 3.0
"""Slow links are measured longer: a window has to hold many frames."""
_START_S = 10.0


def measure(
    inventory: Mapping[str, Any], group: Sequence[Load], seconds: float
) -> list[tuple[float, str]]:
    """What arrives of each load, in bit/s of whole frames, and why a flow of it failed (empty: none did); all loads of
    the group run at the same time.

    Raises:
        TopologyError: where iperf3 is missing or does not listen, or the testbed is going.
    """
    pids = {node["name"]: node["pid"] for node in inventory["nodes"]}
    addresses = {node["name"]: node["address"] for node in inventory["nodes"]}
    jobs = [(number, source, target) for number, load in enumerate(group) for source, target in load.flows]
    settle = LIMITED_SETTLE_S if any(load.limits for load in group) else SETTLE_S
    slow = min((load.expected_bps / max(1, len(load.flows)) for load in group), default=0.0) < SLOW_BPS
    window = seconds * (SLOW_FACTOR if slow else 1.0)

    def within(node: str, argv: Sequence[str]) -> list[str]:
        # In the core's groups: no node's limit holds, and whatever becomes of this process, a removal finds it.
        inside = ["nsenter", f"--net=/proc/{pids[node]}/ns/net", "--", *argv]
        return launch.in_core(inventory["testbed"], inside)

    totals, failures = [0.0] * len(group), [""] * len(group)
    with ExitStack() as stack:
        ports: dict[str, list[int]] = {}
        numbered = []
        for number, source, target in jobs:
            port = FIRST_PORT + len(ports.setdefault(target, []))
            ports[target].append(port)
            command = within(target, ["iperf3", "-s", "-1", "-p", str(port)])
            try:
                server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except OSError as error:
                raise TopologyError(f"{command[0]} cannot be started: {error.strerror}") from error
            stack.callback(_end, server)
            numbered.append((number, source, target, port))
        for target, wanted in ports.items():
            _wait_listening(pids[target], target, wanted)

        def send(job: tuple[int, str, str, int]) -> tuple[int, float, str]:
            number, source, target, port = job
            command = within(source, ["iperf3", "-c", addresses[target], "-p", str(port), "-t", f"{window:g}", "-O",
                                      f"{settle:g}", "-C", "cubic", "-J"])  # fmt: skip
            try:
                limit = settle + window + 30
                done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
            except subprocess.TimeoutExpired:
                return number, 0.0, f"{source} to {target}: iperf3 did not end"
            try:
                return number, float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]), ""
            except (ValueError, KeyError, TypeError):
                return number, 0.0, f"{source} to {target}: {' '.join((done.stdout + done.stderr).split())[:200]}"

        with ThreadPoolExecutor(max(1, len(numbered))) as pool:
            for number, rate, failure in pool.map(send, numbered):
                totals[number] += rate
                failures[number] = failures[number] or failure
    return [(total * FRAME / PAYLOAD, failure) for total, failure in zip(totals, failures, strict=True)]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()


def _wait_listening(pid: int, node: str, ports: Sequence[int]) -> None:
    deadline = time.monotonic() + _START_S
    while not set(ports) <= listeners.ports(pid):
        if time.monotonic() > deadline:
            raise TopologyError(f"iperf3 does not listen in {node!r} after {_START_S:g} s; is it installed?")
        time.sleep(0.02)
