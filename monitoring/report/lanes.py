"""The timeline of a run as SVG: one lane a kind of thing, stretches and moments on it, over one axis of seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from monitoring.report.chart import RIGHT, figure
from monitoring.report.html import Html, el
from monitoring.report.scale import seconds, tick_text, ticks

WIDTH, LANE, NAMES, FOOT = 1160.0, 30.0, 92.0, 40.0
_LETTER = 5.6
"""Width of a letter at the text's size, for whether a text fits into a stretch."""


@dataclass(frozen=True)
class Stretch:
    """From `start` to `end` (seconds); `said` is what the pointer shows, `label` what stands in it where it fits."""

    start: float
    end: float
    label: str
    said: str
    css: str = "k0"
    shade: int = 30


@dataclass(frozen=True)
class Moment:
    """Something that happened at once."""

    time: float
    said: str
    css: str = "k0"
    bad: bool = False


@dataclass(frozen=True)
class Lane:
    """A row of the timeline."""

    name: str
    stretches: Sequence[Stretch] = ()
    moments: Sequence[Moment] = ()


@dataclass(frozen=True)
class Timeline:
    """All lanes; empty ones are left out (what was not recorded is said elsewhere)."""

    title: str
    lanes: Sequence[Lane]
    x_title: str
    note: str = ""
    width: float = field(default=WIDTH)


def draw(timeline: Timeline) -> Html:
    """The figure."""
    lanes = [lane for lane in timeline.lanes if lane.stretches or lane.moments]
    times = [time for lane in lanes for stretch in lane.stretches for time in (stretch.start, stretch.end)]
    times += [moment.time for lane in lanes for moment in lane.moments]
    low, high = min(times, default=0.0), max(times, default=1.0)
    high = high if high > low else low + 1.0
    width, bottom = timeline.width, 8 + LANE * len(lanes)

    def at(value: float) -> float:
        return NAMES + (value - low) / (high - low) * (width - NAMES - RIGHT)

    parts: list[Html] = []
    fitting = ticks(low, high, 12)
    for tick in fitting:
        if low <= tick <= high:
            x = at(tick)
            parts.append(el("path", d=f"M{x:.1f} 8V{bottom:.1f}", cls="grid"))
            text = tick_text(tick, fitting[1] - fitting[0])
            parts.append(el("text", text, x=x, y=bottom + 16, cls="tick middle"))
    parts.append(el("text", timeline.x_title, x=width - RIGHT, y=bottom + FOOT - 6, cls="axis-title end"))
    for index, lane in enumerate(lanes):
        top = 8 + LANE * index
        parts.append(el("path", d=f"M0 {top + LANE:.1f}H{width - RIGHT:.1f}", cls="lane"))
        parts.append(el("text", lane.name, x=0.0, y=top + LANE / 2 + 4, cls="lane-name"))
        for stretch in lane.stretches:
            left, right = at(stretch.start), at(stretch.end)
            parts.append(
                el(
                    "rect",
                    el("title", stretch.said),
                    x=left,
                    y=top + 6,
                    height=LANE - 12,
                    rx="2",
                    width=max(right - left, 0.8),
                    cls=f"bar {stretch.css}",
                    style=f"--shade:{stretch.shade}%",
                )
            )
            if stretch.label and (right - left) > len(stretch.label) * _LETTER + 6:
                parts.append(
                    el(
                        "text",
                        stretch.label,
                        x=(left + right) / 2,
                        y=top + LANE / 2 + 4,
                        cls="in-bar" if stretch.shade < 85 else "in-bar on-colour",
                    )
                )
        for moment in lane.moments:
            x = at(moment.time)
            middle = top + LANE / 2
            shape = f"M{x:.1f} {middle - 6:.1f}l5 6-5 6-5-6z" if moment.bad else f"M{x:.1f} {middle - 7:.1f}v14"
            parts.append(
                el(
                    "path",
                    el("title", moment.said),
                    d=shape,
                    cls=("moment bad" if moment.bad else f"moment {moment.css}"),
                )
            )
    height = bottom + FOOT
    said = f"{timeline.title}: {seconds(high - low)} in {len(lanes)} lanes"
    picture = el("svg", el("title", said), parts, role="img", cls="chart lanes", view_box=f"0 0 {width:g} {height:g}")
    return figure(timeline.title, picture, None, timeline.note, wide=True)
