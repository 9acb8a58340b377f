"""Which flows load which link, and what may be loaded at the same time: pure, on inventories that nobody raised."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from topology.inventory import CoreFacts, build_inventory
from topology.model import parse_testbed
from topology.planning import make_plan
from topology.verify.loads import ACKNOWLEDGEMENTS, SHARE, batches, loads
from topology.verify.routes import Routes, limits_of


def inventory_of(**data: Any) -> dict[str, Any]:
    testbed = parse_testbed({"name": "t-verify", "runtime": "namespace", **data})
    raised = build_inventory(make_plan(testbed), CoreFacts("netdev", "/nowhere"), {}, up=True)
    return dict(json.loads(json.dumps(raised)))


def star(rates: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return inventory_of(
        nodes=[{"name": name} for name in rates],
        switches=[{"name": "s1"}],
        links=[{"a": name, "b": "s1", **shape} for name, shape in rates.items()],
        **more,
    )


def test_the_preset_s_path_goes_through_its_switches() -> None:
    routes = Routes(inventory_of(preset={"cohorts": 1, "clients": 2, "campuses": 2}))
    assert [routes.ends(hop) for hop in routes.path("fc.10", "fed.1")] == [
        ("fc.10", "swCampus1"), ("swCampus1", "swEdge12"), ("swEdge12", "satsw11"), ("satsw11", "aggsw10"),
        ("aggsw10", "fed.1"),
    ]  # fmt: skip


def test_a_link_is_loaded_past_its_rate_by_as_many_nodes_as_it_takes() -> None:
    slow = {"rate": "10 Mbit/s"}
    routes = Routes(star({"a": slow, "b": slow, "c": slow, "sink": {"rate": "25 Mbit/s"}}))
    found = {load.direction: load for load in loads(routes)}
    into = found["sink--s1", "b_to_a"]
    assert sorted(source for source, _ in into.flows) == ["a", "b", "c"] and into.fills
    assert found["a--s1", "a_to_b"].flows == [("a", "sink")], "the widest partner, and one is enough"


def test_what_cannot_be_offered_is_not_expected() -> None:
    routes = Routes(star({"a": {"rate": "10 Mbit/s"}, "sink": {"rate": "100 Mbit/s"}}))
    found = {load.direction: load for load in loads(routes)}
    into = found["sink--s1", "b_to_a"]
    assert not into.fills and into.expected_bps == 10_000_000


def test_pairs_without_a_way_load_nothing() -> None:
    routes = Routes(star({"a": {"rate": "10 Mbit/s"}, "b": {}, "c": {}}))
    found = {load.direction: load for load in loads(routes, (), [("b", "a")])}
    assert found["a--s1", "a_to_b"].flows == [("a", "c")]


def test_meters_lower_what_is_expected() -> None:
    inventory = inventory_of(preset={"cohorts": 1, "clients": 4, "campuses": 2})
    meter = {"name": "c1.up", "target": {"kind": "cohort", "name": "1"}, "direction": "up", "rate": 20_000_000,
             "unit": "bit/s", "in_force": "drop", "pending": False}  # fmt: skip
    (limit,) = limits_of(inventory, [meter])
    assert limit.holds("fc.10", "fed.1") and not limit.holds("fed.1", "fc.10") and not limit.holds("fc.10", "cloud.0")
    client = {**meter, "target": {"kind": "client", "name": "fc.10"}, "direction": "both"}
    up, down = limits_of(inventory, [client])
    assert up.holds("fc.10", "cloud.0") and down.holds("cloud.0", "fc.10") and not up.holds("fc.11", "cloud.0")
    server = {**meter, "target": {"kind": "server", "name": "fed.1"}}
    (arriving,) = limits_of(inventory, [server])
    assert arriving.holds("fc.10", "fed.1") and not arriving.holds("fed.1", "fc.10")


def test_what_the_kernel_may_leave_out_is_not_expected() -> None:
    inventory = star({"a": {"rate": "10 Mbit/s", "delay": "20 ms", "loss": "1 %"}, "b": {}})
    assert Routes(inventory).declared["a--s1", "a_to_b"].delay_s == 0.02
    inventory["unsupported"] = ["delay", "loss"]
    declared = Routes(inventory).declared["a--s1", "a_to_b"]
    assert (declared.delay_s, declared.loss, declared.rate_bps) == (0.0, 0.0, 10_000_000)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=8))
@example([68, 91, 183, 188, 14])
def test_loads_of_one_batch_leave_room_for_one_another(rates: list[int]) -> None:
    routes = Routes(star({f"n{i}": {"rate": f"{rate} Mbit/s"} for i, rate in enumerate(rates)}))
    todo = loads(routes)
    groups = batches(routes, todo)
    assert sorted(load.direction for group in groups for load in group) == sorted(load.direction for load in todo)
    for group in groups:
        tested = [load.direction for load in group]
        assert len(set(tested)) == len(tested)
        if len(group) == 1:
            continue
        for hop, declared in routes.declared.items():
            assert declared.rate_bps is not None
            taken = back = 0.0
            for load in group:
                if load.direction != hop:
                    each = load.expected_bps / len(load.flows)
                    # Flows of one load are not equal: where a link is one's bottleneck, it takes no more than that.
                    taken += min(each * sum(hop in routes.path(a, b) for a, b in load.flows), declared.rate_bps)
                    back += each * ACKNOWLEDGEMENTS * sum(hop in routes.path(b, a) for a, b in load.flows)
            if hop in tested:
                assert taken == 0, "nobody else sends where a rate is measured"
            assert taken + back <= max(SHARE, 1.0) * declared.rate_bps * 1.0001
