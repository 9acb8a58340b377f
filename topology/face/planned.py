"""From what a script declared to a Plan: names, addresses, hardware addresses, port numbers and limits resolved.

Takes the hosts, switches, links and the controller of a network; changes nothing but that each interface learns the
addresses that it will have. The testbed is planned so that it is Mininet's in all that a script can see: interfaces
called `h1-eth0`, ports by number, addresses from `ipBase`, and hosts on the machine's own file system.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from topology.engine.change_links import NodeEnd
from topology.errors import Problem, TestbedProblems
from topology.face import arguments
from topology.face.devices import Controller, Switch
from topology.face.hosts import CPULimitedHost, Docker, Host
from topology.face.interfaces import Intf, Link
from topology.model import NODE_NAME, TESTBED_NAME
from topology.plan import STATE_ROOT, Plan, PlannedLink, PlannedNode, PlannedPort, PlannedSwitch, PublishedPort
from topology.planned_nodes import MANAGEMENT_INTERFACE
from topology.planning import MANAGEMENT_SPACE, host_interface, short_interface

DEFAULT_TESTBED = "mn"
_SWITCH_NAME = r"[A-Za-z][A-Za-z0-9_-]{0,12}"
HOST_ARGUMENTS = "ip, mac, defaultRoute, privateDirs; of CPULimitedHost cpu, cores"
DOCKER_ARGUMENTS = ("dimage, dcmd, ip, mac, defaultRoute, volumes, environment, cpu_quota, cpu_period, cpu_shares, "
                    "cpuset_cpus, mem_limit, memswap_limit, port_bindings, ports, further ones of docker-py")


@dataclass(frozen=True)
class Declared:
    """A network as a script declared it."""

    testbed: str
    hosts: Sequence[Host]
    switches: Sequence[Switch]
    links: Sequence[Link]
    controllers: Sequence[Controller]
    allow_unsupported: Sequence[str]
    ip_base: IPv4Network


def check_host_name(call: str, name: object) -> str:
    """The name, where it can be a host's. Raises NotHonoured."""
    if not isinstance(name, str) or not re.fullmatch(NODE_NAME.strip("^$"), name):
        raise arguments.refuse(call, "name", name, "a name is a letter and up to 30 letters, digits, '.', '_' and '-'")
    return name


def check_switch_name(call: str, name: object) -> str:
    """The name, where it can be a switch's. Raises NotHonoured."""
    if not isinstance(name, str) or not re.fullmatch(_SWITCH_NAME, name):
        raise arguments.refuse(call, "name", name, "a switch's name is a letter and up to 12 letters, digits, '_', '-'")
    return name


def check_testbed_name(name: str) -> str:
    """The name, where it can be a testbed's. Raises NotHonoured."""
    if not re.fullmatch(TESTBED_NAME, name):
        raise arguments.refuse("Containernet()", "testbed", name, "write a small letter and up to 30 of a-z, 0-9, '-'")
    return name


def give_addresses(host: Host, intf: Intf, *, running: bool) -> None:
    """Give an interface of a host the addresses that it will have, from the link's parameters and the host's.

    Before the start a link and a host that name different ones contradict each other; later the link's is the newer.
    """
    call = f"addHost({host.name!r})"
    first = host.defaultIntf() is intf
    of_host, of_link = host.params.get("ip") if first else None, intf.params.get("ip")
    if None not in (of_host, of_link) and not host.automatic_ip and not running:
        pair = [arguments.address(call, "ip", value, 8) for value in (of_host, of_link)]
        if pair[0] != pair[1]:
            raise arguments.refuse(call, "ip", of_host, f"the link of its first interface says {of_link!r}; give one")
    given = of_link if of_link is not None else of_host
    if given is not None:
        intf.ip, intf.prefixLen = arguments.address(call, "ip", given, 8)
    chosen = host.params.get("mac") if first else None
    if chosen is not None:
        intf.mac = arguments.mac(call, "mac", chosen)
    if intf.mac is None:
        intf.mac = _mac_of(intf.name)


