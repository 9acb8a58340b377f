"""Published ports, the engine's half: listening sockets taken before anything is built, and the process that serves
them.

A port that is taken is thus found first, and cannot be lost while the testbed is being raised. `proxy` is what runs in
the process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topology.engine import launch
from topology.errors import Problem, TestbedProblems
from topology.plan import Plan, PublishedPort

BACKLOG = 128


@dataclass(frozen=True)
class Listener:
    """A published port and the socket that listens for it."""

    port: PublishedPort
    socket: socket.socket


def _problem(plan: Plan, position: int, port: PublishedPort, reason: str) -> Problem:
    if port.node is None:
        return Problem("controller.rest_host_port", "port-taken",
                       f"{port.host}:{port.host_port} for the controller's REST cannot be used: {reason}",
                       "write `controller: {rest_host_port: PORT}` with a free one")  # fmt: skip
    if plan.monitoring is not None and plan.monitoring.prometheus_address == f"{port.host}:{port.host_port}":
        return Problem("monitoring.port", "port-taken",
                       f"{port.host}:{port.host_port} for Prometheus cannot be used: {reason}",
                       "write `monitoring: {port: PORT}` with a free one")  # fmt: skip
    return Problem(f"publish[{position}].host_port", "port-taken",
                   f"{port.host}:{port.host_port} for port {port.port} of {port.node!r} cannot be used: {reason}",
                   f"write `publish: [{{node: {port.node}, port: {port.port}, host_port: PORT}}]` with a free one, or "
                   "`publish: []`")  # fmt: skip


def listen(plan: Plan) -> list[Listener]:
    """Take all published ports of a plan. Raises TestbedProblems with every one that is taken, having freed the others.
    """
    listeners: list[Listener] = []
    problems = []
    for position, port in enumerate(plan.published):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((port.host, port.host_port))
            made.listen(BACKLOG)
            listeners.append(Listener(port, made))
        except OSError as error:
            made.close()
            problems.append(_problem(plan, position, port, error.strerror or str(error)))
    if problems:
        close(listeners)
        raise TestbedProblems(problems)
    return listeners


def close(listeners: Sequence[Listener]) -> None:
    """Close this process's listening sockets."""
    for listener in listeners:
        listener.socket.close()


def start(plan: Plan, listeners: Sequence[Listener]) -> subprocess.Popen[bytes] | None:
    """Start the process that serves the listening sockets; None where nothing is published. Raises TopologyError."""
    if not listeners:
        return None
    ports = [
        {"fd": item.socket.fileno(), "node": item.port.node, "port": item.port.port, "host_port": item.port.host_port}
        for item in listeners
    ]
    # The request is short, so a pipe holds it without a reader.
    read, write = os.pipe()
    try:
        os.write(write, json.dumps({"inventory": str(plan.inventory), "ports": ports}).encode())
        os.close(write)
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("proxy.py"))]
        return launch.start_daemon(plan.testbed, command, plan.logs / "proxy.log", stdin=read,
                                   pass_fds=[item.socket.fileno() for item in listeners])  # fmt: skip
    finally:
        os.close(read)
