"""Testbed -> Plan. Pure: no I/O, the same testbed gives the same plan. Collects every problem before it gives up."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from topology import metering, presets, shapes, speeds, watching
from topology.errors import Problem, TestbedProblems
from topology.model import Cohort, Link, Node, Publish, Switch, Testbed, Traffic
from topology.plan import (
    Plan,
    PlannedCohort,
    PlannedLink,
    PlannedPort,
    PlannedSwitch,
    PublishedPort,
)
from topology.planned_nodes import NODE_INTERFACE, Management, plan_nodes
from topology.traffic import checking

MANAGEMENT_SPACE = IPv4Network("100.64.0.0/10")
"""Shared address space (RFC 6598): in no private network that a host is likely to route."""
RESERVED_SWITCH_NAMES = ("lo", "ovs-netdev", "ovs-system")
_PORT_NAME = re.compile(r"-eth[0-9]+$")
CONTROLLER_REST_PORT = 8080


def short_interface(name: str) -> str:
    """`name` where it fits the kernel's 15 characters, else a stable short form of it (its hash)."""
    return name if len(name) <= 15 else "c" + hashlib.sha256(name.encode()).hexdigest()[:12]


def host_interface(testbed: str) -> str:
    """The name of the one interface that a testbed has in the host's namespace."""
    return "cnm-" + hashlib.sha256(testbed.encode()).hexdigest()[:8]


