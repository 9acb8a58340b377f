"""How fast testbeds come up and go, beside Mininet and beside the bare limit, in one run. Root.

    sudo .venv/bin/python benchmarks/bringup.py --nodes 20 50 100 --runs 3      the table of docs/performance.md
    sudo .venv/bin/python benchmarks/bringup.py --only namespace limit --nodes 100 --runs 1

The same topology for all: one switch with n/10 switches below it, n hosts at these, 100 Mbit/s on all links.

limit          `ip -batch` (namespaces, veth pairs, addresses) and one `ovs-vsctl` in an Open vSwitch that runs already;
               no rates, no limits, no processes in the nodes
namespace      our namespace runtime: cgroups, namespaces, a first process in each node, management plane, HTB at both
               ends of all links, an Open vSwitch of its own (its start is counted), no controller (switches learn, as
               Mininet's do)
controller     the same with our controller: until every switch has all its flows
agents         the factory-satellite preset with n clients, until every node's agent answers (namespace runtime); the
               imports of the program that forks the agents, once a testbed and beside all else, are named apart
mininet        Mininet with TCLink, and OVSSwitch in the datapath that this kernel has (Debian's package mininet)
docker-limit   n containers by `docker run -d --network none`, eight at a time
docker         our docker runtime with the same image

Each run is a process of its own, and begins when the kernel has taken the namespaces of the one before apart. All
contenders of a size take their turn, then all again, so that whatever else the machine does meets all alike. Seconds
are medians; memory is how much less the machine had at worst.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RATE_MBIT = 100
IMAGE = "cohortnet/node:latest"
DOCKER_MOST = 100
CONTENDERS = ("limit", "namespace", "controller", "agents", "mininet", "docker-limit", "docker")
OVS_CTL = "/usr/share/openvswitch/scripts/ovs-ctl"

MININET = f"""
import json, sys, time
from mininet.net import Mininet
from mininet.topo import Topo
from mininet.link import TCLink
from mininet.node import OVSSwitch
n, datapath = int(sys.argv[1]), sys.argv[2]
class Tree(Topo):
    def build(self):
        root = self.addSwitch("s1", datapath=datapath, failMode="standalone")
        for group in range(n // 10):
            switch = self.addSwitch("s%d" % (group + 2), datapath=datapath, failMode="standalone")
            self.addLink(root, switch, bw={RATE_MBIT})
            for number in range(10):
                self.addLink(self.addHost("h%d" % (group * 10 + number + 1)), switch, bw={RATE_MBIT})
start = time.monotonic()
net = Mininet(topo=Tree(), link=TCLink, switch=OVSSwitch, controller=None, autoSetMacs=True, ipBase="10.0.0.0/16")
net.start()
up = time.monotonic()
print("UP", flush=True)
sys.stdin.readline()
down = time.monotonic()
net.stop()
print(json.dumps({{"up_s": up - start, "down_s": time.monotonic() - down}}), flush=True)
"""


def run(*command: str, text: str | None = None, timeout: float = 600) -> str:
    """A program's output; ends the benchmark with its error where it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        said = done.stderr[-500:] + done.stdout[-300:]
        raise SystemExit(f"{' '.join(command)[:200]}: status {done.returncode}: {said}")
    return done.stdout


class Memory:
    """How much less memory the machine has, at worst, since this was made."""

    def __init__(self) -> None:
        self._before = self.least = self._available()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @staticmethod
    def _available() -> int:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.least = min(self.least, self._available())

    def end(self) -> float:
        """MiB."""
        self._stop.set()
        self._thread.join()
        return (self._before - min(self.least, self._available())) / 1024


def testbed(nodes: int, runtime: str, controller: str) -> dict[str, Any]:
    """The topology as a testbed file."""
    switches = [{"name": "s1"}, *({"name": f"s{g + 2}"} for g in range(nodes // 10))]
    hosts = [{"name": f"h{i + 1}", **({"command": ["sleep", "infinity"]} if runtime == "docker" else {})}
             for i in range(nodes)]  # fmt: skip
    steered = {"kind": controller, **({"rest_host_port": 18999} if controller == "builtin" else {})}
    rate = f"{RATE_MBIT} Mbit/s"
    links = [{"a": "s1", "b": f"s{g + 2}", "rate": rate} for g in range(nodes // 10)]
    links += [{"a": f"h{i + 1}", "b": f"s{i // 10 + 2}", "rate": rate} for i in range(nodes)]
    return {"name": f"bench-{runtime}", "runtime": runtime, "nodes": hosts, "switches": switches, "links": links,
            "publish": [], "controller": steered, "image": IMAGE}  # fmt: skip


def ours(nodes: int, runtime: str, controller: str) -> dict[str, Any]:
    """Our engine; nothing that a testbed has but its nodes' programs."""
    from topology.engine import engine
    from topology.model import parse_testbed
    from topology.planning import make_plan

    memory, start = Memory(), time.monotonic()
    plan = make_plan(parse_testbed(testbed(nodes, runtime, controller)))  # as Mininet's Topo is part of its time
    try:
        engine.raise_testbed(plan)
        up = time.monotonic() - start
        steps = json.loads((plan.state / "timings.json").read_text())
        peak = memory.end()
        steps["plan"] = round(up - steps["total"], 4)  # and what is looked at before anything is made
    finally:
        removal = engine.remove_testbed(plan.testbed)
    if removal.left:
        raise SystemExit(f"left behind: {removal.left}")
    return {"up_s": up, "down_s": removal.seconds, "peak_mib": peak, "steps": steps}


def agents(nodes: int) -> dict[str, Any]:
    """The preset with everything in it."""
    from cohortnet.lifecycle import raise_all, remove_all
    from topology.doctor import capabilities
    from topology.model import parse_testbed
    from topology.planning import make_plan

    chosen = parse_testbed({
        "name": "bench-agents", "runtime": "namespace", "publish": [], "controller": {"rest_host_port": 18999},
        "preset": {"cohorts": 2, "clients": nodes}, "allow_unsupported": [] if capabilities().netem else ["delay"],
    })  # fmt: skip
    plan = make_plan(chosen)
    memory, start = Memory(), time.monotonic()
    imported: list[float] = []

    def watch() -> None:  # the spawner has its socket when its imports are done
        while not imported and time.monotonic() - start < 300:
            if plan.spawner.exists():
                imported.append(time.monotonic() - start)
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()
    try:
        raise_all(plan, chosen, ROOT / "build" / "bench-runs", lambda *_: None)
        up, peak = time.monotonic() - start, memory.end()
    finally:
        removal = remove_all(plan.testbed, lambda *_: None)
    if removal.left:
        raise SystemExit(f"left behind: {removal.left}")
    return {"up_s": up, "down_s": removal.seconds, "peak_mib": peak, "steps": {"imports": imported[0]}}


def settle(timeout_s: float = 120.0) -> None:
    """Wait until the kernel has taken apart the network namespaces of those before: it does so after their end, and
    whoever makes a network meanwhile waits for it.
    """
    deadline, calm = time.monotonic() + timeout_s, 0
    while calm < 4 and time.monotonic() < deadline:
        busy = False
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                name = path.read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue
            busy |= name.startswith("kworker/") and name.endswith("+netns")
        calm = 0 if busy else calm + 1
        time.sleep(0.05)


@contextmanager
def system_switch() -> Iterator[None]:
    """The machine's own Open vSwitch, which the limit and Mininet need; ended afterwards where it did not run."""
    ran = subprocess.run([OVS_CTL, "status"], capture_output=True, check=False).returncode == 0
    if not ran:
        run(OVS_CTL, "--no-monitor", "--system-id=random", "start")
    try:
        yield
    finally:
        if not ran:
            run(OVS_CTL, "stop")


def datapath() -> str:
    """What this machine's Open vSwitch can use, as `datapath_type`."""
    from topology.doctor import capabilities

    return "system" if capabilities().kernel_datapath else "netdev"


def limit(nodes: int) -> dict[str, Any]:
    """The same topology with nothing but what the kernel and Open vSwitch need."""
    prefix, kind = "bl", datapath()
    groups = nodes // 10
    with system_switch():
        memory, start = Memory(), time.monotonic()
        lines = [f"netns add {prefix}{i}" for i in range(nodes)]
        run("ip", "-batch", "-", text="\n".join(lines) + "\n")
        lines = [f"link add {prefix}h{i} type veth peer name eth0 netns {prefix}{i}" for i in range(nodes)]
        lines += [f"link set {prefix}h{i} up" for i in range(nodes)]
        for g in range(groups):
            lines += [f"link add {prefix}u{g} type veth peer name {prefix}d{g}", f"link set {prefix}u{g} up",
                      f"link set {prefix}d{g} up"]  # fmt: skip
        run("ip", "-batch", "-", text="\n".join(lines) + "\n")
        lines = []
        for i in range(nodes):
            lines += [f"addr add 10.9.{i // 250}.{i % 250 + 1}/16 dev eth0", "link set eth0 up", "link set lo up"]

        def configure(i: int) -> None:
            run("ip", "-n", f"{prefix}{i}", "-batch", "-", text="\n".join(lines[3 * i:3 * i + 3]) + "\n")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(configure, range(nodes)))
        words: list[str] = []
        for g in range(groups + 1):
            words += ["--", "add-br", f"{prefix}s{g}", "--", "set", "bridge", f"{prefix}s{g}", f"datapath_type={kind}",
                      "fail_mode=standalone"]  # fmt: skip
        for g in range(groups):
            words += ["--", "add-port", f"{prefix}s0", f"{prefix}d{g}", "--", "add-port", f"{prefix}s{g + 1}",
                      f"{prefix}u{g}"]  # fmt: skip
        for i in range(nodes):
            words += ["--", "add-port", f"{prefix}s{i // 10 + 1}", f"{prefix}h{i}"]
        run("ovs-vsctl", "--timeout=300", *words[1:])
        up = time.monotonic() - start
        peak = memory.end()
        down = time.monotonic()
        words = []
        for g in range(groups + 1):
            words += ["--", "del-br", f"{prefix}s{g}"]
        run("ovs-vsctl", "--timeout=300", *words[1:])
        lines = [f"link del {prefix}u{g}" for g in range(groups)]
        run("ip", "-batch", "-", text="\n".join(lines + [f"netns del {prefix}{i}" for i in range(nodes)]) + "\n")
        return {"up_s": up, "down_s": time.monotonic() - down, "peak_mib": peak}


def mininet(nodes: int) -> dict[str, Any]:
    """Mininet itself, with the distribution's Python, whose package it is."""
    if not shutil.which("mnexec"):
        raise SystemExit("Mininet is not installed; `sudo apt-get install mininet`, or leave `mininet` out (--only)")
    with system_switch():
        kind = "kernel" if datapath() == "system" else "user"
        memory = Memory()
        # Its warnings (of HTB, for each link) go into a file: a pipe would be full before anybody reads it.
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            ["/usr/bin/python3", "-c", MININET, str(nodes), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=errors, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            first = process.stdout.readline()
            peak = memory.end()
            output, _ = process.communicate("\n", timeout=900)
            errors.seek(0)
            if first.strip() != "UP" or process.returncode:
                raise SystemExit(f"Mininet failed: {errors.read()[-800:]}")
        return {**json.loads(output.splitlines()[-1]), "peak_mib": peak}


def docker_limit(nodes: int) -> dict[str, Any]:
    """Containers without any network."""
    names = [f"bench-limit-{i}" for i in range(nodes)]
    memory, start = Memory(), time.monotonic()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: run("docker", "run", "-d", "--network", "none", "--name", name, IMAGE, "sleep",
                                           "infinity"), names))  # fmt: skip
        up, peak = time.monotonic() - start, memory.end()
    finally:
        down = time.monotonic()
        subprocess.run(["docker", "rm", "-f", *names], capture_output=True, timeout=600, check=False)
    return {"up_s": up, "down_s": time.monotonic() - down, "peak_mib": peak}


WORK: dict[str, Callable[[int], dict[str, Any]]] = {
    "limit": limit,
    "namespace": lambda nodes: ours(nodes, "namespace", "none"),
    "controller": lambda nodes: ours(nodes, "namespace", "builtin"),
    "agents": agents,
    "mininet": mininet,
    "docker-limit": docker_limit,
    "docker": lambda nodes: ours(nodes, "docker", "none"),
}


def one_run(contender: str, nodes: int) -> dict[str, Any]:
    """One run in a process of its own."""
    settle()
    load = os.getloadavg()[0]
    done = subprocess.run([sys.executable, __file__, "--worker", contender, str(nodes)], capture_output=True,
                          text=True, timeout=1800, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{contender}, {nodes} nodes: {done.stderr[-1500:]}")
    result: dict[str, Any] = {**json.loads(done.stdout.splitlines()[-1]), "load": load}
    print(f"{nodes} {contender}: up {result['up_s']:.2f} s, down {result['down_s']:.2f} s, load {load:.1f}",
          file=sys.stderr)  # fmt: skip
    return result


def measure(contenders: Sequence[str], nodes: int, runs: int) -> list[dict[str, Any]]:
    """A row a contender: medians of so many runs."""
    found: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    for _ in range(runs):
        for contender in contenders:
            found[contender].append(one_run(contender, nodes))
    return [
        {"contender": contender, "nodes": nodes,
         **{key: statistics.median(run[key] for run in all_runs) for key in ("up_s", "down_s", "peak_mib")},
         "runs": all_runs}
        for contender, all_runs in found.items()
    ]  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown: seconds, ratios to limit and Mininet."""
    by = {(row["contender"], row["nodes"]): row for row in rows}
    lines = ["| nodes | what | up, s | ms a node | to limit | Mininet's to it | down, s | to limit | memory, MiB |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        floor = by.get(("docker-limit" if row["contender"].startswith("docker") else "limit", row["nodes"]))
        peer = by.get(("mininet", row["nodes"]))
        ratio = f"{row['up_s'] / floor['up_s']:.2f}" if floor else ""
        down = f"{row['down_s'] / floor['down_s']:.2f}" if floor else ""
        faster = f"{peer['up_s'] / row['up_s']:.1f}" if peer and not row["contender"].startswith("docker") else ""
        each = f"{1000 * row['up_s'] / row['nodes']:.1f}"
        cells = [row["nodes"], row["contender"], f"{row['up_s']:.2f}", each, ratio, faster, f"{row['down_s']:.2f}",
                 down, f"{row['peak_mib']:.0f}"]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    loads = [run["load"] for row in rows for run in row["runs"]]
    notes = [f"load {loads[0]:.1f} before the first run, {loads[-1]:.1f} before the last, at most {max(loads):.1f}"]
    notes += [f"{row['nodes']} agents: of {row['up_s']:.2f} s up, the imports of what forks them took "
              f"{statistics.median(run['steps']['imports'] for run in row['runs']):.2f} s"
              for row in rows if row["contender"] == "agents"]  # fmt: skip
    return "\n".join([*lines, "", *notes])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[20, 50, 100, 200, 500])
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "NODES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("needs root")
    if arguments.worker:
        print(json.dumps(WORK[arguments.worker[0]](int(arguments.worker[1]))))
        return 0
    if any(nodes < 10 or nodes % 10 for nodes in arguments.nodes):
        parser.error("--nodes: whole tens")
    rows: list[dict[str, Any]] = []
    for nodes in arguments.nodes:
        rows += measure([c for c in arguments.only if not c.startswith("docker") or nodes <= DOCKER_MOST], nodes,
                        arguments.runs)  # fmt: skip
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
