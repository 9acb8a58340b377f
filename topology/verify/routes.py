"""The way of packets through a testbed as its inventory declares it: which directions of which links, and which meters.

Pure. Takes the inventory (and meters as the controller shows them), changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topology.controller.graph import find_paths, read_graph

Direction = tuple[str, str]
"""A link's name and `a_to_b` or `b_to_a`."""


@dataclass(frozen=True)
class Declared:
    """What a direction of a link was declared to do, without what this kernel was allowed not to do. Seconds, bit/s,
    fractions."""

    rate_bps: int | None
    delay_s: float
    jitter_s: float
    loss: float

    @property
    def survival(self) -> float:
        """The share of packets that gets through."""
        return 1.0 - self.loss


class Routes:
    """Paths between the nodes of one inventory."""

    def __init__(self, inventory: Mapping[str, Any]) -> None:
        self.inventory = inventory
        self.links: dict[str, dict[str, Any]] = {link["name"]: link for link in inventory["links"]}
        self._graph = read_graph(inventory)
        self._hops = find_paths(self._graph, frozenset()).hops
        self._hosts = {host.name: host for host in self._graph.hosts}
        self._names = {datapath_id: switch.name for datapath_id, switch in self._graph.switches.items()}
        self._by_port = {}
        for link in inventory["links"]:
            for end, port in ((link["a"], link["a_port"]), (link["b"], link["b_port"])):
                if port is not None:
                    self._by_port[end, port] = link["name"]

    @property
    def nodes(self) -> list[str]:
        """Names of all nodes, in the inventory's order."""
        return list(self._hosts)

    def _leaving(self, end: str, link: str) -> Direction:
        return link, "a_to_b" if self.links[link]["a"] == end else "b_to_a"

    def path(self, source: str, target: str) -> tuple[Direction, ...]:
        """The directions of links that a packet takes, in order; empty where there is no way."""
        start, end = self._hosts[source], self._hosts[target]
        first = self._by_port[self._names[start.switch], start.port]
        way = [self._leaving(source, first)]
        at = start.switch
        while at != end.switch:
            port = self._hops[at].get(end.switch)
            if port is None:
                return ()
            way.append(self._leaving(self._names[at], self._by_port[self._names[at], port]))
            far = self._graph.far_end(at, port)
            if far is None:
                return ()
            at = far[0]
        last = self._by_port[self._names[end.switch], end.port]
        return (*way, self._leaving(self._names[end.switch], last))

    @cached_property
    def declared(self) -> dict[Direction, Declared]:
        """Every direction of every link."""
        skipped = set(self.inventory["unsupported"])
        found = {}
        for link in self.inventory["links"]:
            for direction in ("a_to_b", "b_to_a"):
                shape = link[direction]
                lost = 0.0 if "loss" in skipped else float(shape["loss"])
                corrupt = 0.0 if "corrupt" in skipped else float(shape["corrupt"])
                found[link["name"], direction] = Declared(
                    shape["rate_bps"],
                    0.0 if "delay" in skipped else float(shape["delay_s"]),
                    0.0 if {"delay", "jitter"} & skipped else float(shape["jitter_s"]),
                    1.0 - (1.0 - lost) * (1.0 - corrupt),
                )
        return found

    def ends(self, direction: Direction) -> tuple[str, str]:
        """(sending end, receiving end) of a direction."""
        link = self.links[direction[0]]
        return (link["a"], link["b"]) if direction[1] == "a_to_b" else (link["b"], link["a"])


def limits_of(inventory: Mapping[str, Any], meters: Sequence[Mapping[str, Any]]) -> list[Limit]:
    """The meters (as `/v1/meters` shows them) that limit bits of nodes; others are not known here."""
    cohorts = {cohort["name"]: cohort for cohort in inventory["cohorts"]}
    addresses = {node["address"]: node["name"] for node in inventory["nodes"]}
    found = []
    for meter in meters:
        if meter["unit"] != "bit/s" or meter.get("pending"):
            continue
        kind, target = meter["target"]["kind"], meter["target"]
        ways = ("up", "down") if meter["direction"] == "both" else (meter["direction"],)
        for way in ways:
            sources: frozenset[str] | None = None
            targets: frozenset[str] | None = None
            if kind == "cohort" and target["name"] in cohorts:
                cohort = cohorts[target["name"]]
                clients, server = frozenset(cohort["clients"]), frozenset([cohort["server"]])
                sources, targets = (clients, server) if way == "up" else (server, clients)
            elif kind in ("client", "server", "address"):
                node = addresses.get(str(target.get("address"))) if kind == "address" else target.get("name")
                if node is None:
                    continue
                # `up` is from client to server: it leaves a client (or an address) and arrives at a server.
                leaves = (way == "up") != (kind == "server")
                sources, targets = (frozenset([node]), None) if leaves else (None, frozenset([node]))
            else:
                continue
            found.append(Limit(meter["name"], way, int(meter["rate"]), str(meter["in_force"]), sources, targets))
    return found


@dataclass(frozen=True)
class Limit:
    """One direction of a meter: it holds for packets from `sources` to `targets` (None: any)."""

    meter: str
    way: str
    rate_bps: int
    in_force: str
    sources: frozenset[str] | None
    targets: frozenset[str] | None

    def holds(self, source: str, target: str) -> bool:
        """Whether packets from one node to another come to this meter."""
        return (self.sources is None or source in self.sources) and (self.targets is None or target in self.targets)
