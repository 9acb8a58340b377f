"""The testbed's own long-running program that is ours: the controller. Starts it in the core, and waits until it has
done its work.

Knows the controller by its command and its REST only (docs/architecture.md).
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from topology.engine import launch, listeners, namespaces, openvswitch
from topology.engine.runtime import Progress
from topology.errors import TopologyError
from topology.finding import some
from topology.plan import Plan

PORT = 6653
_REST = ("127.0.0.1", 8080)
_CALL_TIMEOUT_S = 5.0


def controller_log(plan: Plan) -> Path:
    """Where the controller's output goes."""
    return plan.logs / "controller.log"


def start_controller(plan: Plan) -> subprocess.Popen[bytes]:
    """Start the controller in the core namespace; it reads the inventory. Raises TopologyError."""
    command = [sys.executable, "-m", "topology.controller", "--inventory", str(plan.inventory)]
    return launch.start_daemon(plan.testbed, command, controller_log(plan), namespace=plan.core_namespace)


def get_in_core(plan: Plan, path: str) -> Any:
    """GET from the controller's REST, within the core namespace; plain data. Raises OSError or ValueError while it does
    not answer.
    """

    def connect() -> socket.socket:
        return socket.create_connection(_REST, timeout=_CALL_TIMEOUT_S)

    connection = http.client.HTTPConnection(*_REST, timeout=_CALL_TIMEOUT_S)
    connection.sock = namespaces.inside(namespaces.named(plan.core_namespace), connect)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(16 * 2**20)
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"status {answer.status}")
    return json.loads(body)


def _listens(plan: Plan) -> bool:
    """Whether somebody takes switches' connections in the core namespace."""

    def look() -> bool:
        return PORT in listeners.parse(Path("/proc/thread-self/net/tcp").read_text(encoding="ascii"))

    return namespaces.inside(namespaces.named(plan.core_namespace), look)


def unready_switches(plan: Plan, topology: Any) -> list[str]:
    """Switches of the plan that the controller's answer does not call connected with all flows. Pure. Raises ValueError
    on other data.
    """
    try:
        ready = {item["name"] for item in topology["switches"] if item["connected"] and item["flows_installed"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"unexpected answer of /v1/topology: {error}") from error
    return [switch.name for switch in plan.switches if switch.name not in ready]


def wait_for_controller(
    plan: Plan, process: subprocess.Popen[bytes], progress: Progress, *, timeout_s: float = 60.0
) -> None:
    """Wait until the controller takes connections, let the switches connect, and wait until each has its flows.

    Raises:
        TopologyError: where the controller ends, or is not done in time; with its last output or the switches that are
        missing.
    """
    deadline = time.monotonic() + timeout_s
    while not _listens(plan):
        _check(plan, process, deadline, "it does not listen for switches")
        time.sleep(0.01)
    openvswitch.connect(plan)
    total = len(plan.switches)
    while True:
        try:
            missing = unready_switches(plan, get_in_core(plan, "/v1/topology"))
            progress("flows", total - len(missing), total)
            if not missing:
                return
            last = f"no flows yet in {some(missing)}"
        except (OSError, ValueError) as error:
            last = f"its REST: {error}"
        _check(plan, process, deadline, last)
        openvswitch.wake(plan)
        time.sleep(0.02)


def _check(plan: Plan, process: subprocess.Popen[bytes], deadline: float, last: str) -> None:
    """Raises TopologyError where the controller has ended, or the deadline is past."""
    ended = process.poll()
    if ended is None and time.monotonic() <= deadline:
        return
    what = f"was not ready in time ({last})" if ended is None else f"ended with status {ended}"
    log = controller_log(plan)
    raise TopologyError(f"the controller {what}; the end of {log}:\n{launch.tail(log)}")
