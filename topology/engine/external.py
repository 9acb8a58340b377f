"""A controller that is not ours: the way from the switches to it, and the wait until all of them use it.

The switches live in the core namespace, which no network leads out of: they connect to 127.0.0.1:6653 there, and a
process of the testbed's core (`proxy`) carries each connection on, from the host's namespace, to the controller.
Knows nothing of what that controller does; its flows are its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from topology.engine import launch, namespaces, openvswitch, ovsdb
from topology.engine.runtime import Progress
from topology.errors import TopologyError
from topology.plan import Plan

OPENFLOW = ("127.0.0.1", 6653)
BACKLOG = 1024
_PROBE_S = 3.0


def proxy_log(plan: Plan) -> Path:
    """Where the proxy says which connections it could not make."""
    return plan.logs / "controller-proxy.log"


def split_address(address: str) -> tuple[str, int]:
    """`192.0.2.7:6653` or `[2001:db8::7]:6653` as (host, port). Pure."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """Start what carries the switches' connections to the controller's address. Raises TopologyError."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.bind(OPENFLOW)
        made.listen(BACKLOG)
        return made

    assert plan.controller_address is not None
    host, port = split_address(plan.controller_address)
    listening = namespaces.inside(namespaces.named(plan.core_namespace), listen)
    read, write = os.pipe()  # the request is short: a pipe holds it without a reader
    try:
        forward = {"fd": listening.fileno(), "host": host, "port": port}
        os.write(write, json.dumps({"inventory": str(plan.inventory), "ports": [], "forwards": [forward]}).encode())
        os.close(write)
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("proxy.py"))]
        return launch.start_daemon(plan.testbed, command, proxy_log(plan), stdin=read, pass_fds=[listening.fileno()])
    finally:
        os.close(read)
        listening.close()


def unconnected(plan: Plan) -> list[str]:
    """The switches that have no OpenFlow session with their controller now. Raises TopologyError."""
    with ovsdb.Database(openvswitch.folder(plan) / "db.sock") as database:
        bridges, controllers = database.transact([
            {"op": "select", "table": "Bridge", "where": [], "columns": ["name", "controller"]},
            {"op": "select", "table": "Controller", "where": [], "columns": ["_uuid", "is_connected"]},
        ])  # fmt: skip
    there = {row["_uuid"][1] for row in controllers["rows"] if row["is_connected"] is True}
    # A set of one element is that element in OVSDB's notation, so each bridge's one controller is ["uuid", "..."].
    connected = {row["name"] for row in bridges["rows"] if row["controller"][1] in there}
    return [switch.name for switch in plan.switches if switch.bridge not in connected]


def _why(address: str) -> str:
    """What the host itself finds at that address."""
    try:
        with socket.create_connection(split_address(address), timeout=_PROBE_S):
            return "it takes connections, and speaks no OpenFlow 1.3 with the switches"
    except TimeoutError:
        return f"it does not answer this machine within {_PROBE_S:g} s"
    except OSError as error:
        return f"this machine cannot connect to it: {error.strerror or error}"


def wait_until_connected(
    plan: Plan, process: subprocess.Popen[bytes], progress: Progress, *, timeout_s: float = 15.0
) -> None:
    """Wait until every switch has a session with the controller.

    Raises:
        TopologyError: where that is not so in time, with the controller's address and what is found there.
    """
    address = plan.controller_address or "?"
    deadline = time.monotonic() + timeout_s
    while missing := unconnected(plan):
        progress("external controller", len(plan.switches) - len(missing), len(plan.switches))
        if process.poll() is not None:
            raise TopologyError(f"the way to the external controller {address} ended; see {proxy_log(plan)}")
        if time.monotonic() > deadline:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise TopologyError(
                f"external controller {address}: {', '.join(missing[:5])}{more} not connected after {timeout_s:g} s; "
                f"{_why(address)}; start it before the testbed, or correct `controller: {{address: IP:PORT}}`"
            )
        time.sleep(0.05)
    progress("external controller", len(plan.switches), len(plan.switches))
