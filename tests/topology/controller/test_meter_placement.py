"""Where meters hold: in whole presets over fake switches, packet by packet; and which queue a limit becomes. No
kernel, no os-ken."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.topology.controller.fakeswitch import Packet
from tests.topology.controller.meterworld import World, graph_of, inventory_of, preset, spec_of, two_cohorts
from topology.controller.flows import TABLE_COHORT_UP, TABLE_PORT_IN, TABLE_PORT_OUT
from topology.controller.forwarding import Board
from topology.controller.graph import Graph, Host, find_paths, read_graph
from topology.controller.network import PortState
from topology.controller.placement import Numbered, lay_out, place
from topology.controller.scene import Scene


def packet(a: Host, b: Host) -> Packet:
    return Packet(a.mac, b.mac, a.address, b.address)


def node(graph: Graph, name: str) -> Host:
    found = graph.host_named(name)
    assert found is not None
    return found


def passed(world: World, source: str, target: str) -> list[str]:
    """Names (and directions) of the meters that a packet passes, in their order; each at most once."""
    a, b = node(world.graph, source), node(world.graph, target)
    names = {
        number: f"{entry.spec.name} {direction}"
        for entry in world.book.state.entries.values()
        for direction, number in entry.ids.items()
    }
    found = [names[number] for _, number in world.fake.meters_passed(packet(a, b), a.switch, a.port)]
    assert len(found) == len(set(found)), f"a packet is counted twice: {found}"
    return found


@pytest.mark.parametrize("count", [1, 3, 12, 20])
def test_each_packet_of_a_cohort_passes_its_meter_once_and_no_other(count: int, tmp_path: Path) -> None:
    graph = graph_of(preset(count))
    world = World(graph, tmp_path / "meters.json")
    world.set(*(spec_of(graph, f"m{c.name}", {"kind": "cohort", "name": c.name}) for c in graph.cohorts))
    assert len(graph.cohorts) == count
    assert {at for at, contents in world.plan.layout().contents.items() if contents.meters} == {10}, "aggsw10"
    for cohort in graph.cohorts:
        for client in (cohort.clients[0], cohort.clients[-1]):
            assert passed(world, client, cohort.server) == [f"m{cohort.name} up"]
            assert passed(world, cohort.server, client) == [f"m{cohort.name} down"]
            assert passed(world, client, "mo.1") == [] and passed(world, "appserv.0", client) == []
    if count > 1:
        assert passed(world, graph.cohorts[0].clients[0], graph.cohorts[1].server) == [], "only its own server"


def test_meters_of_every_kind_nest_on_one_way(tmp_path: Path) -> None:
    graph = graph_of(two_cohorts("t-core"))
    world = World(graph, tmp_path / "meters.json")
    port = node(graph, "c1").port
    uplink = next(p.number for p in graph.switches[1].ports.values() if p.peer == "s2")
    targets: dict[str, dict[str, Any]] = {
        "cohort": {"kind": "cohort", "name": "1"},
        "client": {"kind": "client", "name": "c1"},
        "server": {"kind": "server", "name": "fed.1"},
        "address": {"kind": "address", "address": node(graph, "c1").address},
        "port": {"kind": "port", "switch": "s1", "port": port},
        "uplink": {"kind": "port", "switch": "s1", "port": uplink},
    }
    world.set(*(spec_of(graph, name, target) for name, target in targets.items()))
    assert sorted(passed(world, "c1", "fed.1")) == sorted(f"{name} up" for name in targets)
    assert sorted(passed(world, "fed.1", "c1")) == sorted(f"{name} down" for name in targets)
    assert passed(world, "c2", "fed.1") == ["cohort up", "server up"]
    assert passed(world, "c4", "fed.2") == ["uplink up"] and passed(world, "fed.2", "c4") == ["uplink down"]
    assert sorted(passed(world, "c1", "c4")) == ["address up", "client up", "port up"]
    assert passed(world, "app", "fed.1") == ["server up"], "not of the cohort"


def test_what_leaves_by_a_port_follows_a_reroute_and_up_stays_up(tmp_path: Path) -> None:
    from tests.topology.controller.lab import ring

    inventory = inventory_of(ring("t-core"))
    next(n for n in inventory["nodes"] if n["name"] == "h2")["role"] = "server"
    graph = read_graph(inventory)
    world = World(graph, tmp_path / "meters.json")
    towards = next(p.number for p in graph.switches[1].ports.values() if p.peer == "s2")
    other = next(p.number for p in graph.switches[1].ports.values() if p.peer == "s4")
    world.set(
        spec_of(graph, "near", {"kind": "port", "switch": "s1", "port": towards}),
        spec_of(graph, "far", {"kind": "port", "switch": "s1", "port": other}),
    )
    assert passed(world, "h1", "h2") == ["near up"] and passed(world, "h2", "h1") == ["near down"]
    assert passed(world, "h1", "h4") == ["far down"] and passed(world, "h4", "h1") == ["far up"]
    link = next(link for link in graph.links if link.name in ("s1--s2", "s2--s1"))
    world.fake.down = frozenset({link.name})
    for at in (1, 2):
        world.hear(at)
    world.bring_all()
    assert passed(world, "h1", "h2") == ["far down"], "goes the other way, in the direction that it has there"
    scene = world.plan.scene()
    assert [scene.port_way(1, port, "up") for port in (towards, other)] == ["out", "in"]


def test_a_server_at_a_port_makes_up_leave(tmp_path: Path) -> None:
    graph = graph_of(two_cohorts("t-core"))
    scene = Scene(graph, find_paths(graph, frozenset()))
    for name, table in (("fed.1", TABLE_PORT_OUT), ("c3", TABLE_PORT_IN), ("app", TABLE_PORT_IN)):
        host = node(graph, name)
        target = {"kind": "port", "switch": f"s{host.switch}", "port": host.port}
        spec = spec_of(graph, "m", target, direction="up")
        found = place(Numbered(spec, {"up": 1}), "up", scene, {})
        assert [flow.table for flow in found.flows] == [table], name


def test_an_address_holds_where_its_board_stands_and_is_pending_before() -> None:
    graph = graph_of(two_cohorts("t-core"))
    paths = find_paths(graph, frozenset())
    spec = spec_of(graph, "m", {"kind": "address", "address": "10.0.9.9"})
    entry = Numbered(spec, {"up": 1, "down": 2})
    absent = lay_out([entry], Scene(graph, paths), {})
    assert not absent.contents and all(p.problem and not p.forever for p in absent.places["m"])
    board = Board("0a:00:00:00:00:01", 2, 40, ("10.0.9.9",))
    twin = Board("0a:00:00:00:00:02", 3, 41, ("10.0.9.9",))
    there = lay_out([entry], Scene(graph, paths, [board, twin]), {})
    assert list(there.contents) == [2], "who used the address first has it"
    assert [dict(f.match.fields) for f in there.contents[2].flows] == [
        {"eth_type": 0x800, "ipv4_src": "10.0.9.9"},
        {"eth_type": 0x800, "ipv4_dst": "10.0.9.9"},
    ]


def test_rates_are_never_rounded_up() -> None:
    graph = graph_of(two_cohorts("t-core"))
    scene = Scene(graph, find_paths(graph, frozenset()))
    for rate, expected in (("1999 kbit/s", (1999, 1999)), ("20000.9 kbit/s", (20000, 20000)), ("7 packet/s", (7, 7))):
        spec = spec_of(graph, "m", {"kind": "client", "name": "c1"}, rate=rate, direction="up")
        meter = place(Numbered(spec, {"up": 1}), "up", scene, {}).meter
        assert meter is not None and (meter.rate, meter.burst) == expected


# Queues: the enforcer has tests of its own; here it is only what it is asked for.


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of the enforcer's interface, so that this file needs no enforcer."""

    @dataclass(frozen=True)
    class QueueMember:
        name: str
        source: str | None
        destination: str | None

    @dataclass(frozen=True)
    class QueueLimit:
        meter: str
        direction: str
        node: str | None
        interface: str
        rate_bps: int
        burst_bits: int
        members: tuple[QueueMember, ...]

    module = types.ModuleType("topology.controller.queues")
    module.__dict__.update(QueueMember=QueueMember, QueueLimit=QueueLimit)
    monkeypatch.setitem(sys.modules, "topology.controller.queues", module)


