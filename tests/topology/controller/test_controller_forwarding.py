"""Flows in many random graphs, loops and parallel links included: who hears whom, and how often. No kernel,
no os-ken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.controller.fakeswitch import BROADCAST, FakeNetwork, FakeSwitch, Packet
from tests.topology.controller.lab import ring
from topology.controller.flows import (
    METER_TABLES,
    TABLE_FORWARDING,
    TO_CONTROLLER,
    Contents,
    Flow,
    match,
)
from topology.controller.forwarding import flows_for
from topology.controller.graph import (
    Graph,
    GraphError,
    Host,
    Link,
    Port,
    Switch,
    find_paths,
    read_graph,
    spanning_tree,
)
from topology.controller.network import Network, PortState
from topology.controller.reconcile import reconcile
from topology.inventory import CoreFacts, build_inventory


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A connected graph of 1 to 8 switches with random datapath ids, 1 to 3 hosts each, extra and parallel
    links."""
    size = draw(st.integers(1, 8))
    ids = draw(st.lists(st.integers(1, 2**48 - 1), min_size=size, max_size=size, unique=True))
    pairs = [(i, draw(st.integers(0, i - 1))) for i in range(1, size)]
    if size > 1:
        ends = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda p: p[0] != p[1])
        pairs += draw(st.lists(ends, max_size=6))
    ports: dict[int, dict[int, Port]] = {i: {} for i in ids}
    links: list[Link] = []
    hosts: list[Host] = []

    def plug(switch: int, kind: str, peer: str) -> int:
        number = len(ports[switch]) + 1
        ports[switch][number] = Port(number, f"s{switch}-eth{number}", kind, peer, None)
        return number

    for n, (i, j) in enumerate(pairs):
        a, b = ids[i], ids[j]
        links.append(Link(f"l{n}", (a, plug(a, "switch", f"s{b}")), (b, plug(b, "switch", f"s{a}"))))
    for i in ids:
        for _ in range(draw(st.integers(1, 3))):
            n = len(hosts)
            mac = f"02:00:0a:00:{n >> 8:02x}:{n & 255:02x}"
            hosts.append(Host(f"h{n}", mac, None, i, plug(i, "node", f"h{n}")))
    return Graph("t", {i: Switch(f"s{i}", i, ports[i]) for i in ids}, tuple(links), tuple(hosts))


def bring(switch: FakeSwitch, flows: list[Flow]) -> None:
    switch.apply(reconcile(Contents(tuple(flows)), switch.contents()))


def program(graph: Graph, down: frozenset[str] = frozenset(), fake: FakeNetwork | None = None) -> FakeNetwork:
    paths = find_paths(graph, down)
    fake = fake or FakeNetwork(graph)
    fake.down = down
    for datapath_id, switch in fake.switches.items():
        bring(switch, flows_for(datapath_id, graph, paths))
    return fake


def parts(graph: Graph, down: frozenset[str]) -> dict[int, int]:
    part = {i: i for i in graph.switches}
    for _ in graph.switches:
        for link in graph.links:
            if link.name not in down:
                low = min(part[link.a[0]], part[link.b[0]])
                part[link.a[0]] = part[link.b[0]] = low
    return part