def _mac_of(name: str) -> str:
    # Always the same for the same script, in the locally administered space.
    digest = hashlib.sha256(name.encode()).hexdigest()
    return "06:" + ":".join(digest[i : i + 2] for i in range(0, 10, 2))


def node_end(intf: Intf) -> NodeEnd:
    """An interface of a host as the engine takes it."""
    assert intf.mac is not None
    return NodeEnd(intf.mac, intf.ip, intf.prefixLen or 8)


def planned_link(link: Link) -> PlannedLink:
    """A link as the engine takes it."""
    one, two = link.intf1, link.intf2
    port1 = one.port if isinstance(one.node, Switch) else None
    port2 = two.port if isinstance(two.node, Switch) else None
    return PlannedLink(link.title, one.node.name, two.node.name, port1, port2, _real(one), _real(two), *link.shapes)


def _real(intf: Intf) -> str:
    return short_interface(intf.name)


def planned_node(testbed: str, host: Host, management_address: str) -> tuple[PlannedNode, tuple[PublishedPort, ...]]:
    """A host without its place in the network, and the ports of it that are published. Raises NotHonoured."""
    container = isinstance(host, Docker)
    call = f"addDocker({host.name!r})" if container else f"addHost({host.name!r})"
    params: dict[str, Any] = dict(host.params)
    for key in ("ip", "mac", "defaultRoute"):
        params.pop(key, None)
    if params.pop("inNamespace", True) is not True or not host.inNamespace:
        raise arguments.refuse(call, "inNamespace", False, "a host has its own network; run programs of the machine's "
                               "own network from the script itself")  # fmt: skip
    image, program, environment = "", None, dict[str, str]()
    cpu: float | None = None
    memory: int | None = None
    cpuset: str | None = None
    options: dict[str, Any] = {"share_tmp": True}
    published: tuple[PublishedPort, ...] = ()
    if container:
        wish = arguments.container(call, params)
        image, program, environment = wish.image, wish.command, wish.environment
        cpu, memory, cpuset = wish.cpu, wish.memory_bytes, wish.cpuset
        options = {"host": wish.host, "create": wish.create, "lint": False}
        published = tuple(PublishedPort(host.name, inner, "127.0.0.1", outer) for inner, outer in wish.published)
    else:
        params.pop("privateDirs", None)
        cpu, cpuset = _limits(call, host, params)
    own = set(_own_parameters(host))
    arguments.leftover(call, {key: value for key, value in params.items() if key not in own},
                       DOCKER_ARGUMENTS if container else HOST_ARGUMENTS)  # fmt: skip
    state = f"{STATE_ROOT}/{testbed}/nodes/{host.name}"
    prefix = "mn." if testbed == DEFAULT_TESTBED else f"{testbed}."
    return PlannedNode(
        name=host.name, role="host", cohort=None, address="", prefix_length=8, mac=_mac_of(host.name),
        interface=short_interface(f"{host.name}-eth0"), management_address=management_address,
        management_interface=MANAGEMENT_INTERFACE, switch="", switch_port=0, cpu=cpu, memory_bytes=memory,
        cpuset=cpuset, image=image, container=f"{prefix}{host.name}", program=program,
        environment={"COHORTNET_TESTBED": testbed, "COHORTNET_NODE": host.name, **environment}, state=state,
        runtime="docker" if container else "namespace", options=options,
    ), published  # fmt: skip


def _own_parameters(host: Host) -> list[str]:
    """Names that a class of the script's own may read by itself: those of its `config`."""
    if type(host) in (Host, CPULimitedHost, Docker):
        return []
    code = type(host).config.__code__
    return [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name != "self"]


