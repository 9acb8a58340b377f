"""The lanes of a run's timeline, made from its events and from changes of the network in its series. Pure."""

from __future__ import annotations

import numpy as np

from monitoring.report import scale
from monitoring.report.lanes import Lane, Moment, Stretch
from monitoring.report.palette import PHASES
from monitoring.report.samples import Sampled
from monitoring.report.story import Story

_STATES = ("accepted", "resolving", "allocating", "starting", "running")


def timeline_lanes(story: Story) -> list[Lane]:
    """Intent, rounds, phases, clients, failures, network and background traffic; empty ones included."""
    return [
        Lane("intent", _intent(story)),
        Lane("rounds", _rounds(story)),
        Lane("phases", _phases(story)),
        Lane("clients", (), _clients(story)),
        Lane("failures", (), _failures(story)),
        Lane("limits", (), _changes(story, "cohortnet_meter_changed_timestamp_seconds", "meter")),
        Lane("links", (), _changes(story, "cohortnet_link_changed_timestamp_seconds", "link")),
        Lane("background", _traffic(story)),
    ]


def _intent(story: Story) -> list[Stretch]:
    found: list[Stretch] = []
    begun: tuple[str, float] | None = None
    for event in story.record.events:
        state = str(event["kind"]).removeprefix("intent.")
        if not str(event["kind"]).startswith("intent.") or state in ("resolved", "allocated", "waiting", "resumed"):
            continue
        now = float(event["time"]) - story.record.start
        if begun:
            found.append(_state(begun, now, story.css))
        begun = (state, now)
    if begun and begun[0] in _STATES:
        found.append(_state(begun, story.record.end - story.record.start, story.css))
    return found


def _state(begun: tuple[str, float], end: float, css: str) -> Stretch:
    state, start = begun
    return Stretch(
        start, end, state, f"intent {state} for {scale.seconds(end - start)}", css, 60 if state == "running" else 25
    )


def _rounds(story: Story) -> list[Stretch]:
    found = []
    for index, item in enumerate(item for item in story.rounds if item.number > 0 and item.start is not None):
        assert item.start is not None
        end = item.end if item.end is not None else story.record.end - story.record.start
        said = f"round {item.number}: {scale.seconds(end - item.start)}, {item.replies} replies, {item.errors} failed"
        found.append(Stretch(item.start, end, str(item.number), said, story.css, 40 if index % 2 else 22))
    return found


def _phases(story: Story) -> list[Stretch]:
    found = []
    for event in story.record.events:
        kind = str(event["kind"])
        phase = str(event.get("phase")) if kind == "phase.finished" else kind.removesuffix(".finished")
        if kind not in ("phase.finished", "aggregate.finished", "server_evaluate.finished"):
            continue
        end, length = float(event["time"]) - story.record.start, float(event.get("seconds") or 0.0)
        shade, said = PHASES.get(phase, (50, phase))
        found.append(
            Stretch(
                end - length,
                end,
                "server" if phase == "server_evaluate" else phase,
                f"round {event.get('round')}, {said}: {scale.seconds(length)}",
                story.css,
                shade,
            )
        )
    return found


def _clients(story: Story) -> list[Moment]:
    found = []
    for event in story.record.events:
        kind = str(event["kind"])
        if kind in ("client.joined", "client.reconnected", "cohort.complete"):
            said = f"{event.get('client') or 'all clients'} {kind.split('.')[1]}"
            if kind == "cohort.complete":
                said = f"all {len(event.get('clients') or [])} clients have joined"
            found.append(Moment(float(event["time"]) - story.record.start, said, story.css))
    return found


def _failures(story: Story) -> list[Moment]:
    found = []
    for event in story.record.events:
        kind, said = str(event["kind"]), ""
        if kind == "client.left":
            said = f"{event.get('client')} left: {event.get('reason') or 'no reason given'}"
        elif kind == "client.reply" and event.get("error"):
            said = f"round {event.get('round')}: {event.get('client')}: {event['error']}"
        elif kind in ("run.failed", "intent.failed"):
            said = f"{kind}: {event.get('error') or event.get('reason') or 'no reason given'}"
        if said:
            found.append(Moment(float(event["time"]) - story.record.start, said[:300], bad=True))
    return found


def _changes(story: Story, metric: str, what: str) -> list[Moment]:
    # The gauge holds the wall time of the last change: each value that lies within the run is one change.
    samples = story.record.samples
    if samples is None:
        return []
    low, high = _window(story)
    found = []
    for item in samples.select(metric):
        for value in np.unique(item.values):
            if low <= value - story.record.start <= high:
                said = f"{what} {item.labels.get(what, '')} changed" + _new_rate(story, item, float(value))
                found.append(Moment(float(value) - story.record.start, said, "kn"))
    return sorted(found, key=lambda moment: moment.time)


def _new_rate(story: Story, item: Sampled, time: float) -> str:
    meter = item.labels.get("meter")
    if story.record.samples is None or not meter:
        return ""
    for rate in story.record.samples.select("cohortnet_meter_rate", meter=meter):
        after = np.flatnonzero(rate.times >= time)
        if len(after) and rate.labels.get("unit") == "bit/s":
            return f": {scale.rate(float(rate.values[after[0]]))} {rate.labels.get('direction', '')}"
    return ""


def _window(story: Story) -> tuple[float, float]:
    # From the first event to the last: samples may begin before and end after them.
    events, start = story.record.events, story.record.start
    return (float(events[0]["time"]) - start, float(events[-1]["time"]) - start) if events else (0.0, 0.0)


def _traffic(story: Story) -> list[Stretch]:
    samples = story.record.samples
    if samples is None:
        return []
    low, high = _window(story)
    found = []
    for item in samples.select("cohortnet_traffic_running"):
        on = np.concatenate([[0], (item.values > 0).astype(int), [0]])
        starts, ends = np.flatnonzero(np.diff(on) == 1), np.flatnonzero(np.diff(on) == -1)
        name = item.labels.get("flow", "")
        target = [
            rate for rate in samples.select("cohortnet_traffic_target_bits_per_second", flow=name) if len(rate.values)
        ]
        said = f"background flow {name}" + (f", {scale.rate(float(target[0].values.max()))}" if target else "")
        for first, last in zip(starts, ends, strict=True):
            begin = max(float(item.times[int(first)]) - story.record.start, low)
            end = min(float(item.times[min(int(last), len(item.times) - 1)]) - story.record.start, high)
            if end < begin:
                continue
            found.append(Stretch(begin, end, name, f"{said}: {scale.seconds(end - begin)}", "kn", 45))
    return found
