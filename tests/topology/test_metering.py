"""What the testbed file takes as a meter the controller takes: neither finds a fault that the other overlooks."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from topology.controller.graph import read_graph
from topology.controller.meter_body import read_spec
from topology.errors import TestbedProblems
from topology.inventory import CoreFacts, build_inventory
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan

PRESET = {"name": "x", "preset": {"cohorts": 2, "clients": 4, "campuses": 2}}
NODES = ("fc.10", "fed.1", "mo.1", "app.1", "z")
TARGETS: list[dict[str, Any]] = [
    *({"kind": "cohort", "name": name} for name in ("1", "2", "3")),
    *({"kind": kind, "name": name} for kind in ("client", "server") for name in NODES),
    *({"kind": "port", "switch": switch, "port": port} for switch in ("swCampus1", "nowhere") for port in (1, 3, 4)),
    *({"kind": "address", "address": address} for address in ("10.0.1.10", "10.0.9.9")),
]
RATES = ["15 kbit/s", "16 kbit/s", "20 Mbit/s", "100mbit", "1000 Gbit/s", "1001 Gbit/s", "1 packet/s", "500 packet/s",
         "1000000000 packet/s", "1000000001 packet/s", "0.5 packet/s", "20", "20 MB/s", "0 bit/s", ""]  # fmt: skip
BURSTS = [None, None, "8 kbit", "12 kbit", "13 kbit", "9999999 bit", "10 Mbit", "250 packets", "249 packet",
          "5000 Gbit", "10 Mbit/s", "1 MB", "5000000000 packets"]  # fmt: skip


def written(target: dict[str, Any]) -> dict[str, Any]:
    """A target as the testbed file has it."""
    if target["kind"] == "port":
        return {"switch": target["switch"], "port": target["port"]}
    return {target["kind"]: target.get("name") or target["address"]}


def planned(meters: list[dict[str, Any]]) -> Plan | None:
    try:
        return make_plan(parse_testbed({**PRESET, "meters": meters}))
    except TestbedProblems:
        return None


def inventory(plan: Plan) -> dict[str, Any]:
    return dict(json.loads(json.dumps(build_inventory(plan, CoreFacts("netdev", "/x"), {}, up=True))))


BARE = planned([])
assert BARE is not None
GRAPH = read_graph(inventory(BARE))


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(TARGETS),
    st.sampled_from(["up", "down", "both", "across"]),
    st.sampled_from(RATES),
    st.sampled_from(BURSTS),
    st.sampled_from(["auto", "drop", "queue", "hope"]),
)
def test_file_and_controller_agree(
    target: dict[str, Any], direction: str, rate: str, burst: str | None, enforce: str
) -> None:
    values = {"name": "m", "direction": direction, "rate": rate, "enforce": enforce,
              **({"burst": burst} if burst is not None else {})}  # fmt: skip
    plan = planned([{**values, **written(target)}])
    spec, faults = read_spec({**values, "target": target}, GRAPH, lambda *_: False)
    assert (plan is None) == (spec is None), faults
    if plan is not None and spec is not None:
        (body,) = inventory(plan)["meters"]
        again, faults = read_spec(body, GRAPH, lambda *_: False)
        assert again == spec and not faults