def _limits(call: str, host: Host, params: dict[str, Any]) -> tuple[float | None, str | None]:
    limited = isinstance(host, CPULimitedHost)
    cpu, cores = params.pop("cpu", None), params.pop("cores", None)
    if not limited:
        if cpu is not None:
            raise arguments.refuse(call, "cpu", cpu, "a plain Host has no limit; add cls=CPULimitedHost")
        if cores is not None:
            raise arguments.refuse(call, "cores", cores, "a plain Host has no limit; add cls=CPULimitedHost")
        return None, None
    if params.pop("sched", "cfs") != "cfs":
        raise arguments.refuse(call, "sched", host.params["sched"], "only 'cfs' is honoured")
    if params.pop("period_us", 100_000) != 100_000:
        raise arguments.refuse(call, "period_us", host.params["period_us"], "the period is 100000 microseconds")
    text = ",".join(str(core) for core in cores) if isinstance(cores, (list, tuple)) else cores
    limit = math.inf if cpu is None else arguments.processor_share(call, "cpu", cpu)
    return None if limit == math.inf else limit, None if text is None else str(text)


def primary(host: Host) -> Intf | None:
    """The interface that the testbed is raised with: the default one, where a switch is at its other end."""
    intf = host.defaultIntf()
    if intf is None or intf.link is None:
        return None
    other = intf.link.intf2 if intf.link.intf1 is intf else intf.link.intf1
    return intf if isinstance(other.node, Switch) else None


def raised_links(network: Declared) -> list[Link]:
    """Links that the testbed is raised with; all others are added right after."""
    firsts = {id(intf) for intf in (primary(host) for host in network.hosts) if intf is not None}

    def fits(link: Link) -> bool:
        ends = (link.intf1, link.intf2)
        return all(isinstance(end.node, Switch) or id(end) in firsts for end in ends)

    return [link for link in network.links if fits(link)]


def make_plan(network: Declared) -> Plan:
    """The plan that a network is raised with.

    Raises:
        TestbedProblems: with everything that contradicts itself.
        NotHonoured: for an argument that the engine does not do.
    """
    problems = [*_contradictions(network), *_controller_problems(network)]
    if problems:
        raise TestbedProblems(problems)
    management, host_address, addresses = _management(network)
    raised = raised_links(network)
    links = [planned_link(link) for link in raised]
    ends = {end.node.name: end for link in raised for end in (link.intf1, link.intf2)}
    place = {link.a: (link.b, link.b_port) for link in links if link.a_port is None}
    place |= {link.b: (link.a, link.a_port) for link in links if link.b_port is None}
    nodes: list[PlannedNode] = []
    published: list[PublishedPort] = []
    for host, management_address in zip(network.hosts, addresses, strict=True):
        node, ports = planned_node(network.testbed, host, management_address)
        published += ports
        if host.name in place:
            intf, (switch, port) = ends[host.name], place[host.name]
            end = node_end(intf)
            node = PlannedNode(**{
                **vars(node), "address": end.address or "", "prefix_length": end.prefix_length, "mac": end.mac,
                "interface": _real(intf), "switch": switch, "switch_port": port or 0,
            })  # fmt: skip
        nodes.append(node)
    controller = network.controllers[0] if network.controllers else None
    address = None if controller is None else controller.address
    return Plan(
        testbed=network.testbed,
        runtime="docker" if any(isinstance(host, Docker) for host in network.hosts) else "namespace",
        seed=1,
        address_pool=str(network.ip_base),
        management=str(management),
        management_host=host_address,
        host_interface=host_interface(network.testbed),
        core_namespace=f"cn.{network.testbed}",
        controller="none" if controller is None else "external" if address else "builtin",
        nodes=tuple(nodes),
        switches=tuple(_planned_switch(switch, links) for switch in network.switches),
        links=tuple(links),
        cohorts=(),
        published=tuple(published),
        allow_unsupported=tuple(dict.fromkeys(network.allow_unsupported)),
        controller_address=address,
    )


