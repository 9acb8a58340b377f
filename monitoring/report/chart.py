"""Line charts as SVG. Takes numbers in the units of their axes, gives markup; knows nothing of runs or networks.

An axis without a label cannot be made: both are required, with their units. Colours come from the classes of `palette`;
positions and values of the lines are left in the page for the cross-hair of `script.js`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.report.html import Html, el, text
from monitoring.report.scale import number, thin, tick_text, ticks

WIDTH, HEIGHT = 560.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 26.0, 44.0


@dataclass(frozen=True)
class Line:
    """One line. NaN in `y` is a gap. `low` and `high` draw a band behind it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    css: str = "k0"
    dash: str = ""
    marker: str = ""
    """circle, square, diamond or nothing."""
    thinner: bool = False
    step: bool = False
    """Holds a value until the next one (a limit that was changed)."""
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    note: str = ""
    """Said in the legend behind the name."""


@dataclass(frozen=True)
class Dots:
    """Points without a line: each client's own value."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    css: str = "k0"


@dataclass(frozen=True)
class Axis:
    """`label` names the quantity and `unit` its unit ("" only for counted things and shares, said in the label)."""

    label: str
    unit: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    """Ticks are whole numbers (rounds)."""

    @property
    def title(self) -> str:
        """Label and unit as they stand beside the axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Chart:
    """A chart with its title; `marks` are upright lines at x, with a text each ("" for none)."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    dots: Sequence[Dots] = ()
    marks: Sequence[tuple[float, str]] = ()
    note: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    legend: bool = True


class Frame:
    """The plot's rectangle with its axes: from values to positions."""

    def __init__(self, x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float], width: float, height: float) -> None:
        self.x_axis, self.y_axis = x, y
        self.width, self.height = width, height
        self.right, self.bottom = width - RIGHT, height - BOTTOM
        low = min([*ys, 0.0]) if y.low is None else y.low
        high = max([*ys, low]) if y.high is None else y.high
        self.y_ticks = ticks(low, high if high > low else low + 1.0, 5, whole=y.whole)
        x_low = min(xs, default=0.0) if x.low is None else x.low
        x_high = max(xs, default=1.0) if x.high is None else x.high
        if x_high <= x_low:
            x_low, x_high = x_low - 0.5, x_low + 0.5
        room = 0.02 * (x_high - x_low) if x.whole else 0.0
        self.x_low, self.x_high = x_low - room, x_high + room
        fitting = ticks(x_low, x_high, 8, whole=x.whole)
        self.x_step = fitting[1] - fitting[0]
        self.x_ticks = [tick for tick in fitting if self.x_low - 1e-9 <= tick <= self.x_high + 1e-9]

    def at_x(self, value: float) -> float:
        """Position of a value on the horizontal axis."""
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - LEFT)

    def at_y(self, value: float) -> float:
        """Position of a value on the upright axis, kept inside the plot."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.bottom - share * (self.bottom - TOP)

    def grid(self) -> Html:
        """Grid, ticks and the titles of both axes."""
        parts: list[Html] = []
        step = self.y_ticks[1] - self.y_ticks[0]
        for tick in self.y_ticks:
            y = self.at_y(tick)
            parts.append(el("path", d=f"M{LEFT:.1f} {y:.1f}H{self.right:.1f}", cls="grid" if tick else "zero"))
            parts.append(el("text", tick_text(tick, step), x=LEFT - 7, y=y + 3.7, cls="tick end"))
        for tick in self.x_ticks:
            x = self.at_x(tick)
            parts.append(el("path", d=f"M{x:.1f} {self.bottom:.1f}v4", cls="axis"))
            parts.append(el("text", tick_text(tick, self.x_step), x=x, y=self.bottom + 17, cls="tick middle"))
        parts.append(el("path", d=f"M{LEFT:.1f} {self.bottom:.1f}H{self.right:.1f}", cls="axis"))
        parts.append(el("text", self.y_axis.title, x=4.0, y=13.0, cls="axis-title"))
        parts.append(el("text", self.x_axis.title, x=self.right, y=self.height - 6, cls="axis-title end"))
        return Html("".join(parts))


def _known(values: Sequence[float] | None) -> list[float]:
    return [value for value in values or () if math.isfinite(value)]


def _path(frame: Frame, x: Sequence[float], y: Sequence[float], *, step: bool = False) -> str:
    parts: list[str] = []
    drawing = False
    for px, py in zip(x, y, strict=True):
        if not math.isfinite(py):
            if drawing and step:  # it held until here
                parts.append(f"H{frame.at_x(px):.1f}")
            drawing = False
            continue
        if drawing and step:
            parts.append(f"H{frame.at_x(px):.1f}V{frame.at_y(py):.1f}")
        else:
            parts.append(f"{'L' if drawing else 'M'}{frame.at_x(px):.1f} {frame.at_y(py):.1f}")
        drawing = True
    return "".join(parts)


def _band(frame: Frame, line: Line) -> Html:
    if line.low is None or line.high is None:
        return Html("")
    # Stretches without a gap, each a closed shape: along the top, back along the bottom.
    parts: list[str] = []
    stretch: list[tuple[float, float, float]] = []
    for x, low, high in [*zip(line.x, line.low, line.high, strict=True), (0.0, math.nan, math.nan)]:
        if math.isfinite(low) and math.isfinite(high):
            stretch.append((frame.at_x(x), frame.at_y(low), frame.at_y(high)))
            continue
        if len(stretch) > 1:
            there = "L".join(f"{px:.1f} {top:.1f}" for px, _, top in stretch)
            back = "L".join(f"{px:.1f} {bottom:.1f}" for px, bottom, _ in reversed(stretch))
            parts.append(f"M{there}L{back}Z")
        stretch = []
    return el("path", d="".join(parts), cls=f"band {line.css}") if parts else Html("")


def marker(kind: str, x: float, y: float, css: str) -> Html:
    """A point's marker; the shape says what the colour alone would not."""
    if kind == "circle":
        return el("circle", cx=x, cy=y, r=3.4, cls=f"mark {css}")
    if kind == "square":
        return el("rect", x=x - 3.1, y=y - 3.1, width=6.2, height=6.2, cls=f"mark {css}")
    if kind == "diamond":
        return el("path", d=f"M{x:.1f} {y - 4.3:.1f}l4.3 4.3-4.3 4.3-4.3-4.3z", cls=f"mark {css}")
    return Html("")


