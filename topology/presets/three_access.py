"""Three kinds of access to the same servers: satellite, fixed wireless, metro fibre. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network

from topology.model import Switch, ThreeAccess
from topology.presets.expansion import Cast, Expansion, background, cohorts_of, published, shaped

ACCESSES = {"satellite": (600_000_000, 0.015), "wireless": (2_000_000_000, 0.010), "metro": (10_000_000_000, 0.005)}
"""Rate in bit/s and delay in seconds, of either direction."""


def three_access(preset: ThreeAccess, pool: IPv4Network) -> Expansion:
    """Servers at `core`; clients at the switches `satellite`, `wireless` and `metro`, each with its own way to `core`.

    Cohort k stands behind the kind that is k's turn, or (`spread: client`) each cohort's clients behind all three in
    turn. mo.1 and app.1 stand at `metro`.
    """
    cast = Cast(pool)
    feds, clients = cast.servers(preset.cohorts), cast.clients(preset.clients)
    cloud, prom, appserv, mo, app = cast.cloud(), cast.prom(), cast.appserv(), cast.mo(), cast.app()
    cohorts = cohorts_of(preset.cohorts, clients)
    names = list(ACCESSES)
    place = {}
    for cohort in cohorts:
        for turn, client in enumerate(cohort.clients):
            place[client] = names[(turn if preset.spread == "client" else int(cohort.name) - 1) % len(names)]
    switches = [Switch(name=name, datapath_id=number) for number, name in enumerate(names, start=1)]
    switches.append(Switch(name="core", datapath_id=0x0A))
    links = [shaped(node.name, "core") for node in (*feds, cloud, prom, appserv)]
    links += [shaped(client.name, place[client.name]) for client in clients]
    links += [shaped(mo.name, "metro"), shaped(app.name, "metro")]
    for name, (rate, delay) in ACCESSES.items():
        links.append(shaped(name, "core", getattr(preset, name), rate=rate, delay=delay))
    nodes = [*feds, cloud, prom, appserv, mo, app, *clients]
    return Expansion(nodes, switches, links, cohorts, published(), background())
