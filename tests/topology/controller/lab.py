"""A small real network for live tests: namespaces, veth pairs, an Open vSwitch of its own, and the controller
as its own process.

Everything carries one random prefix; `Lab.close` ends the processes that it started and deletes the
namespaces that it made.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topology.inventory import CoreFacts, NodeFacts, build_inventory, write_inventory
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def command(*arguments: str, check: bool = True, timeout: float = 30, text: str | None = None) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout, input=text)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: status {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def until(what: str, ready: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Poll until `ready` gives something true; fail with `what` and the last answer."""
    deadline = time.monotonic() + timeout
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = ready()
            if last:
                return last
        except AssertionError as error:
            last = error
        time.sleep(0.03)
    raise AssertionError(f"{what}: not within {timeout} s; last: {last!r}")


def plan_of(
    name: str, switches: list[dict[str, Any]], nodes: list[str], links: list[tuple[str, str]]
) -> Plan:
    return make_plan(
        parse_testbed(
            {
                "name": name,
                "runtime": "namespace",
                "switches": switches,
                "nodes": [{"name": node} for node in nodes],
                "links": [{"a": a, "b": b} for a, b in links],
            }
        )
    )


def ring(name: str, size: int = 4) -> Plan:
    """`size` switches in a ring, one host at each."""
    switches = [{"name": f"s{i}"} for i in range(1, size + 1)]
    hosts = [f"h{i}" for i in range(1, size + 1)]
    links = [(f"h{i}", f"s{i}") for i in range(1, size + 1)]
    links += [(f"s{i}", f"s{i % size + 1}") for i in range(1, size + 1)]
    return plan_of(name, switches, hosts, links)