def limits_of(graph: Graph, target: dict[str, Any], maximum: dict[int, int], **more: Any) -> list[tuple[Any, ...]]:
    boards = [Board("0a:00:00:00:00:01", 2, 40, ("10.0.9.9",))]
    scene = Scene(graph, find_paths(graph, frozenset()), boards, {2: {40: PortState(40, "plug", True)}})
    layout = lay_out([Numbered(spec_of(graph, "m", target, **more), {"up": 1, "down": 2})], scene, maximum)
    assert not layout.contents
    return [
        (limit.direction, limit.node, limit.interface, [(m.name, m.source, m.destination) for m in limit.members])
        for limit in layout.limits
    ]


def test_a_queue_stands_where_all_metered_packets_leave(stand_in: None) -> None:
    graph = graph_of(two_cohorts("t-core"))
    address = {host.name: host.address for host in graph.hosts}
    port = {host.name: graph.switches[host.switch].ports[host.port].interface for host in graph.hosts}
    s2_up = next(p for p in graph.switches[2].ports.values() if p.peer == "s3")
    s3_down = next(p for p in graph.switches[3].ports.values() if p.peer == "s2")
    clients = ("c1", "c2", "c3")
    assert limits_of(graph, {"kind": "cohort", "name": "1"}, {}, enforce="queue") == [
        ("up", None, port["fed.1"], [(c, address[c], address["fed.1"]) for c in clients]),
        ("down", "fed.1", "eth0", [(c, address["fed.1"], address[c]) for c in clients]),
    ]
    assert limits_of(graph, {"kind": "client", "name": "c1"}, {1: 0}) == [
        ("up", "c1", "eth0", [("c1", None, None)]),
        ("down", None, port["c1"], [("c1", None, None)]),
    ], "auto: this switch has no meters"
    assert limits_of(graph, {"kind": "server", "name": "fed.1"}, {}, enforce="queue") == [
        ("up", None, port["fed.1"], [("fed.1", None, None)]),
        ("down", "fed.1", "eth0", [("fed.1", None, None)]),
    ]
    assert limits_of(graph, {"kind": "port", "switch": "s2", "port": s2_up.number}, {}, enforce="queue") == [
        ("up", None, s2_up.interface, [("m", None, None)]),
        ("down", None, s3_down.interface, [("m", None, None)]),
    ]
    assert limits_of(graph, {"kind": "address", "address": address["c2"]}, {}, enforce="queue") == [
        ("up", "c2", "eth0", [(address["c2"], address["c2"], None)]),
        ("down", None, port["c2"], [(address["c2"], None, address["c2"])]),
    ]
    assert limits_of(graph, {"kind": "address", "address": "10.0.9.9"}, {}, enforce="queue", direction="down") == [
        ("down", None, "plug", [("10.0.9.9", None, "10.0.9.9")])
    ]


