"""Inventories as plain data for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHAPE = {"rate_bps": 10_000_000, "delay_s": 0.012, "jitter_s": 0.0, "loss": 0.0, "duplicate": 0.0, "corrupt": 0.0,
         "reorder": 0.0, "queue_packets": None}  # fmt: skip


def node(name: str, octet: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "role": "client", "cohort": "1", "address": f"10.0.1.{octet}", "prefix_length": 16,
        "interface": "eth0", "management_address": f"100.64.0.{octet}", "switch": "s1", "switch_port": octet,
        "pid": None, "cgroups": [], **more,
    }  # fmt: skip


def inventory(folder: Path, **more: Any) -> dict[str, Any]:
    """Two nodes at one switch, none of them running."""
    ports = [{"number": number, "name": f"s1-eth{number}", "interface": f"s1-eth{number}", "peer_kind": "node",
              "peer": name, "peer_port": None} for number, name in ((1, "fc.1"), (2, "fed.1"))]  # fmt: skip
    links = [{"name": f"{name}--s1", "a": name, "b": "s1", "a_port": None, "b_port": number, "a_interface": "eth0",
              "b_interface": f"s1-eth{number}", "a_to_b": SHAPE, "b_to_a": {**SHAPE, "rate_bps": None}}
             for number, name in ((1, "fc.1"), (2, "fed.1"))]  # fmt: skip
    return {
        "version": 1, "testbed": "t-exporter-data", "state": "up", "runtime": "namespace", "seed": 1,
        "core": {"namespace": "cn.t-exporter-data", "ovs_rundir": str(folder / "ovs"), "datapath": "netdev",
                 "controller": {"kind": "builtin"}},
        "nodes": [node("fc.1", 1), node("fed.1", 2, role="server")],
        "switches": [{"name": "s1", "datapath_id": 1, "bridge": "s1", "ports": ports}], "links": links,
        "cohorts": [{"name": "1", "server": "fed.1", "clients": ["fc.1"]}], "published": [], "monitoring": None,
        "paths": {"state": str(folder)}, **more,
    }  # fmt: skip


def write(folder: Path, **more: Any) -> Path:
    path = folder / "inventory.json"
    fresh = path.with_name("inventory.json.new")
    fresh.write_text(json.dumps(inventory(folder, **more)), encoding="utf-8")
    fresh.replace(path)
    return path
