#!/usr/bin/env python3
"""What monitoring costs: the exporter alone by number of nodes, and FL runs with monitoring on against off. Root;
namespace runtime; loads only namespaces that it makes itself.

    sudo .venv/bin/python benchmarks/monitoring.py --nodes 20 100 300      the exporter's own cost (about 6 minutes)
    sudo .venv/bin/python benchmarks/monitoring.py --slowdown              FL runs on against off (about 10 minutes)
    sudo .venv/bin/python benchmarks/monitoring.py --interleaved           one FL run, monitoring halted by turns

The exporter runs as a process of its own over the factory-satellite preset with so many nodes in total, each client
with two TCP connections to its server, and is scraped over HTTP at each period for `--seconds`. Its processor share is
that of one core, over the whole time. With `--slowdown` whole testbeds are raised and learn, in the order off, on, on,
off (so that a machine that grows slower sways neither side), `--blocks` times; the ratio is that of the medians.
With `--interleaved` the monitoring of one long run is halted (SIGSTOP) and continued by turns of a few rounds, and the
rounds of each turn are compared with those of the turn before: other load of the machine falls out. Beside it stands
what the exporter and Prometheus used of all cores while they ran: what a run that is bound by the processor loses.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
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


@contextmanager
def testbed(arguments: argparse.Namespace, monitored: bool, folder: Path) -> Iterator[list[str]]:
    """A whole testbed with one cohort; gives the command (of `cohortnet`) that lets it learn, and waits."""
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
        yield [
            "intent", "send", "intents/drilling.yaml", "--cohort", "1", "--numround", str(arguments.rounds),
            "--fracfit", "1", "--minfit", str(arguments.clients), "--minav", str(arguments.clients), "--wait", "--json",
            "--testbed", data["name"],
        ]  # fmt: skip
    finally:
        cohortnet("down", data["name"])


def learn(arguments: argparse.Namespace, monitored: bool, folder: Path) -> float:
    """One run's seconds, by its own record."""
    with testbed(arguments, monitored, folder) as command:
        (summary,) = json.loads(cohortnet(*command))
        return float(summary["seconds"])


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


def monitors(inventory: Path) -> list[int]:
    """The monitoring daemon of that testbed and its children."""
    parents: dict[int, int] = {}
    daemons = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                status = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
            if words[1:5] == [b"-m", b"monitoring", b"--inventory", os.fsencode(inventory)]:
                daemons.add(int(folder.name))
    if len(daemons) != 1:
        raise SystemExit(f"there should be one monitoring daemon of {inventory}: {sorted(daemons)}")
    return sorted(daemons | {pid for pid, parent in parents.items() if parent in daemons})