def _draw(frame: Frame, line: Line) -> Html:
    x, y = (list(line.x), list(line.y)) if line.step or line.low is not None else thin(line.x, line.y)
    if line.step and x:
        x, y = [*x, max(frame.x_high, x[-1])], [*y, y[-1]]
    css = f"line {line.css}" + (" thinner" if line.thinner else "")
    parts = [_band(frame, line)]
    parts.append(el("path", d=_path(frame, x, y, step=line.step), cls=css, stroke_dasharray=line.dash or None))
    if line.marker and len(x) <= 80:
        parts += [
            marker(line.marker, frame.at_x(px), frame.at_y(py), line.css)
            for px, py in zip(x, y, strict=True)
            if math.isfinite(py)
        ]
    elif sum(map(math.isfinite, y)) == 1 and not line.step:  # a lone sample has no line
        parts += [
            marker("circle", frame.at_x(px), frame.at_y(py), line.css)
            for px, py in zip(x, y, strict=True)
            if math.isfinite(py)
        ]
    return Html("".join(parts))


def legend(lines: Sequence[Line | Dots]) -> Html:
    """What each line is, with a sample of it; wraps where the page is narrow."""
    items = []
    for line in lines:
        if isinstance(line, Dots):
            sample = el("path", d="M6 6h0M14 4h0M22 7h0", cls=f"dots {line.css}")
            note = ""
        else:
            css = f"line {line.css}" + (" thinner" if line.thinner else "")
            sample = Html(
                el("path", d="M1 6H27", cls=css, stroke_dasharray=line.dash or None)
                + marker(line.marker, 14.0, 6.0, line.css)
            )
            if line.low is not None:
                sample = Html(el("rect", x=1.0, y=1.0, width=26.0, height=10.0, cls=f"band {line.css}") + sample)
            note = line.note
        key = el("svg", sample, width="28", height="12", view_box="0 0 28 12", aria_hidden="true")
        items.append(el("li", key, el("span", line.name), el("small", note) if note else None))
    return el("ul", items, cls="legend")


def _hover(chart: Chart, frame: Frame) -> str:
    lines = []
    for line in chart.lines:
        x, y = thin(line.x, line.y, 300)
        # Where a step has no value its last one would hold on: it ends in a point that says nothing.
        known = [(px, py) for px, py in zip(x, y, strict=True) if math.isfinite(py) or line.step]
        if known:
            lines.append(
                {
                    "n": line.name,
                    "c": line.css,
                    "s": int(line.step),
                    "p": [
                        [round(frame.at_x(px), 1), round(frame.at_y(py), 1), number(px, 4), number(py, 4)]
                        if math.isfinite(py)
                        else [round(frame.at_x(px), 1), frame.bottom, number(px, 4), ""]
                        for px, py in known
                    ],
                }
            )
    return json.dumps(
        {"x": chart.x.title, "u": chart.y.unit, "b": [TOP, frame.bottom], "l": lines},
        ensure_ascii=False,
        separators=(",", ":"),
    )


def draw(chart: Chart) -> Html:
    """The figure: title, legend, plot and note."""
    xs = [value for line in chart.lines for value in line.x] + [value for dots in chart.dots for value in dots.x]
    ys = [value for line in chart.lines for part in (line.y, line.low, line.high) for value in _known(part)]
    ys += [value for dots in chart.dots for value in _known(dots.y)]
    frame = Frame(chart.x, chart.y, xs, ys, chart.width, chart.height)
    parts = [frame.grid()]
    for x, label in chart.marks:
        if frame.x_low <= x <= frame.x_high:
            parts.append(el("path", d=f"M{frame.at_x(x):.1f} {TOP:.1f}V{frame.bottom:.1f}", cls="upright"))
            parts.append(el("text", label, x=frame.at_x(x) + 3, y=TOP + 9, cls="mark-text") if label else Html(""))
    for dots in chart.dots:
        points = "".join(
            f"M{frame.at_x(x):.1f} {frame.at_y(y):.1f}h0"
            for x, y in zip(dots.x, dots.y, strict=True)
            if math.isfinite(y)
        )
        parts.append(el("path", d=points, cls=f"dots {dots.css}"))
    parts += [_draw(frame, line) for line in chart.lines]
    picture = el(
        "svg",
        el("title", chart.title),
        parts,
        el("g", cls="hover"),
        role="img",
        cls="chart",
        view_box=f"0 0 {chart.width:g} {chart.height:g}",
        data_points=_hover(chart, frame),
    )
    named: list[Line | Dots] = [*chart.lines, *chart.dots]
    return figure(chart.title, picture, legend(named) if chart.legend and named else None, chart.note)


def figure(title: str, picture: Html, key: Html | None = None, note: str | Html = "", *, wide: bool = False) -> Html:
    """A picture with what is said around it; scrolls by itself where the page is narrower than it can be read."""
    return el(
        "figure",
        el("figcaption", el("h3", title), key),
        el("div", picture, cls="scroll", tabindex="0"),
        el("p", text(note), cls="note") if note else None,
        cls="wide" if wide else None,
    )