def _planned_switch(switch: Switch, links: Sequence[PlannedLink]) -> PlannedSwitch:
    ports = []
    for link in links:
        for name, port, interface, other, other_port in (
            (link.a, link.a_port, link.a_interface, link.b, link.b_port),
            (link.b, link.b_port, link.b_interface, link.a, link.a_port),
        ):
            if name == switch.name and port is not None:
                kind = "node" if other_port is None else "switch"
                ports.append(PlannedPort(port, f"{name}-eth{port}", interface, kind, other, other_port))
    return PlannedSwitch(switch.name, switch.datapath_id, switch.name, tuple(ports))


def _contradictions(network: Declared) -> list[Problem]:
    problems = []
    ids = Counter(switch.datapath_id for switch in network.switches)
    for switch in network.switches:
        if ids[switch.datapath_id] > 1:
            problems.append(Problem(switch.name, "duplicate-id", f"two switches have the dpid {switch.dpid}",
                                    "give dpid= to one of them"))  # fmt: skip
    owners: dict[tuple[str, str], str] = {}
    for host in network.hosts:
        for intf in host.intfList():
            for what, value in (("address", intf.ip), ("hardware address", intf.mac)):
                other = owners.setdefault((what, str(value)), intf.name)
                if value is not None and other != intf.name:
                    problems.append(Problem(intf.name, "duplicate-address", f"{other} has the {what} {value} too",
                                            "give one of them another ip= or mac="))  # fmt: skip
    return problems


def _controller_problems(network: Declared) -> list[Problem]:
    if not network.switches:
        return []
    modes = {switch.failMode for switch in network.switches}
    standalone = ", ".join(switch.name for switch in network.switches if switch.failMode == "standalone")
    if len(network.controllers) > 1:
        names = ", ".join(controller.name for controller in network.controllers)
        return [Problem("addController", "two-controllers", f"a network has one controller here, and not {names}",
                        "remove the others")]  # fmt: skip
    if network.controllers and standalone:
        return [Problem("addSwitch", "standalone", f"{standalone}: failMode='standalone' (OVSBridge) is for a network "
                        "without controller; with one all switches are 'secure'", "leave failMode out")]  # fmt: skip
    if not network.controllers and modes != {"standalone"}:
        return [Problem("addController", "no-controller", "there is no controller, and switches whose failMode is "
                        "'secure' forward nothing without one", "add net.addController('c0'), or make all switches "
                        "with failMode='standalone' (learning switches)")]  # fmt: skip
    between = [x for x in network.links if isinstance(x.intf1.node, Switch) and isinstance(x.intf2.node, Switch)]
    if not network.controllers and _has_loop(between):
        return [Problem("addLink", "loop", "the switches form a loop, and learning switches flood it for ever",
                        "add net.addController('c0'), or remove a link")]  # fmt: skip
    return []


def _has_loop(links: Sequence[Link]) -> bool:
    part: dict[str, str] = {}

    def root(name: str) -> str:
        while part.setdefault(name, name) != name:
            name = part[name]
        return name

    for link in links:
        one, two = root(link.intf1.node.name), root(link.intf2.node.name)
        if one == two:
            return True
        part[one] = two
    return False


def _management(network: Declared) -> tuple[IPv4Network, str, list[str]]:
    # Chosen by the testbed's name, as for any testbed; with room for hosts that come while it runs.
    needed = 2 * len(network.hosts) + 64
    prefix = next(p for p in (20, 18, 16, 14) if 2 ** (32 - p) >= needed)
    size = 2 ** (32 - prefix)
    slot = zlib.crc32(network.testbed.encode()) % (MANAGEMENT_SPACE.num_addresses // size)
    pool = IPv4Network((int(MANAGEMENT_SPACE.network_address) + slot * size, prefix))
    for host in network.hosts:
        for intf in host.intfList():
            if intf.ip is not None and IPv4Network(f"{intf.ip}/{intf.prefixLen}", strict=False).overlaps(pool):
                raise arguments.refuse(f"addHost({host.name!r})", "ip", f"{intf.ip}/{intf.prefixLen}",
                                       f"it overlaps {pool}, by which this machine reaches the hosts")  # fmt: skip
    return pool, str(pool[1]), [str(pool[number + 2]) for number in range(len(network.hosts))]
