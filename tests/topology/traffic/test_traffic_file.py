"""`traffic:` in the testbed file: what is planned of it, and every problem that is found before anything starts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import yaml

from topology.capabilities import Capabilities, capabilities
from topology.errors import TestbedProblems
from topology.inventory import CoreFacts, build_inventory
from topology.model import parse_testbed
from topology.plan import Plan, plan_from_dict
from topology.plan_check import check_plan
from topology.planning import make_plan
from topology.resources import resource_warnings
from topology.traffic.paths import narrowest_bps


def star(flows: str, rate: str = "100 Mbit/s") -> dict[str, Any]:
    text = f"""
name: star
runtime: namespace
nodes: [{{name: n1}}, {{name: n2}}, {{name: n3}}]
switches: [{{name: s1}}]
links: [{{a: n1, b: s1, rate: 10 Mbit/s}}, {{a: n2, b: s1, rate: {rate}}}, {{a: n3, b: s1}}]
controller: {{kind: none}}
traffic:
{flows}
"""
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def plan(flows: str, **more: Any) -> Plan:
    return make_plan(parse_testbed(star(flows, **more)))


def problems(flows: str) -> set[tuple[str, str]]:
    with pytest.raises(TestbedProblems) as caught:
        plan(flows)
    assert all(problem.message for problem in caught.value.problems)
    return {(problem.path, problem.code) for problem in caught.value.problems}


def test_the_preset_has_its_background_flow_and_does_not_start_it() -> None:
    made = make_plan(parse_testbed({"name": "x", "preset": {"cohorts": 1, "clients": 2}}))
    (flow,) = made.traffic
    assert (flow.name, flow.source, flow.destination) == ("background", "app.1", "appserv.0")
    assert (flow.rate_bps, flow.protocol, flow.pattern, flow.start) == (20_000_000, "tcp", "constant", False)
    assert flow.ports == (5201, 5202)


def test_a_flow_of_the_file_is_added_and_one_of_the_same_name_replaces_the_preset_s() -> None:
    data = {"name": "x", "preset": {"cohorts": 1, "clients": 2}}
    other = {"name": "other", "from": "fc.10", "to": "appserv.0", "rate": "1 Mbit/s"}
    made = make_plan(parse_testbed({**data, "traffic": [other]}))
    assert [(f.name, f.ports) for f in made.traffic] == [("background", (5201, 5202)), ("other", (5203, 5204))]
    same = {"name": "background", "from": "app.1", "to": "appserv.0", "rate": "5 Mbit/s", "start": True}
    made = make_plan(parse_testbed({**data, "traffic": [same]}))
    assert [(f.name, f.rate_bps, f.start) for f in made.traffic] == [("background", 5_000_000, True)]


def test_defaults_are_filled_in_and_travel_through_plan_and_inventory() -> None:
    made = plan("""
  - {name: a, from: n1, to: n2, rate: 1 Mbit/s, pattern: on-off, on: 2 s}
  - {name: b, from: n1, to: n2, rate: 1 Mbit/s, pattern: on-off, period: 4 s}
  - {name: c, from: n1, to: n3, rate: 1 Mbit/s, pattern: sine, protocol: udp}
  - {name: d, from: n2, to: n3, rate: 1 Mbit/s, pattern: poisson}
  - {name: e, from: n2, to: n3, rate: 1 Mbit/s, pattern: poisson, seed: 5, size: 20 kB}
""")
    flows = {flow.name: flow for flow in made.traffic}
    assert (flows["a"].period_s, flows["a"].on_s) == (10.0, 2.0)
    assert (flows["b"].period_s, flows["b"].on_s) == (4.0, 2.0)
    assert (flows["c"].period_s, flows["c"].low_bps, flows["c"].on_s) == (60.0, 0, None)
    assert flows["d"].size_bytes == 1_000_000 and flows["d"].seed not in (None, flows["e"].seed)
    assert (flows["e"].size_bytes, flows["e"].seed) == (20_000, 5)
    assert [f.ports for f in made.traffic] == [(5201, 5202), (5203, 5204), (5201, 5202), (5203, 5204), (5205, 5206)]
    assert plan_from_dict(json.loads(json.dumps(made.as_dict()))) == made
    written = json.loads(json.dumps(build_inventory(made, CoreFacts("netdev", "/x"), {}, up=False)))
    assert written["traffic"][0] == json.loads(json.dumps(asdict(made.traffic[0])))


def test_the_key_on_may_stand_without_quotes_and_what_is_dumped_can_be_read_again() -> None:
    testbed = parse_testbed(star("  - {name: a, from: n1, to: n2, rate: 1 Mbit/s, pattern: on-off, 'on': 2 s}"))
    unquoted = parse_testbed(star("  - {name: a, from: n1, to: n2, rate: 1 Mbit/s, pattern: on-off, on: 2 s}"))
    assert testbed == unquoted
    dumped = testbed.model_dump(mode="json", exclude_defaults=True)["traffic"][0]
    assert dumped["from"] == "n1" and dumped["to"] == "n2" and "source" not in dumped


def test_every_problem_is_found_at_once() -> None:
    assert problems("""
  - {name: a, from: nobody, to: none, rate: 1 Mbit/s}
  - {name: b, from: n1, to: n1, rate: 1 Mbit/s}
  - {name: b, from: n1, to: n2, rate: 1 Mbit/s}
  - {name: c, from: n1, to: n2, rate: 9.6 Mbit/s}
  - {name: d, from: n1, to: n2, rate: 1 Mbit/s, period: 5 s, low: 1 Mbit/s, seed: 3}
  - {name: e, from: n1, to: n2, rate: 1 Mbit/s, pattern: on-off, period: 4 s, on: 4 s, size: 1 MB}
  - {name: f, from: n1, to: n2, rate: 5 Mbit/s, pattern: on-off, period: 4 s, on: 1 s}
  - {name: g, from: n1, to: n2, rate: 5 Mbit/s, pattern: sine}
  - {name: h, from: n1, to: n2, rate: 1 Mbit/s, pattern: sine, low: 2 Mbit/s}