class Lab:
    """One testbed made by hand from a plan."""

    def __init__(
        self, plan: Plan, *, hosts: bool = True, meters: list[dict[str, Any]] | None = None, tso: bool = False
    ) -> None:
        self.plan = plan
        self.meters = meters
        self.tso = tso
        self.prefix = f"t-controller-{secrets.token_hex(3)}"
        self.core = f"{self.prefix}-core"
        self.folder = Path(tempfile.mkdtemp(prefix="tctl-", dir="/tmp"))
        self.inventory = self.folder / "inventory.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.namespaces: list[str] = []
        self._controller_set = False
        try:
            self._raise(hosts)
        except BaseException:
            self.close()
            raise

    def _raise(self, hosts: bool) -> None:
        for program in ("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl", "ping"):
            assert shutil.which(program), (
                f"{program} is missing: apt-get install openvswitch-switch iputils-ping"
            )
        self._namespace(self.core)
        if hosts:
            for planned in self.plan.nodes:
                self._namespace(self.namespace(planned.name))
        lines, node_lines = ["link set lo up"], {}
        for number, link in enumerate(self.plan.links):
            node = link.a if link.a_port is None else link.b if link.b_port is None else None
            near, far = link.a_interface, link.b_interface
            if link.a_port is None:
                near, far = far, near
            if node and hosts:
                planned = self.plan.node(node)
                place = f"netns {self.namespace(node)}"
                lines += [f"link add {near} type veth peer name eth0 address {planned.mac} {place}"]
                address = f"addr add {planned.address}/{planned.prefix_length} dev eth0"
                node_lines[node] = [address, "link set eth0 up", "link set lo up"]
            else:
                far = f"x{number}" if node else far
                lines += [f"link add {near} type veth peer name {far}", f"link set {far} up"]
            lines.append(f"link set {near} up")
        command("ip", "-n", self.core, "-batch", "-", text="\n".join(lines) + "\n")
        for node, batch in node_lines.items():
            command("ip", "-n", self.namespace(node), "-batch", "-", text="\n".join(batch) + "\n")
        self.write_inventory()
        self._start_ovs()

    def namespace(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    def _namespace(self, name: str) -> None:
        command("ip", "netns", "add", name)
        self.namespaces.append(name)
        # Silence of its own accord: no router solicitations or neighbour discovery between the packets that
        # tests count.
        command(
            "ip",
            "netns",
            "exec",
            name,
            "sysctl",
            "-qw",
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
        )

    def write_inventory(self, plan: Plan | None = None) -> None:
        facts = CoreFacts("netdev", str(self.folder))
        inventory = build_inventory(plan or self.plan, facts, self.node_facts(), up=True)
        inventory["paths"]["state"] = str(self.folder)
        if self.meters is not None:
            inventory["meters"] = self.meters
        write_inventory(self.inventory, inventory)

    def node_facts(self) -> dict[str, NodeFacts]:
        """No node has a process of its own here."""
        return {}

    # Open vSwitch.

    def spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "OVS_RUNDIR": str(self.folder),
            "OVS_LOGDIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
        }
        with (self.folder / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.core, *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes[name] = process
        return process

    @property
    def database(self) -> str:
        return f"unix:{self.folder}/db.sock"

    def vsctl(self, *arguments: str) -> str:
        return command("ovs-vsctl", f"--db={self.database}", "--timeout=20", *arguments)

    def ofctl(self, *arguments: str) -> str:
        verb, bridge, *rest = arguments
        return command("ovs-ofctl", "-O", "OpenFlow13", verb, f"unix:{self.folder}/{bridge}.mgmt", *rest)

    def _start_ovs(self) -> None:
        command("ovsdb-tool", "create", str(self.folder / "conf.db"), SCHEMA)
        self.spawn(
            "ovsdb",
            "ovsdb-server",
            str(self.folder / "conf.db"),
            f"--remote=p{self.database}",
            "--no-chdir",
            f"--unixctl={self.folder}/ovsdb.ctl",
        )
        until("ovsdb-server answers", lambda: (self.folder / "db.sock").exists())
        self.vsctl("--no-wait", "init")
        if self.tso:
            # Without it TCP needs checksum offload switched off in the hosts.
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        self.start_vswitchd()
        words = ""
        for switch in self.plan.switches:
            bridge = switch.bridge
            words += f" -- add-br {bridge} -- set bridge {bridge} datapath_type=netdev fail_mode=secure"
            words += f" protocols=OpenFlow13 other_config:datapath-id={switch.datapath_id:016x}"
            for port in switch.ports:
                words += f" -- add-port {bridge} {port.interface}"
                words += f" -- set interface {port.interface} ofport_request={port.number}"
        self.vsctl(*words.split()[1:])

    def _set_controller(self) -> None:
        # Only now that somebody listens: a switch that is refused once waits a second before it tries again.
        words = ""
        for switch in self.plan.switches:
            words += f" -- set-controller {switch.bridge} tcp:127.0.0.1:6653"
            words += f" -- set controller {switch.bridge} max_backoff=1000 connection_mode=out-of-band"
        self.vsctl(*words.split()[1:])
        self._controller_set = True

    def start_vswitchd(self) -> None:
        control, pid = f"--unixctl={self.folder}/vswitchd.ctl", f"--pidfile={self.folder}/ovs-vswitchd.pid"
        self.spawn("vswitchd", "ovs-vswitchd", self.database, "--no-chdir", control, pid)

    def end(self, name: str, *, kill: bool = False) -> int:
        process = self.processes.pop(name)
        process.kill() if kill else process.terminate()
        return process.wait(15)

    # The controller.

    def start_controller(self, *, wait: bool = True, audit_s: float = 30) -> subprocess.Popen[bytes]:
        arguments = ("--inventory", str(self.inventory), "--audit", str(audit_s))
        process = self.spawn("controller", sys.executable, "-m", "topology.controller", *arguments)
        until("the controller's REST answers", lambda: self.curl("/v1/topology")[0] == 200)
        if not self._controller_set:
            self._set_controller()
        if wait:
            self.wait_installed()
        return process

    def curl(self, path: str, *options: str) -> tuple[int, Any]:
        """HTTP status and JSON (or text) of a REST call, made inside the core namespace."""
        output = command(
            "ip",
            "netns",
            "exec",
            self.core,
            "curl",
            "-s",
            "-m",
            "8",
            "-w",
            "\n%{http_code}",
            *options,
            f"http://127.0.0.1:8080{path}",
            check=False,
        )
        body, _, status = output.rpartition("\n")
        try:
            return int(status or 0), json.loads(body)
        except ValueError:
            return int(status or 0), body

    def topology(self) -> dict[str, Any]:
        status, answer = self.curl("/v1/topology")
        assert status == 200, (status, answer, self.log())
        return answer

    def status(self) -> dict[str, Any]:
        status, answer = self.curl("/v1/status")
        assert status == 200, (status, answer, self.log())
        return answer

    def wait_installed(self, timeout: float = 15.0) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            answer = self.topology()
            good = all(s["connected"] and s["flows_installed"] for s in answer["switches"])
            return answer if good and answer["switches"] else None

        try:
            return until("all switches connected and installed", ready, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def log(self, name: str = "controller") -> str:
        path = self.folder / f"{name}.out"
        return path.read_text() if path.exists() else ""

    # Hosts.

    def execute(self, node: str, *arguments: str, check: bool = True, timeout: float = 30) -> str:
        return command("ip", "netns", "exec", self.namespace(node), *arguments, check=check, timeout=timeout)

    def ping(self, source: str, target: str, *, count: int = 1, wait: float = 1) -> bool:
        address = self.plan.node(target).address
        done = subprocess.run(
            [
                "ip",
                "netns",
                "exec",
                self.namespace(source),
                "ping",
                "-q",
                "-c",
                str(count),
                "-i",
                "0.05",
                "-W",
                str(wait),
                address,
            ],
            capture_output=True,
            timeout=60,
        )
        return done.returncode == 0

    def ping_matrix(self) -> list[tuple[str, str]]:
        """Ordered pairs that do not reach each other; all pings at once."""
        running = {}
        for a in self.plan.nodes:
            for b in self.plan.nodes:
                if a.name != b.name:
                    running[a.name, b.name] = subprocess.Popen(
                        [
                            "ip",
                            "netns",
                            "exec",
                            self.namespace(a.name),
                            "ping",
                            "-q",
                            "-c",
                            "3",
                            "-i",
                            "0.2",
                            "-W",
                            "2",
                            b.address,
                        ],
                        stdout=subprocess.DEVNULL,
                    )
        return [pair for pair, process in running.items() if process.wait(30) != 0]

    def close(self) -> None:
        for name in ("controller", "vswitchd", "ovsdb"):
            process = self.processes.pop(name, None)
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(5)
        for process in self.processes.values():
            process.kill()
            process.wait(5)
        for name in self.namespaces:
            command("ip", "netns", "del", name, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
