"""The preset is the one that is documented, for any number of cohorts, clients and campuses; wrong testbeds name every
problem."""

import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.errors import TestbedProblems
from topology.model import parse_testbed
from topology.plan import Plan, plan_from_dict
from topology.planning import make_plan, short_interface


def preset(**numbers: int) -> Plan:
    return make_plan(parse_testbed({"name": "factory-satellite", "preset": numbers}))


def problems(data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(TestbedProblems) as caught:
        make_plan(parse_testbed(data))
    return {problem.path: problem.code for problem in caught.value.problems}


def test_the_default_preset_is_the_documented_one() -> None:
    plan = preset(cohorts=3)
    nodes = {node.name: node for node in plan.nodes}
    assert len([n for n in nodes if n.startswith("fc.")]) == 50
    expected = {
        "cloud.0": "10.0.0.1",
        "appserv.0": "10.0.0.2",
        "prom.0": "10.0.0.100",
        "fed.1": "10.0.0.101",
        "fed.3": "10.0.0.103",
        "mo.1": "10.0.1.1",
        "app.1": "10.0.1.2",
        "fc.10": "10.0.1.10",
        "fc.59": "10.0.1.59",
    }
    assert {name: nodes[name].address for name in expected} == expected
    assert nodes["fc.23"].switch == "swCampus2" and nodes["fc.59"].switch == "swCampus5"
    assert nodes["fc.10"].container == "mn.fc.10"
    ids = {switch.name: switch.datapath_id for switch in plan.switches}
    assert ids == {"aggsw10": 10, "satsw11": 11, "swEdge12": 12, **{f"swCampus{c}": c for c in range(1, 6)}}
    published = [(p.node, p.port, p.host, p.host_port) for p in plan.published]
    assert ("mo.1", 8000, "127.0.0.1", 8000) in published and ("mo.1", 8000, "127.0.0.1", 8001) in published


@pytest.mark.parametrize("cohorts", [1, 3, 5, 12, 13, 40])
def test_port_numbers_follow_the_documented_order(cohorts: int) -> None:
    plan = preset(cohorts=cohorts)
    ports = {switch.name: [port.peer for port in switch.ports] for switch in plan.switches}
    servers = [f"fed.{k}" for k in range(1, cohorts + 1)]
    assert ports["aggsw10"] == [*servers, "cloud.0", "prom.0", "appserv.0", "satsw11"]
    assert ports["swCampus2"] == [*(f"fc.{n}" for n in range(20, 30)), "swEdge12"]
    assert ports["swEdge12"] == ["mo.1", "app.1", *(f"swCampus{c}" for c in range(1, 6)), "satsw11"]
    assert all(
        [port.number for port in switch.ports] == list(range(1, len(switch.ports) + 1)) for switch in plan.switches
    )


def test_the_satellite_path_delays_and_access_links_have_their_rate() -> None:
    links = {link.name: link for link in preset(cohorts=2).links}
    for name in ("aggsw10--satsw11", "satsw11--swEdge12"):
        for shape in (links[name].a_to_b, links[name].b_to_a):
            assert (shape.rate_bps, shape.delay_s) == (500_000_000, 0.012)
    assert links["fed.1--aggsw10"].a_to_b.rate_bps == 500_000_000


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 700), st.integers(1, 60))
def test_any_numbers_give_a_consistent_plan(cohorts: int, clients: int, campuses: int) -> None:
    plan = preset(cohorts=cohorts, clients=clients, campuses=campuses)
    names = [node.name for node in plan.nodes]
    assert len(set(names)) == len(names) == cohorts + clients + 5
    for values in ("address", "mac", "management_address", "container"):
        assert len({getattr(node, values) for node in plan.nodes}) == len(names)
    assert len({switch.datapath_id for switch in plan.switches}) == len(plan.switches) == campuses + 3
    interfaces = [port.interface for switch in plan.switches for port in switch.ports]
    assert len(set(interfaces)) == len(interfaces) and max(map(len, interfaces)) <= 15
    members = [client for cohort in plan.cohorts for client in cohort.clients]
    assert members == [node.name for node in plan.nodes if node.role == "client"]
    sizes = [len(cohort.clients) for cohort in plan.cohorts]
    assert max(sizes) - min(sizes) <= 1
    addresses = [IPv4Address(plan.node(name).address) for name in members]
    assert all(int(b) - int(a) == 1 for a, b in zip(addresses, addresses[1:], strict=False))
    assert plan_from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_up_and_down_replace_what_the_link_says_key_by_key() -> None:
    link = {"a": "h", "b": "s", "rate": "10 Mbit/s", "delay": "5 ms", "down": {"rate": "1 Mbit/s"}}
    plan = make_plan(
        parse_testbed({"name": "x", "nodes": [{"name": "h"}], "switches": [{"name": "s"}], "links": [link]})
    )
    up, down = plan.links[0].a_to_b, plan.links[0].b_to_a
    assert (up.rate_bps, up.delay_s, down.rate_bps, down.delay_s) == (10_000_000, 0.005, 1_000_000, 0.005)