""") == {
        ("traffic[0].from", "unknown-node"), ("traffic[0].to", "unknown-node"), ("traffic[1]", "same-node"),
        ("traffic[2].name", "duplicate-name"), ("traffic[3].rate", "above-link-rate"),
        ("traffic[4].period", "unused-key"), ("traffic[4].low", "unused-key"), ("traffic[4].seed", "unused-key"),
        ("traffic[5].on", "bad-value"), ("traffic[5].size", "unused-key"), ("traffic[6].rate", "above-link-rate"),
        ("traffic[7].rate", "above-link-rate"), ("traffic[8].low", "bad-value"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flow", "path", "code"),
    [
        ("{name: a, from: n1, to: n2}", "traffic[0].rate", "missing-key"),
        ("{name: a, to: n2, rate: 1 Mbit/s}", "traffic[0].from", "missing-key"),
        ("{name: a, from: n1, to: n2, rate: 5}", "traffic[0].rate", "bad-value"),
        ("{name: a, source: n1, from: n1, to: n2, rate: 1 Mbit/s}", "traffic[0].source", "unknown-key"),
        ("{name: a, from: n1, to: n2, rate: 1 Mbit/s, pattern: square}", "traffic[0].pattern", "bad-value"),
        ("{name: a, from: n1, to: n2, rate: 1 Mbit/s, start: soon}", "traffic[0].start", "wrong-type"),
        ("{name: a, from: n1, to: s1, rate: 1 Mbit/s}", "traffic[0].to", "unknown-node"),
        ("{name: a, from: n1, to: n2, rate: 2 kbit/s}", "traffic[0].rate", "bad-value"),
    ],
)
def test_one_wrong_value(flow: str, path: str, code: str) -> None:
    assert (path, code) in problems(f"  - {flow}")


def test_too_many_flows_to_one_node() -> None:
    rows = "\n".join(f"  - {{name: f{i}, from: n3, to: n2, rate: 20 kbit/s}}" for i in range(51))
    assert problems(rows) == {("traffic[50].to", "too-many-flows")}


def can(found: Capabilities, **programs: str | None) -> Capabilities:
    from dataclasses import replace

    return replace(found, root=True, netem=True, programs={**found.programs, **programs})


def test_a_udp_flow_above_the_link_is_a_warning() -> None:
    made = plan("  - {name: flood, from: n1, to: n2, rate: 20 Mbit/s, protocol: udp}")
    warnings = [w for w in resource_warnings(made, capabilities()) if w.name == "traffic"]
    assert len(warnings) == 1 and "'flood'" in warnings[0].detail and "10 Mbit/s" in warnings[0].detail
    fits = plan("  - {name: fits, from: n1, to: n2, rate: 9.6 Mbit/s, protocol: udp}")
    assert [w for w in resource_warnings(fits, capabilities()) if w.name == "traffic"] == []


def test_a_flow_that_starts_at_up_needs_iperf3() -> None:
    without = can(capabilities(), iperf3=None)
    for start, wanted in (("true", True), ("false", False)):
        made = plan(f"  - {{name: a, from: n1, to: n2, rate: 1 Mbit/s, start: {start}}}")
        assert any("iperf3" in problem.message for problem in check_plan(made, without)) == wanted


def test_the_widest_of_the_shortest_ways_counts() -> None:
    def link(a: str, b: str, up: int | None, down: int | None = None) -> dict[str, Any]:
        return {"a": a, "b": b, "a_to_b": {"rate_bps": up}, "b_to_a": {"rate_bps": down}}

    links = [link("n1", "s1", None), link("s1", "s2", 5), link("s1", "s3", 9), link("s2", "s4", 100),
             link("s3", "s4", 50, 3), link("s4", "n2", None), link("s1", "x", None), link("x", "y", None),
             link("y", "s4", None)]  # fmt: skip
    assert narrowest_bps(links, "n1", "n2") == 9
    assert narrowest_bps(links, "n2", "n1") is None  # by s2: no rate in that direction
    assert narrowest_bps(links[:1], "n1", "s1") is None
    with pytest.raises(ValueError, match="no way"):
        narrowest_bps(links[:1], "n1", "n2")
