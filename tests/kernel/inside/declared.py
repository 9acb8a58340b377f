"""What `tc` reports of an interface, and what a testbed's inventory declares, in the same words. Takes both as plain
data; knows nothing of how the engine makes the one out of the other.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from topology.engine import namespaces

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _tc(namespace: str, *words: str) -> str:
    command = ["nsenter", f"--net={namespace}", "--", "tc", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


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


def reported(namespace: str, interface: str, listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `tc` says that this interface does to what it sends, in the inventory's keys and units. `listed` are all
    disciplines of its namespace.
    """
    said: dict[str, Any] = dict.fromkeys(("delay_s", "jitter_s", "loss", "duplicate", "corrupt", "reorder"), 0.0)
    said["rate_bps"] = None
    limited = False
    for item in listed:
        if item["dev"] != interface:
            continue
        limited |= item["kind"] == "htb"
        options = item.get("options", {})
        if item["kind"] == "netem":
            delay = options.get("delay", {})
            said["delay_s"], said["jitter_s"] = delay.get("delay", 0.0), delay.get("jitter", 0.0)
            for key, name in (("loss", "loss-random"), ("duplicate", "duplicate"), ("corrupt", "corrupt"),
                              ("reorder", "reorder")):  # fmt: skip
                said[key] = options.get(name, {}).get(key if key != "loss" else "loss", 0.0)
    # HTB's classes know no JSON.
    for line in _tc(namespace, "class", "show", "dev", interface).splitlines() if limited else ():
        if line.startswith("class htb"):
            found = re.search(r" rate ([\d.]+)([KMGT]?)bit ceil ([\d.]+)([KMGT]?)bit", line)
            assert found is not None and found.group(1, 2) == found.group(3, 4), line
            said["rate_bps"] = float(found.group(1)) * _UNITS[found.group(2)]
    return said


def differences(inventory: Mapping[str, Any]) -> tuple[list[str], int]:
    """Where `tc` says something else than what is declared, as texts; and how many figures were compared."""
    wrong, compared = [], 0
    listed: dict[str, list[dict[str, Any]]] = {}
    for what, namespace, interface, shape in places(inventory):
        if namespace not in listed:
            listed[namespace] = json.loads(_tc(namespace, "-j", "qdisc", "show"))
        for key, value in reported(namespace, interface, listed[namespace]).items():
            compared += 1
            if (value or 0.0) != pytest.approx(shape[key] or 0.0, rel=1e-3):
                wrong.append(f"{what}: {key} is {value}, declared {shape[key]}")
    return wrong, compared