def test_limits_of_a_role_hold_unless_the_node_has_its_own() -> None:
    data = {
        "name": "x", "preset": {"cohorts": 1, "clients": 2}, "limits": {"client": {"cpu": 0.5, "memory": "1 GiB"}},
    }  # fmt: skip
    plan = make_plan(parse_testbed(data))
    assert plan.node("fc.10").cpu == 0.5 and plan.node("fc.10").memory_bytes == 2**30
    assert plan.node("fed.1").cpu is None


def test_every_problem_is_reported_at_once() -> None:
    data = {
        "name": "x",
        "nodes": [
            {"name": "a"},
            {"name": "a"},
            {"name": "lonely"},
            {"name": "far", "address": "192.168.1.1"},
            {"name": "c", "role": "client"},
        ],
        "switches": [{"name": "s", "datapath_id": 7}, {"name": "t", "datapath_id": 7}],
        "links": [
            {"a": "a", "b": "s"},
            {"a": "ghost", "b": "s"},
            {"a": "far", "b": "c"},
            {"a": "s", "b": "t", "jitter": "1 ms"},
        ],
        "cohorts": [{"name": "1", "server": "a", "clients": ["c", "c"]}],
        "publish": [{"node": "nobody", "port": 80, "host_port": 8080}],
    }
    found = problems(data)
    assert found == {
        "nodes[0].name": "duplicate-name",
        "nodes[1].name": "duplicate-name",
        "nodes[2]": "links-of-node",
        "nodes[3].address": "outside-pool",
        "switches[0].datapath_id": "duplicate-id",
        "switches[1].datapath_id": "duplicate-id",
        "links[1].a": "unknown-node",
        "links[2]": "no-switch",
        "links[3].up": "jitter-without-delay",
        "links[3].down": "jitter-without-delay",
        "cohorts[0].server": "no-server",
        "cohorts[0].clients[1]": "two-cohorts",
        "publish[0].node": "unknown-node",
        "publish[0].host_port": "port-taken",
    }


def test_parts_that_are_not_connected_and_loops_without_controller_are_refused() -> None:
    nodes, switches = [{"name": "a"}, {"name": "b"}], [{"name": "s"}, {"name": "t"}]
    apart = {"name": "x", "nodes": nodes, "switches": switches, "links": [{"a": "a", "b": "s"}, {"a": "b", "b": "t"}]}
    assert problems(apart) == {"links": "disconnected"}
    loop = {
        **apart,
        "links": [*apart["links"], {"a": "s", "b": "t"}, {"a": "s", "b": "t"}],
        "controller": {"kind": "none"},
    }  # type: ignore[misc]
    assert problems(loop) == {"controller.kind": "loop"}


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        ({"colour": "red"}, "colour", "unknown-key"),
        ({"name": "Upper"}, "name", "bad-value"),
        ({"runtime": "podman"}, "runtime", "bad-value"),
        ({"preset": {"cohorts": "3"}}, "preset.cohorts", "wrong-type"),
        ({"preset": {"clients": 0}}, "preset.clients", "bad-value"),
        ({"links": [{"a": "x"}]}, "links[0].b", "missing-key"),
        ({"links": [{"a": "x", "b": "y", "rate": "10"}]}, "links[0].rate", "bad-value"),
        ({"allow_unsupported": ["gravity"]}, "allow_unsupported[0]", "bad-value"),
    ],
)
def test_wrong_keys_and_values_are_named_with_their_path(change: dict[str, Any], path: str, code: str) -> None:
    assert problems({"name": "x", **change}).get(path) == code


