"""Ryu's `ofctl_rest` paths against a real Open vSwitch: the curl lines of its documentation, its JSON, and
that nothing here touches what the controller itself keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.topology.controller.faces_lab import made_lab, port_of
from tests.topology.controller.lab import Lab, until

pytestmark = pytest.mark.live

OWNER = 0xC0407E


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab("t-faces-ryu") as made:
        yield made


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> Iterator[None]:
    """Every test finds and leaves a switch without flows and meters of users."""
    yield
    for dpid in (1, 2):
        assert lab.curl(f"/stats/flowentry/clear/{dpid}", "-X", "DELETE")[0] == 200
        assert post(lab, "/stats/meterentry/delete", {"dpid": dpid, "meter_id": "ALL"})[0] == 200
    assert lab.status()["state"] == "ready", lab.status()


def post(lab: Lab, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    return lab.curl(path, "-X", "POST", "-d", json.dumps(body))


def get(lab: Lab, path: str) -> Any:
    status, answer = lab.curl(path)
    assert status == 200, (path, status, answer)
    return answer


def users(lab: Lab, dpid: int = 1) -> list[dict[str, Any]]:
    return [flow for flow in get(lab, f"/stats/flow/{dpid}")[str(dpid)] if flow["cookie"] >> 40 != OWNER]


def own(lab: Lab, dpid: int = 1) -> list[tuple[Any, ...]]:
    flows = [flow for flow in get(lab, f"/stats/flow/{dpid}")[str(dpid)] if flow["cookie"] >> 40 == OWNER]
    return sorted((f["table_id"], f["priority"], str(f["match"]), str(f["actions"])) for f in flows)


DOCUMENTED_FLOW = {
    "dpid": 1,
    "cookie": 1,
    "cookie_mask": 1,
    "table_id": 0,
    "idle_timeout": 30,
    "hard_timeout": 30,
    "priority": 11111,
    "flags": 1,
    "match": {"in_port": 1},
    "actions": [{"type": "OUTPUT", "port": 2}],
}


def test_the_documentation_s_questions(lab: Lab) -> None:
    assert get(lab, "/stats/switches") == [1, 2]
    described = get(lab, "/stats/desc/1")["1"]
    assert described["hw_desc"] == "Open vSwitch" and set(described) == {
        "mfr_desc",
        "hw_desc",
        "sw_desc",
        "serial_num",
        "dp_desc",
    }
    flow = get(lab, "/stats/flow/1")["1"][0]
    names = (
        "actions byte_count cookie duration_nsec duration_sec flags hard_timeout idle_timeout length match "
    )
    assert " ".join(sorted(flow)) == names + "packet_count priority table_id"
    total = get(lab, "/stats/aggregateflow/1")["1"]
    assert set(total[0]) == {"packet_count", "byte_count", "flow_count"}
    assert total[0]["flow_count"] == len(get(lab, "/stats/flow/1")["1"])
    tables = get(lab, "/stats/table/1")["1"]
    assert set(tables[0]) == {"table_id", "active_count", "lookup_count", "matched_count"}
    ports = {port["port_no"]: port for port in get(lab, "/stats/port/1")["1"]}
    assert {1, 2, 3, "LOCAL"} <= set(ports) and "rx_crc_err" in ports[1]
    assert [port["port_no"] for port in get(lab, "/stats/port/1/2")["1"]] == [2]
    described_ports = get(lab, "/stats/portdesc/1")["1"]
    assert {"hw_addr", "name", "curr_speed", "port_no", "state"} <= set(described_ports[0])
    features = get(lab, "/stats/meterfeatures/1")["1"][0]
    assert features["band_types"] == ["DROP"] and "KBPS" in features["capabilities"]
    assert features["max_meter"] > 100_000
    assert isinstance(get(lab, "/stats/meter/1")["1"], list)
    assert get(lab, "/stats/desc/0x1") == get(lab, "/stats/desc/1")


def test_the_documentation_s_flow_lines(lab: Lab) -> None:
    before = own(lab)
    assert post(lab, "/stats/flowentry/add", DOCUMENTED_FLOW) == (200, "")
    filtered = post(
        lab,
        "/stats/flow/1",
        {"table_id": 0, "out_port": 2, "cookie": 1, "cookie_mask": 1, "match": {"in_port": 1}},
    )[1]["1"]
    mine = [flow for flow in filtered if flow["cookie"] == 1]
    assert len(mine) == 1 and mine[0]["actions"] == ["OUTPUT:2"] and mine[0]["match"] == {"in_port": 1}
    assert mine[0]["priority"] == 11111 and mine[0]["flags"] == 1 and mine[0]["hard_timeout"] == 30
    aggregated = post(lab, "/stats/aggregateflow/1", {"table_id": 0, "cookie": 1, "cookie_mask": 2**64 - 1})
    assert aggregated[1]["1"][0]["flow_count"] == 1

    changed = {**DOCUMENTED_FLOW, "actions": [{"type": "OUTPUT", "port": 3}]}
    assert post(lab, "/stats/flowentry/modify", changed)[0] == 200
    assert [flow["actions"] for flow in users(lab)] == [["OUTPUT:3"]]
    changed["actions"] = [{"type": "GOTO_TABLE", "table_id": 1}]
    assert post(lab, "/stats/flowentry/modify_strict", changed)[0] == 200
    assert [flow["actions"] for flow in users(lab)] == [["GOTO_TABLE:1"]]
    assert post(lab, "/stats/flowentry/modify_strict", {**changed, "priority": 7})[0] == 200
    assert len(users(lab)) == 1, "a modification adds nothing (OpenFlow 1.3)"

    assert post(lab, "/stats/flowentry/delete_strict", {**DOCUMENTED_FLOW, "priority": 7})[0] == 200
    assert len(users(lab)) == 1
    assert post(lab, "/stats/flowentry/delete_strict", DOCUMENTED_FLOW)[0] == 200
    assert users(lab) == []
    for priority in (11, 12):
        assert post(lab, "/stats/flowentry/add", {**DOCUMENTED_FLOW, "priority": priority})[0] == 200
    assert post(lab, "/stats/flowentry/delete", {"dpid": 1, "match": {"in_port": 2}})[0] == 200
    assert len(users(lab)) == 2
    assert post(lab, "/stats/flowentry/delete", DOCUMENTED_FLOW)[0] == 200
    assert users(lab) == [] and own(lab) == before


def test_the_documentation_s_meter_lines(lab: Lab) -> None:
    bands = [{"type": "DROP", "rate": 1000}]
    meter = {"dpid": 1, "flags": "KBPS", "meter_id": 1, "bands": bands}
    assert post(lab, "/stats/meterentry/add", meter) == (200, "")
    # Open vSwitch fills in a burst of its own where none is set.
    wanted = {
        "flags": ["KBPS"],
        "meter_id": 100_000,
        "bands": [{"type": "DROP", "rate": 1000, "burst_size": 1000}],
    }
    for path in ("/stats/meterconfig/1", "/stats/meterconfig/1/1", "/stats/meterconfig/1/100000"):
        found = [m for m in get(lab, path)["1"] if m["meter_id"] == 100_000]
        assert found == [wanted]
    assert (
        post(lab, "/stats/meterentry/modify", {**meter, "bands": [{"type": "DROP", "rate": 5000}]})[0] == 200
    )
    assert get(lab, "/stats/meterconfig/1/1")["1"][0]["bands"][0]["rate"] == 5000

    flow = {"dpid": 1, "priority": 20, "match": {"in_port": port_of(lab, "h1")}}
    flow["actions"] = [{"type": "METER", "meter_id": 1}, {"type": "GOTO_TABLE", "table_id": 1}]
    assert post(lab, "/stats/flowentry/add", flow)[0] == 200
    assert lab.ping("h1", "h4", count=5), "a flow that meters and goes on still forwards"
    counted = get(lab, "/stats/meter/1/1")["1"][0]
    assert counted["packet_in_count"] >= 5 and counted["flow_count"] == 1 and len(counted["band_stats"]) == 1

    assert post(lab, "/stats/meterentry/delete", {"dpid": 1, "meter_id": 1})[0] == 200
    assert lab.curl("/stats/meterconfig/1/1")[0] == 404
    assert users(lab) == [], "Open vSwitch removes flows with their meter"
    assert post(lab, "/stats/meterentry/add", {**meter, "meter_id": 123_456})[0] == 200
    assert [m["meter_id"] for m in get(lab, "/stats/meterconfig/1/123456")["1"]] == [123_456]


def test_a_flow_s_match_is_understood_in_both_spellings(lab: Lab) -> None:
    match = {
        "dl_type": 2048,
        "nw_dst": "10.0.1.0/24",
        "nw_proto": 6,
        "tp_dst": 80,
        "dl_src": "02:00:00:00:00:01",
    }
    flow = {"dpid": 1, "priority": 5, "match": match, "actions": []}
    assert post(lab, "/stats/flowentry/add", flow)[0] == 200
    assert users(lab)[0]["match"] == {**match, "nw_dst": "10.0.1.0/255.255.255.0"}
    new = {"eth_type": 2048, "ipv4_dst": "10.0.1.77/255.255.255.0", "ip_proto": 6, "tcp_dst": 80}
    new["eth_src"] = "02:00:00:00:00:01"
    assert post(lab, "/stats/flowentry/delete_strict", {"dpid": 1, "priority": 5, "match": new})[0] == 200
    assert users(lab) == []


def test_what_the_controller_keeps_is_left_alone(lab: Lab) -> None:
    before = {dpid: own(lab, dpid) for dpid in (1, 2)}
    assert before[1] and before[2]
    for table in range(12):
        assert post(lab, "/stats/flowentry/delete", {"dpid": 1, "table_id": table, "match": {}})[0] == 200
    rewrite = {"dpid": 1, "table_id": 1, "actions": []}
    assert post(lab, "/stats/flowentry/modify", rewrite)[0] == 200
    assert lab.curl("/stats/flowentry/clear/1", "-X", "DELETE")[0] == 200
    assert own(lab) == before[1]
    ours = next(
        f for f in get(lab, "/stats/flow/1")["1"] if f["table_id"] == 0 and f["cookie"] >> 40 == OWNER
    )
    aim = {"dpid": 1, "table_id": 0, "priority": ours["priority"], "match": ours["match"]}
    for command in ("add", "modify_strict", "delete_strict"):
        status, answer = post(lab, f"/stats/flowentry/{command}", aim)
        assert status == 409 and answer["errors"][0]["code"] == "own-flow", (command, status, answer)
    disguised = {**DOCUMENTED_FLOW, "cookie": ours["cookie"]}
    assert post(lab, "/stats/flowentry/add", disguised)[0] == 400
    assert own(lab) == before[1] and own(lab, 2) == before[2]
    assert lab.ping("h1", "h4")


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/stats/flowentry/add", {"match": {}}, 400, "dpid"),
        ("/stats/flowentry/add", {"dpid": 9}, 404, "unknown-switch"),
        ("/stats/flowentry/add", {"dpid": "s1"}, 400, "dpid"),
        ("/stats/flowentry/add", {"dpid": 1, "prio": 3}, 400, "unknown-key"),
        ("/stats/flowentry/add", {"dpid": 1, "match": {"colour": 3}}, 400, "unknown-key"),
        ("/stats/flowentry/add", {"dpid": 1, "match": {"in_port": 2**32}}, 400, "match.in_port"),
        ("/stats/flowentry/add", {"dpid": 1, "match": {"nw_src": "10.0.0.300"}}, 400, "match"),
        ("/stats/flowentry/add", {"dpid": 1, "match": {"tcp_dst": 80}}, 400, "OFPBMC_BAD_PREREQ"),
        ("/stats/flowentry/add", {"dpid": 1}, 409, "own-flow"),
        ("/stats/flowentry/add", {"dpid": 1, "actions": [{"type": "JUMP"}]}, 400, "actions[0].type"),
        (
            "/stats/flowentry/add",
            {"dpid": 1, "priority": 1, "actions": [{"type": "METER", "meter_id": 77}]},
            400,
            "METER",
        ),
        (
            "/stats/flowentry/add",
            {"dpid": 1, "actions": [{"type": "OUTPUT", "port": 2}] * 65},
            400,
            "at most 64",
        ),
        ("/stats/flowentry/add", {"dpid": 1, "priority": 70000}, 400, "flow"),
        (
            "/stats/flowentry/add",
            {"dpid": 1, "priority": 1, "actions": [{"type": "GOTO_TABLE", "table_id": 0}]},
            400,
            "openflow",
        ),
        ("/stats/flowentry/steal", {"dpid": 1}, 404, "not-found"),
        ("/stats/meterentry/add", {"dpid": 1, "meter_id": 1, "flags": "KBPS"}, 400, "bands"),
        ("/stats/meterentry/add", {"dpid": 1, "meter_id": 1, "flags": "MBPS"}, 400, "flags[0]"),
        ("/stats/meterentry/add", {"dpid": 1, "meter_id": 0, "bands": []}, 400, "meter_id"),
        (
            "/stats/meterentry/modify",
            {"dpid": 1, "meter_id": 5, "flags": "KBPS", "bands": [{"type": "DROP", "rate": 1}]},
            404,
            "OFPMMFC_UNKNOWN_METER",
        ),
        ("/stats/flow/1", {"match": {"in_port": []}}, 400, "match.in_port"),
        ("/stats/flow/7", {}, 404, "unknown-switch"),
    ],
)
def test_what_is_wrong_is_said(lab: Lab, path: str, body: dict[str, Any], status: int, word: str) -> None:
    found, answer = post(lab, path, body)
    assert found == status and word in json.dumps(answer["errors"]), (found, answer)
    assert answer["errors"][0]["message"]


def test_a_meter_twice_is_a_conflict_and_no_trouble_of_the_controller(lab: Lab) -> None:
    meter = {"dpid": 1, "flags": ["KBPS", "BURST"], "meter_id": 3}
    meter["bands"] = [{"type": "DROP", "rate": 1000, "burst_size": 1000}]
    assert post(lab, "/stats/meterentry/add", meter)[0] == 200
    status, answer = post(lab, "/stats/meterentry/add", meter)
    assert status == 409 and "METER_EXISTS" in answer["errors"][0]["message"], answer
    assert not [trouble for trouble in lab.status()["errors"] if "refused" in trouble["message"]]


def test_bodies_that_are_no_objects_or_too_long(lab: Lab) -> None:
    for data in ("", "[]", "{", "dpid=1", '{"dpid": NaN}', "[" * 5000):
        status, answer = lab.curl("/stats/flowentry/add", "-X", "POST", "-d", data)
        assert status == 400 and answer["errors"], (data[:20], status, answer)
    (lab.folder / "long").write_text('{"dpid": 1, "match": "' + "x" * 1_100_000 + '"}')
    assert lab.curl("/stats/flowentry/add", "-X", "POST", "-d", f"@{lab.folder}/long")[0] == 413


def test_the_controller_s_own_meters_are_shown_and_kept(lab: Lab) -> None:
    target = {"kind": "port", "switch": "s1", "port": port_of(lab, "h1")}
    body = json.dumps({"target": target, "direction": "up", "rate": "20 Mbit/s", "enforce": "drop"})
    assert lab.curl("/v1/meters/mine", "-X", "PUT", "-d", body)[0] == 201
    try:
        [kept] = get(lab, "/stats/meterconfig/1")["1"]
        number = kept["meter_id"]
        assert number < 100_000 and get(lab, f"/stats/meter/1/{number}")["1"][0]["meter_id"] == number
        before = own(lab)
        meter = {"dpid": 1, "flags": "KBPS", "meter_id": number, "bands": [{"type": "DROP", "rate": 1}]}
        for command in ("add", "modify", "delete"):
            status, answer = post(lab, f"/stats/meterentry/{command}", meter)
            assert status == 409 and answer["errors"][0]["code"] == "own-meter", (command, answer)
        flow = {"dpid": 1, "priority": 9, "actions": [{"type": "METER", "meter_id": number}]}
        assert post(lab, "/stats/flowentry/add", flow)[0] == 409
        device = "/onos/v1/meters/of:0000000000000001"
        shown = lab.curl(f"{device}/{number}")[1]["meters"][0]
        assert shown["appId"] == "org.cohortnet.controller" and shown["bands"][0]["rate"] == 20_000
        assert lab.curl(f"{device}/{number}", "-X", "DELETE")[0] == 409
        assert post(lab, "/stats/meterentry/delete", {"dpid": 1, "meter_id": "ALL"})[0] == 200
        assert lab.curl("/stats/flowentry/clear/1", "-X", "DELETE")[0] == 200
        assert get(lab, "/stats/meterconfig/1")["1"] == [kept] and own(lab) == before
    finally:
        assert lab.curl("/v1/meters/mine", "-X", "DELETE")[0] == 204


def test_what_users_install_stays_when_the_controller_looks_again(lab: Lab) -> None:
    meter = {"dpid": 1, "flags": "KBPS", "meter_id": 1, "bands": [{"type": "DROP", "rate": 1000}]}
    flow = {"dpid": 1, "priority": 9, "match": {"in_port": 3}}
    flow["actions"] = [{"type": "METER", "meter_id": 1}, {"type": "GOTO_TABLE", "table_id": 1}]
    assert post(lab, "/stats/meterentry/add", meter)[0] == 200
    assert post(lab, "/stats/flowentry/add", flow)[0] == 200
    before = [(one["match"], one["actions"]) for one in users(lab)]
    assert lab.end("controller") == 0
    lab.start_controller(audit_s=0.2)
    # Something to put back shows that it looked, and wrote.
    ours = own(lab)
    lab.ofctl("del-flows", "s1", "table=10")
    until("our flows are back", lambda: own(lab) == ours)
    assert [(one["match"], one["actions"]) for one in users(lab)] == before
    assert get(lab, "/stats/meterconfig/1/1")["1"][0]["meter_id"] == 100_000
