"""Ready-made topologies, as the same things that a user would write into a testbed file. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from topology.model import Cohort, Link, Node, Preset, Publish, Switch, Traffic

ACCESS_RATE_BPS = 500_000_000
SATELLITE_RATE_BPS = 500_000_000
SATELLITE_DELAY_S = 0.012
BACKGROUND_RATE_BPS = 20_000_000
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


def split_evenly(count: int, parts: int) -> list[range]:
    """`range(count)` as `parts` consecutive ranges whose sizes differ by at most one, the larger ones first."""
    size, larger = divmod(count, parts)
    ranges, start = [], 0
    for index in range(parts):
        end = start + size + (1 if index < larger else 0)
        ranges.append(range(start, end))
        start = end
    return ranges


def _server_offset(cohort: int) -> int:
    # 10.0.0.(100+k) as long as that is a host address of the first 256; the block from 10.0.128.0 on takes the others.
    return 100 + cohort if cohort <= 154 else 128 * 256 + cohort


def _campus_datapath_id(campus: int) -> int:
    # 1..9 as documented; 0x0a..0x0c belong to the three core switches, so further campuses start above 0x100.
    return campus if campus <= 9 else 0x100 + campus


def factory_satellite(preset: Preset, pool: IPv4Network) -> Expansion:
    """The factory behind a satellite path: N servers at aggsw10, clients on campus switches behind swEdge12.

    Cohort k is the k-th of N consecutive, equally large groups of clients and is served by fed.k. A cohort without
    clients (more
    cohorts than clients) has a server and no entry in the list of cohorts. Port numbers follow from the order of the
    links.
    """
    base = int(pool.network_address)

    def address(offset: int) -> IPv4Address:
        # One outside the pool is reported by the planner; here it only has to be an address at all.
        return IPv4Address(min(base + offset, 2**32 - 1))

    def access(node: str) -> Link:
        return Link.model_construct(a=node, b="aggsw10", rate=ACCESS_RATE_BPS)

    feds = [
        Node(name=f"fed.{k}", role="server", address=address(_server_offset(k))) for k in range(1, preset.cohorts + 1)
    ]
    cloud = Node(name="cloud.0", role="mlfo-central", address=address(1))
    prom = Node(name="prom.0", role="prometheus", address=address(100))
    appserv = Node(name="appserv.0", role="traffic-server", address=address(2))
    mo = Node(name="mo.1", role="mlfo-edge", address=address(256 + 1))
    app = Node(name="app.1", role="traffic-client", address=address(256 + 2))
    clients = [
        Node(name=f"fc.{FIRST_CLIENT + i}", role="client", address=address(256 + FIRST_CLIENT + i))
        for i in range(preset.clients)
    ]
    campuses = [f"swCampus{c}" for c in range(1, preset.campuses + 1)]
    switches = [
        *(Switch(name=name, datapath_id=_campus_datapath_id(c)) for c, name in enumerate(campuses, start=1)),
        Switch(name="aggsw10", datapath_id=0x0A),
        Switch(name="satsw11", datapath_id=0x0B),
        Switch(name="swEdge12", datapath_id=0x0C),
    ]

    def satellite(a: str, b: str) -> Link:
        return Link.model_construct(a=a, b=b, rate=SATELLITE_RATE_BPS, delay=SATELLITE_DELAY_S)

    links = [access(node.name) for node in (*feds, cloud, prom, appserv)]
    links.append(satellite("aggsw10", "satsw11"))
    for campus, members in zip(campuses, split_evenly(preset.clients, preset.campuses), strict=True):
        links += [Link(a=clients[i].name, b=campus) for i in members]
    links += [Link(a=mo.name, b="swEdge12"), Link(a=app.name, b="swEdge12")]
    # swEdge12 is `a`, so that a campus gets its uplink after its clients and swEdge12 its campuses before its uplink.
    links += [Link(a="swEdge12", b=campus) for campus in campuses]
    links.append(satellite("satsw11", "swEdge12"))
    cohorts = [
        Cohort(name=str(k), server=f"fed.{k}", clients=[clients[i].name for i in members])
        for k, members in enumerate(split_evenly(preset.clients, preset.cohorts), start=1)
        if members
    ]
    publish = [
        Publish(node=mo.name, port=8000, host_port=8000),
        Publish(node=mo.name, port=8000, host_port=8001),
    ]
    traffic = [
        Traffic.model_construct(
            name="background", source=app.name, destination=appserv.name, rate=BACKGROUND_RATE_BPS
        )
    ]
    return Expansion([*feds, cloud, prom, appserv, mo, app, *clients], switches, links, cohorts, publish, traffic)


def expand(preset: Preset, pool: IPv4Network) -> Expansion:
    """The preset's nodes, switches, links, cohorts, published ports and flows, with addresses from `pool`."""
    return factory_satellite(preset, pool)
