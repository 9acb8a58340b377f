#!/usr/bin/env python3
"""What monitoring costs: the exporter alone by number of nodes, and FL runs with monitoring on against off. Root;
namespace runtime; loads only namespaces that it makes itself.

    sudo .venv/bin/python benchmarks/monitoring.py --nodes 20 100 300      the exporter's own cost (about 6 minutes)
    sudo .venv/bin/python benchmarks/monitoring.py --slowdown              FL runs on against off (about 10 minutes)

The exporter runs as a process of its own over the factory-satellite preset with so many nodes in total, each client
with two TCP connections to its server, and is scraped over HTTP at each period for `--seconds`. Its processor share is
that of one core, over the whole time. With `--slowdown` whole testbeds are raised and learn, in the order off, on, on,
off (so that a machine that grows slower sways neither side), `--blocks` times; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from monitoring.exporter import namespaces  # noqa: E402
from topology.doctor import capabilities  # noqa: E402
from topology.engine import engine  # noqa: E402
from topology.inventory import inventory_path  # noqa: E402
from topology.model import parse_testbed  # noqa: E402
from topology.planning import make_plan  # noqa: E402

COHORTS, PORTS = 3, (5000, 6000)
PERIODS_S = (5.0, 1.0)
NAME = "bench-monitoring"
EXPORTER = (
    "import sys, threading\n"
    "from monitoring.exporter.sampler import Sampler\n"
    "from monitoring.exporter.server import ExporterServer\n"
    "path, port, period_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])\n"
    "with Sampler(path) as sampler, ExporterServer(sampler, '127.0.0.1', port, period_s):\n"
    "    threading.Event().wait()\n"
)


def unsupported() -> list[str]:
    """What this kernel cannot do, and is not needed here."""
    return [] if capabilities().netem else ["delay"]


@contextmanager
def raised(nodes: int, port: int) -> Iterator[dict[str, Any]]:
    """The preset with that many nodes in total, network only; removed at the end."""
    data: dict[str, Any] = {"name": NAME, "runtime": "namespace", "allow_unsupported": unsupported(), "publish": [],
                            "controller": {"rest_host_port": port}}  # fmt: skip
    others = len(make_plan(parse_testbed({**data, "preset": {"cohorts": COHORTS, "clients": COHORTS}})).nodes) - COHORTS
    if nodes < others + COHORTS:
        raise SystemExit(f"--nodes {nodes}: the preset has at least {others + COHORTS}")
    plan = make_plan(parse_testbed({**data, "preset": {"cohorts": COHORTS, "clients": nodes - others}}))
    inventory = engine.raise_testbed(plan)
    try:
        yield inventory
    finally:
        removal = engine.remove_testbed(NAME)
        if removal.left:
            print(f"left behind: {removal.left}", file=sys.stderr)


@contextmanager
def connected(inventory: Mapping[str, Any]) -> Iterator[int]:
    """Each client with a TCP connection to its server on each of PORTS; gives their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4 * len(PORTS) * len(inventory["nodes"]) + 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, needed)), hard))
    nodes = {node["name"]: node for node in inventory["nodes"]}
    count = 0
    with ExitStack() as opened:
        for cohort in inventory["cohorts"]:
            server = nodes[cohort["server"]]
            for port in PORTS:
                address = (server["address"], port)
                listening = opened.enter_context(namespaces.inside(
                    f"/proc/{server['pid']}/ns/net", partial(socket.create_server, address, backlog=1024)))  # fmt: skip
                for name in cohort["clients"]:
                    place = f"/proc/{nodes[name]['pid']}/ns/net"
                    near = opened.enter_context(
                        namespaces.inside(place, partial(socket.create_connection, address, 20))
                    )
                    far, _ = listening.accept()
                    opened.enter_context(far)
                    near.sendall(bytes(10_000))
                    count += 1
        yield count


