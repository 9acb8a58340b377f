"""Sections of the report that tell single things: the timeline of events, and a row a client."""

from __future__ import annotations

from statistics import median

from monitoring.report import lanes, scale
from monitoring.report.html import Html, el
from monitoring.report.moments import timeline_lanes
from monitoring.report.parts import SECONDS, missing, section, table
from monitoring.report.story import Story


def timeline_section(story: Story) -> Html:
    """Everything that happened, on one axis, and as a list."""
    if not story.record.events:
        return section("timeline", "Timeline", missing("No events were recorded."))
    drawn = lanes.draw(
        lanes.Timeline(
            "What happened when",
            timeline_lanes(story),
            SECONDS.title,
            "Rest the pointer on a piece to read it. Diamonds are failures.",
        )
    )
    return section("timeline", "Timeline of events", drawn, _listed(story))


def _listed(story: Story) -> Html:
    kept = [event for event in story.record.events if event["kind"] != "client.reply"]
    rows = []
    for event in kept[:2000]:
        detail = "; ".join(
            f"{name} {_short(value)}"
            for name, value in event.items()
            if name not in ("seq", "origin", "time", "monotonic", "node", "run", "kind", "intent")
            and value not in (None, "", [], {})
        )
        rows.append(
            [
                scale.number(float(event["time"]) - story.record.start, 5),
                str(event.get("node") or ""),
                str(event["kind"]),
                detail,
            ]
        )
    left = len(kept) - len(rows)
    said = f"All {len(kept)} events but clients' replies" + (f" (the first {len(rows)})" if left else "")
    return el("details", el("summary", said), table(["time (s)", "node", "event", "details"], rows, numeric=[0]))


def _short(value: object) -> str:
    shown = scale.number(value, 5) if isinstance(value, float) else str(value)
    return shown if len(shown) <= 160 else shown[:157] + "..."


def clients_section(story: Story) -> Html:
    """A row a client; columns sort at a click."""
    if not story.clients:
        return section("clients", "Clients", missing("The run had no clients."))
    head = [
        "client",
        "switch",
        "samples",
        "rounds",
        "train, median (s)",
        "train, longest (s)",
        "straggled",
        "accuracy (%)",
        "loss",
        "down, messages",
        "up, messages",
        "down, interface",
        "up, interface",
        "lost link",
        "failures",
    ]
    rows, keys = [], []
    for item in story.clients:
        times = item.train_seconds
        node = story.record.nodes.get(item.name) or {}
        figures: list[float | None] = [
            item.samples,
            item.rounds,
            median(times) if times else None,
            max(times) if times else None,
            item.stragglers,
            None if item.accuracy is None else item.accuracy * 100,
            item.loss,
            item.bytes_down,
            item.bytes_up,
            item.interface_received,
            item.interface_sent,
            item.left,
            len(item.errors),
        ]
        shown: list[object] = [
            scale.size(value) if 7 <= index <= 10 else scale.number(value, 4) for index, value in enumerate(figures)
        ]
        if item.errors:
            shown[-1] = el("span", str(len(item.errors)), cls="bad", title="\n".join(item.errors))
        rows.append([el("b", item.name), str(node.get("switch") or "–"), *shown])
        keys.append([item.name, str(node.get("switch") or ""), *figures])
    lead = (
        "Message bytes are the serialised FL messages; interface bytes are what the client's network interface counted "
        "from the start to the end of its process, headers and acknowledgements included. "
        "A reply straggles when it takes more than twice the median of its phase. "
        "A link that was lost counts once, whether it came back or not. A click on a heading sorts."
    )
    return section(
        "clients", "Clients", table(head, rows, numeric=range(2, len(head)), sortable=True, keys=keys), lead=lead
    )