@pytest.mark.parametrize(
    ("target", "more", "maximum", "expected"),
    [
        ({"kind": "client", "name": "c1"}, {"enforce": "drop"}, 0, "s1 has no meters"),
        ({"kind": "client", "name": "c1"}, {"rate": "5 packet/s"}, 0, "a queue counts bits"),
        ({"kind": "address", "address": "10.0.9.9"}, {"enforce": "queue"}, 9, "is a board, whose queue is its own"),
        ({"kind": "port", "switch": "s2", "port": 40}, {"enforce": "queue"}, 9, "is sent by a board"),
    ],
)
def test_what_can_never_be_enforced_says_why(
    stand_in: None, target: dict[str, Any], more: dict[str, Any], maximum: int, expected: str
) -> None:
    graph = graph_of(two_cohorts("t-core"))
    boards = [Board("0a:00:00:00:00:01", 2, 40, ("10.0.9.9",))]
    scene = Scene(graph, find_paths(graph, frozenset()), boards, {2: {40: PortState(40, "plug", True)}})
    found = place(Numbered(spec_of(graph, "m", target, **more), {"up": 1}), "up", scene, dict.fromkeys((1, 2), maximum))
    assert found.forever and expected in (found.problem or "") and found.switch is None


def test_a_queue_of_a_node_that_does_not_run_yet_is_pending(stand_in: None) -> None:
    graph = read_graph(inventory_of(two_cohorts("t-core"), running=False))
    spec = spec_of(graph, "m", {"kind": "client", "name": "c1"}, enforce="queue")
    scene = Scene(graph, find_paths(graph, frozenset()))
    up, down = lay_out([Numbered(spec, {"up": 1, "down": 2})], scene, {}).places["m"]
    assert up.problem == "c1 does not run yet" and not up.forever and down.limit is not None


def test_the_cohorts_table_comes_after_those_of_its_members() -> None:
    assert TABLE_PORT_IN < TABLE_PORT_OUT < TABLE_COHORT_UP
