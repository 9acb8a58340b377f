"""What the engine asks of the kernel, Open vSwitch and nftables, and what it reads: without root."""

from __future__ import annotations

import dataclasses
import json
import struct

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from tests.topology.engine import lab
from topology.engine import cgroups, daemons, hosts, links, management, openvswitch
from topology.errors import TopologyError
from topology.inventory import CoreFacts, as_text, build_inventory
from topology.plain import plain
from topology.plan import plan_from_dict

V1 = """24 1 0:21 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
25 1 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
26 1 0:23 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
27 1 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
28 1 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V2 = "28 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def test_hierarchies_of_version_1_with_an_empty_unified_mount() -> None:
    found = cgroups.parse_hierarchies(V1, [])
    assert [(h.folder.name, h.version, sorted(h.controllers)) for h in found] == [
        ("cpu,cpuacct", 1, ["cpu", "cpuacct"]),
        ("memory", 1, ["memory"]),
        ("cpuset", 1, ["cpuset"]),
    ]


def test_hierarchy_of_version_2() -> None:
    found = cgroups.parse_hierarchies(V2, ["cpu", "memory", "pids"])
    assert [(str(h.folder), h.version) for h in found] == [("/sys/fs/cgroup", 2)]


def decoded(batch_requests: list[tuple[bytes, str]]) -> list[ifinfmsg]:
    messages = []
    for data, _ in batch_requests:
        message = ifinfmsg(data)
        message.decode()
        messages.append(message)
    return messages


def test_links_are_born_in_place_with_planned_names_and_addresses() -> None:
    plan = lab.preset("t-engine-pure", clients=3)
    pids = {node.name: 1000 + number for number, node in enumerate(plan.nodes)}
    batch = links.core_batch(plan, pids, 7)
    pairs = {}
    for message in decoded(batch.requests):
        info = message.get_attr("IFLA_LINKINFO")
        if info is None or info.get_attr("IFLA_INFO_KIND") != "veth":
            continue
        peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
        pairs[message.get_attr("IFLA_IFNAME")] = (
            peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_NET_NS_PID"), peer.get_attr("IFLA_ADDRESS"),
        )  # fmt: skip
    client = plan.node("fc.10")
    assert pairs["swCampus1-eth1"] == ("eth0", pids["fc.10"], client.mac)
    assert pairs["satsw11-eth2"][0] if "satsw11-eth2" in pairs else True
    # One pair a link, one management pair a node, and the uplink.
    assert len(pairs) == len(plan.links) + len(plan.nodes) + 1
    assert all(len(name) <= 15 for name in pairs)
    numbers = [struct.unpack_from("=I", data, 8)[0] for data, _ in batch.requests]
    assert numbers == list(range(len(numbers)))


def test_one_transaction_each_for_all_bridges_ports_and_controllers() -> None:
    plan = lab.preset("t-engine-pure", clients=3)
    operations = [*openvswitch.bridge_operations(plan, "netdev"), *openvswitch.port_operations(plan),
                  *openvswitch.controller_operations(plan)]  # fmt: skip
    json.dumps(operations)
    made = [op for op in operations if op["op"] == "insert" and op["table"] == "Bridge"]
    bridges = {op["row"]["name"]: op["row"] for op in made}
    assert set(bridges) == {switch.bridge for switch in plan.switches}
    assert bridges["aggsw10"]["fail_mode"] == "secure"
    assert ["datapath-id", "000000000000000a"] in bridges["aggsw10"]["other_config"][1]
    ports = {op["row"]["name"]: op["row"].get("ofport_request") for op in operations if op.get("table") == "Interface"}
    for switch in plan.switches:
        for port in switch.ports:
            assert ports[port.interface] == port.number
    controllers = [op["row"] for op in operations if op.get("table") == "Controller"]
    assert len(controllers) == len(plan.switches)
    assert {row["connection_mode"] for row in controllers} == {"out-of-band"}


def test_without_controller_switches_learn() -> None:
    plan = lab.star("t-engine-pure", {"a": None, "b": None})
    operations = [*openvswitch.bridge_operations(plan, "netdev"), *openvswitch.port_operations(plan)]
    bridges = [op for op in operations if op["op"] == "insert" and op["table"] == "Bridge"]
    assert [op["row"]["fail_mode"] for op in bridges] == ["standalone"]
    assert not [op for op in operations if op.get("table") == "Controller"]


@pytest.mark.parametrize(
    ("version", "able"), [("3.1.0", True), ("2.17.9", True), ("2.14.0", True), ("2.13.8", False), (None, False)]
)
def test_segmentation_offload_by_version(version: str | None, able: bool) -> None:
    assert openvswitch.supports_tso(version) is able


def test_routes_into_the_management_network_are_found() -> None:
    routes: list[dict[str, object]] = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "172.17.0.0/16", "dev": "docker0"},
        {"dst": "100.64.0.0/10", "dev": "tailscale0"},
        {"dst": "100.64.0.0/20", "dev": "cnm-own"},
    ]
    assert management.overlapping_routes(routes, "100.64.0.0/20", "cnm-own") == ["100.64.0.0/10 on tailscale0"]
    assert management.overlapping_routes(routes, "10.9.0.0/20", "cnm-own") == []


def test_a_link_that_is_not_there_names_those_that_are() -> None:
    inventory = {"links": [{"name": "n1--s1", "a": "n1", "b": "s1"}, {"name": "n2--s1", "a": "n2", "b": "s1"}]}
    assert links.find_link(inventory, "s1", "n2")["name"] == "n2--s1"
    with pytest.raises(TopologyError, match="'n1' has links to s1"):
        links.find_link(inventory, "n1", "n2")
    with pytest.raises(TopologyError, match="'x' is no end of any link"):
        links.find_link(inventory, "x", "n2")


def test_of_several_links_between_two_ends_one_is_named_by_its_number() -> None:
    inventory = {"links": [{"name": name, "a": "s1", "b": "s2"} for name in ("s1--s2", "s1--s2#2", "s1--s2#3")]}
    assert links.find_link(inventory, "s2", "s1#1")["name"] == "s1--s2"
    assert links.find_link(inventory, "s1", "s2#3")["name"] == "s1--s2#3"
    for wrong in ("s2", "s2#4", "s2#x"):
        with pytest.raises(TopologyError, match="3 links between 's1' and 's2'; write s2#1, s2#2, s2#3"):
            links.find_link(inventory, "s1", wrong)
    del inventory["links"][0], inventory["links"][1]
    assert links.find_link(inventory, "s1", "s2")["name"] == "s1--s2#2", "the only one that is left"


def test_switches_that_the_controller_has_not_finished() -> None:
    plan = lab.star("t-engine-pure", {"a": None, "b": None})
    assert daemons.unready_switches(plan, {"switches": []}) == ["s1"]
    done = {"name": "s1", "datapath_id": 1, "connected": True, "flows_installed": True}
    assert daemons.unready_switches(plan, {"switches": [done]}) == []
    assert daemons.unready_switches(plan, {"switches": [{**done, "flows_installed": False}]}) == ["s1"]
    with pytest.raises(ValueError, match="v1/topology"):
        daemons.unready_switches(plan, {"error": "x"})


def test_hosts_file_names_all_nodes() -> None:
    plan = lab.star("t-engine-pure", {"a": None, "b": None})
    assert f"{plan.node('b').address} b\n" in hosts.text(plan)


def test_plain_data_is_what_json_makes_of_the_dataclass() -> None:
    plan = lab.preset("t-engine-pure", clients=3)
    assert plan.as_dict() == json.loads(json.dumps(dataclasses.asdict(plan)))
    assert plan_from_dict(plan.as_dict()) == plan
    with pytest.raises(TypeError):
        plain(object())


def test_inventory_has_a_line_for_each_thing() -> None:
    plan = lab.preset("t-engine-pure", clients=3)
    found = build_inventory(plan, CoreFacts("netdev", "/x"), {}, up=False)
    text = as_text(found)
    assert json.loads(text) == found
    assert sum(line.startswith('  {"name": ') for line in text.splitlines()) >= len(plan.nodes) + len(plan.links)
    assert as_text({}) == "{\n\n}\n" and json.loads(as_text({"a": [], "b": {}})) == {"a": [], "b": {}}