def check(graph: Graph, fake: FakeNetwork) -> None:
    part = parts(graph, fake.down)
    for a in graph.hosts:
        together = [b for b in graph.hosts if b is not a and part[b.switch] == part[a.switch]]
        for b in graph.hosts:
            if b is not a:
                expected = [(b.switch, b.port)] if b in together else []
                assert fake.deliver(Packet(a.mac, b.mac), a.switch, a.port) == expected
        for destination in (BROADCAST, "33:33:00:00:00:01", "01:00:5e:00:00:fb"):
            copies = sorted(fake.deliver(Packet(a.mac, destination), a.switch, a.port))
            assert copies == sorted((b.switch, b.port) for b in together)
        for noise in ("01:80:c2:00:00:00", "01:80:c2:00:00:0e", "02:99:99:99:99:99"):
            assert fake.deliver(Packet(a.mac, noise), a.switch, a.port) == []


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_pair_is_connected_and_broadcast_arrives_once(graph: Graph) -> None:
    check(graph, program(graph))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_after_links_fail_and_return_the_rest_is_as_connected_as_it_can_be(
    graph: Graph, data: st.DataObject
) -> None:
    names = [link.name for link in graph.links]
    down = frozenset(data.draw(st.sets(st.sampled_from(names)))) if names else frozenset()
    fake = program(graph)
    check(graph, program(graph, down, fake))
    check(graph, program(graph, frozenset(), fake))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_unicast_takes_a_shortest_path(graph: Graph) -> None:
    paths = find_paths(graph, frozenset())
    ends = {link.a: link.b[0] for link in graph.links} | {link.b: link.a[0] for link in graph.links}
    for start in graph.switches:
        distance, ring = {start: 0}, [start]
        while ring:
            ring = [
                n
                for at in ring
                for (s, _), n in ends.items()
                if s == at and n not in distance and not distance.update({n: distance[at] + 1})
            ]
        for towards, length in distance.items():
            at, steps = start, 0
            while at != towards:
                at, steps = ends[at, paths.hops[at][towards]], steps + 1
            assert steps == length


@settings(max_examples=100, deadline=None)
@given(graphs(), st.data())
def test_while_switches_change_one_by_one_no_broadcast_goes_round(graph: Graph, data: st.DataObject) -> None:
    """A link fails: each switch may still have the old flows or the new ones. At worst a copy is missing."""
    names = [link.name for link in graph.links]
    if not names:
        return
    lost = data.draw(st.sampled_from(names))
    old, fake = find_paths(graph, frozenset()), program(graph)
    new = find_paths(graph, frozenset({lost}), old.tree)
    fake.down = frozenset({lost})
    for datapath_id in data.draw(st.permutations(list(graph.switches))):
        switch = fake.switches[datapath_id]
        bring(switch, flows_for(datapath_id, graph, new))
        for host in graph.hosts:
            copies = fake.deliver(Packet(host.mac, BROADCAST), host.switch, host.port)
            assert len(copies) == len(set(copies)), "a host heard one broadcast twice"


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_a_failing_link_moves_at_most_one_other_into_the_tree(graph: Graph, data: st.DataObject) -> None:
    names = [link.name for link in graph.links]
    if not names:
        return
    lost = data.draw(st.sampled_from(names))
    before = spanning_tree(graph, graph.links)
    after = spanning_tree(graph, [link for link in graph.links if link.name != lost], before)
    assert len(after - before) <= 1 and before - after <= {lost}
    assert spanning_tree(graph, graph.links, after) >= after


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_a_restarted_controller_changes_nothing_whatever_happened(graph: Graph, data: st.DataObject) -> None:
    """Links failed and came back, so the tree is not the one that a fresh start would choose."""
    first, fake = Network(graph), FakeNetwork(graph)
    states = {i: [PortState(n, "p", True) for n in switch.ports] for i, switch in graph.switches.items()}
    for datapath_id, known in states.items():
        first.set_ports(datapath_id, known)
    settle(first, fake)
    lost = data.draw(st.lists(st.sampled_from(graph.links), max_size=3)) if graph.links else []
    for link in lost:
        for up in (False, True):
            first.set_port(*link.a, PortState(link.a[1], "p", up))
            settle(first, fake)
    changes = {i: switch.changes for i, switch in fake.switches.items()}
    second = Network(graph)
    for datapath_id in data.draw(st.permutations(list(graph.switches))):
        second.set_ports(datapath_id, states[datapath_id])
        second.snapshot()
        second.adopt(datapath_id, fake.switches[datapath_id].present())
    settle(second, fake)
    assert {i: switch.changes for i, switch in fake.switches.items()} == changes


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_the_same_graph_gives_the_same_flows_and_a_second_time_nothing_is_sent(graph: Graph) -> None:
    fake = program(graph)
    before = {i: switch.changes for i, switch in fake.switches.items()}
    program(graph, fake=fake)
    assert {i: switch.changes for i, switch in fake.switches.items()} == before


