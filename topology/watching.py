"""The testbed file's `monitoring:`, checked against the rest of the testbed and planned. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topology.errors import Problem
from topology.model import Node, Testbed
from topology.plan import STATE_ROOT, PlannedMonitoring, PublishedPort

PROMETHEUS_PORT = 9090
"""Of Prometheus in a node; on the host it is the user's choice."""
_HOST = "127.0.0.1"


def _inside(nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes if node.role == "prometheus"]


def check(testbed: Testbed, nodes: Sequence[Node], taken: Mapping[int, str]) -> list[Problem]:
    """Everything that stands against it; `taken` has the host's ports that the testbed uses already, and for what."""
    wanted = testbed.monitoring
    if wanted is None:
        return []
    problems = []
    used = dict(taken)
    keys = {"exporter_port": wanted.exporter_port}
    if wanted.prometheus != "none":
        keys["port"] = wanted.port
    for key, port in keys.items():
        if port in used:
            problems.append(Problem(f"monitoring.{key}", "port-taken", f"{port} is already taken by {used[port]}",
                                    "choose another"))  # fmt: skip
        used[port] = f"monitoring.{key}"
    if wanted.prometheus == "none" and "port" in wanted.model_fields_set:
        problems.append(Problem("monitoring.port", "contradiction", "with `prometheus: none` nothing listens there",
                                "leave it out, or write `prometheus: host`"))  # fmt: skip
    found = _inside(nodes)
    if wanted.prometheus == "in-band" and len(found) != 1:
        said = f"several nodes have it ({', '.join(found)})" if found else "no node has it"
        problems.append(Problem(
            "monitoring.prometheus", "no-prometheus-node",
            f"Prometheus in the emulated network runs in the node with `role: prometheus`, and {said}",
            "give exactly one node that role, or write `prometheus: host`",
        ))  # fmt: skip
    return problems


def plan_monitoring(testbed: Testbed, nodes: Sequence[Node]) -> tuple[PlannedMonitoring | None, list[PublishedPort]]:
    """What measures the testbed, and the ports that have to be published for it; call it where `check` found nothing.
    """
    wanted = testbed.monitoring
    if wanted is None:
        return None, []
    node = _inside(nodes)[0] if wanted.prometheus == "in-band" else None
    planned = PlannedMonitoring(
        prometheus=wanted.prometheus, period_s=wanted.period, retention_s=wanted.retention,
        exporter=f"{_HOST}:{wanted.exporter_port}",
        prometheus_address=None if wanted.prometheus == "none" else f"{_HOST}:{wanted.port}",
        folder=f"{STATE_ROOT / testbed.name}/prometheus", node=node,
    )  # fmt: skip
    return planned, [PublishedPort(node, PROMETHEUS_PORT, _HOST, wanted.port)] if node else []