def processor_s(pids: Sequence[int]) -> float:
    """Processor time of those processes since they began."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def wait_rounds(run: subprocess.Popen[str], rounds: int) -> None:
    """Until that many rounds have ended (each does with the server's evaluation), or the run."""
    assert run.stderr is not None
    for line in run.stderr:
        rounds -= "server evaluation" in line
        if rounds <= 0:
            return
    run.wait()


def rounds_by_turn(events: Sequence[Mapping[str, Any]], turns: Sequence[tuple[float, bool]]) -> list[list[float]]:
    """Lengths of the rounds whose middle lies within each turn; a turn is (when it began, monitored). Pure."""
    starts = [event["time"] for event in events if event["kind"] == "phase.started" and event["phase"] == "train"]
    ends = [*(began for began, _ in turns[1:]), float("inf")]
    rounds = list(zip(starts, starts[1:], strict=False))
    return [
        [last - first for first, last in rounds if began <= (first + last) / 2 < end]
        for (began, _), end in zip(turns, ends, strict=True)
    ]


def error_of_mean(values: Sequence[float]) -> float:
    """One standard error of the mean of values whose neighbours share half of what they are made of. Pure."""
    middle = statistics.mean(values)
    around = [value - middle for value in values]
    neighbours = sum(a * b for a, b in zip(around, around[1:], strict=False))
    return math.sqrt(max(0.0, sum(a * a for a in around) + 2 * neighbours)) / len(values)


def interleaved(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    turns: list[tuple[float, bool]] = []
    used_s = on_s = 0.0
    with tempfile.TemporaryDirectory(prefix="cohortnet-bench-") as name:
        folder = Path(name)
        with testbed(arguments, True, folder) as command:
            pids = monitors(inventory_path(f"{NAME}-fl"))
            run = subprocess.Popen([sys.executable, "-m", "cohortnet", *command], cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip
            try:
                while run.poll() is None:
                    on = len(turns) % 2 == 0
                    for pid in pids:
                        os.kill(pid, signal.SIGCONT if on else signal.SIGSTOP)
                    turns.append((time.time(), on))
                    before_s, began = processor_s(pids), time.monotonic()
                    wait_rounds(run, arguments.turn)
                    if on:
                        used_s, on_s = used_s + processor_s(pids) - before_s, on_s + time.monotonic() - began
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
                run.kill()
                run.wait()
            if run.returncode != 0:
                raise SystemExit(f"cohortnet {' '.join(command)} ended with {run.returncode}")
            (record,) = (folder / "runs").iterdir()
            events = [json.loads(line) for line in (record / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    rounds = rounds_by_turn(events, turns)
    logs = []
    for (first, second), (_, on) in zip(zip(rounds, rounds[1:], strict=False), turns, strict=False):
        if first and second:
            ratio = statistics.median(first) / statistics.median(second)
            logs.append(math.log(ratio if on else 1 / ratio))
    if len(logs) < 2:
        raise SystemExit(f"only {len(logs)} pairs of turns hold whole rounds; give more --rounds")
    sides = {side: [length for lengths, (_, on) in zip(rounds, turns, strict=True) if on == (side == "on")
                    for length in lengths] for side in ("off", "on")}  # fmt: skip
    console.print(f"{len(turns)} turns, {len(logs)} pairs")
    return {
        "clients": arguments.clients, "rounds": arguments.rounds, "period_s": arguments.period, **sides,
        "ratio": math.exp(statistics.mean(logs)), "ratio_error": error_of_mean(logs),
        "share_of_all_cores": used_s / on_s / (os.cpu_count() or 1),
    }  # fmt: skip


def print_interleaved(console: Console, found: Mapping[str, Any]) -> None:
    table = Table(title=f"Rounds of one FL run, {found['clients']} clients, period {found['period_s']:g} s")
    for column in ("monitoring", "rounds", "median s"):
        table.add_column(column, justify="right")
    for side in ("off", "on"):
        table.add_row(side, str(len(found[side])), f"{statistics.median(found[side]):.3f}")
    console.print(table)
    console.print(f"on / off: {found['ratio']:.4f} +- {found['ratio_error']:.4f} (one standard error); exporter and "
                  f"Prometheus used {100 * found['share_of_all_cores']:.2f} % of all cores")  # fmt: skip


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


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", help="measure the exporter with so many nodes")
    parser.add_argument("--seconds", type=float, default=50.0, help="how long each exporter is scraped")
    parser.add_argument("--slowdown", action="store_true", help="measure FL runs with monitoring on against off")
    parser.add_argument("--interleaved", action="store_true", help="measure rounds with monitoring halted by turns")
    parser.add_argument("--turn", type=int, default=2, help="rounds of such a turn")
    parser.add_argument("--blocks", type=int, default=2, help="of four runs each: off, on, on, off")
    parser.add_argument("--clients", type=int, default=10, help="FL clients of those runs")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of those runs")
    parser.add_argument("--period", type=float, default=5.0, help="monitoring's period in those runs, in seconds")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds between raising and each run")
    parser.add_argument("--port", type=int, default=18080,
                        help="host port of the controller's REST; the two after it are the exporter's and Prometheus'"
                        )  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line()
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("this needs root: put `sudo` in front")
    if not (arguments.nodes or arguments.slowdown or arguments.interleaved):
        parser.error("say what to measure: --nodes 20 100 300, --slowdown, --interleaved, or several of them")
    console = Console(width=140)
    found: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()}
    if arguments.nodes:
        found["exporter"] = exporter_cost(arguments, console)
        print_costs(console, found["exporter"])
    if arguments.slowdown:
        found["slowdown"] = slowdown(arguments, console)
        print_slowdown(console, found["slowdown"])
    if arguments.interleaved:
        found["interleaved"] = interleaved(arguments, console)
        print_interleaved(console, found["interleaved"])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
