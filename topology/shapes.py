"""How a link treats one direction: the shape that levels of the testbed file come to, and what contradicts itself in
one. Pure.
"""

from __future__ import annotations

from topology.model import Shaping
from topology.plan import Shape


def resolve(*levels: Shaping | None) -> Shape:
    """The shape that levels come to, such as a link's own and one direction's: later ones replace key by key."""
    values: dict[str, float | int | None] = {}
    distribution: str | None = None
    for level in levels:
        for key in Shaping.model_fields:
            value = getattr(level, key, None) if level is not None else None
            if key == "distribution":
                distribution = value if value is not None else distribution
            elif value is not None:
                values[key] = value
    return Shape(
        rate_bps=None if values.get("rate") is None else int(values["rate"] or 0),
        delay_s=float(values.get("delay") or 0.0),
        jitter_s=float(values.get("jitter") or 0.0),
        distribution=distribution,
        loss=float(values.get("loss") or 0.0),
        duplicate=float(values.get("duplicate") or 0.0),
        corrupt=float(values.get("corrupt") or 0.0),
        reorder=float(values.get("reorder") or 0.0),
        queue_packets=None if values.get("queue_packets") is None else int(values["queue_packets"] or 0),
    )


def contradictions(shape: Shape) -> list[tuple[str, str, str]]:
    """What in a shape needs a property that it lacks: code, message, and that property's name. Pure."""
    found = []
    if shape.jitter_s and not shape.delay_s:
        found.append(("jitter-without-delay", "jitter varies a delay, and there is none", "delay"))
    if shape.distribution is not None and not shape.jitter_s:
        message = f"a distribution ({shape.distribution}) spreads a jitter, and there is none"
        found.append(("distribution-without-jitter", message, "jitter"))
    if shape.reorder and not shape.delay_s:
        found.append(("reorder-without-delay", "reordering sends packets ahead of a delay, and there is none",
                      "delay"))  # fmt: skip
    return found
