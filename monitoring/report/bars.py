"""Stacked columns, one a round, as SVG: durations by phase, bytes by direction. Axes have titles as in
`chart`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.report.chart import HEIGHT, WIDTH, Axis, Frame, figure
from monitoring.report.html import Html, el
from monitoring.report.scale import number


@dataclass(frozen=True)
class Part:
    """One layer of the columns: a value a round (None: not known), `shade` in per cent of the colour."""

    name: str
    values: Sequence[float | None]
    css: str
    shade: int = 100


@dataclass(frozen=True)
class Columns:
    """Columns over rounds; `side_by_side` puts the parts next to one another instead of on top."""

    title: str
    rounds: Sequence[int]
    y: Axis
    parts: Sequence[Part]
    note: str = ""
    side_by_side: bool = False
    x: Axis = Axis("round", "", whole=True)


def _fill(part: Part) -> str:
    return f"--shade:{part.shade}%"


def draw(columns: Columns) -> Html:
    """The figure; each piece says its value where the pointer rests on it."""
    totals = [sum(part.values[index] or 0.0 for part in columns.parts) for index in range(len(columns.rounds))]
    largest = [value or 0.0 for part in columns.parts for value in part.values] if columns.side_by_side else totals
    first, last = min(columns.rounds, default=1), max(columns.rounds, default=1)
    x_axis = Axis(columns.x.label, columns.x.unit, first - 0.5, last + 0.5, whole=True)
    frame = Frame(x_axis, columns.y, [], largest, WIDTH, HEIGHT)
    slot = frame.at_x(1) - frame.at_x(0)
    width = min(slot * 0.72, 64.0)
    count = len(columns.parts) if columns.side_by_side else 1
    pieces: list[Html] = []
    for index, round_number in enumerate(columns.rounds):
        base = 0.0
        for place, part in enumerate(columns.parts):
            value = part.values[index]
            if not value:
                continue
            low, high = frame.at_y(base), frame.at_y(base + value)
            left = frame.at_x(round_number) - width / 2 + (place * width / count if columns.side_by_side else 0.0)
            said = f"round {round_number}, {part.name}: {number(value)} {columns.y.unit}"
            pieces.append(
                el(
                    "rect",
                    el("title", said),
                    x=left,
                    y=high,
                    width=max(width / count - 0.8, 0.8),
                    height=max(low - high, 0.6),
                    cls=f"bar {part.css}",
                    style=_fill(part),
                )
            )
            base += 0.0 if columns.side_by_side else value
    picture = el(
        "svg",
        el("title", columns.title),
        frame.grid(),
        pieces,
        role="img",
        cls="chart",
        view_box=f"0 0 {WIDTH:g} {HEIGHT:g}",
    )
    return figure(columns.title, picture, legend(columns.parts), columns.note)


def legend(parts: Sequence[Part]) -> Html:
    """What each shade is."""
    items = []
    for part in parts:
        swatch = el("rect", x=1.0, y=1.0, width=14.0, height=10.0, cls=f"bar {part.css}", style=_fill(part))
        key = el("svg", swatch, width="16", height="12", view_box="0 0 16 12", aria_hidden="true")
        items.append(el("li", key, el("span", part.name)))
    return el("ul", items, cls="legend")
