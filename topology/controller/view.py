"""What `/v1/topology` and `/v1/status` say, as plain data. Reads the fleet, asks no switch, changes
nothing."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from topology.controller.fleet import Fleet
from topology.controller.flows import LAST_PORT
from topology.controller.network import PortState, Snapshot
from topology.controller.watch import InventoryWatch


def _port_state(ports: dict[int, PortState] | None, number: int) -> str:
    if ports is None:
        return "unknown"
    if number not in ports:
        return "missing"
    return "up" if ports[number].up else "down"


def _ports(view: Snapshot, switch: int) -> list[dict[str, Any]]:
    listed = view.graph.switches[switch].ports
    there = view.ports.get(switch)
    ports = None if there is None else dict(there)
    tree = view.paths.tree_ports.get(switch, frozenset())
    entries: list[dict[str, Any]] = [
        {
            "number": port.number,
            "name": port.name,
            "peer_kind": port.peer_kind,
            "peer": port.peer,
            "peer_port": port.peer_port,
            "state": _port_state(ports, port.number),
            "broadcast": port.peer_kind != "switch" or port.number in tree,
        }
        for port in listed.values()
    ]
    entries += [
        {
            "number": port.number,
            "name": port.name,
            "peer_kind": "board",
            "peer": None,
            "peer_port": None,
            "state": _port_state(ports, port.number),
            "broadcast": True,
        }
        for port in (there or {}).values()
        if port.number not in listed and port.number < LAST_PORT
    ]
    return entries


def topology(fleet: Fleet) -> dict[str, Any]:
    """Switches with their ports, links between them, nodes and learnt boards."""
    view = fleet.network.snapshot()
    sessions = fleet.sessions()
    names = {datapath_id: switch.name for datapath_id, switch in view.graph.switches.items()}

    def switch(datapath_id: int) -> dict[str, Any]:
        session = sessions.get(datapath_id)
        return {
            "name": names[datapath_id],
            "datapath_id": datapath_id,
            "connected": session is not None,
            "flows_installed": session is not None and session.installed,
            "flows": session.flow_count if session else 0,
            "connected_since": session.connected_since if session else None,
            "ports": _ports(view, datapath_id),
        }

    def end_state(switch: int, port: int) -> str:
        there = view.ports.get(switch)
        return _port_state(None if there is None else dict(there), port)

    return {
        "testbed": view.graph.testbed,
        "switches": [switch(datapath_id) for datapath_id in names],
        "unknown_datapaths": [
            {"datapath_id": datapath_id, "address": str(session.connection.address[0])}
            for datapath_id, session in sessions.items()
            if datapath_id not in names
        ],
        "links": [
            {
                "name": link.name,
                "a": names[link.a[0]],
                "a_port": link.a[1],
                "b": names[link.b[0]],
                "b_port": link.b[1],
                "state": "down" if link.name in view.down_links else "up",
                "broadcast": link.name in view.paths.tree,
            }
            for link in view.graph.links
        ],
        "nodes": [
            {
                "name": host.name,
                "mac": host.mac,
                "address": host.address,
                "switch": names[host.switch],
                "port": host.port,
                "state": end_state(host.switch, host.port),
            }
            for host in view.graph.hosts
        ],
        "boards": [
            {
                "mac": board.mac,
                "addresses": list(board.addresses),
                "switch": names.get(board.switch),
                "port": board.port,
            }
            for board in view.boards
        ],
    }


def status(fleet: Fleet, watch: InventoryWatch, inventory: Path, now: float) -> dict[str, Any]:
    """Whether all is as it should be, and what was not lately."""
    view = fleet.network.snapshot()
    sessions = fleet.sessions()
    here = [sessions[datapath_id] for datapath_id in view.graph.switches if datapath_id in sessions]
    installed = sum(session.installed for session in here)
    good = installed == len(view.graph.switches) and watch.problem is None
    return {
        "testbed": view.graph.testbed,
        "state": "ready" if good else "incomplete",
        "pid": os.getpid(),
        "uptime_s": round(now - fleet.started, 3),
        "switches": {
            "listed": len(view.graph.switches),
            "connected": len(here),
            "flows_installed": installed,
        },
        "links_down": sorted(view.down_links),
        "nodes": len(view.graph.hosts),
        "boards": len(view.boards),
        "meters": len(fleet.meters.book.state.entries),
        "queues": {"pending": fleet.queues.pending},
        "inventory": {"path": str(inventory), "read": watch.read_at, "mtime_ns": watch.looked_ns,
                      "problem": watch.problem},  # fmt: skip
        "errors": [asdict(trouble) for trouble in list(fleet.troubles)],
    }
