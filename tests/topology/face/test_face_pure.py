"""What scripts of the Mininet world write, read into a plan or refused by name: no root, nothing is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mininet.link
import mininet.node
import pytest
from mininet.topo import LinearTopo, SingleSwitchTopo
from mininet.topolib import TreeTopo
from mininet.util import custom

from topology.containernet import Containernet, Controller, CPULimitedHost, Mininet, OVSBridge, RemoteController
from topology.errors import TestbedProblems, TopologyError
from topology.face import measure, planned
from topology.face.arguments import NotHonoured
from topology.face.interfaces import Intf
from topology.plan import Plan, Shape


def plan_of(net: Mininet) -> Plan:
    net.build()
    return planned.make_plan(planned.Declared(
        net.testbed, net.hosts, net.switches, net.links, net.controllers, net.allow_unsupported, net.ip_network,
    ))  # fmt: skip


def pair() -> Containernet:
    net = Containernet(testbed="t-face-pure")
    net.addController("c0")
    net.addHost("h1")
    net.addSwitch("s1")
    return net


def first(net: Containernet, link: type) -> Intf:
    return net.addLink("h1", "s1", cls=link).intf1


def test_an_interface_is_shaped_anew_before_the_start_too() -> None:
    net = pair()
    link = net.addLink("h1", "s1", cls=mininet.link.TCLink, bw=10, loss=1)
    link.intf1.config(bw=4, delay="2ms")
    link.intf2.config(mac="02:00:00:00:00:07")
    assert link.shapes == (Shape(rate_bps=4_000_000, delay_s=0.002), Shape(rate_bps=10_000_000, loss=0.01))
    assert link.intf2.MAC() == "02:00:00:00:00:07"


def test_a_script_becomes_one_plan_with_mininets_names_addresses_and_ports() -> None:
    net = pair()
    net.addDocker("d1", ip="10.0.0.251", dimage="i", environment={"A": "1"}, volumes=["/x:/y:rw"], cpu_quota=25000,
                  cpu_period=50000, mem_limit="64m", port_bindings={80: 8080})  # fmt: skip
    net.addLink("h1", "s1", cls=mininet.link.TCLink, bw=10, delay="5ms", jitter="1ms", loss=2, max_queue_size=50,
                params1={"bw": 5})  # fmt: skip
    net.addLink("d1", "s1", port2=7)
    plan = plan_of(net)
    h1, d1 = plan.nodes
    assert (h1.interface, h1.address, h1.prefix_length, h1.switch_port, h1.runtime) == (
        "h1-eth0", "10.0.0.1", 8, 1, "namespace")  # fmt: skip
    assert (d1.address, d1.switch_port, d1.runtime, d1.container) == ("10.0.0.251", 7, "docker", "t-face-pure.d1")
    assert (d1.cpu, d1.memory_bytes, d1.options["host"]["binds"]) == (0.5, 64 * 2**20, ["/x:/y:rw"])
    assert plan.runtime == "docker" and [p.host_port for p in plan.published] == [8080]
    up, down = plan.links[0].a_to_b, plan.links[0].b_to_a
    assert (up.rate_bps, down.rate_bps) == (5_000_000, 10_000_000)
    assert (down.delay_s, down.jitter_s, down.loss, down.queue_packets) == (0.005, 0.001, 0.02, 50)
    assert plan.switches[0].datapath_id == 1


@pytest.mark.parametrize(
    ("topo", "counts"),
    [(SingleSwitchTopo(3), (3, 1, 3)), (LinearTopo(3, 2), (6, 3, 8)), (TreeTopo(2, 2), (4, 3, 6))],
)
def test_mininets_own_topologies(topo: object, counts: tuple[int, int, int]) -> None:
    plan = plan_of(Mininet(topo=topo, link=partial(mininet.link.TCLink, bw=2000)))
    assert (len(plan.nodes), len(plan.switches), len(plan.links)) == counts
    assert plan.controller == "builtin" and all(link.a_to_b.rate_bps == 2_000_000_000 for link in plan.links)
    assert len({node.mac for node in plan.nodes}) == len(plan.nodes)


Call = Callable[[Containernet], object]
REFUSED: list[tuple[str, Call]] = [
    ("bw=10", lambda net: net.addLink("h1", "s1", bw=10)),
    ("delay=5", lambda net: net.addLink("h1", "s1", cls=mininet.link.TCLink, delay=5)),
    ("loss=101", lambda net: net.addLink("h1", "s1", cls=mininet.link.TCLink, loss=101)),
    ("jitter='1ms'", lambda net: net.addLink("h1", "s1", cls=mininet.link.TCLink, jitter="1ms")),
    ("use_tbf=True", lambda net: net.addLink("h1", "s1", cls=mininet.link.TCLink, bw=1, use_tbf=True)),
    ("bandwidth=3", lambda net: net.addLink("h1", "s1", cls=mininet.link.TCLink, bandwidth=3)),
    ("colour='red'", lambda net: net.addLink("h1", "s1", params1={"colour": "red"})),
    ("port=1", lambda net: [net.addLink("h1", "s1", port2=1), net.addLink(net.addHost("h2"), "s1", port2=1)]),
    ("OVSLink", lambda net: net.addLink("h1", "s1", cls=mininet.link.OVSLink)),
    ("'h9'", lambda net: net.addLink("h1", "h9")),
    ("cpu=0.5", lambda net: net.addHost("h2", cpu=0.5)),
    ("cpu=7", lambda net: net.addHost("h2", cls=CPULimitedHost, cpu=7)),
    ("inNamespace=False", lambda net: net.addHost("h2", inNamespace=False)),
    ("ip='10.0.0.300'", lambda net: net.addLink(net.addHost("h2", ip="10.0.0.300"), "s1")),
    ("'h1' is in the network", lambda net: net.addHost("h1")),
    ("UserSwitch", lambda net: net.addSwitch("s2", cls=mininet.node.UserSwitch)),
    ("stp=True", lambda net: net.addSwitch("s2", stp=True)),
    ("protocols='OpenFlow10'", lambda net: net.addSwitch("s2", protocols="OpenFlow10")),
    ("without a number", lambda net: net.addSwitch("core")),
    ("Ryu", lambda net: net.addController("c1", mininet.node.Ryu)),
    ("port=7000", lambda net: net.addController("c1", Controller, port=7000)),
    ("dimage=None", lambda net: net.addDocker("d1")),
    ("storage_opt", lambda net: net.addDocker("d1", dimage="i", storage_opt={"size": "1G"})),
    ("publish_all_ports", lambda net: net.addDocker("d1", dimage="i", publish_all_ports=True)),
    ("0.0.0.0", lambda net: net.addDocker("d1", dimage="i", port_bindings={80: ("0.0.0.0", 80)})),
    ("mem_limit='much'", lambda net: net.addDocker("d1", dimage="i", mem_limit="much")),
    ("addNAT", lambda net: net.addNAT()),
    ("bw=5", lambda net: first(net, mininet.link.Link).config(bw=5)),
    ("speed=5", lambda net: first(net, mininet.link.Link).config(speed=5)),
    ("jitter='1ms'", lambda net: first(net, mininet.link.TCLink).config(jitter="1ms")),
    ("use_hfsc=True", lambda net: first(net, mininet.link.TCLink).config(bw=5, use_hfsc=True)),
    ("does not run", lambda net: net["h1"].cmd("true")),
    ("Node", lambda net: net.addHost("r1", cls=type("Router", (mininet.node.Node,), {}))),
]  # fmt: skip


@pytest.mark.parametrize(("said", "call"), REFUSED, ids=[said for said, _ in REFUSED])
def test_what_cannot_be_honoured_is_refused_by_name(said: str, call: Call) -> None:
    with pytest.raises(NotHonoured) as refused:
        call(pair())
    assert said in str(refused.value)


def test_contradictions_of_a_network_are_said_together() -> None:
    net = Mininet(controller=None)
    net.addHost("h1", ip="10.0.0.5")
    net.addHost("h2", ip="10.0.0.5")
    for name in ("s1", "a1"):
        net.addSwitch(name)
    net.addLink("h1", "s1")
    net.addLink("h2", "s1")
    with pytest.raises(TestbedProblems) as refused:
        plan_of(net)
    codes = {problem.code for problem in refused.value.problems}
    assert codes == {"duplicate-id", "duplicate-address", "no-controller"}


def test_learning_switches_need_no_controller_and_no_loop() -> None:
    net = Mininet(controller=None, switch=OVSBridge)
    for name in ("s1", "s2", "s3"):
        net.addSwitch(name)
    net.addLink("s1", "s2")
    net.addLink("s2", "s3")
    assert plan_of(net).fail_mode == "standalone"
    net.addLink("s3", "s1")
    with pytest.raises(TestbedProblems, match="loop"):
        plan_of(net)


@pytest.mark.parametrize("controller", [
    partial(RemoteController, ip="192.0.2.7", port=6633),
    custom(mininet.node.RemoteController, ip="192.0.2.7", port=6633),
    lambda name: RemoteController(name, ip="192.0.2.7", port=6633),
])  # fmt: skip
def test_a_controller_elsewhere(controller: object) -> None:
    plan = plan_of(Mininet(topo=SingleSwitchTopo(2), controller=controller))
    assert (plan.controller, plan.controller_address) == ("external", "192.0.2.7:6633")


def test_pings_and_rates_in_mininets_forms() -> None:
    text = "1 packets transmitted, 1 received, 0% packet loss\nrtt min/avg/max/mdev = 0.1/0.2/0.3/0.4 ms"
    assert measure.parse_ping(text) == (1, 1, 0.1, 0.2, 0.3, 0.4)
    assert measure.parse_ping("connect: Network is unreachable")[:2] == (1, 0)
    assert measure.format_rate(9_560_000) == "9.56 Mbits/sec" and measure.format_rate(2.5e9) == "2.50 Gbits/sec"
    assert measure.format_rate(8e6, "M") == "1.00 MBytes/sec"
    with pytest.raises(TopologyError, match="fmt='x'"):
        measure.format_rate(1, "x")
