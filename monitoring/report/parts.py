"""What all sections of the report are made of: headings, tables, chips, small bars, the axes that charts share."""

from __future__ import annotations

from collections.abc import Sequence

from monitoring.report import scale
from monitoring.report.chart import Axis
from monitoring.report.html import Html, el, text
from monitoring.report.story import Story

SECONDS = Axis("time since the run started", "s")
ROUND = Axis("round", "", whole=True)


def section(name: str, title: str, *children: object, lead: str | Html = "") -> Html:
    """A section with its heading; `name` is its anchor."""
    body = [child if isinstance(child, Html) else text(child) for child in children if child is not None]
    return el("section", el("h2", title), el("p", text(lead), cls="lead") if lead else None, body, id=name)


def missing(sentence: str) -> Html:
    """Says in the place of a picture why there is none."""
    return el("p", sentence, cls="missing")


def chip(story: Story, cohort: str) -> Html:
    """A cohort's name with its colour."""
    return el("span", el("i", cls=f"dot {story.palette.css_class(cohort)}"), story.cohort_name(cohort), cls="chip")


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numeric: Sequence[int] | range = (),
    sortable: bool = False,
    keys: Sequence[Sequence[float | str | None]] | None = None,
) -> Html:
    """A table that scrolls sideways by itself; `keys` are what columns are sorted by where the shown text is not it."""
    columns = set(numeric)
    heads = [
        el(
            "th",
            el("button", name, type="button") if sortable else name,
            scope="col",
            cls="num" if index in columns else None,
        )
        for index, name in enumerate(head)
    ]
    lines = []
    for place, row in enumerate(rows):
        cells = [
            el(
                "td",
                text(cell),
                cls="num" if index in columns else None,
                data_key=None if keys is None or keys[place][index] is None else str(keys[place][index]),
            )
            for index, cell in enumerate(row)
        ]
        lines.append(el("tr", cells))
    return el(
        "div",
        el("table", el("thead", el("tr", heads)), el("tbody", lines), cls="sortable" if sortable else None),
        cls="scroll",
        tabindex="0",
    )


def meter(share: float | None) -> Html:
    """A share as a small bar with its number."""
    if share is None:
        return el("span", "–")
    width = min(max(share, 0.0), 1.0) * 100
    return el(
        "span",
        el("i", style=f"width:{width:.0f}%", cls="full" if share > 0.95 else None),
        el("b", scale.percent(share)),
        cls="gauge",
    )
