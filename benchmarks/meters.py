#!/usr/bin/env python3
"""How true meters are, and what they cost. Root; namespace runtime; loads only namespaces that it makes itself.

    sudo .venv/bin/python benchmarks/meters.py                    everything (about an hour)
    sudo .venv/bin/python benchmarks/meters.py --rates 10 --runs 1 --protocols tcp      a quick look
    sudo .venv/bin/python benchmarks/meters.py --only scale        1,000 meters: time, throughput, memory

Goodput: a cohort of one and of ten clients sends to its server (up) or receives from it (down) through the whole
preset, under one cohort meter. TCP is cubic at every sender (set by iperf3, and checked). Measurement begins after
`--settle` seconds, when the first burst is spent. Each figure is the median of `--runs` runs. The window check samples
an interface behind the meter every 50 ms and compares the bytes of every window with rate x time + burst.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from topology.doctor import capabilities  # noqa: E402
from topology.engine import engine, execution  # noqa: E402
from topology.model import parse_testbed  # noqa: E402
from topology.plan import Shape  # noqa: E402
from topology.planning import make_plan  # noqa: E402

SERVER, FIRST_PORT = "fed.1", 5400
MSS, FRAME = 1448, 1514
PAIRS_A_RUN, SCALE_WINDOW_S = 4, 5.0
SAMPLER = (
    "import sys, time\n"
    "column, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])\n"
    "while time.monotonic() < end:\n"
    "    for line in open('/proc/net/dev'):\n"
    "        if line.strip().startswith(sys.argv[3] + ':'):\n"
    "            print(time.monotonic(), line.split(':')[1].split()[column])\n"
    "    time.sleep(0.05)\n"
)


@contextmanager
def raised(name: str, clients: int, campuses: int, rest_port: int, *, shaped: bool = True) -> Iterator[dict[str, Any]]:
    """The preset with one cohort, network only (no agents); removed at the end.

    Without `shaped` its links have no rate and no delay: what limits a flow is then the forwarding itself.
    """
    allowed = [] if capabilities().netem else ["delay"]
    testbed = parse_testbed({
        "name": name, "runtime": "namespace", "allow_unsupported": allowed, "publish": [],
        "preset": {"cohorts": 1, "clients": clients, "campuses": campuses}, "controller": {"rest_host_port": rest_port},
    })  # fmt: skip
    plan = make_plan(testbed)
    if not shaped:
        plan = replace(plan, links=tuple(replace(link, a_to_b=Shape(), b_to_a=Shape()) for link in plan.links))
    inventory = engine.raise_testbed(plan)
    try:
        yield inventory
    finally:
        removal = engine.remove_testbed(name)
        if removal.left:
            print(f"left behind: {removal.left}", file=sys.stderr)


class Meters:
    """The controller's REST."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/meters"
        self.session = requests.Session()
        self.session.trust_env = False

    def call(self, method: str, path: str = "", body: Any = None) -> Any:
        answer = self.session.request(method, self.url + path, json=body, timeout=60)
        if answer.status_code >= 400:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def set_cohort(self, direction: str, rate_bps: int) -> None:
        target = {"kind": "cohort", "name": "1"}
        body = {"target": target, "direction": direction, "rate": rate_bps, "unit": "bit/s", "enforce": "drop"}
        self.call("PUT", "/bench", body)


def transfer(
    inventory: Mapping[str, Any],
    client: str,
    port: int,
    direction: str,
    protocol: str,
    share_bps: float,
    times: tuple[float, float],
) -> float:
    """One client's goodput in bit/s at the receiver, in the window after settling."""
    settle, seconds = times
    server = next(node for node in inventory["nodes"] if node["name"] == SERVER)
    command = ["iperf3", "-c", server["address"], "-p", str(port), "-t", f"{seconds:g}", "-O", f"{settle:g}", "-J",
               "--connect-timeout", "5000"]  # fmt: skip
    command += ["-R"] if direction == "down" else []
    command += ["-C", "cubic"] if protocol == "tcp" else ["-u", "-b", f"{2 * share_bps:.0f}", "-l", "1448"]
    done = execution.execute(inventory, client, command, timeout_s=settle + seconds + 60)
    result = json.loads(done.stdout or "{}")
    if "end" not in result or result.get("error"):
        raise SystemExit(f"{client}: iperf3: {result.get('error') or done.stderr or done.stdout[:300]}")
    end = result["end"]
    if protocol == "tcp" and end.get("sender_tcp_congestion") != "cubic":
        raise SystemExit(f"{client}: sent with {end.get('sender_tcp_congestion')}, not cubic")
    return float(end["sum_received"]["bits_per_second"])


