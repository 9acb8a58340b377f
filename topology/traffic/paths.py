"""What the network carries between two nodes by the declared rates of its links. Pure: takes links as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from topology.plan import PlannedLink
from topology.traffic.schedule import Pattern, Wrong, peak_bps
from topology.units import format_rate

PAYLOAD_SHARE = {"tcp": 1448 / 1514, "udp": 1448 / 1490}
"""Payload in a full frame: links are shaped by whole Ethernet frames, flows count payload."""


def rates(links: Iterable[PlannedLink]) -> list[dict[str, Any]]:
    """Planned links as `narrowest_bps` takes them, and as an inventory has them."""
    return [
        {"a": link.a, "b": link.b, "a_to_b": {"rate_bps": link.a_to_b.rate_bps},
         "b_to_a": {"rate_bps": link.b_to_a.rate_bps}}
        for link in links
    ]  # fmt: skip


def narrowest_bps(links: Iterable[Mapping[str, Any]], source: str, destination: str) -> int | None:
    """The lowest link rate on the way, in bit/s of frames; None where no link of the way has a rate.

    The way is a shortest one, as the controller takes; of several the widest, so that nothing possible is refused.
    `links` have `a`, `b`, `a_to_b` and `b_to_a` with `rate_bps`. Raises ValueError where no way leads there.
    """
    ways: dict[str, list[tuple[str, float]]] = {}
    for link in links:
        for here, there, shape in ((link["a"], link["b"], link["a_to_b"]), (link["b"], link["a"], link["b_to_a"])):
            rate = shape["rate_bps"]
            ways.setdefault(here, []).append((there, math.inf if rate is None else rate))
    width: dict[str, float] = {source: math.inf}
    reached = {source}
    while destination not in width:
        step: dict[str, float] = {}
        for here, so_far in width.items():
            for there, rate in ways.get(here, ()):
                if there not in reached:
                    step[there] = max(step.get(there, 0.0), min(so_far, rate))
        if not step:
            raise ValueError(f"no way leads from {source!r} to {destination!r}")
        reached |= set(step)
        width = step
    found = width[destination]
    return None if math.isinf(found) else int(found)


def payload_bps(frames_bps: int | None, protocol: str) -> int | None:
    """What of a link's rate is a flow's payload, in full frames."""
    return None if frames_bps is None else int(frames_bps * PAYLOAD_SHARE[protocol])


def beyond_path(pattern: Pattern, protocol: str, frames_bps: int | None) -> Wrong | None:
    """Where the pattern asks for more payload than the narrowest link of its way, of that rate, carries."""
    carried = payload_bps(frames_bps, protocol)
    if carried is None or peak_bps(pattern) <= carried:
        return None
    at = "" if peak_bps(pattern) == pattern.rate_bps else f" at its highest ({pattern.kind})"
    return Wrong("rate", "above-link-rate",
                 f"{format_rate(peak_bps(pattern))}{at} is more than the narrowest link of the way carries "
                 f"({format_rate(frames_bps)}, of which {carried / 1e6:.4g} Mbit/s are {protocol.upper()} payload)",
                 "a lower rate, or `protocol: udp`, which sends regardless and loses the rest")  # fmt: skip
