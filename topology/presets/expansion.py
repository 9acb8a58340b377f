"""What a preset adds to a testbed, and what presets share: the addresses and names of nodes by their role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from topology.model import Cohort, Link, Node, Publish, Role, Shaping, Switch, Traffic

FIRST_CLIENT = 10
"""Last octet of the first client's address, and the number in its name."""


@dataclass(frozen=True)
class Expansion:
    """What a preset adds to a testbed."""

    nodes: list[Node]
    switches: list[Switch]
    links: list[Link]
    cohorts: list[Cohort]
    publish: list[Publish]
    traffic: list[Traffic]


class Cast:
    """The nodes of a preset, named and addressed alike in all of them, in the network `pool`: `cloud.0` at 10.0.0.1,
    `fed.k` at 10.0.0.(100+k), `mo.1` at 10.0.1.1, `fc.10` at 10.0.1.10 and so on.
    """

    def __init__(self, pool: IPv4Network) -> None:
        self._base = int(pool.network_address)

    def _node(self, name: str, role: Role, offset: int) -> Node:
        # One outside the pool is reported by the planner; here it only has to be an address at all.
        return Node(name=name, role=role, address=IPv4Address(min(self._base + offset, 2**32 - 1)))

    def cloud(self) -> Node:
        """The central MLFO."""
        return self._node("cloud.0", "mlfo-central", 1)

    def appserv(self) -> Node:
        """The background traffic's server."""
        return self._node("appserv.0", "traffic-server", 2)

    def prom(self) -> Node:
        """Prometheus."""
        return self._node("prom.0", "prometheus", 100)

    def mo(self) -> Node:
        """The edge MLFO."""
        return self._node("mo.1", "mlfo-edge", 257)

    def app(self) -> Node:
        """The background traffic's client."""
        return self._node("app.1", "traffic-client", 258)

    def servers(self, count: int) -> list[Node]:
        """fed.1 to fed.N."""
        # 10.0.0.(100+k) as long as that is an address of the first 256; the block from 10.0.128.0 on takes the others.
        return [
            self._node(f"fed.{k}", "server", 100 + k if k <= 154 else 128 * 256 + k) for k in range(1, count + 1)
        ]

    def clients(self, count: int) -> list[Node]:
        """fc.10, fc.11, ..."""
        return [self._node(f"fc.{FIRST_CLIENT + i}", "client", 256 + FIRST_CLIENT + i) for i in range(count)]


def split_evenly(count: int, parts: int) -> list[range]:
    """`range(count)` as `parts` consecutive ranges whose sizes differ by at most one, the larger ones first."""
    size, larger = divmod(count, parts)
    ranges, start = [], 0
    for index in range(parts):
        end = start + size + (1 if index < larger else 0)
        ranges.append(range(start, end))
        start = end
    return ranges


def cohorts_of(count: int, clients: Sequence[Node]) -> list[Cohort]:
    """Cohort k is the k-th of `count` consecutive, equally large groups and is served by fed.k. One without clients
    (more cohorts than clients) is left out: its server stands there all the same.
    """
    return [
        Cohort(name=str(k), server=f"fed.{k}", clients=[clients[i].name for i in members])
        for k, members in enumerate(split_evenly(len(clients), count), start=1)
        if members
    ]


def published() -> list[Publish]:
    """The edge MLFO's REST, at both ports that its users know."""
    return [Publish(node="mo.1", port=8000, host_port=port) for port in (8000, 8001)]


def background(rate_bps: int = 20_000_000) -> list[Traffic]:
    """The flow from app.1 to appserv.0; it is sent where somebody starts it."""
    return [Traffic.model_construct(name="background", source="app.1", destination="appserv.0", rate=rate_bps)]


def shaped(a: str, b: str, given: Shaping | None = None, **default: float | int) -> Link:
    """A link with a preset's own properties, each replaced by the user's where one is given."""
    values = {**default, **(given.model_dump(exclude_none=True) if given else {})}
    return Link.model_construct(**{"a": a, "b": b, **values})
