"""Presets and graphs: what they add, what they refuse, and that every graph of the collection can be planned."""

from __future__ import annotations

from typing import Any

import pytest

from tests.topology.engine import lab
from topology.errors import TestbedProblems
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan
from topology.presets.graph import graph_names
from topology.verify.reach import ping
from topology.verify.routes import Routes


def plan_of(**preset: Any) -> Plan:
    return make_plan(parse_testbed({"name": "t-presets", "runtime": "namespace", "preset": preset}))


def problems(**preset: Any) -> dict[str, str]:
    with pytest.raises(TestbedProblems) as caught:
        plan_of(**preset)
    return {problem.path: f"{problem.code}: {problem.message} {problem.hint}" for problem in caught.value.problems}


def at(plan: Plan, node: str) -> str:
    return plan.node(node).switch


def test_three_access_puts_cohorts_behind_satellite_wireless_and_metro() -> None:
    plan = plan_of(kind="three-access", cohorts=3, clients=9)
    assert [at(plan, c.clients[0]) for c in plan.cohorts] == ["satellite", "wireless", "metro"]
    assert all(len({at(plan, client) for client in cohort.clients}) == 1 for cohort in plan.cohorts)
    kinds = ("satellite", "wireless", "metro")
    links = {link.a: link.a_to_b for link in plan.links if link.b == "core" and link.a in kinds}
    assert {name: (shape.rate_bps, shape.delay_s) for name, shape in links.items()} == {
        "satellite": (600_000_000, 0.015), "wireless": (2_000_000_000, 0.010), "metro": (10_000_000_000, 0.005),
    }  # fmt: skip


def test_three_access_can_spread_each_cohort_and_takes_other_properties() -> None:
    plan = plan_of(kind="three-access", cohorts=1, clients=6, spread="client",
                   satellite={"rate": "50 Mbit/s", "loss": "1 %"})  # fmt: skip
    assert sorted({at(plan, client) for client in plan.cohorts[0].clients}) == ["metro", "satellite", "wireless"]
    (link,) = [link for link in plan.links if link.name == "satellite--core"]
    assert (link.a_to_b.rate_bps, link.a_to_b.delay_s, link.b_to_a.loss) == (50_000_000, 0.015, 0.01)


@pytest.mark.parametrize("servers", ["cloud", "fog"])
def test_the_tree_s_servers_stand_in_the_cloud_or_next_to_their_clients(servers: str) -> None:
    plan = plan_of(kind="cloud-fog-edge", cohorts=2, clients=8, fogs=2, edges=2, servers=servers)
    assert [at(plan, c.server) for c in plan.cohorts] == (["cloud"] * 2 if servers == "cloud" else ["fog1", "fog2"])
    assert [sorted({at(plan, client) for client in c.clients}) for c in plan.cohorts] == [
        ["edge1-1", "edge1-2"], ["edge2-1", "edge2-2"],
    ]  # fmt: skip
    shapes = {link.name: (link.a_to_b.rate_bps, link.a_to_b.delay_s) for link in plan.links}
    assert shapes["fog1--cloud"] == (1_000_000_000, 0.010) and shapes["edge2-1--fog2"] == (200_000_000, 0.003)
    assert shapes["fc.10--edge1-1"] == (50_000_000, 0.001)


def test_a_graph_s_cohorts_stand_where_most_links_are_or_where_the_list_says() -> None:
    plan = plan_of(kind="graph", graph="topozoo/Abilene", cohorts=2, clients=4, delay="distance", rate="1 Gbit/s")
    assert len(plan.switches) == 11 and at(plan, "fed.1") == "Sunnyvale"
    assert [at(plan, c.clients[0]) for c in plan.cohorts] == ["Denver", "Kansas-City"]
    (link,) = [link for link in plan.links if link.name == "New-York--Chicago"]
    assert link.a_to_b.rate_bps == 10**9 and 0.005 < link.a_to_b.delay_s < 0.007, "1,146 km of fibre"
    chosen = plan_of(kind="graph", graph="topozoo/Abilene", cohorts=3, clients=3, place=["seattle", "Houston"],
                     core="Atlanta")  # fmt: skip
    assert [at(chosen, c.clients[0]) for c in chosen.cohorts] == ["Seattle", "Houston", "Seattle"]
    assert at(chosen, "fed.1") == at(chosen, "cloud.0") == "Atlanta"


@pytest.mark.parametrize(
    ("preset", "path", "named"),
    [
        ({"kind": "threeaccess"}, "preset.kind", "allowed are factory-satellite, three-access"),
        ({"kind": "three-access", "campuses": 3}, "preset.campuses", "unknown-key"),
        ({"kind": "three-access", "metro": {"rate": "fast"}}, "preset.metro.rate", "'fast'"),
        ({"kind": "cloud-fog-edge", "servers": "moon"}, "preset.servers", "'moon'"),
        ({"kind": "graph", "graph": "topozoo/Abilen"}, "preset.graph", "near it: topozoo/Abilene"),
        ({"kind": "graph", "graph": "topozoo/Abilene", "place": ["Paris"]}, "preset.place[0]", "its nodes are called"),
        ({"kind": "graph", "graph": "topozoo/Abilene", "delay": "far"}, "preset.delay", "'far'"),
        ({"clients": 0}, "preset.clients", "0"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_refused_with_what_does(preset: dict[str, Any], path: str, named: str) -> None:
    found = problems(**preset)
    assert list(found) == [path] and named in found[path], found


@pytest.mark.parametrize("name", [name for name in graph_names() if name.startswith(("sndlib/", "topozoo/"))][::12])
def test_graphs_of_the_collection_can_be_planned(name: str) -> None:
    plan = plan_of(kind="graph", graph=name, cohorts=2, clients=4, delay="distance")
    assert len({switch.name for switch in plan.switches}) == len(plan.switches)


@pytest.mark.live
@pytest.mark.parametrize("preset", [
    {"kind": "three-access", "cohorts": 3, "clients": 3},
    {"kind": "cloud-fog-edge", "cohorts": 2, "clients": 4, "servers": "fog"},
    {"kind": "graph", "graph": "sndlib/polska", "cohorts": 2, "clients": 4, "rate": "200 Mbit/s"},
], ids=lambda preset: str(preset["kind"]))  # fmt: skip
def test_raised_everybody_reaches_everybody(preset: dict[str, Any]) -> None:
    plan = make_plan(parse_testbed({
        "name": "t-presets", "runtime": "namespace", "preset": preset, "publish": [], "allow_unsupported": ["delay"],
        "controller": {"rest_host_port": lab.free_port()},
    }))  # fmt: skip
    with lab.up(plan) as inventory:
        nodes = Routes(inventory).nodes
        pairs = [(a, b) for a in nodes for b in nodes if a != b]
        silent = [f"{e.source} -> {e.target}" for e in ping(inventory, pairs, {}, wait_s=3.0) if not e.received]
        assert silent == []
