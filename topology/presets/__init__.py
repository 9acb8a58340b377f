"""Ready-made topologies, as the same things that a user would write into a testbed file. Pure.

One file a preset; each gives an `Expansion`.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from topology.model import CloudFogEdge, FactorySatellite, GraphPreset, Preset, ThreeAccess
from topology.presets.cloud_fog_edge import cloud_fog_edge
from topology.presets.expansion import Expansion
from topology.presets.factory_satellite import factory_satellite
from topology.presets.graph import graph
from topology.presets.three_access import three_access

__all__ = ["Expansion", "expand"]


def expand(preset: Preset, pool: IPv4Network) -> Expansion:
    """The preset's nodes, switches, links, cohorts, published ports and flows, with addresses from `pool`.

    Raises:
        TestbedProblems: where a graph or a place in it does not exist.
    """
    if isinstance(preset, FactorySatellite):
        return factory_satellite(preset, pool)
    if isinstance(preset, ThreeAccess):
        return three_access(preset, pool)
    if isinstance(preset, CloudFogEdge):
        return cloud_fog_edge(preset, pool)
    assert isinstance(preset, GraphPreset)
    return graph(preset, pool)
