"""A tree of three tiers: cloud, fog, edge. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network

from topology.model import CloudFogEdge, Switch
from topology.presets.expansion import Cast, Expansion, background, cohorts_of, published, shaped

CLOUD_LINK = {"rate": 1_000_000_000, "delay": 0.010}
FOG_LINK = {"rate": 200_000_000, "delay": 0.003}
CLIENT_LINK = {"rate": 50_000_000, "delay": 0.001}


def cloud_fog_edge(preset: CloudFogEdge, pool: IPv4Network) -> Expansion:
    """Switch `cloud`; below it fog1, fog2, ...; below each of these edge1-1, edge1-2, ... with the clients.

    Cohort k's clients stand below the fog that is k's turn, in turn at its edges. Its server stands at `cloud`, or
    (`servers: fog`) at that fog: everything else is the same, so that the two can be compared. mo.1 and app.1 stand at
    fog1.
    """
    cast = Cast(pool)
    feds, clients = cast.servers(preset.cohorts), cast.clients(preset.clients)
    cloud, prom, appserv, mo, app = cast.cloud(), cast.prom(), cast.appserv(), cast.mo(), cast.app()
    cohorts = cohorts_of(preset.cohorts, clients)
    fogs = [f"fog{f}" for f in range(1, preset.fogs + 1)]
    edges = {fog: [f"edge{f}-{e}" for e in range(1, preset.edges + 1)] for f, fog in enumerate(fogs, start=1)}
    switches = [Switch(name="cloud", datapath_id=0x0A)]
    for f, fog in enumerate(fogs, start=1):
        switches.append(Switch(name=fog, datapath_id=0x100 + f))
        for e, edge in enumerate(edges[fog], start=1):
            switches.append(Switch(name=edge, datapath_id=0x1000 + 0x40 * f + e))

    def fog_of(cohort: int) -> str:
        return fogs[(cohort - 1) % len(fogs)]

    links = [shaped(node.name, "cloud") for node in (cloud, prom, appserv)]
    for k, server in enumerate(feds, start=1):
        links.append(shaped(server.name, "cloud" if preset.servers == "cloud" else fog_of(k)))
    for cohort in cohorts:
        below = edges[fog_of(int(cohort.name))]
        for turn, client in enumerate(cohort.clients):
            links.append(shaped(client, below[turn % len(below)], preset.client_link, **CLIENT_LINK))
    links += [shaped(mo.name, "fog1"), shaped(app.name, "fog1")]
    for fog in fogs:
        links += [shaped(edge, fog, preset.fog_link, **FOG_LINK) for edge in edges[fog]]
        links.append(shaped(fog, "cloud", preset.cloud_link, **CLOUD_LINK))
    nodes = [*feds, cloud, prom, appserv, mo, app, *clients]
    return Expansion(nodes, switches, links, cohorts, published(), background())