@contextmanager
def exporting(path: Path, port: int, period_s: float) -> Iterator[str]:
    """The exporter in its own process; gives its address."""
    command = [sys.executable, "-c", EXPORTER, str(path), str(port), f"{period_s:g}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                get(f"{url}/healthz")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the exporter does not answer at {url}") from None
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def get(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def figure(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name}{{"))


def scrape(url: str, period_s: float, seconds: float) -> dict[str, Any]:
    """Scrape at each period; walls are the client's, from the request to the last byte."""
    text = get(f"{url}/metrics")  # opens all sockets, and is not counted
    walls: list[float] = []
    before_cpu, start = figure(text, "cohortnet_exporter_cpu_seconds_total"), time.monotonic()
    due = start
    while len(walls) < max(3, round(seconds / period_s)):
        due += period_s
        time.sleep(max(0.0, due - time.monotonic()))
        began = time.perf_counter()
        text = get(f"{url}/metrics")
        walls.append(time.perf_counter() - began)
    cpu_s = figure(text, "cohortnet_exporter_cpu_seconds_total") - before_cpu
    return {
        "period_s": period_s, "scrapes": len(walls), "median_s": statistics.median(walls), "max_s": max(walls),
        "cpu_share": cpu_s / (time.monotonic() - start), "cpu_s_a_scrape": cpu_s / len(walls),
        "resident_bytes": figure(text, "cohortnet_exporter_resident_bytes"),
        "series": figure(text, "cohortnet_exporter_series"), "bytes": len(text),
        "overruns": figure(text, "cohortnet_exporter_overruns_total"),
        "errors": figure(text, "cohortnet_exporter_errors_total"),
    }  # fmt: skip


def exporter_cost(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    rows = []
    for nodes in arguments.nodes:
        with raised(nodes, arguments.port) as inventory, connected(inventory) as connections:
            for period_s in PERIODS_S:
                with exporting(inventory_path(NAME), arguments.port + 1, period_s) as url:
                    found = scrape(url, period_s, arguments.seconds)
                rows.append({"nodes": len(inventory["nodes"]), "connections": connections, **found})
                console.print(json.dumps(rows[-1]))
    return rows


# On against off


def cohortnet(*words: str, timeout_s: float = 900) -> str:
    """The command line's standard output."""
    done = subprocess.run([sys.executable, "-m", "cohortnet", *words], cwd=ROOT, text=True, timeout=timeout_s,
                          capture_output=True, check=False)  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"cohortnet {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def learn(arguments: argparse.Namespace, monitored: bool, folder: Path) -> float:
    """Raise a testbed, let one cohort learn, take it down; the run's seconds by its own record."""
    file = folder / "testbed.yaml"
    data: dict[str, Any] = {
        "name": f"{NAME}-fl", "runtime": "namespace", "allow_unsupported": unsupported(), "publish": [],
        "preset": {"cohorts": 1, "clients": arguments.clients}, "controller": {"rest_host_port": arguments.port},
        "seed": 1,
    }  # fmt: skip
    if monitored and (arguments.period, arguments.port) != (5.0, 18080):
        # Other than `--monitoring`'s own period and ports.
        data["monitoring"] = {"period": f"{arguments.period:g} s", "port": arguments.port + 2,
                              "exporter_port": arguments.port + 1}  # fmt: skip
    file.write_text(json.dumps(data), encoding="utf-8")  # JSON is YAML
    runs = folder / "runs"
    option = ["--monitoring"] if monitored and "monitoring" not in data else []
    try:
        cohortnet("up", str(file), "--runs", str(runs), *option)
        inventory = json.loads(inventory_path(data["name"]).read_text(encoding="utf-8"))
        if (inventory.get("monitoring") is not None) != monitored:
            raise SystemExit(f"monitoring should be {'on' if monitored else 'off'}: {inventory.get('monitoring')}")
        time.sleep(arguments.settle)
        answer = cohortnet(
            "intent", "send", "intents/drilling.yaml", "--cohort", "1", "--numround", str(arguments.rounds),
            "--fracfit", "1", "--minfit", str(arguments.clients), "--minav", str(arguments.clients), "--wait", "--json",
            "--testbed", data["name"],
        )  # fmt: skip
        (summary,) = json.loads(answer)
        return float(summary["seconds"])
    finally:
        cohortnet("down", data["name"])


def slowdown(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory(prefix="cohortnet-bench-") as name:
        for side in ("off", "on", "on", "off") * arguments.blocks:
            folder = Path(name) / f"{sum(map(len, seconds.values()))}"
            folder.mkdir()
            seconds[side].append(learn(arguments, side == "on", folder))
            console.print(f"{side:>3} {seconds[side][-1]:.2f} s")
    pairs = [on / off for on, off in zip(seconds["on"], seconds["off"], strict=True)]
    return {
        "clients": arguments.clients, "rounds": arguments.rounds, "period_s": arguments.period, **seconds,
        "median_off_s": statistics.median(seconds["off"]), "median_on_s": statistics.median(seconds["on"]),
        "ratio": statistics.median(seconds["on"]) / statistics.median(seconds["off"]),
        "ratio_of_pairs": statistics.geometric_mean(pairs),
    }  # fmt: skip


def print_costs(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="The exporter's own cost")
    for column in ("nodes", "TCP connections", "series", "period s", "scrape median s", "max s", "CPU of one core",
                   "resident MiB", "overruns"):  # fmt: skip
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["nodes"]), str(row["connections"]), f"{row['series']:.0f}", f"{row['period_s']:g}",
            f"{row['median_s']:.3f}", f"{row['max_s']:.3f}", f"{100 * row['cpu_share']:.2f} %",
            f"{row['resident_bytes'] / 2**20:.1f}", f"{row['overruns']:.0f}",
        )  # fmt: skip
    console.print(table)


def print_slowdown(console: Console, found: Mapping[str, Any]) -> None:
    table = Table(title=f"FL run, {found['clients']} clients, {found['rounds']} rounds, period {found['period_s']:g} s")
    for column in ("monitoring", "runs", "median s", "least s", "most s"):
        table.add_column(column, justify="right")
    for side in ("off", "on"):
        values = found[side]
        table.add_row(side, str(len(values)), f"{statistics.median(values):.2f}", f"{min(values):.2f}",
                      f"{max(values):.2f}")  # fmt: skip
    console.print(table)
    console.print(f"on / off: {found['ratio']:.4f} (medians), {found['ratio_of_pairs']:.4f} (geometric mean of pairs)")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", help="measure the exporter with so many nodes")
    parser.add_argument("--seconds", type=float, default=50.0, help="how long each exporter is scraped")
    parser.add_argument("--slowdown", action="store_true", help="measure FL runs with monitoring on against off")
    parser.add_argument("--blocks", type=int, default=2, help="of four runs each: off, on, on, off")
    parser.add_argument("--clients", type=int, default=10, help="FL clients of those runs")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of those runs")
    parser.add_argument("--period", type=float, default=5.0, help="monitoring's period in those runs, in seconds")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds between raising and each run")
    parser.add_argument("--port", type=int, default=18080,
                        help="host port of the controller's REST; the two after it are the exporter's and Prometheus'"
                        )  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("this needs root: put `sudo` in front")
    if not arguments.nodes and not arguments.slowdown:
        parser.error("say what to measure: --nodes 20 100 300, or --slowdown, or both")
    console = Console(width=140)
    found: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()}
    if arguments.nodes:
        found["exporter"] = exporter_cost(arguments, console)
        print_costs(console, found["exporter"])
    if arguments.slowdown:
        found["slowdown"] = slowdown(arguments, console)
        print_slowdown(console, found["slowdown"])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
