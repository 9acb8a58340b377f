"""Testbeds with cohorts for tests of meters, and a controller's desired state over fake switches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.topology.controller.fakeswitch import FakeNetwork
from topology.controller.flows import COOKIE_OURS, COOKIE_OURS_MASK, LAST_METER, Contents
from topology.controller.graph import Graph, read_graph
from topology.controller.meter_body import read_spec
from topology.controller.meterbook import open_book
from topology.controller.meterplan import MeterPlan
from topology.controller.meters import MeterSpec
from topology.controller.network import Network, PortState
from topology.controller.reconcile import reconcile
from topology.inventory import CoreFacts, NodeFacts, build_inventory
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan


def two_cohorts(name: str) -> Plan:
    """Three switches in a line; fed.1 and fed.2 at s3; c1, c4 at s1, c2 at s2, c3 at s3."""
    places = {"c1": "s1", "c2": "s2", "c3": "s3", "c4": "s1", "fed.1": "s3", "fed.2": "s3", "app": "s2"}
    roles = {"c": "client", "f": "server", "a": "host"}
    return make_plan(
        parse_testbed(
            {
                "name": name,
                "runtime": "namespace",
                "switches": [{"name": f"s{i}"} for i in (1, 2, 3)],
                "nodes": [{"name": node, "role": roles[node[0]]} for node in places],
                "links": [
                    *({"a": node, "b": switch} for node, switch in places.items()),
                    {"a": "s1", "b": "s2"},
                    {"a": "s2", "b": "s3"},
                ],
                "cohorts": [
                    {"name": "1", "server": "fed.1", "clients": ["c1", "c2", "c3"]},
                    {"name": "2", "server": "fed.2", "clients": ["c4"]},
                ],
            }
        )
    )


def preset(cohorts: int) -> Plan:
    """The factory-satellite preset."""
    return make_plan(parse_testbed({"name": "t-core", "preset": {"cohorts": cohorts}, "runtime": "namespace"}))


def inventory_of(plan: Plan, *, running: bool = True) -> dict[str, Any]:
    facts = {node.name: NodeFacts(1000 + i) for i, node in enumerate(plan.nodes)} if running else {}
    data = build_inventory(plan, CoreFacts("netdev", "/x"), facts, up=running)
    return dict(json.loads(json.dumps(data)))


def graph_of(plan: Plan) -> Graph:
    return read_graph(inventory_of(plan))


def spec_of(graph: Graph, name: str, target: dict[str, Any], **more: Any) -> MeterSpec:
    spec, faults = read_spec({"target": target, "rate": "20 Mbit/s", **more}, graph, lambda *_: True, name)
    assert spec is not None, faults
    return spec


class World:
    """A controller over fake switches that are all connected at first; meters of strangers are there too."""

    def __init__(self, graph: Graph, file: Path) -> None:
        self.graph, self.file = graph, file
        self.fake = FakeNetwork(graph)
        self.connected = set(graph.switches)
        self.restart_controller()

    def restart_controller(self) -> None:
        """A new one: only the file is left of the old."""
        self.network = Network(self.graph)
        self.book, problems = open_book(self.graph, self.file)
        assert not problems
        self.plan = MeterPlan(self.network, self.book)
        for at in sorted(self.connected):
            self.hear(at)

    def hear(self, at: int) -> None:
        ports = self.graph.switches[at].ports
        down = {end[1] for link in self.graph.links if link.name in self.fake.down
                for end in (link.a, link.b) if end[0] == at}  # fmt: skip
        self.network.set_ports(at, [PortState(n, ports[n].name, n not in down) for n in ports])
        self.network.adopt(at, self.ours(at).flows)

    def ours(self, at: int) -> Contents:
        """What a session reads: flows by our cookie, meters by our ids."""
        there = self.fake.switches[at].contents()
        return Contents(
            tuple(flow for flow in there.flows if flow.cookie & COOKIE_OURS_MASK == COOKIE_OURS),
            tuple(meter for meter in there.meters if meter.id <= LAST_METER),
        )

    def wanted(self, at: int) -> Contents:
        metered = self.plan.contents(at)
        return Contents((*(self.network.flows(at) or []), *metered.flows), metered.meters)

    def bring(self, at: int, *, cut: int | None = None) -> None:
        """Send what is missing; after `cut` messages the connection breaks."""
        messages = reconcile(self.wanted(at), self.ours(at))
        self.fake.switches[at].apply(messages if cut is None else messages[:cut])
        if cut is not None and cut < len(messages):
            self.connected.discard(at)

    def bring_all(self) -> None:
        for at in sorted(self.connected):
            self.bring(at)

    def set(self, *specs: MeterSpec) -> None:
        self.book.commit(self.book.state.changed(specs))
        self.bring_all()
