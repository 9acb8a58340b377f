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

from topology.engine import launch, namespaces
from topology.engine.runtime import Progress
from topology.errors import TopologyError
from topology.plan import Plan

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
    """Wait until every switch is connected and has its flows.

    Raises:
        TopologyError: where the controller ends, or is not done in time; with its last output or the switches that are
        missing.
    """
    deadline = time.monotonic() + timeout_s
    total = len(plan.switches)
    last = "it does not answer"
    while True:
        if process.poll() is not None:
            raise TopologyError(
                f"the controller ended with status {process.returncode}; the end of {controller_log(plan)}:\n"
                f"{launch.tail(controller_log(plan))}"
            )
        try:
            missing = unready_switches(plan, get_in_core(plan, "/v1/topology"))
            progress("flows", total - len(missing), total)
            if not missing:
                return
            last = f"no flows yet in {', '.join(missing[:5])}" + (
                f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            )
        except (OSError, ValueError) as error:
            last = f"its REST: {error}"
        if time.monotonic() > deadline:
            raise TopologyError(
                f"the controller was not ready in {timeout_s:g} s ({last}); the end of {controller_log(plan)}:\n"
                f"{launch.tail(controller_log(plan))}"
            )
        time.sleep(0.03)