class _Planner:
    """Carries the lists of one testbed through the checks; `problems` grows, nothing is raised before the end."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.problems: list[Problem] = []
        added = presets.expand(testbed.preset, testbed.address_pool) if testbed.preset else None
        # Paths in messages count the user's own entries: those of the preset come after them, without a path of their
        # own.
        self.nodes: list[Node] = [*(added.nodes if added else []), *testbed.nodes]
        self.switches: list[Switch] = [*(added.switches if added else []), *testbed.switches]
        self.links: list[Link] = [*(added.links if added else []), *testbed.links]
        self.cohorts: list[Cohort] = testbed.cohorts or (added.cohorts if added else [])
        publish = testbed.publish if testbed.publish is not None else (added.publish if added else [])
        self.publish: list[Publish] = list(publish)
        # A flow of the file takes the place of the preset's of that name.
        own = {flow.name for flow in testbed.traffic}
        self.traffic: list[tuple[str, Traffic]] = [
            *((f"preset.traffic[{i}]", f) for i, f in enumerate(added.traffic if added else []) if f.name not in own),
            *((f"traffic[{i}]", flow) for i, flow in enumerate(testbed.traffic)),
        ]
        self.from_preset = {
            "nodes": len(added.nodes) if added else 0,
            "switches": len(added.switches) if added else 0,
            "links": len(added.links) if added else 0,
        }
        self.node_names = {node.name for node in self.nodes}
        self.switch_names = {switch.name for switch in self.switches}

    def path(self, kind: str, index: int, key: str = "") -> str:
        """Where entry `index` of the joined list stands in the user's file."""
        own = index - self.from_preset.get(kind, 0)
        where = f"{kind}[{own}]" if own >= 0 else f"preset.{kind}[{index}]"
        return f"{where}.{key}" if key else where

    def report(self, path: str, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(path, code, message, hint))

    def check_names(self) -> None:
        counts = Counter([*(n.name for n in self.nodes), *(s.name for s in self.switches)])
        named: dict[str, list[str]] = {
            "nodes": [n.name for n in self.nodes],
            "switches": [s.name for s in self.switches],
        }
        for kind, names in named.items():
            for index, name in enumerate(names):
                if counts[name] > 1:
                    self.report(self.path(kind, index, "name"), "duplicate-name",
                                f"{name!r} is given {counts[name]} times", "give each its own name")  # fmt: skip
        for index, node in enumerate(self.nodes):
            if node.image is not None and self.testbed.runtime == "namespace":
                said = f"{node.name!r} names an image, and the namespace runtime has none"
                self.report(self.path("nodes", index, "image"), "no-image-here", said, "write `runtime: docker`")
        for index, switch in enumerate(self.switches):
            if switch.name in RESERVED_SWITCH_NAMES or _PORT_NAME.search(switch.name):
                said = f"{switch.name!r} is the name of an interface that every testbed has"
                self.report(self.path("switches", index, "name"), "reserved-name", said, "choose another")
        if not self.nodes:
            self.report("nodes", "empty", "a testbed needs at least one node", "add `nodes:` or `preset:`")

    def check_links(self) -> None:
        degree: Counter[str] = Counter()
        for index, link in enumerate(self.links):
            for end in ("a", "b"):
                name = getattr(link, end)
                if name not in self.node_names and name not in self.switch_names:
                    self.report(self.path("links", index, end), "unknown-node", f"no node or switch is called {name!r}",
                                "name one of those under `nodes:` or `switches:`")  # fmt: skip
                degree[name] += 1
            if link.a == link.b:
                self.report(self.path("links", index), "self-link", f"{link.a!r} is linked to itself")
            elif link.a in self.node_names and link.b in self.node_names:
                self.report(self.path("links", index), "no-switch", f"{link.a!r} and {link.b!r} are both nodes",
                            "put a switch between them")  # fmt: skip
            for where, shape in (("up", shapes.resolve(link, link.up)), ("down", shapes.resolve(link, link.down))):
                for code, message, key in shapes.contradictions(shape):
                    self.report(self.path("links", index, where), code, message, f"add `{key}:`")
        for index, node in enumerate(self.nodes):
            if degree[node.name] != 1:
                self.report(self.path("nodes", index), "links-of-node",
                            f"{node.name!r} has {degree[node.name]} links; a node has exactly one",
                            f"add `- {{a: {node.name}, b: <switch>}}` to `links:`" if not degree[node.name]
                            else "remove the others")  # fmt: skip

    def check_graph(self) -> None:
        if self.problems:
            return  # a graph of wrong names says nothing new
        neighbours: dict[str, list[str]] = {name: [] for name in [*self.node_names, *self.switch_names]}
        for link in self.links:
            neighbours[link.a].append(link.b)
            neighbours[link.b].append(link.a)
        start = self.nodes[0].name
        seen, todo = {start}, [start]
        while todo:
            for name in neighbours[todo.pop()]:
                if name not in seen:
                    seen.add(name)
                    todo.append(name)
        lost = sorted(set(neighbours) - seen)
        if lost:
            self.report("links", "disconnected", f"no path leads from {start!r} to {', '.join(map(repr, lost[:5]))}",
                        "add a link between the parts")  # fmt: skip
        elif self.testbed.controller.kind == "none" and len(self.links) != len(neighbours) - 1:
            self.report("controller.kind", "loop", "the links form a loop, and learning switches flood it for ever",
                        "write `kind: builtin`, or remove a link")  # fmt: skip

    def check_cohorts(self) -> None:
        roles = {node.name: node.role for node in self.nodes}
        member: dict[str, str] = {}
        for index, cohort in enumerate(self.cohorts):
            path = f"cohorts[{index}]"
            if roles.get(cohort.server) != "server":
                self.report(f"{path}.server", "no-server", f"{cohort.server!r} is no node with `role: server`",
                            "name one, or give it that role")  # fmt: skip
            for position, client in enumerate(cohort.clients):
                where = f"{path}.clients[{position}]"
                if roles.get(client) != "client":
                    self.report(where, "no-client", f"{client!r} is no node with `role: client`", "name one")
                elif client in member:
                    self.report(where, "two-cohorts", f"{client!r} is already in cohort {member[client]!r}",
                                "list each client once")  # fmt: skip
                member[client] = cohort.name
        for key, names in (
            ("name", [c.name for c in self.cohorts]),
            ("server", [c.server for c in self.cohorts]),
        ):
            for index, name in enumerate(names):
                if name in names[:index]:
                    self.report(f"cohorts[{index}].{key}", "duplicate-name", f"{name!r} is used by another cohort")

    def check_roles(self) -> None:
        centrals = [node.name for node in self.nodes if node.role == "mlfo-central"]
        edges = [node.name for node in self.nodes if node.role == "mlfo-edge"]
        if len(centrals) > 1:
            self.report("nodes", "two-centrals", f"only one node may have `role: mlfo-central`, found {centrals}")
        if edges and not centrals:
            self.report(
                "nodes",
                "no-central",
                f"{edges[0]!r} needs a central MLFO",
                "add a node with `role: mlfo-central`",
            )
        for index, entry in enumerate(self.publish):
            if entry.node not in self.node_names:
                self.report(f"publish[{index}].node", "unknown-node", f"no node is called {entry.node!r}")
        self._check_controller()
        taken: dict[int, str] = {}
        if self.testbed.controller.kind == "builtin":
            taken[self.testbed.controller.rest_host_port] = "controller.rest_host_port"
        for index, entry in enumerate(self.publish):
            if entry.host_port in taken:
                self.report(
                    f"publish[{index}].host_port",
                    "port-taken",
                    f"{entry.host_port} is already published by {taken[entry.host_port]}",
                    "choose another",
                )
            taken[entry.host_port] = f"publish[{index}]"
        self.problems += watching.check(self.testbed, self.nodes, taken)

    def _check_controller(self) -> None:
        controller = self.testbed.controller
        kind = controller.kind
        if kind == "external" and controller.address is None:
            self.report("controller.address", "missing-key", "an external controller needs its address",
                        "add `address: 192.0.2.7:6653`, as this machine reaches it")  # fmt: skip
        if kind != "external" and controller.address is not None:
            self.report("controller.address", "contradiction", f"`kind: {kind}` has no address",
                        "write `kind: external`, or leave `address` out")  # fmt: skip
        if kind != "builtin" and "rest_host_port" in controller.model_fields_set:
            self.report("controller.rest_host_port", "contradiction",
                        f"with `kind: {kind}` there is no controller of ours whose REST could be published",
                        "leave it out")  # fmt: skip

    def datapath_ids(self) -> dict[str, int]:
        given = {s.name: s.datapath_id for s in self.switches if s.datapath_id is not None}
        counts = Counter(given.values())
        for index, switch in enumerate(self.switches):
            if switch.datapath_id is not None and counts[switch.datapath_id] > 1:
                self.report(self.path("switches", index, "datapath_id"), "duplicate-id",
                            f"{switch.datapath_id} is used by two switches")  # fmt: skip
        free = (n for n in range(1, 2**48) if n not in counts)
        return {s.name: s.datapath_id if s.datapath_id is not None else next(free) for s in self.switches}

    def addresses(self) -> dict[str, IPv4Address]:
        pool = self.testbed.address_pool
        given: dict[IPv4Address, str] = {}
        for index, node in enumerate(self.nodes):
            if node.address is None:
                continue
            if node.address not in pool or node.address in (pool.network_address, pool.broadcast_address):
                self.report(
                    self.path("nodes", index, "address"),
                    "outside-pool",
                    f"{node.address} is no host address of {pool}",
                    "change it, or `address_pool:`",
                )
            elif node.address in given:
                self.report(
                    self.path("nodes", index, "address"),
                    "duplicate-address",
                    f"{node.address} belongs to {given[node.address]!r} too",
                    "leave it out to get a free one",
                )
            given[node.address] = node.name
        free = (address for address in pool.hosts() if address not in given)
        result = {}
        for node in self.nodes:
            address = node.address if node.address is not None else next(free, None)
            if address is None:
                self.report("address_pool", "pool-empty", f"{pool} is too small for {len(self.nodes)} nodes",
                            "take a shorter prefix, such as /16")  # fmt: skip
                break
            result[node.name] = address
        return result

    def management(self) -> Management:
        # The network is chosen by the testbed's name, so that it is the same at each start and rarely another
        # testbed's.
        pool = self.testbed.management_pool
        needed = len(self.nodes) + 3
        if pool is None:
            prefix = next(p for p in (20, 18, 16, 14) if 2 ** (32 - p) >= needed)
            size = 2 ** (32 - prefix)
            slot = zlib.crc32(self.testbed.name.encode()) % (MANAGEMENT_SPACE.num_addresses // size)
            pool = IPv4Network((int(MANAGEMENT_SPACE.network_address) + slot * size, prefix))
        elif pool.num_addresses < needed:
            self.report("management_pool", "pool-empty", f"{pool} is too small for {len(self.nodes)} nodes")
        if pool.overlaps(self.testbed.address_pool):
            self.report("management_pool", "overlap", f"{pool} overlaps `address_pool` {self.testbed.address_pool}",
                        "choose another one")  # fmt: skip
        base = int(pool.network_address)
        # Clipped where the pool is too small (which is reported): addresses must not leave the number range.
        last = int(pool.broadcast_address)
        addresses = {node.name: IPv4Address(min(base + 2 + i, last)) for i, node in enumerate(self.nodes)}
        return Management(pool, IPv4Address(min(base + 1, last)), addresses)

    def plan(self) -> Plan:
        self.check_names()
        self.check_links()
        self.check_graph()
        self.check_cohorts()
        self.check_roles()
        drawn, wrong = speeds.draw(self.testbed, [n.name for n in self.nodes if n.role == "client"])
        self.problems += wrong
        ids = self.datapath_ids()
        addresses = self.addresses()
        management = self.management()
        links, switches = self._links_and_switches(ids)
        meters, wrong = metering.plan_meters(self.testbed, self.nodes, self.cohorts, switches)
        self.problems += wrong
        traffic, wrong = checking.plan_traffic(self.testbed, self.traffic, [n.name for n in self.nodes], links)
        self.problems += wrong
        if self.problems:
            raise TestbedProblems(self.problems)
        nodes = plan_nodes(self.testbed, self.nodes, self.cohorts, links, addresses, management, drawn)
        published = [PublishedPort(p.node, p.port, "127.0.0.1", p.host_port) for p in self.publish]
        if self.testbed.controller.kind == "builtin":
            port = self.testbed.controller.rest_host_port
            published.append(PublishedPort(None, CONTROLLER_REST_PORT, "127.0.0.1", port))
        monitoring, reached = watching.plan_monitoring(self.testbed, self.nodes)
        published += reached
        return Plan(
            testbed=self.testbed.name,
            runtime=self.testbed.runtime,
            seed=self.testbed.seed,
            address_pool=str(self.testbed.address_pool),
            management=str(management.network),
            management_host=str(management.host),
            host_interface=host_interface(self.testbed.name),
            core_namespace=f"cn.{self.testbed.name}",
            controller=self.testbed.controller.kind,
            nodes=tuple(nodes),
            switches=tuple(switches),
            links=tuple(links),
            cohorts=tuple(PlannedCohort(c.name, c.server, tuple(c.clients)) for c in self.cohorts),
            published=tuple(published),
            allow_unsupported=tuple(dict.fromkeys(self.testbed.allow_unsupported)),
            meters=meters,
            traffic=traffic,
            controller_address=self.testbed.controller.address,
            monitoring=monitoring,
        )

    def _links_and_switches(self, ids: dict[str, int]) -> tuple[list[PlannedLink], list[PlannedSwitch]]:
        # A switch's ports are numbered by the order of its links.
        ports: dict[str, list[PlannedPort]] = {s.name: [] for s in self.switches}
        links: list[PlannedLink] = []
        names: Counter[str] = Counter()
        for link in self.links:
            ends: dict[str, tuple[int | None, str]] = {}
            for end, other in ((link.a, link.b), (link.b, link.a)):
                if end not in ports:
                    ends[end] = (None, NODE_INTERFACE)
                    continue
                number = len(ports[end]) + 1
                real = f"{end}-eth{number}"
                kind = "switch" if other in ports else "node"
                ports[end].append(PlannedPort(number, real, short_interface(real), kind, other, None))
                ends[end] = (number, short_interface(real))
            for end, other in ((link.a, link.b), (link.b, link.a)):
                if end in ports:
                    ports[end][-1] = replace(ports[end][-1], peer_port=ends[other][0])
            names[f"{link.a}--{link.b}"] += 1
            again = names[f"{link.a}--{link.b}"]
            links.append(
                PlannedLink(
                    name=f"{link.a}--{link.b}" + (f"#{again}" if again > 1 else ""),
                    a=link.a,
                    b=link.b,
                    a_port=ends[link.a][0],
                    b_port=ends[link.b][0],
                    a_interface=ends[link.a][1],
                    b_interface=ends[link.b][1],
                    a_to_b=shapes.resolve(link, link.up),
                    b_to_a=shapes.resolve(link, link.down),
                )
            )
        return links, [PlannedSwitch(s.name, ids[s.name], s.name, tuple(ports[s.name])) for s in self.switches]

def make_plan(testbed: Testbed) -> Plan:
    """Resolve a testbed completely.

    Raises:
        TestbedProblems: with every problem found.
    """
    return _Planner(testbed).plan()