def measure(
    inventory: Mapping[str, Any],
    clients: Sequence[str],
    direction: str,
    protocol: str,
    rate_bps: int,
    times: tuple[float, float],
) -> tuple[float, float, float]:
    """(goodput bit/s, Jain's index, worst window: bytes over rate x time + burst, as a fraction of the allowance)."""
    ports = [FIRST_PORT + index for index in range(len(clients))]
    total_s = sum(times) + 3
    place, interface, column = metered_end(inventory, direction)
    with ThreadPoolExecutor(2 * len(clients) + 1) as pool:
        listen = [pool.submit(execution.execute, inventory, SERVER, ["iperf3", "-s", "-1", "-p", str(port)],
                              timeout_s=total_s + 60) for port in ports]  # fmt: skip
        time.sleep(0.7)
        sampler = ["nsenter", f"--net={place}", "--", sys.executable, "-c", SAMPLER, column, f"{total_s:g}", interface]
        samples = pool.submit(subprocess.check_output, sampler, text=True, timeout=total_s + 30)
        sent = [pool.submit(transfer, inventory, client, port, direction, protocol, rate_bps / len(clients), times)
                for client, port in zip(clients, ports, strict=True)]  # fmt: skip
        rates = [future.result() for future in sent]
        for future in listen:
            future.result()
        worst = worst_window(samples.result(), rate_bps)
    jain = sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates)) if any(rates) else 0.0
    return sum(rates), jain, worst


def metered_end(inventory: Mapping[str, Any], direction: str) -> tuple[str, str, str]:
    """(network namespace, interface, column of /proc/net/dev) where all that the meter let through passes: the server's
    interface upwards, the uplink of the switch in front of the server downwards.
    """
    if direction == "up":
        return f"/proc/{next(n['pid'] for n in inventory['nodes'] if n['name'] == SERVER)}/ns/net", "eth0", "0"
    switch = next(n["switch"] for n in inventory["nodes"] if n["name"] == SERVER)
    ports = next(s["ports"] for s in inventory["switches"] if s["name"] == switch)
    uplink = next(port["interface"] for port in ports if port["peer_kind"] == "switch")
    return f"/run/netns/{inventory['core']['namespace']}", uplink, "8"


def worst_window(text: str, rate_bps: int) -> float:
    """The largest excess of any window over rate x time + burst (a second of the rate), as a fraction of that."""
    points = [(float(t), int(b) * 8) for t, b in (line.split() for line in text.splitlines())]
    worst = -1.0
    for start in range(0, len(points), 2):
        for end in range(start + 1, len(points)):
            seconds = points[end][0] - points[start][0]
            allowed = rate_bps * seconds + rate_bps
            worst = max(worst, (points[end][1] - points[start][1]) / allowed - 1)
    return worst


