"""Sections of the report that come from series: traffic against limits, RTT, CPU and memory; and of declared
against measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitoring.report import chart, scale
from monitoring.report.chart import Axis, Chart, Line
from monitoring.report.html import Html, el
from monitoring.report.parts import SECONDS, chip, meter, missing, section, table
from monitoring.report.sampled import Flow, Spread
from monitoring.report.samples import Floats
from monitoring.report.story import Story

LIMIT_SHOWN = 4.0
"""A limit more than so many times above all traffic is said in the legend, not drawn: it would flatten the lines."""
NO_SERIES = (
    "Not recorded: this run was made without monitoring. `cohortnet up --monitoring` keeps series with each run."
)
WAYS = {"up": "Up: clients to server", "down": "Down: server to clients"}
VERDICTS = {"within": "good", "reached": "good", "above": "bad", "below": "bad"}


def _list(values: Floats) -> list[float]:
    return [float(value) for value in values]


def _peak(values: Floats | None) -> float:
    return float(np.nanmax(values)) if values is not None and np.isfinite(values).any() else 0.0


def _window(story: Story) -> tuple[float, float]:
    # From the intent's first event to its last, wherever the samples begin and end.
    record = story.record
    first = record.events[0]["time"] if record.events else record.start
    return float(first) - record.start, record.end - record.start


def _axis(story: Story) -> Axis:
    low, high = _window(story)
    return Axis(SECONDS.label, SECONDS.unit, low, high if high > low else None)


def _cut(story: Story, times: Floats, *columns: Floats) -> list[list[float]]:
    low, high = _window(story)
    kept = (times >= low - 1e-9) & (times <= high + 1e-9)
    return [_list(column[kept]) for column in (times, *columns)]


def traffic_section(story: Story) -> Html:
    """Rates by cohort against limits, bytes by round, and the fullest links."""
    parts: list[Html] = []
    if story.flows:
        parts += [_rates(story, direction) for direction in WAYS]
    else:
        parts.append(missing(NO_SERIES if story.record.samples is None else "No traffic of any cohort was sampled."))
    body = [el("div", parts, cls="charts" if story.flows else None)]
    if story.flows:
        step = float(story.flows[0].times[1] - story.flows[0].times[0]) if len(story.flows[0].times) > 1 else 0.0
        said = (
            f"Highest is of steps of {scale.seconds(step)}, and its share is of the limit in force at that time. "
            f"A meter "
            "lets a full burst pass at once, so a short step may lie above its limit."
        )
        body += [el("h3", "Each cohort over the run"), _cohort_table(story), el("p", said, cls="note")]
    if story.links:
        body += [
            el("h3", f"The fullest {min(len(story.links), 12)} of {len(story.links)} link directions"),
            _links(story),
        ]
    lead = (
        "Rates are what arrived at the far end (the server for up, the clients for down) on the emulated network, "
        "headers "
        "included, all cohorts of the testbed during this run. "
        "Thin dotted lines are what was sent into the network by this "
        "run's cohort: where they lie above, something was dropped or waits."
    )
    return section("traffic", "Traffic against limits", *body, lead=lead if story.flows else "")


def _rates(story: Story, direction: str) -> Html:
    flows = [flow for flow in story.flows if flow.direction == direction]
    if not flows:
        return missing(f"{WAYS[direction]}: not sampled.")
    top = max([_peak(flow.arrived_bps) for flow in flows] + [_peak(flow.sent_bps) for flow in flows] + [1.0])
    unit = scale.rate_unit(top)
    lines: list[Line] = []
    untold: list[str] = []
    for flow in flows:
        css, dash = story.palette.css_class(flow.cohort), story.palette.dash(flow.cohort)
        name = story.cohort_name(flow.cohort)
        if flow.arrived_bps is not None:
            x, y = _cut(story, flow.times, flow.arrived_bps / unit.factor)
            lines.append(Line(name, x, y, css, dash))
        if flow.sent_bps is not None and flow.cohort == story.record.cohort:
            x, y = _cut(story, flow.times, flow.sent_bps / unit.factor)
            lines.append(Line(f"{name}, sent", x, y, css, "1 2.5", thinner=True))
        if flow.limit is not None:
            _limit(story, flow, unit, top, lines, untold)
    note = f"Above the chart: {', '.join(untold)}." if untold else ""
    return chart.draw(Chart(WAYS[direction], _axis(story), Axis("rate", unit.name, 0.0), lines, (), story.marks, note))


def _limit(story: Story, flow: Flow, unit: scale.Unit, top: float, lines: list[Line], untold: list[str]) -> None:
    limit = flow.limit
    assert limit is not None
    name = f"limit of cohort {flow.cohort}" if flow.cohort else "limit"
    what = f"{limit.kind} {limit.name}"
    if limit.lowest_bps > LIMIT_SHOWN * top:
        untold.append(f"{name} {scale.rate(limit.lowest_bps)} ({what})")
        return
    low, high = _window(story)
    phases = [(min(max(time, low), high), rate / unit.factor) for time, rate in limit.phases]
    lines.append(
        Line(
            name,
            [*(time for time, _ in phases), high],
            [*(rate for _, rate in phases), phases[-1][1]],
            story.palette.css_class(flow.cohort),
            "9 4",
            thinner=True,
            step=True,
            note=what,
        )
    )


def _cohort_table(story: Story) -> Html:
    rows = []
    for flow in story.flows:
        rates = flow.arrived_bps
        known = rates[np.isfinite(rates)] if rates is not None else np.array([])
        mean = float(known.mean()) if len(known) else None
        dropped = "–" if flow.dropped_packets is None else scale.number(flow.dropped_packets)
        rows.append(
            [
                chip(story, flow.cohort),
                flow.direction,
                scale.size(flow.arrived_bytes),
                scale.rate(mean),
                scale.rate(float(known.max())) if len(known) else "–",
                flow.limit.said if flow.limit else "none known",
                meter(flow.highest_share),
                dropped,
            ]
        )
    head = [
        "cohort",
        "direction",
        "arrived",
        "mean",
        "highest",
        "limit",
        "highest of limit",
        "dropped by its meter (packets)",
    ]
    return table(head, rows, numeric=[2, 3, 4, 5, 7])


def _links(story: Story) -> Html:
    rows = [
        [
            f"{use.sender} → {use.receiver}",
            use.limit.rates if use.limit else "none",
            scale.rate(use.mean_bps),
            scale.rate(use.peak_bps),
            meter(use.peak_share),
            scale.size(use.bytes),
            "–" if use.drops is None else scale.number(use.drops),
        ]
        for use in story.links[:12]
    ]
    head = ["link", "declared rate", "mean", "highest", "highest of declared", "carried", "dropped (packets)"]
    return table(head, rows, numeric=[1, 2, 3, 5, 6])


def latency_section(story: Story) -> Html:
    """RTT and congestion window of the FL flows, by cohort."""
    if not story.trips:
        said = (
            NO_SERIES if story.record.samples is None else "No RTT of FL flows was sampled: no flow lived long enough."
        )
        return section("latency", "Round-trip time", missing(said))
    top = max(_peak(trip.high) for trip in story.trips)
    unit = scale.time_unit(top)
    charts = [
        _spreads(story, "Round-trip time of FL flows", story.trips, Axis("smoothed RTT", unit.name, 0.0), unit.factor)
    ]
    if story.windows:
        charts.append(
            _spreads(story, "Congestion window of FL flows", story.windows, Axis("window", "segments", 0.0), 1.0)
        )
    lead = (
        "As TCP measures it on the FL connections (port 6000): the line is the median of a cohort's flows, the band "
        "reaches from the 5th to the 95th percentile. TCP keeps its last estimate while nothing is sent."
    )
    return section("latency", "Round-trip time", el("div", charts, cls="charts"), lead=lead)


def _spreads(story: Story, title: str, spreads: Sequence[Spread], axis: Axis, factor: float, limit: str = "") -> Html:
    lines = []
    many = len(spreads) > 4
    for item in spreads:
        x, middle, low, high = _cut(story, item.times, item.middle / factor, item.low / factor, item.high / factor)
        # Many bands over one another cannot be told apart: then only the run's own cohort has one.
        band = not many or item.cohort == story.record.cohort
        lines.append(
            Line(
                story.cohort_name(item.cohort),
                x,
                middle,
                story.palette.css_class(item.cohort),
                story.palette.dash(item.cohort),
                low=low if band else None,
                high=high if band else None,
            )
        )
    limits = {item.limit for item in spreads if item.limit}
    note = ""
    if limits and limit:
        note = f"Limit: {', '.join(f'{scale.number(value / factor)} {axis.unit}' for value in sorted(limits))} {limit}."
    return chart.draw(Chart(title, _axis(story), axis, lines, (), story.marks, note))


def nodes_section(story: Story) -> Html:
    """CPU and memory of servers and clients, by cohort."""
    if not story.processors and not story.memories:
        said = NO_SERIES if story.record.samples is None else "Neither CPU nor memory was sampled."
        return section("nodes", "CPU and memory", missing(said))
    charts = []
    for role, name in (("server", "FL servers"), ("client", "Clients")):
        for spreads, what in ((story.processors, "CPU"), (story.memories, "memory")):
            chosen = [item for item in spreads if item.role == role]
            if not chosen:
                charts.append(missing(f"{name}, {what}: not sampled."))
                continue
            unit = (
                scale.memory_unit(max(_peak(item.high) for item in chosen)) if what == "memory" else scale.Unit("cores")
            )
            axis = Axis("working set" if what == "memory" else "processor time", unit.name, 0.0)
            charts.append(
                _spreads(
                    story,
                    f"{name}: {what}",
                    chosen,
                    axis,
                    unit.factor,
                    "a node" if role == "client" else "for the server",
                )
            )
    lead = (
        "A line is the mean of a cohort's nodes, the band reaches from its lowest to its highest. Pages that several "
        "nodes share are charged to the node that touched them first."
    )
    return section("nodes", "CPU and memory", el("div", charts, cls="charts"), lead=lead)


def declared_section(story: Story) -> Html:
    """The comparison table."""
    if not story.rows:
        return section(
            "declared", "Declared against measured", missing("The record holds nothing that could be compared.")
        )
    rows = [
        [
            row.what,
            row.subject,
            row.declared,
            row.measured,
            el("span", row.verdict, cls=f"verdict {VERDICTS.get(row.verdict, 'warn')}"),
            row.note,
        ]
        for row in story.rows
    ]
    lead = (
        "A rate is within its limit up to 5 % above it, a meter's also where its burst explains the excess. "
        "A limit of which "
        "less than 70 % was ever used, and which dropped nothing, was not put to the test."
    )
    if story.record.samples is None:
        lead += " Without series, rates, RTT and limits of nodes cannot be compared."
    head = ["what", "of", "declared", "measured", "verdict", "note"]
    return section("declared", "Declared against measured", table(head, rows, numeric=[2, 3]), lead=lead)
