"""What `tc` reports of an interface, and what a testbed's inventory declares, in the same words. Takes both as plain
data; knows nothing of how the engine makes the one out of the other.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from topology.engine import namespaces


def _tc(namespace: str, *words: str) -> list[dict[str, Any]]:
    command = ["nsenter", f"--net={namespace}", "--", "tc", "-j", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return [dict(item) for item in json.loads(done.stdout or "[]")]


def places(inventory: Mapping[str, Any]) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(what, namespace, interface, declared shape) of every direction of every link."""
    core = str(namespaces.named(inventory["core"]["namespace"]))
    nodes = {node["name"]: node for node in inventory["nodes"]}
    ports = {(switch["name"], port["number"]): port["interface"]
             for switch in inventory["switches"] for port in switch["ports"]}  # fmt: skip
    found = []
    for link in inventory["links"]:
        for side, shape in (("a", link["a_to_b"]), ("b", link["b_to_a"])):
            end, port = link[side], link[f"{side}_port"]
            if end in nodes:
                place = (str(namespaces.of_process(nodes[end]["pid"])), nodes[end]["interface"])
            else:
                place = (core, ports[end, port])
            found.append((f"{link['name']} from {end}", *place, shape))
    return found


def reported(namespace: str, interface: str) -> dict[str, Any]:
    """What `tc` says that this interface does to what it sends, in the inventory's keys and units."""
    said: dict[str, Any] = dict.fromkeys(("delay_s", "jitter_s", "loss", "duplicate", "corrupt", "reorder"), 0.0)
    said["rate_bps"] = None
    for item in _tc(namespace, "qdisc", "show", "dev", interface):
        options = item.get("options", {})
        if item["kind"] == "netem":
            delay = options.get("delay", {})
            said["delay_s"], said["jitter_s"] = delay.get("delay", 0.0), delay.get("jitter", 0.0)
            for key, name in (("loss", "loss-random"), ("duplicate", "duplicate"), ("corrupt", "corrupt"),
                              ("reorder", "reorder")):  # fmt: skip
                said[key] = options.get(name, {}).get(key if key != "loss" else "loss", 0.0)
    for item in _tc(namespace, "class", "show", "dev", interface):
        if item.get("class") == "htb":
            assert item["rate"] == item["ceil"], item
            said["rate_bps"] = item["rate"] * 8
    return said
