"""`monitoring:` of a testbed file: what it means, and what is refused with path and hint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cohortnet.choose import Choice, choose_testbed
from topology import plan_check
from topology.capabilities import capabilities
from topology.errors import TestbedProblems
from topology.inventory import CoreFacts, build_inventory
from topology.model import parse_testbed
from topology.plan import Plan, plan_from_dict
from topology.planning import make_plan


def planned(monitoring: Any, **more: Any) -> Plan:
    return make_plan(parse_testbed({"name": "lab", "preset": {}, "monitoring": monitoring, **more}))


def problems(monitoring: Any, **more: Any) -> dict[str, str]:
    with pytest.raises(TestbedProblems) as caught:
        planned(monitoring, **more)
    return {problem.path: f"{problem.code}: {problem.message} {problem.hint}" for problem in caught.value.problems}


def test_true_means_all_defaults_and_nothing_means_no_monitoring() -> None:
    assert planned(False).monitoring is None
    assert make_plan(parse_testbed({"name": "lab", "preset": {}})).monitoring is None
    plan = planned(True)
    inventory = build_inventory(plan, CoreFacts("netdev", "/x"), {}, up=True)
    assert inventory["monitoring"] == {
        "prometheus": "host", "period_s": 5.0, "retention_s": 86400.0, "exporter": "127.0.0.1:9100",
        "prometheus_address": "127.0.0.1:9090", "folder": "/run/cohortnet/lab/prometheus", "node": None,
    }  # fmt: skip
    assert plan_from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_in_band_publishes_prometheus_of_its_node() -> None:
    plan = planned({"prometheus": "in-band", "period": "500 ms", "retention": "2 d", "port": 9999})
    assert plan.monitoring is not None and plan.monitoring.node == "prom.0"
    assert (plan.monitoring.period_s, plan.monitoring.retention_s) == (0.5, 172800.0)
    port = plan.published[-1]
    assert (port.node, port.port, port.host_port) == ("prom.0", 9090, 9999)
    none = planned({"prometheus": "none"}).monitoring
    assert none is not None and none.prometheus_address is None and none.ports() == {"monitoring.exporter_port": 9100}


@pytest.mark.parametrize(
    ("monitoring", "path", "said"),
    [
        ({"period": "5"}, "monitoring.period", "12 ms"),
        ({"period": "20 ms"}, "monitoring.period", "100 ms"),
        ({"period": "2 min"}, "monitoring.period", "60 s"),
        ({"retention": "1 s"}, "monitoring.retention", "10 min"),
        ({"prometheus": "outside"}, "monitoring.prometheus", "'in-band'"),
        ({"periode": "5 s"}, "monitoring.periode", "unknown-key"),
        ("yes", "monitoring", "yes"),
        ({"port": 9100}, "monitoring.port", "already taken by monitoring.exporter_port"),
        ({"port": 8080}, "monitoring.port", "already taken by controller.rest_host_port"),
        ({"exporter_port": 8000}, "monitoring.exporter_port", "already taken by publish[0]"),
        ({"prometheus": "none", "port": 9090}, "monitoring.port", "contradiction"),
    ],
)
def test_what_cannot_be_is_refused_with_path_and_what_is_allowed(monitoring: Any, path: str, said: str) -> None:
    found = problems(monitoring)
    assert list(found) == [path] and said in found[path]


def test_in_band_needs_exactly_one_node_for_it() -> None:
    more = {"preset": None, "switches": [{"name": "s"}], "links": [{"a": "a", "b": "s"}, {"a": "b", "b": "s"}]}
    for role, said in (("host", "no node has it"), ("prometheus", "several nodes have it (a, b)")):
        nodes = [{"name": "a", "role": role}, {"name": "b", "role": role}]
        assert said in problems({"prometheus": "in-band"}, nodes=nodes, **more)["monitoring.prometheus"]
        assert planned(True, nodes=nodes, **more).monitoring is not None


def test_a_machine_without_the_program_is_told_what_to_install() -> None:
    from dataclasses import replace

    found = capabilities()
    bare = replace(found, programs={**found.programs, "prometheus": None})
    for monitoring, expected in ((True, 1), ({"prometheus": "none"}, 0)):
        listed = [p for p in plan_check.check_plan(planned(monitoring), bare) if p.path == "monitoring"]
        assert len(listed) == expected
        assert all("sudo apt-get install prometheus" in problem.hint for problem in listed)


def test_the_option_switches_it_on_and_leaves_what_the_file_says(tmp_path: Path) -> None:
    def chosen(text: str, **typed: Any) -> Any:
        path = tmp_path / "lab.yaml"
        path.write_text(json.dumps({"name": "lab", "preset": {}, **({"monitoring": text} if text != "" else {})}))
        return choose_testbed(Choice(path, **typed))[0].monitoring

    assert choose_testbed(Choice())[0].monitoring is None
    assert choose_testbed(Choice(monitoring=True))[0].monitoring.period == 5.0  # type: ignore[union-attr]
    assert chosen("") is None and chosen("", monitoring=True).port == 9090
    assert chosen({"port": 9999}, monitoring=True).port == 9999  # type: ignore[arg-type]
    assert chosen(False, monitoring=True).port == 9090  # type: ignore[arg-type]