def accuracy(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with raised("bench-meters", 10, 5, arguments.port) as inventory:
        everyone = next(cohort["clients"] for cohort in inventory["cohorts"])
        meters = Meters(arguments.port)
        for protocol in arguments.protocols:
            for rate in arguments.rates:
                for direction in ("up", "down"):
                    for clients in (everyone[:1], everyone):
                        meters.set_cohort(direction, round(rate * 1e6))
                        times = (arguments.settle, arguments.seconds)
                        runs = [measure(inventory, clients, direction, protocol, round(rate * 1e6), times)
                                for _ in range(arguments.runs)]  # fmt: skip
                        meters.call("DELETE", "/bench")
                        goodput = statistics.median(run[0] for run in runs)
                        row = {"protocol": protocol, "rate_mbit": rate, "direction": direction, "clients": len(clients),
                               "goodput_mbit": goodput / 1e6, "error_percent": 100 * (goodput / (rate * 1e6) - 1),
                               "jain": statistics.median(run[1] for run in runs),
                               "worst_window_percent": 100 * max(run[2] for run in runs)}  # fmt: skip
                        rows.append(row)
                        console.print(
                            " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())
                        )
    return rows


def rss_mib(inventory: Mapping[str, Any]) -> float:
    """Resident memory of the testbed's controller."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
                if b"topology.controller" in command and inventory["testbed"].encode() in command:
                    status = (folder / "status").read_text()
                    return int(status.split("VmRSS:")[1].split()[0]) / 1024
            except (OSError, IndexError):
                continue
    return float("nan")


def scale(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """1,000 meters: how long they take to set, what they cost forwarding, what the controller needs for them."""
    with raised("bench-scale", 500, 10, arguments.port, shaped=False) as inventory:
        meters = Meters(arguments.port)
        clients = next(cohort["clients"] for cohort in inventory["cohorts"])
        bodies = [{"name": f"{c}.{d}", "target": {"kind": "client", "name": c}, "direction": d, "rate": 400_000_000,
                   "unit": "bit/s"} for c in clients for d in ("up", "down")]  # fmt: skip
        result: dict[str, Any] = {"meters": len(bodies), "rss_mib_before": rss_mib(inventory)}
        # A pair that no meter names, through all switches: what is measured is the cost of the others. One flow over
        # two cores moves by half from window to window, so windows are short, many, and in the order ABBA.
        goodput: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(PAIRS_A_RUN * arguments.runs):
            for installed in (False, True) if turn % 2 == 0 else (True, False):
                start = time.monotonic()
                meters.call("PUT", "", {"meters": bodies}) if installed else meters.call("DELETE", "")
                if installed:
                    result.setdefault("set_seconds", []).append(round(time.monotonic() - start, 3))
                    result["rss_mib_with"] = rss_mib(inventory)
                goodput[installed].append(pair_goodput(inventory, SCALE_WINDOW_S))
            without, with_meters = goodput[False][-1], goodput[True][-1]
            console.print(f"goodput {without / 1e6:.0f} Mbit/s without, {with_meters / 1e6:.0f} with {len(bodies)}")
        for installed, key in ((False, "without"), (True, "with")):
            result[f"goodput_{key}_mbps"] = [round(value / 1e6) for value in goodput[installed]]
        pairs = [a / b for a, b in zip(goodput[True], goodput[False], strict=True)]
        result["ratio_with_to_without"] = round(statistics.median(pairs), 3)
        result["ratio_geometric_mean"] = round(statistics.geometric_mean(pairs), 3)
        return result


def pair_goodput(inventory: Mapping[str, Any], seconds: float) -> float:
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(execution.execute, inventory, "appserv.0", ["iperf3", "-s", "-1", "-p", "5399"],
                                timeout_s=seconds + 60)  # fmt: skip
        time.sleep(0.7)
        address = next(node["address"] for node in inventory["nodes"] if node["name"] == "appserv.0")
        command = ["iperf3", "-c", address, "-p", "5399", "-t", f"{seconds:g}", "-O", "1", "-J", "-C", "cubic"]
        done = execution.execute(inventory, "app.1", command, timeout_s=seconds + 60)
        listening.result()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 5, 20, 50, 100, 200], help="Mbit/s")
    parser.add_argument("--protocols", nargs="+", choices=("tcp", "udp"), default=["tcp", "udp"])
    parser.add_argument("--runs", type=int, default=3, help="runs a figure, of which the median counts")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of the measured window")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds before it, in which the burst is spent")
    parser.add_argument("--port", type=int, default=18080, help="host port of the controller's REST")
    parser.add_argument("--only", choices=("accuracy", "scale"))
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("this needs root: put `sudo` in front")
    console = Console(width=140)
    found: dict[str, Any] = {"congestion_control": "cubic", "cores": os.cpu_count()}
    if arguments.only != "scale":
        found["accuracy"] = accuracy(arguments, console)
        table = Table(title=f"Goodput at a cohort meter, median of {arguments.runs}, cubic")
        for column in (
            "protocol",
            "rate Mbit/s",
            "direction",
            "clients",
            "goodput Mbit/s",
            "error",
            "Jain",
            "worst window",
        ):
            table.add_column(column, justify="right")
        for row in found["accuracy"]:
            table.add_row(row["protocol"], f"{row['rate_mbit']:g}", row["direction"], str(row["clients"]),
                          f"{row['goodput_mbit']:.2f}", f"{row['error_percent']:+.1f} %", f"{row['jain']:.2f}",
                          f"{row['worst_window_percent']:+.1f} %")  # fmt: skip
        console.print(table)
    if arguments.only != "accuracy":
        found["scale"] = scale(arguments, console)
        console.print(found["scale"])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