def small() -> Graph:
    """Two switches, a host at each; their port 3 is listed nowhere."""

    def listed(peer: str) -> dict[int, Port]:
        return {1: Port(1, "eth1", "node", peer, None), 2: Port(2, "eth2", "switch", "other", 2)}

    switches = {1: Switch("s1", 1, listed("h1")), 2: Switch("s2", 2, listed("h2"))}
    hosts = (Host("h1", "02:00:00:00:00:01", None, 1, 1), Host("h2", "02:00:00:00:00:02", None, 2, 1))
    return Graph("t", switches, (Link("l", (1, 2), (2, 2)),), hosts)


def ports(*numbers: int, down: tuple[int, ...] = ()) -> list[PortState]:
    return [PortState(n, f"eth{n}", n not in down) for n in numbers]


def settle(network: Network, fake: FakeNetwork) -> None:
    for datapath_id, switch in fake.switches.items():
        bring(switch, network.flows(datapath_id) or [])


BOARD = "0a:11:22:33:44:55"


def test_a_board_is_learnt_once_moves_and_is_forgotten_with_its_port() -> None:
    network, fake = Network(small()), FakeNetwork(small())
    network.set_ports(1, ports(1, 2, 3))
    network.set_ports(2, ports(1, 2, 3))
    settle(network, fake)
    hello = fake.deliver(Packet(BOARD, BROADCAST), 1, 3)
    assert sorted(hello) == [(1, 1), (1, TO_CONTROLLER), (2, 1), (2, 3)], "forwarded and reported"
    # To a known host: forwarded at once, nothing waits for the controller.
    assert sorted(fake.deliver(Packet(BOARD, "02:00:00:00:00:02"), 1, 3)) == [(1, TO_CONTROLLER), (2, 1)]
    assert network.learn(1, 3, BOARD) == "new" and network.learn(1, 3, BOARD) == "known"
    settle(network, fake)
    assert fake.deliver(Packet(BOARD, "02:00:00:00:00:02"), 1, 3) == [(2, 1)], "reported no more"
    assert fake.deliver(Packet("02:00:00:00:00:02", BOARD), 2, 1) == [(1, 3)]
    assert network.learn(2, 3, BOARD) == "moved"
    settle(network, fake)
    assert fake.deliver(Packet("02:00:00:00:00:01", BOARD), 1, 1) == [(2, 3)]
    assert network.set_port(2, 3, PortState(3, "eth3", False))
    settle(network, fake)
    assert network.snapshot().boards == () and fake.deliver(Packet("02:00:00:00:00:01", BOARD), 1, 1) == []


def test_where_no_more_boards_can_be_learnt_none_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topology.controller.network.MAXIMUM_BOARDS", 2)
    network, fake = Network(small()), FakeNetwork(small())
    network.set_ports(1, ports(1, 2, 3))
    network.set_ports(2, ports(1, 2))
    assert network.learn(1, 3, BOARD) == "new" and network.learn(1, 3, "0a:00:00:00:00:02") == "new"
    assert network.learn(1, 3, "0a:00:00:00:00:03") == "full"
    settle(network, fake)
    assert fake.deliver(Packet("0a:00:00:00:00:03", BROADCAST), 1, 3) == [(1, 1), (2, 1)]


def test_listed_ports_report_nothing_and_a_nodes_address_is_not_stolen() -> None:
    network, fake = Network(small()), FakeNetwork(small())
    network.set_ports(1, ports(1, 2, 3))
    network.set_ports(2, ports(1, 2))
    settle(network, fake)
    assert (
        fake.deliver(Packet(BOARD, BROADCAST), 2, 1) == [(1, 1), (1, 3)]
        and network.learn(2, 1, BOARD) == "ignored"
    )
    assert network.learn(1, 3, "03:00:00:00:00:01") == "ignored", "a multicast source"
    assert network.learn(1, 3, "02:00:00:00:00:02") == "host"
    settle(network, fake)
    assert fake.deliver(Packet("02:00:00:00:00:01", "02:00:00:00:00:02"), 1, 1) == [(2, 1)]
    assert fake.deliver(Packet("02:00:00:00:00:02", BROADCAST), 1, 3) == [(1, 1), (2, 1)], (
        "not reported for ever"
    )


