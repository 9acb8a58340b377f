"""What a node that joins will be, who cannot leave, and how both versions of cgroups stop a process: pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.topology.engine import lab
from topology.engine import cgroups, freezer
from topology.engine.cgroups import parse_hierarchies
from topology.engine.growth import node_like
from topology.errors import TestbedProblems
from topology.plan import Plan

PLAN = lab.preset("t-eng-change-pure", clients=6, cohorts=2)


def codes(plan: Plan, *words: str, **more: str) -> set[str]:
    with pytest.raises(TestbedProblems) as refused:
        node_like(plan, *words, **more)
    return {problem.code for problem in refused.value.problems}


def test_a_node_like_another_has_its_own_name_address_and_folder() -> None:
    made = node_like(PLAN, "fc.60", "fc.10", "swCampus2", cohort="2")
    model = PLAN.node("fc.10")
    assert made.node.address == "10.0.1.16" and made.end.mac == "02:00:0a:00:01:10"
    assert (made.node.role, made.node.program, made.node.cpu) == (model.role, model.program, model.cpu)
    assert made.node.container == "mn.fc.60" and made.node.state.endswith("/nodes/fc.60")
    other = {"COHORTNET_NODE", "COHORTNET_COHORT", "COHORTNET_ADDRESS", "COHORTNET_STATE", "FLWR_HOME"}
    differs = {key for key, value in made.node.environment.items() if model.environment[key] != value}
    assert differs == other and set(made.node.environment) == set(model.environment)
    assert made.node.environment["COHORTNET_COHORT"] == made.node.cohort == "2"
    ports = next(switch.ports for switch in PLAN.switches if switch.name == "swCampus2")
    assert made.link.b_port == max(port.number for port in ports) + 1
    assert made.link.b_interface == f"swCampus2-eth{made.link.b_port}"
    assert made.link.a_to_b == next(link for link in PLAN.links if link.a == "fc.10").a_to_b


def test_the_link_of_a_node_that_is_a_link_s_second_end_is_turned_round() -> None:
    plan = lab.star("t-eng-change-pure", {"a": None}, links=[
        {"a": "s1", "b": "a", "up": {"rate": "1 Mbit/s"}, "down": {"rate": "2 Mbit/s"}}])  # fmt: skip
    link = node_like(plan, "new", "a", "s1").link
    assert (link.a, link.a_to_b.rate_bps, link.b_to_a.rate_bps) == ("new", 2_000_000, 1_000_000)


def test_everything_that_stands_against_a_node_is_said_at_once() -> None:
    assert codes(PLAN, "fc.10", "mo.1", "nowhere", cohort="9", address="10.0.1.11") == {
        "duplicate-name", "one-of-a-kind", "unknown-switch", "unknown-cohort", "duplicate-address"}  # fmt: skip
    assert codes(PLAN, "1 x", "fed.1", "swCampus1", cohort="1") == {"bad-value", "no-client"}
    assert codes(PLAN, "x", "nobody", "swCampus1", address="192.0.2.1") == {"unknown-node", "outside-pool"}
    assert codes(PLAN, "x", "fc.10", "swCampus1", address="ten") == {"bad-value"}


def test_a_full_pool_is_said() -> None:
    plan = lab.star("t-eng-change-pure", {"a": None, "b": None}, address_pool="10.9.9.0/30")
    assert codes(plan, "c", "a", "s1") == {"pool-empty"}


def test_after_the_last_address_the_lowest_free_one_is_taken() -> None:
    nodes = [{"name": "a", "address": "10.9.9.6"}, {"name": "b", "address": "10.9.9.1"}]
    plan = lab.star("t-eng-change-pure", {"a": None, "b": None}, address_pool="10.9.9.0/29", nodes=nodes)
    assert node_like(plan, "c", "a", "s1").node.address == "10.9.9.2"


def test_the_freezer_of_both_versions() -> None:
    first = parse_hierarchies(
        "31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n", [])  # fmt: skip
    found = freezer.freezer_of(first)
    assert found is not None and found.folder == Path("/sys/fs/cgroup/freezer") and found.version == 1
    second = parse_hierarchies("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", ["cpu", "memory", "pids"])
    found = freezer.freezer_of(second)
    assert found is not None and found.version == 2
    assert freezer.freezer_of(parse_hierarchies("3 2 0:8 / /c rw - cgroup cgroup rw,cpu\n", [])) is None
    assert cgroups.freezing(2) == ("cgroup.freeze", "1", "0")
    assert cgroups.freezing(1) == ("freezer.state", "FROZEN", "THAWED")
    for text, stopped in (("FROZEN\n", True), ("FREEZING\n", False), ("THAWED\n", False),
                          ("populated 1\nfrozen 1\n", True), ("populated 1\nfrozen 0\n", False)):  # fmt: skip
        assert freezer.parse_frozen(text) is stopped
