"""The side of whoever commands a testbed's traffic: asks the daemon, starts it where none is there.

Needs root, as the testbed's state folder does.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topology.engine import launch
from topology.errors import TopologyError
from topology.inventory import inventory_path
from topology.traffic import state

ANSWER_S = 30.0
START_S = 15.0
MOST_ANSWER = 4 * 2**20


class TrafficError(TopologyError):
    """The daemon refused a command: `code` says why, the text what is allowed."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def log_path(inventory: Mapping[str, Any]) -> Path:
    """Where the daemon says what it does."""
    return Path(inventory["paths"]["logs"]) / "traffic.log"


def _connect(inventory: Mapping[str, Any]) -> socket.socket | None:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(ANSWER_S)
    try:
        made.connect(str(state.folder(inventory) / state.SOCKET))
        return made
    except (FileNotFoundError, ConnectionRefusedError):
        made.close()
        return None
    except OSError as error:
        made.close()
        raise TopologyError(f"{state.folder(inventory) / state.SOCKET}: {error.strerror or error}") from None


def _ask(connection: socket.socket, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    received = b""
    try:
        with connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            while not received.endswith(b"\n"):
                part = connection.recv(65536)
                if not part or len(received) > MOST_ANSWER:
                    raise TopologyError("the traffic daemon ended the conversation; `cohortnet logs traffic` says why")
                received += part
    except OSError as error:
        raise TopologyError(f"the traffic daemon does not answer: {error}; `cohortnet logs traffic` says why") from None
    answer = json.loads(received)
    if not answer["ok"]:
        hint = f"; {answer['hint']}" if answer["hint"] else ""
        raise TrafficError(answer["code"], f"{answer['error']}{hint}")
    return list(answer["flows"])


def listed(inventory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All flows; asks the daemon where one is there, and starts none. Raises TopologyError."""
    connection = _connect(inventory)
    if connection is not None:
        return _ask(connection, {"op": "list"})
    kept = state.read(state.folder(inventory) / state.FILE)
    flows = []
    for planned in inventory.get("traffic", ()):
        flow = state.idle(planned, 0.0) | kept.get(planned["name"], {})
        if flow["state"] not in ("stopped", "failed"):
            flow |= {"running": False, "state": "lost", "now_bps": 0,
                     "reason": "the traffic daemon has ended; `cohortnet traffic start` starts it anew"}  # fmt: skip
        flows.append(flow)
    return flows


def command(inventory: Mapping[str, Any], request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Send a command (docs/traffic.md has them), starting the daemon where none is there; the flows that it is about.

    Raises:
        TrafficError: where the daemon refuses it.
        TopologyError: where the daemon cannot be started or does not answer.
    """
    return _ask(_connect(inventory) or _start(inventory), request)


def _start(inventory: Mapping[str, Any]) -> socket.socket:
    argv = [sys.executable, "-m", "topology.traffic", "--inventory", str(inventory_path(inventory["testbed"]))]
    process = launch.start_daemon(inventory["testbed"], argv, log_path(inventory))
    deadline = time.monotonic() + START_S
    while True:
        connection = _connect(inventory)
        if connection is not None:
            return connection
        if process.poll() not in (None, 0) or time.monotonic() > deadline:
            raise TopologyError(f"the traffic daemon did not start; the end of {log_path(inventory)}:\n"
                                f"{launch.tail(log_path(inventory))}")  # fmt: skip
        time.sleep(0.05)


def begin(inventory: Mapping[str, Any]) -> list[str]:
    """What `up` does: the state file, and the flows that start with the testbed; what is wrong with those, as texts.

    Raises:
        TopologyError: where the daemon cannot be started.
    """
    planned: Sequence[Mapping[str, Any]] = inventory["traffic"]
    if not planned:
        return []
    state.write(state.folder(inventory) / state.FILE, [state.idle(flow, time.time()) for flow in planned])
    wanted = [flow["name"] for flow in planned if flow["start"]]
    if not wanted:
        return []
    flows = command(inventory, {"op": "start", "flows": wanted})
    return [f"traffic {flow['name']}: {flow['state']}: {flow['reason']}" for flow in flows if not flow["running"]]
