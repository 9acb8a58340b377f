"""Classes of speed: how many clients each gets, which ones, and what a wrong file is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import TestbedProblems
from topology.model import parse_testbed
from topology.plan import Plan, plan_from_dict
from topology.planning import make_plan
from topology.speeds import apportion

CLASSES = [{"name": "fast", "share": "60 %", "cpus": 1}, {"name": "slow", "share": "40 %", "cpus": 0.25,
            "memory": "256 MiB", "cpuset": "0"}]  # fmt: skip


def plan(classes: list[dict[str, Any]], clients: int = 8, **more: Any) -> Plan:
    speeds = {"classes": classes, **more.pop("speeds", {})}
    return make_plan(parse_testbed({"name": "t", "preset": {"cohorts": 1, "clients": clients}, "speeds": speeds,
                                    **more}))  # fmt: skip


def drawn(made: Plan) -> dict[str, str | None]:
    return {node.name: node.speed for node in made.nodes if node.role == "client"}


def test_shares_go_by_largest_remainders() -> None:
    made = plan(CLASSES)  # 4.8 and 3.2
    assert sorted(str(speed) for speed in drawn(made).values()) == ["fast"] * 5 + ["slow"] * 3
    slow = [node for node in made.nodes if node.speed == "slow"]
    assert {(node.cpu, node.memory_bytes, node.cpuset) for node in slow} == {(0.25, 256 * 2**20, "0")}
    assert apportion(10, [1 / 3, 1 / 3, 1 / 3]) == [4, 3, 3]
    assert apportion(100, [0.29, 0.71]) == [29, 71]


@given(st.integers(0, 500), st.lists(st.integers(1, 100), min_size=1, max_size=9))
def test_all_clients_are_shared_out_and_none_is_off_by_one(total: int, weights: list[int]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    parts = apportion(total, shares)
    assert sum(parts) == total
    assert all(abs(part - total * share) < 1 + 1e-6 for part, share in zip(parts, shares, strict=True))


def test_counts_come_first_and_shares_are_of_the_rest() -> None:
    made = plan([{"name": "phone", "count": 2, "cpus": 0.1}, *CLASSES])
    assert sorted(str(speed) for speed in drawn(made).values()) == ["fast"] * 4 + ["phone"] * 2 + ["slow"] * 2


def test_a_seed_draws_the_same_and_another_draws_otherwise() -> None:
    assert drawn(plan(CLASSES)) == drawn(plan(CLASSES))
    assert drawn(plan(CLASSES, seed=3)) == drawn(plan(CLASSES, seed=9, speeds={"seed": 3}))
    assert len({tuple(drawn(plan(CLASSES, seed=seed)).items()) for seed in range(6)}) > 3


def test_a_node_s_own_limit_comes_first_and_its_role_s_last() -> None:
    nodes = [{"name": "own", "role": "client", "cpu": 2}]
    links = [{"a": "own", "b": "swCampus1"}]
    limits = {"client": {"cpu": 3, "memory": "1 GiB"}, "server": {"cpu": 0.5}}
    made = plan([{"name": "all", "share": "100 %", "cpus": 1}], nodes=nodes, links=links, limits=limits)
    found = {node.name: (node.cpu, node.memory_bytes, node.speed) for node in made.nodes}
    assert found["own"] == (2, 2**30, "all")
    assert found["fc.10"] == (1, 2**30, "all")
    assert found["fed.1"] == (0.5, None, None)


def test_the_class_is_kept_with_the_plan() -> None:
    made = plan(CLASSES)
    assert plan_from_dict(made.as_dict()) == made


@pytest.mark.parametrize(
    ("classes", "code"),
    [
        ([{"name": "a", "share": "50 %", "cpus": 1}], "shares"),
        ([{"name": "a", "cpus": 1}], "share-or-count"),
        ([{"name": "a", "cpus": 1, "share": "100 %", "count": 8}], "share-or-count"),
        ([{"name": "a", "share": "100 %"}], "no-speed"),
        ([{"name": "a", "count": 9, "cpus": 1}], "too-many"),
        ([{"name": "a", "count": 7, "cpus": 1}], "too-few"),
        ([{"name": "a", "count": 4, "cpus": 1}, {"name": "a", "count": 4, "cpus": 1}], "duplicate-name"),
        ([{"name": "a", "share": "100 %", "cpu": 1}], "unknown-key"),
        ([{"name": "a", "share": "100 %", "cpuset": "all"}], "bad-value"),
    ],
)
def test_wrong_classes_are_refused(classes: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(TestbedProblems) as refused:
        plan(classes)
    assert code in {problem.code for problem in refused.value.problems}, refused.value


def test_a_distribution_needs_a_jitter() -> None:
    link = {"a": "n", "b": "s", "delay": "10 ms", "distribution": "normal"}
    data: dict[str, Any] = {"name": "t", "nodes": [{"name": "n"}], "switches": [{"name": "s"}], "links": [link]}
    with pytest.raises(TestbedProblems, match="distribution-without-jitter"):
        make_plan(parse_testbed(data))
    data["links"] = [{**link, "down": {"jitter": "1 ms"}, "up": {"jitter": "2 ms", "distribution": "pareto"}}]
    shapes = make_plan(parse_testbed(data)).links[0]
    assert (shapes.a_to_b.distribution, shapes.b_to_a.distribution) == ("pareto", "normal")
    data["links"] = [{**link, "distribution": "gauss"}]
    with pytest.raises(TestbedProblems, match="normal"):
        parse_testbed(data)