@pytest.mark.parametrize("name", ["lo", "ovs-netdev", "s1-eth1"])
def test_switches_cannot_take_the_name_of_an_interface(name: str) -> None:
    data = {"name": "x", "nodes": [{"name": "h"}], "switches": [{"name": name}], "links": [{"a": "h", "b": name}]}
    assert problems(data) == {"switches[0].name": "reserved-name"}


def test_pools_that_are_too_small_are_reported_and_never_overflow() -> None:
    for key, value in (("address_pool", "255.255.255.0/24"), ("management_pool", "255.255.255.248/29")):
        found = problems({"name": "x", "preset": {"clients": 300}, key: value})
        assert set(found.values()) <= {"outside-pool", "pool-empty", "duplicate-address"}


def test_an_image_is_refused_where_nothing_uses_it() -> None:
    data = {"name": "x", "runtime": "namespace", "nodes": [{"name": "h", "image": "busybox"}],
            "switches": [{"name": "s"}], "links": [{"a": "h", "b": "s"}]}  # fmt: skip
    assert problems(data) == {"nodes[0].image": "no-image-here"}


def test_long_names_get_short_stable_interfaces() -> None:
    assert short_interface("swCampus1-eth10") == "swCampus1-eth10"
    short = short_interface("swCampus10-eth10")
    assert len(short) <= 15 and short == short_interface("swCampus10-eth10") != short_interface("swCampus10-eth11")


def metered(*meters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "x", "preset": {"cohorts": 2, "clients": 4, "campuses": 2}, "meters": list(meters), **more}


def test_meters_of_the_file_become_bodies_for_the_controller() -> None:
    plan = make_plan(parse_testbed(metered(
        {"name": "total", "cohort": 1, "direction": "up", "rate": "20 Mbit/s"},
        {"name": "one", "client": "fc.10", "rate": "5mbit", "burst": "5 Mbit", "enforce": "queue"},
        {"name": "srv", "server": "fed.2", "direction": "down", "rate": "500 packet/s", "burst": "250 packets"},
        {"name": "gate", "switch": "swCampus1", "port": 3, "rate": "33 Mbit/s"},
        {"name": "board", "address": "10.0.9.9", "rate": "16 kbit/s"},
    )))  # fmt: skip
    assert [meter.as_body() for meter in plan.meters] == [
        {"name": "total", "target": {"kind": "cohort", "name": "1"}, "direction": "up", "unit": "bit/s",
         "rate": 20_000_000, "enforce": "auto"},
        {"name": "one", "target": {"kind": "client", "name": "fc.10"}, "direction": "both", "unit": "bit/s",
         "rate": 5_000_000, "burst": 5_000_000, "enforce": "queue"},
        {"name": "srv", "target": {"kind": "server", "name": "fed.2"}, "direction": "down", "unit": "packet/s",
         "rate": 500, "burst": 250, "enforce": "auto"},
        {"name": "gate", "target": {"kind": "port", "switch": "swCampus1", "port": 3}, "direction": "both",
         "unit": "bit/s", "rate": 33_000_000, "enforce": "auto"},
        {"name": "board", "target": {"kind": "address", "address": "10.0.9.9"}, "direction": "both",
         "unit": "bit/s", "rate": 16000, "enforce": "auto"},
    ]  # fmt: skip
    assert plan_from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    older = {key: value for key, value in plan.as_dict().items() if key not in ("meters", "controller_address")}
    assert plan_from_dict(json.loads(json.dumps(older))).meters == ()


