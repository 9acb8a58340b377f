"""Sections of the report that come from events: headline, learning, durations and messages by round."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from monitoring.report import bars, chart, learning, scale
from monitoring.report.chart import Axis, Chart, Dots, Line
from monitoring.report.html import Html, el
from monitoring.report.palette import PHASES, SOURCES
from monitoring.report.parts import ROUND, SECONDS, chip, missing, section, table
from monitoring.report.story import Story

STATES = {"succeeded": "good", "failed": "bad", "cancelled": "warn", "interrupted": "warn"}


def headline(story: Story) -> Html:
    """Title, state and the figures that a meeting asks for first."""
    record = story.record
    intent = record.intent
    reason = str(intent.get("reason") or "")
    facts = [
        chip(story, record.cohort) if record.cohort else None,
        el("span", "server ", el("b", record.server)) if record.server else None,
        el("span", f"{len(record.clients)} clients"),
        el("span", "testbed ", el("b", str(record.manifest.get("testbed") or "unknown"))),
        el("span", f"{record.manifest.get('runtime') or 'unknown'} runtime"),
        el("span", scale.clock(record.start) if record.start else "time unknown"),
    ]
    badge = el("span", record.state, cls=f"badge {STATES.get(record.state, 'warn')}")
    title = el("div", el("p", "Run ", record.run, cls="kicker"), el("h1", _title(story), " ", badge))
    notes = [el("p", reason, cls="reason" + (" bad" if record.state == "failed" else ""))] if reason else []
    faults = intent.get("nodes_at_fault") or []
    if faults:
        notes.append(el("p", "Nodes at fault: ", ", ".join(map(str, faults)), cls="reason bad"))
    return el(
        "header", title, el("p", [fact for fact in facts if fact], cls="facts"), notes, tiles(story), id="headline"
    )


def _title(story: Story) -> str:
    intent = story.record.intent
    config = intent.get("config") or {}
    what = str(intent.get("intentID") or story.record.run)
    trained = " on ".join(str(config[name]) for name in ("model", "dataset") if config.get(name))
    return f"{what}: {trained}" if trained else what


def tiles(story: Story) -> Html:
    """The figures."""
    done = [item for item in story.rounds if item.number > 0 and item.replies]
    asked = (story.record.intent.get("config") or {}).get("num-server-rounds")
    durations = [item.seconds["round"] for item in done if "round" in item.seconds]
    down, up = (sum(getattr(item, name) for item in story.rounds) for name in ("bytes_down", "bytes_up"))
    finished = next((event for event in story.record.events if event["kind"] == "run.finished"), {})
    length = finished.get("seconds") or (story.record.end - story.record.start if story.record.events else None)
    found = [_best(story, "accuracy"), _best(story, "loss")]
    found.append(
        (
            "Rounds",
            f"{len(done)} of {asked}" if asked is not None else str(len(done)),
            f"median {scale.seconds(median(durations))} a round" if durations else "no round ended",
        )
    )
    found.append(
        (
            "Duration",
            scale.seconds(length),
            "from the start of the run to its end" if finished else "until the last event; the run did not finish",
        )
    )
    found.append(("Clients to server", scale.size(up), "message bytes, all rounds"))
    found.append(("Server to clients", scale.size(down), "message bytes, all rounds"))
    errors = sum(len(item.errors) for item in story.clients)
    stragglers = sum(item.stragglers for item in story.clients)
    found.append(
        ("Failed replies", str(errors), f"and {stragglers} straggling repl{'y' if stragglers == 1 else 'ies'}")
    )
    return el(
        "dl",
        [el("div", el("dt", name), el("dd", value), el("small", note)) for name, value, note in found],
        cls="tiles",
    )


def _best(story: Story, kind: str) -> tuple[str, str, str]:
    found = learning.headline(story.rounds, kind)
    if found is None:
        return kind.capitalize(), "–", "no evaluation was recorded"
    source, number, value = found
    shown = scale.percent(value) if kind == "accuracy" else scale.number(value)
    return kind.capitalize(), shown, f"{SOURCES[source][2]}, round {number}"


def learning_section(story: Story) -> Html:
    """Accuracy and loss, by round and by time."""
    charts = []
    for kind in ("accuracy", "loss"):
        for by_time in (False, True):
            drawn = _learned(story, kind, by_time=by_time)
            charts.append(drawn if drawn else missing(f"No {kind} was recorded."))
            if not drawn:
                break
    lead = (
        "Round 0 is the model before any training. Points without a line are the single clients' own evaluations; "
        "upright lines mark where rounds began."
    )
    return section("learning", "Accuracy and loss", el("div", charts, cls="charts"), lead=lead)


def _learned(story: Story, kind: str, *, by_time: bool) -> Html | None:
    lines = []
    for source in (name for name in SOURCES if name in learning.SOURCES):
        points = [
            (item.number, *(item.accuracy if kind == "accuracy" else item.loss)[source])
            for item in story.rounds
            if source in (item.accuracy if kind == "accuracy" else item.loss)
        ]
        if points:
            dash, shape, said = SOURCES[source]
            x = [point[1] if by_time else float(point[0]) for point in points]
            factor = 100.0 if kind == "accuracy" else 1.0
            lines.append(Line(source, x, [point[2] * factor for point in points], story.css, dash, shape, note=said))
    if not lines:
        return None
    own = [
        (number, now, value)
        for client in story.clients
        for number, now, value in (client.accuracies if kind == "accuracy" else client.losses)
    ]
    factor = 100.0 if kind == "accuracy" else 1.0
    dots = (
        [
            Dots(
                "each client",
                [now if by_time else float(number) for number, now, _ in own],
                [value * factor for _, _, value in own],
                story.css,
            )
        ]
        if own
        else []
    )
    values = [value for line in lines for value in line.y] + [value for item in dots for value in item.y]
    y = (
        Axis("accuracy", "%", 0.0, 100.0 if max(values) > 50 else None)
        if kind == "accuracy"
        else Axis("loss (application's unit)", "", 0.0)
    )
    x_axis = Axis(SECONDS.label, SECONDS.unit, 0.0) if by_time else ROUND
    title = f"{kind.capitalize()} by {'time' if by_time else 'round'}"
    return chart.draw(Chart(title, x_axis, y, lines, dots, story.marks if by_time else ()))


def durations_section(story: Story) -> Html:
    """How long each round took, by phase; and the messages of each round."""
    listed = [item for item in story.rounds if item.number > 0 and item.seconds]
    if not listed:
        return section(
            "durations", "Durations by phase, and messages", missing("No round ended, so there are no durations.")
        )
    parts = [
        bars.Part(said, [item.seconds.get(phase) for item in listed], story.css, shade)
        for phase, (shade, said) in PHASES.items()
        if any(item.seconds.get(phase) for item in listed)
    ]
    told = any("server_evaluate" in item.seconds for item in listed)
    note = (
        ""
        if told
        else (
            "This record has no events for aggregation and the server's own evaluation: they are within "
            "what lies between the phases."
        )
    )
    column = bars.draw(
        bars.Columns("Duration of each round", [item.number for item in listed], Axis("duration", "s"), parts, note)
    )
    return section(
        "durations",
        "Durations by phase, and messages",
        el("div", column, _messages(story), cls="charts"),
        el("h3", "Where the time went"),
        _slowest(listed),
    )


def _messages(story: Story) -> Html:
    listed = [item for item in story.rounds if item.number > 0 and (item.bytes_down or item.bytes_up)]
    if not listed:
        return missing("No messages were exchanged.")
    unit = scale.size_unit(max(max(item.bytes_down, item.bytes_up) for item in listed))
    parts = [
        bars.Part("down: server to clients", [item.bytes_down / unit.factor for item in listed], story.css, 100),
        bars.Part("up: clients to server", [item.bytes_up / unit.factor for item in listed], story.css, 45),
    ]
    return bars.draw(
        bars.Columns(
            "FL messages of each round",
            [item.number for item in listed],
            Axis("message bytes, all clients", unit.name),
            parts,
            side_by_side=True,
        )
    )


def _slowest(listed: Sequence[learning.Round]) -> Html:
    rows = []
    for phase, (_, said) in PHASES.items():
        values = [item.seconds[phase] for item in listed if phase in item.seconds]
        whole = sum(item.seconds.get("round", 0.0) for item in listed)
        if values:
            share = sum(values) / whole if whole else None
            rows.append(
                [
                    said,
                    scale.seconds(median(values)),
                    scale.seconds(max(values)),
                    scale.seconds(sum(values)),
                    scale.percent(share),
                ]
            )
    head = ["phase", "median", "longest", "in total", "share of all rounds"]
    return table(head, rows, numeric=range(1, 5))
