"""The factory behind a satellite path, the preset that `topo.py N` raises. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network

from topology.model import FactorySatellite, Link, Switch
from topology.presets.expansion import Cast, Expansion, background, cohorts_of, published, shaped, split_evenly

ACCESS_RATE_BPS = 500_000_000
SATELLITE_RATE_BPS = 500_000_000
SATELLITE_DELAY_S = 0.012


def _campus_datapath_id(campus: int) -> int:
    # 1..9 as documented; 0x0a..0x0c belong to the three core switches, so further campuses start above 0x100.
    return campus if campus <= 9 else 0x100 + campus


def factory_satellite(preset: FactorySatellite, pool: IPv4Network) -> Expansion:
    """The factory behind a satellite path: N servers at aggsw10, clients on campus switches behind swEdge12.

    Port numbers follow from the order of the links.
    """
    cast = Cast(pool)
    feds, clients = cast.servers(preset.cohorts), cast.clients(preset.clients)
    cloud, prom, appserv, mo, app = cast.cloud(), cast.prom(), cast.appserv(), cast.mo(), cast.app()
    campuses = [f"swCampus{c}" for c in range(1, preset.campuses + 1)]
    switches = [
        *(Switch(name=name, datapath_id=_campus_datapath_id(c)) for c, name in enumerate(campuses, start=1)),
        Switch(name="aggsw10", datapath_id=0x0A),
        Switch(name="satsw11", datapath_id=0x0B),
        Switch(name="swEdge12", datapath_id=0x0C),
    ]

    links = [shaped(node.name, "aggsw10", rate=ACCESS_RATE_BPS) for node in (*feds, cloud, prom, appserv)]
    links.append(shaped("aggsw10", "satsw11", rate=SATELLITE_RATE_BPS, delay=SATELLITE_DELAY_S))
    for campus, members in zip(campuses, split_evenly(preset.clients, preset.campuses), strict=True):
        links += [Link(a=clients[i].name, b=campus) for i in members]
    links += [Link(a=mo.name, b="swEdge12"), Link(a=app.name, b="swEdge12")]
    # swEdge12 is `a`, so that a campus gets its uplink after its clients and swEdge12 its campuses before its uplink.
    links += [Link(a="swEdge12", b=campus) for campus in campuses]
    links.append(shaped("satsw11", "swEdge12", rate=SATELLITE_RATE_BPS, delay=SATELLITE_DELAY_S))
    nodes = [*feds, cloud, prom, appserv, mo, app, *clients]
    return Expansion(nodes, switches, links, cohorts_of(preset.cohorts, clients), published(), background())
