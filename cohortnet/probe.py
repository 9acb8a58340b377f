"""Small measurements on a running testbed: ping matrix and TCP goodput. Runs `ping` and `iperf3` inside nodes; changes
nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from topology.engine import execution
from topology.errors import CommandError, TopologyError

WORKERS = 8
IPERF_PORT = 5301
BATCH = 64
"""Addresses that one shell loop in a node pings at the same time."""


@dataclass(frozen=True)
class Goodput:
    """What iperf3 measured: application bytes per second as bit/s, at the receiver."""

    goodput_bps: float
    retransmits: int
    congestion_control: str


def ping_all(inventory: Mapping[str, Any], *, wait_s: float = 1.0, count: int = 1) -> dict[tuple[str, str], bool]:
    """(from, to) -> answered, for every ordered pair. Each echo waits `wait_s` seconds."""
    nodes = inventory["nodes"]
    # One process a node pings all others at once: fork and join would cost more than the echo.
    script = (
        'n=$1; w=$2; shift 2; for a in "$@"; do '
        '(ping -n -q -c "$n" -W "$w" "$a" >/dev/null 2>&1 && echo "$a") & done; wait'
    )

    def from_node(node: Mapping[str, Any]) -> dict[tuple[str, str], bool]:
        others = [other for other in nodes if other["name"] != node["name"]]
        answered: set[str] = set()
        for start in range(0, len(others), BATCH):
            batch = [other["address"] for other in others[start : start + BATCH]]
            argv = ["sh", "-c", script, "sh", str(count), f"{wait_s:g}", *batch]
            done = execution.execute(inventory, node["name"], argv, tty=False, timeout_s=30.0 + count * (1 + wait_s))
            answered.update(done.stdout.split())
        return {(node["name"], other["name"]): other["address"] in answered for other in others}

    matrix: dict[tuple[str, str], bool] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        for part in pool.map(from_node, nodes):
            matrix.update(part)
    return matrix


def tcp_goodput(inventory: Mapping[str, Any], client: str, server: str, *, seconds: float = 5.0) -> Goodput:
    """TCP goodput from `client` to `server` for so many seconds.

    Raises:
        TopologyError: unknown node, or iperf3 failed.
    """
    nodes = {node["name"]: node for node in inventory["nodes"]}
    for name in (client, server):
        if name not in nodes:
            raise TopologyError(f"no node is called {name!r}; `nodes` lists them")
    listen = ["iperf3", "--server", "--one-off", "--port", str(IPERF_PORT), "--json"]
    send = [
        "iperf3",
        "--client",
        nodes[server]["address"],
        "--port",
        str(IPERF_PORT),
        "--time",
        f"{seconds:g}",
        "--json",
        "--connect-timeout",
        "3000",
    ]
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(execution.execute, inventory, server, listen, tty=False, timeout_s=seconds + 30.0)
        _wait_listening(inventory, server)
        done = execution.execute(inventory, client, send, tty=False, timeout_s=seconds + 30.0)
        if done.returncode != 0:
            raise CommandError(send, done.returncode, done.stderr or done.stdout[-500:], client)
        serving.result()
    result = json.loads(done.stdout)
    end = result["end"]
    return Goodput(
        goodput_bps=float(end["sum_received"]["bits_per_second"]),
        retransmits=int(end["sum_sent"].get("retransmits", 0)),
        congestion_control=str(end.get("sender_tcp_congestion", "unknown")),
    )


def _wait_listening(inventory: Mapping[str, Any], server: str) -> None:
    wanted = f":{IPERF_PORT:04X} "
    for _ in range(50):
        tables = ["cat", "/proc/net/tcp", "/proc/net/tcp6"]
        done = execution.execute(inventory, server, tables, tty=False, timeout_s=10.0)
        if any(wanted in line and " 0A " in line for line in done.stdout.splitlines()):
            return
        time.sleep(0.1)
    raise TopologyError(f"{server}: iperf3 does not listen on port {IPERF_PORT}; is iperf3 installed there?")
