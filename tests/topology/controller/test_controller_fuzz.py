"""Whatever is posted to the faces of Ryu and ONOS: never a 5xx, never a lost switch, never a flow of ours."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.topology.controller.faces_lab import Http, made_lab
from tests.topology.controller.lab import Lab

pytestmark = pytest.mark.live

S1 = "of:0000000000000001"
OWNER = 0xC0407E

FLOW = {
    "dpid": 1,
    "cookie": 1,
    "cookie_mask": 1,
    "table_id": 0,
    "idle_timeout": 30,
    "hard_timeout": 30,
    "priority": 11111,
    "flags": 1,
    "out_port": 1,
    "match": {
        "in_port": 1,
        "dl_type": 2048,
        "nw_dst": "10.0.0.0/8",
        "nw_proto": 6,
        "tp_dst": 80,
        "dl_vlan": 3,
    },
    "actions": [
        {"type": "METER", "meter_id": 1},
        {"type": "SET_FIELD", "field": "eth_dst", "value": "02:00:00:00:00:01"},
        {"type": "OUTPUT", "port": 2},
        {"type": "WRITE_ACTIONS", "actions": [{"type": "OUTPUT", "port": "CONTROLLER"}]},
        {"type": "GOTO_TABLE", "table_id": 1},
    ],
}
FILTER = {"table_id": 0, "out_port": 2, "cookie": 1, "cookie_mask": 1, "priority": 3, "match": {"in_port": 1}}
METER = {"dpid": 1, "flags": ["KBPS", "BURST"], "meter_id": 1}
METER["bands"] = [{"type": "DROP", "rate": 1000, "burst_size": 100}]
ONOS_METER = {"deviceId": S1, "unit": "KB_PER_SEC", "burst": True}
ONOS_METER["bands"] = [{"type": "DROP", "rate": "33000", "burstSize": "33000", "prec": 0}]
ONOS_FLOW = {
    "priority": 10000,
    "timeout": 0,
    "isPermanent": True,
    "deviceId": S1,
    "tableId": 0,
    "appId": "a",
    "treatment": {"instructions": [{"type": "OUTPUT", "port": "2"}, {"type": "METER", "meterId": 1}]},
    "selector": {
        "criteria": [
            {"type": "IN_PORT", "port": "1"},
            {"type": "ETH_TYPE", "ethType": "0x800"},
            {"type": "IPV4_DST", "ip": "10.0.1.0/24"},
            {"type": "ETH_SRC", "mac": "02:00:00:00:00:01"},
        ]
    },
}
CALLS: list[tuple[str, dict[str, Any]]] = [
    *(
        (f"/stats/flowentry/{name}", FLOW)
        for name in ("add", "modify", "modify_strict", "delete", "delete_strict")
    ),
    *((f"/stats/meterentry/{name}", METER) for name in ("add", "modify", "delete")),
    ("/stats/flow/1", FILTER),
    ("/stats/aggregateflow/1", FILTER),
    (f"/onos/v1/meters/{S1}", ONOS_METER),
    (f"/onos/v1/flows/{S1}?appId=fuzz", ONOS_FLOW),
    ("/onos/v1/flows", {"flows": [ONOS_FLOW]}),
]

INTEGERS = [-(2**63), -1, 0, 1, 2, 17, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, 2**64, 10**30]
TEXTS = [
    "",
    "1",
    "0x1",
    "-1",
    "1/2",
    "/",
    "0/0",
    "10.0.0.0/8",
    "10.0.0.1/255.0.255.0",
    "::1/64",
    "1e9",
    "ALL",
]
TEXTS += [
    "02:00:00:00:00:01/ff:ff:00:00:00:00",
    "CONTROLLER",
    "ANY",
    "NORMAL",
    "\ud800",
    "\x00",
    "x" * 300,
    "٣",
]
NAMES = ["type", "OUTPUT", "METER", "GROUP", "EXPERIMENTER", "in_port", "eth_type", "vlan_vid", "ipv6_exthdr"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from(INTEGERS)
    | st.integers()
    | st.floats()
    | st.sampled_from(TEXTS + NAMES)
    | st.text(max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


@st.composite
def spoilt(draw: st.DrawFn, body: dict[str, Any]) -> Any:
    """A good body of which up to three values are replaced, doubled or taken away."""
    if draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    made = copy.deepcopy(body)
    for _ in range(draw(st.integers(0, 3))):
        if not places(made):
            break
        *way, last = draw(st.sampled_from(places(made)))
        target: Any = made
        for key in way:
            target = target[key]
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double"]))
        if change == "replace":
            target[last] = draw(VALUES)
        elif change == "remove":
            del target[last]
        elif isinstance(target, list):
            target.append(copy.deepcopy(target[last]))
        else:
            target[draw(st.sampled_from(NAMES))] = copy.deepcopy(target[last])
    return made


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab("t-faces-fuzz") as made:
        yield made


@pytest.fixture(scope="module")
def http(lab: Lab) -> Iterator[Http]:
    made = Http(lab)
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def unharmed(lab: Lab, http: Http) -> Iterator[None]:
    """After all of it: no internal error, both switches connected all the time, our flows as before."""

    def own() -> list[str]:
        flows = http.call("GET", "/stats/flow/1")[1]["1"]
        ours = [flow for flow in flows if flow["cookie"] >> 40 == OWNER]
        return sorted(f"{f['table_id']} {f['priority']} {f['match']} {f['actions']}" for f in ours)

    before, since = own(), [switch["connected_since"] for switch in lab.topology()["switches"]]
    yield
    assert own() == before
    assert [switch["connected_since"] for switch in lab.topology()["switches"]] == since
    assert not [error for error in lab.status()["errors"] if "REST" in error["message"]], lab.status()[
        "errors"
    ]
    assert http.call("DELETE", "/stats/flowentry/clear/1")[0] == 200
    assert http.call("POST", "/stats/meterentry/delete", {"dpid": 1, "meter_id": "ALL"})[0] == 200
    assert lab.ping("h1", "h4") and lab.status()["state"] == "ready"


@pytest.mark.parametrize(("path", "body"), CALLS, ids=[path for path, _ in CALLS])
def test_no_body_harms(http: Http, path: str, body: dict[str, Any]) -> None:
    seen: set[int] = set()

    @settings(
        max_examples=120,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(spoilt(body))
    def post(value: Any) -> None:
        status, answer, _ = http.call("POST", path, value)
        seen.add(status)
        assert status < 500, (status, answer)
        assert status < 400 or (answer["errors"][0]["message"] and answer["errors"][0]["code"]), answer

    post()
    assert 400 in seen and seen <= {200, 201, 400, 404, 409}, seen


def test_no_bytes_harm(http: Http) -> None:
    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.binary(max_size=40), st.sampled_from([path for path, _ in CALLS]))
    def post(data: bytes, path: str) -> None:
        status, answer, _ = http.call("POST", path, data)
        empty_filter = not data.strip() and path.startswith(("/stats/flow/", "/stats/aggregateflow/"))
        assert status == (200 if empty_filter else 400), (status, answer)

    post()


def test_no_path_harms(http: Http) -> None:
    part = st.sampled_from(["1", "0", "-1", "of:0000000000000001", "of:1", "%2e%2e", "%00", "ALL", "9" * 30])
    part |= st.text(alphabet="abc019:%.-_~", max_size=8)

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(
        st.sampled_from(["GET", "DELETE"]),
        st.sampled_from(["/stats/flow", "/stats/port/1", "/stats/meter/1", "/stats/meterconfig", "/stats"]
                        + ["/onos/v1/devices", "/onos/v1/meters", f"/onos/v1/meters/{S1}", "/onos/v1/flows"]
                        + [f"/onos/v1/flows/{S1}", "/onos/v1/flows/application", "/stats/flowentry/clear"]),
        part,
    )  # fmt: skip
    def call(method: str, path: str, last: str) -> None:
        status, answer, _ = http.call(method, f"{path}/{last}")
        assert status < 500, (status, answer)

    call()
