"""Several full queues at once: none takes from another's room, and other ports still pass frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.topology.controller import tcp_flows
from tests.topology.engine import lab
from topology.engine import namespaces, send_buffer

pytestmark = pytest.mark.live


def test_slow_links_do_not_starve_one_another() -> None:
    clients = [f"c{number}" for number in range(8)]
    plan = lab.star("t-queue-buffer", {**dict.fromkeys(clients, "10 Mbit/s"), "server": None, "other": None})
    with lab.up(plan) as inventory:
        assert send_buffer.enlarge(inventory) is None
        assert send_buffer.enlarge(inventory) is None, "again, with the socket there"
        nodes = {node["name"]: node for node in inventory["nodes"]}
        paths = {name: namespaces.of_process(node["pid"]) for name, node in nodes.items()}
        with tcp_flows.flows([(paths["server"], paths[c], nodes[c]["address"]) for c in clients]) as running:
            values = tcp_flows.rates(running, 2, after=1.5)
            lost = lab.run(inventory, "server", "ping", "-c", "10", "-i", "0.05", "-q", nodes["other"]["address"])
        index = tcp_flows.jain(values)
        print(f"8 flows behind 10 Mbit/s each: {sum(values) / 1e6:.1f} Mbit/s, Jain's index {index:.3f}")
        # With the kernel's own buffer: 25 Mbit/s in total, 0.38, and 60 % of pings lost.
        assert sum(values) == pytest.approx(80e6 * lab.GOODPUT_SHARE, rel=0.05)
        assert index >= 0.99
        assert " 0% packet loss" in lost


def test_a_datapath_that_is_gone_is_named(tmp_path: Path) -> None:
    inventory = {"core": {"datapath": "netdev", "ovs_rundir": str(tmp_path)}, "nodes": [], "switches": []}
    assert str(tmp_path) in (send_buffer.enlarge(inventory) or "")
    assert send_buffer.enlarge({"core": {"datapath": "system", "ovs_rundir": str(tmp_path)}}) is None
