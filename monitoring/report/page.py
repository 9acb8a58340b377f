"""The page: style, script, sections in order, the record itself at the end. Writes one file and reads only the record.

A Content-Security-Policy in the page forbids every request, so that it shows the same wherever it is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from monitoring.report import palette, scale
from monitoring.report.html import Html, el, join
from monitoring.report.parts import section, table
from monitoring.report.record import Record, read_record
from monitoring.report.sections_events import clients_section, timeline_section
from monitoring.report.sections_learning import durations_section, headline, learning_section
from monitoring.report.sections_network import declared_section, latency_section, nodes_section, traffic_section
from monitoring.report.story import Story, tell

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def gaps_section(story: Story) -> Html:
    """What is not in this report, and why."""
    absent = list(story.record.absent)
    not_applied = story.record.manifest.get("not_applied") or []
    if not_applied:
        absent.append(f"Not applied, because this kernel cannot: {', '.join(map(str, not_applied))}.")
    absent += _series_gaps(story.record.manifest.get("series") or {})
    if not absent:
        return section("gaps", "What was not recorded", el("p", "Nothing is known to be missing from this record."))
    return section("gaps", "What was not recorded", el("ul", [el("li", sentence) for sentence in absent]))


def _series_gaps(kept: Mapping[str, Any]) -> list[str]:
    """What the manifest says of the series that were kept: errors, gaps, thinning."""
    found = []
    if kept.get("error"):
        found.append(f"The time series could not be kept: {kept['error']}")
    if kept.get("missed_scrapes"):
        found.append(
            f"{kept['missed_scrapes']} scrapes of single targets failed or came too late: lines have gaps there."
        )
    if kept.get("overruns"):
        found.append(
            f"{kept['overruns']} collections were slower or later than the sampling period of "
            f"{scale.seconds(kept.get('period_s'))} allows."
        )
    if kept.get("thinned_step_s"):
        found.append(f"Long series were thinned to one sample each {scale.seconds(kept['thinned_step_s'])}.")
    if kept.get("left_out"):
        found.append(f"Left out of the series: {', '.join(map(str, kept['left_out']))}.")
    return found


def manifest_section(story: Story) -> Html:
    """What the run was made on and from, and the files of the record."""
    record = story.record
    rows = [[name, value] for name, value in _flat("", {k: v for k, v in record.manifest.items() if k != "intent"})]
    asked = [
        [name, value]
        for name, value in _flat(
            "", {k: v for k, v in record.intent.items() if k not in ("document", "pipeline", "clients")}
        )
    ]
    parts: list[Html] = [
        table(["machine and network", "value"], rows),
        el("details", el("summary", "The intent as it was resolved"), table(["intent", "value"], asked)),
    ]
    for name, text in record.texts.items():
        parts.append(el("details", el("summary", name), el("pre", text, tabindex="0")))
    parts.append(
        el(
            "details",
            el("summary", "manifest.json"),
            el("pre", json.dumps(record.manifest, indent=1), tabindex="0"),
            cls="screen",
        )
    )
    listed = [[name, scale.size(size)] for name, size in record.files[:400]]
    more = f" (the first {len(listed)})" if len(record.files) > len(listed) else ""
    parts.append(
        el(
            "details",
            el("summary", f"{len(record.files)} files of the record{more}"),
            table(["file", "size"], listed, numeric=[1]),
        )
    )
    return section("manifest", "Manifest", *parts)


def _flat(prefix: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [
            pair for name, item in value.items() for pair in _flat(f"{prefix}.{name}" if prefix else str(name), item)
        ]
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        value = ", ".join(str(item) for item in value) or "none"
    elif isinstance(value, list):
        value = json.dumps(value)
    return [(prefix, "–" if value is None else str(value))]


SECTIONS: list[tuple[str, str, Callable[[Story], Html]]] = [
    ("learning", "Learning", learning_section),
    ("durations", "Durations", durations_section),
    ("traffic", "Traffic", traffic_section),
    ("latency", "RTT", latency_section),
    ("nodes", "CPU and memory", nodes_section),
    ("timeline", "Timeline", timeline_section),
    ("clients", "Clients", clients_section),
    ("declared", "Declared and measured", declared_section),
    ("gaps", "Not recorded", gaps_section),
    ("manifest", "Manifest", manifest_section),
]
"""Anchor, name in the list of contents, and what makes it."""


def _resource(name: str) -> str:
    return files("monitoring.report").joinpath(name).read_text(encoding="utf-8")


def render(record: Record) -> str:
    """The whole page."""
    story = tell(record)
    contents = el(
        "nav",
        [el("a", name, href=f"#{anchor}") for anchor, name, _ in SECTIONS],
        el("button", "Light / dark", type="button", id="theme", hidden=True),
        aria_label="Sections",
    )
    foot = el(
        "footer",
        f"Cohortnet report of the record in {record.folder.name}/. Times are UTC; bytes and rates are decimal, "
        "memory is binary. Made from the record alone.",
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name_="color-scheme", content="light dark"),
        el("title", f"{record.run}: {record.state}"),
        el("style", Html(palette.css() + _resource("page.css"))),
    )
    body = el(
        "body",
        el("main", headline(story), contents, [make(story) for _, _, make in SECTIONS], foot),
        el("div", id="tip", hidden=True),
        el("script", Html(_resource("page.js"))),
    )
    return "<!doctype html>\n" + join(el("html", head, body, lang="en")) + "\n"


def write_report(folder: Path, out: Path) -> Path:
    """Make the report of the record in `folder` and write it in one step; gives `out`.

    Raises:
        RecordUnreadable: the folder holds no record.
        OSError: `out` cannot be written.
    """
    page = render(read_record(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.new")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, out)
    return out