def test_every_problem_of_the_meters_is_reported_at_once() -> None:
    rate = "20 Mbit/s"
    assert problems(metered(
        {"name": "a", "cohort": "9", "rate": rate},
        {"name": "a", "client": "fed.1", "rate": rate},
        {"name": "b", "server": "fed.1", "client": "fc.10", "rate": rate},
        {"name": "c", "rate": rate},
        {"name": "d", "switch": "swCampus1", "port": 9, "rate": rate},
        {"name": "e", "switch": "nowhere", "rate": rate},
        {"name": "f", "port": 2, "rate": rate},
        {"name": "g", "address": "192.168.1.1", "rate": rate},
        {"name": "h", "client": "fc.10", "rate": "500 packet/s", "enforce": "queue"},
        {"name": "i", "client": "fc.11", "rate": rate, "burst": "9.9 Mbit"},
        {"name": "j", "client": "fc.12", "rate": rate, "burst": "500 packets"},
        {"name": "k", "client": "fc.13", "rate": "999 bit/s"},
        {"name": "l", "cohort": "1", "direction": "up", "rate": rate},
        {"name": "m", "cohort": "1", "direction": "down", "rate": rate},
        {"name": "n", "cohort": "1", "rate": rate},
        links=[{"a": "ghost", "b": "satsw11"}],
    )) == {
        "links[0].a": "unknown-node",
        "meters[0].cohort": "unknown-cohort",
        "meters[1].name": "duplicate-name",
        "meters[1].client": "unknown-client",
        "meters[2]": "one-target",
        "meters[3]": "one-target",
        "meters[4].port": "unknown-port",
        "meters[5].switch": "unknown-switch",
        "meters[5].port": "missing-key",
        "meters[6].port": "missing-key",
        "meters[7].address": "outside-pool",
        "meters[8].enforce": "cannot-queue",
        "meters[9].burst": "small-burst",
        "meters[10].burst": "wrong-unit",
        "meters[11].rate": "bad-value",
        "meters[14]": "limited-twice",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        ({"rate": "20"}, "meters[0].rate", "bad-value"),
        ({"rate": 20}, "meters[0].rate", "bad-value"),
        ({"rate": "20 Mbps"}, "meters[0].rate", "bad-value"),
        ({"rate": "0.5 packet/s"}, "meters[0].rate", "bad-value"),
        ({"burst": "20 Mbit/s"}, "meters[0].burst", "bad-value"),
        ({"direction": "sideways"}, "meters[0].direction", "bad-value"),
        ({"enforce": "please"}, "meters[0].enforce", "bad-value"),
        ({"name": "-x"}, "meters[0].name", "bad-value"),
        ({"port": 0}, "meters[0].port", "bad-value"),
        ({"colour": "red"}, "meters[0].colour", "unknown-key"),
    ],
)
def test_wrong_values_of_a_meter_are_named_with_their_path(change: dict[str, Any], path: str, code: str) -> None:
    meter = {"name": "a", "cohort": "1", "rate": "20 Mbit/s", **change}
    assert problems(metered(meter)) == {path: code}


@pytest.mark.parametrize(
    ("controller", "found"),
    [
        ({"kind": "external"}, {"controller.address": "missing-key"}),
        ({"kind": "none", "address": "192.0.2.7:6653"}, {"controller.address": "contradiction"}),
        ({"kind": "external", "address": "192.0.2.7:6653", "rest_host_port": 8080},
         {"controller.rest_host_port": "contradiction"}),
        *(({"kind": "external", "address": address}, {"controller.address": "bad-value"})
          for address in ("192.0.2.7", "192.0.2.7:0", "192.0.2.7:65536", "controller:6653", "0.0.0.0:6653", ":6653",
                          "2001:db8::7:6653x", 6653)),
    ],
)  # fmt: skip
def test_wrong_controllers_are_named(controller: dict[str, Any], found: dict[str, str]) -> None:
    assert problems({"name": "x", "preset": {}, "controller": controller}) == found


def test_an_external_controller_is_planned_without_rest_and_without_meters() -> None:
    for written, planned in (("192.0.2.7:6653", "192.0.2.7:6653"), ("[2001:DB8::7]:6653", "[2001:db8::7]:6653")):
        data = {"name": "x", "preset": {}, "controller": {"kind": "external", "address": written}}
        plan = make_plan(parse_testbed(data))
        assert (plan.controller, plan.controller_address, plan.fail_mode) == ("external", planned, "secure")
        assert [port for port in plan.published if port.node is None] == []
    meters = [{"name": "a", "cohort": "1", "rate": "20 Mbit/s"}]
    assert problems({**data, "meters": meters}) == {"meters": "no-controller"}