def test_a_restarted_controller_takes_over_the_boards_that_the_flows_tell_of() -> None:
    fake = FakeNetwork(small())
    first, second = Network(small()), Network(small())
    for network in (first, second):
        network.set_ports(1, ports(1, 2, 3))
        network.set_ports(2, ports(1, 2))
    first.learn(1, 3, BOARD)
    first.learn(1, 3, "02:00:00:00:00:02")
    settle(first, fake)
    for datapath_id, switch in fake.switches.items():
        second.adopt(datapath_id, switch.present())
    changes = {i: switch.changes for i, switch in fake.switches.items()}
    assert [board.mac for board in second.snapshot().boards] == [BOARD]
    settle(second, fake)
    assert fake.deliver(Packet("02:00:00:00:00:02", BOARD), 2, 1) == [(1, 3)]
    assert fake.switches[2].changes == changes[2], "nothing was sent to the switch that was right already"


def test_leftovers_go_strangers_and_their_tables_stay() -> None:
    graph = small()
    fake = program(graph)
    stranger = Flow(METER_TABLES[0], 500, match(in_port=1), goto=1, cookie=7)
    old = Flow(TABLE_FORWARDING, 100, match(eth_dst="02:00:00:00:00:77"), (1,))
    switch = fake.switches[1]
    switch.flows[stranger.key], switch.flows[old.key] = stranger, old
    ours = [flow for flow in switch.present() if flow.cookie != 7]
    desired = Contents(tuple(flows_for(1, graph, find_paths(graph, frozenset()))))
    switch.apply(reconcile(desired, Contents(tuple(ours))))
    assert stranger.key in switch.flows and old.key not in switch.flows
    for table in METER_TABLES:
        there = [flow for flow in switch.present() if flow.table == table and flow is not stranger]
        assert [(flow.priority, flow.goto) for flow in there] == [(0, table + 1)], "left to metering"


def test_a_link_is_down_where_either_port_is_down_or_missing_and_a_silent_switch_is_believed() -> None:
    network = Network(small())
    assert network.snapshot().down_links == frozenset()
    assert network.set_ports(1, ports(1, 2, down=(2,)))
    assert network.snapshot().down_links == {"l"}
    assert network.set_port(1, 2, PortState(2, "eth2", True)) and network.snapshot().down_links == frozenset()
    assert not network.set_port(1, 2, PortState(2, "eth2", True)), "no change, nobody is woken"
    assert network.set_port(1, 2, None) and network.snapshot().down_links == {"l"}
    assert network.flows(99) is None


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("nodes", 0, "mac"), None, "nodes[0].mac is None, expected str"),
        (("nodes", 0, "switch"), "nowhere", "nodes[0].switch is 'nowhere'"),
        (("nodes", 1, "mac"), "02:00:0A:00:00:01", "belongs to h1 too"),
        (("switches", 1, "datapath_id"), 1, "datapath_id 1 belongs to s1 too"),
        (("switches", 0, "ports", 0, "number"), True, "switches[0].ports[0].number is True, expected int"),
        (("links",), {}, "links is {}, expected list"),
    ],
)
def test_an_inventory_that_makes_no_graph_is_refused_by_name(
    path: tuple[Any, ...], value: Any, expected: str
) -> None:
    inventory = json.loads(json.dumps(build_inventory(ring("t"), CoreFacts("netdev", "/x"), {}, up=True)))
    assert len(read_graph(inventory).links) == 4
    entry = inventory
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    with pytest.raises(GraphError) as error:
        read_graph(inventory)
    assert expected in str(error.value)


def test_a_hosts_port_that_goes_down_changes_no_flow_and_wakes_nobody() -> None:
    network = Network(small())
    network.set_ports(1, ports(1, 2))
    before = network.flows(1)
    assert not network.set_port(1, 1, PortState(1, "eth1", False)) and network.flows(1) == before
    assert network.snapshot().ports[1][1].up is False
