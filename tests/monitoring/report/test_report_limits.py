"""Limits of a report: each rate is judged by what was in force when it was measured, and by nothing where nothing was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitoring.report import chart, declared, sampled
from monitoring.report.limits import Limit
from monitoring.report.page import render
from monitoring.report.record import Record, read_record
from monitoring.report.samples import Sampled, Samples
from tests.monitoring.report.made import BEGAN, Made

TIMES = np.arange(-10.0, 50.0)
"""Seconds of the run at which everything was sampled; its events are from -6 to 44."""


def record_of(folder: Path, bits: Any, *meters: Sampled, links: Any = None) -> Record:
    """A run whose server receives so many bit/s in each second, with these series of limits."""
    record = read_record(Made(series=False).write(folder / "run"))
    octets = np.cumsum(np.broadcast_to(bits, TIMES.shape)) / 8
    way = {"link": "fc.10--s1", "a": "fc.10", "b": "s1", "direction": "a_to_b"}
    series = {
        "node_network_receive_bytes_total": [Sampled({"node": "fed.1", "role": "server"}, BEGAN + TIMES, octets)],
        "cohortnet_link_bytes_total": [Sampled(way, BEGAN + TIMES, octets)],
        "cohortnet_meter_rate": list(meters),
        "cohortnet_link_rate_bits_per_second": [] if links is None else [Sampled(way, BEGAN + TIMES, links)],
    }
    record.samples = Samples(series)
    return record


def meter(name: str, rate: float, start: float = -10, end: float = 50, **labels: str) -> Sampled:
    times = np.array([time for time in TIMES if start <= time < end])
    own = {"meter": name, "kind": "cohort", "target": "1", "direction": "up", "unit": "bit/s", "in_force": "drop"}
    return Sampled({**own, **labels}, BEGAN + times, np.full(times.shape, rate))


def up(record: Record) -> sampled.Flow:
    return next(flow for flow in sampled.flows(record) if (flow.cohort, flow.direction) == ("1", "up"))


def row(record: Record, what: str) -> declared.Row:
    return next(row for row in declared.rows(record, [], sampled.flows(record), []) if row.what == what)


def limit_of(record: Record) -> Limit:
    found = up(record).limit
    assert found is not None
    return found


def test_a_meter_set_in_the_run_does_not_judge_what_came_before(tmp_path: Path) -> None:
    record = record_of(tmp_path, np.where(TIMES < 20, 50e6, 0.9e6), meter("m", 1e6, start=20))
    limit = limit_of(record)
    assert np.isnan(limit.at(np.array([-10.0, 0.0, 19.0]))).all()
    assert limit.at(np.array([20.0, 49.0])).tolist() == [1e6] * 2
    assert limit.said == "none → 1 Mbit/s (meter)"
    assert up(record).highest_share == pytest.approx(0.9)
    assert row(record, "meter, up").verdict == "within"


def test_a_meter_removed_in_the_run_does_not_judge_what_came_after(tmp_path: Path) -> None:
    record = record_of(tmp_path, np.where(TIMES < 20, 0.9e6, 50e6), meter("m", 1e6, end=20))
    limit = limit_of(record)
    assert limit.at(np.array([-10.0, 19.0])).tolist() == [1e6] * 2 and np.isnan(limit.at(np.array([20.0, 49.0]))).all()
    assert limit.said == "1 Mbit/s → none (meter)" and "changed once" in row(record, "meter, up").note
    assert row(record, "meter, up").verdict == "within"
    # What it let through while it was there still counts.
    broken = record_of(tmp_path / "broken", 50e6, meter("m", 1e6, end=20))
    assert row(broken, "meter, up").verdict == "above"


def test_of_several_meters_the_tightest_counts_at_each_time(tmp_path: Path) -> None:
    record = record_of(
        tmp_path, np.where((TIMES >= 10) & (TIMES < 20), 1.8e6, 3.5e6),
        meter("wide", 4e6), meter("server", 2e6, 10, 20, kind="server", target="fed.1"),
        meter("other", 1e3, kind="cohort", target="2"), meter("packets", 5, unit="packet/s"),
    )  # fmt: skip
    limit = limit_of(record)
    assert limit.at(np.array([0.0, 10.0, 19.0, 25.0])).tolist() == [4e6, 2e6, 2e6, 4e6]
    assert limit.names == ("wide", "server")
    assert up(record).highest_share == pytest.approx(0.9)


def test_a_meter_that_is_enforced_another_way_goes_on(tmp_path: Path) -> None:
    record = record_of(tmp_path, 0.9e6, meter("m", 1e6, end=20), meter("m", 1e6, start=20, in_force="queue"))
    assert limit_of(record).said == "1 Mbit/s (meter)" and limit_of(record).names == ("m",)


def test_a_meter_that_was_gone_before_the_run_leaves_the_link(tmp_path: Path) -> None:
    assert limit_of(record_of(tmp_path, 1e6, meter("m", 1e6, end=-7))).said == "100 Mbit/s (link)"


@pytest.mark.parametrize(
    ("bits", "rates", "share", "verdict"),
    [
        (np.where(TIMES < 20, 90e6, 9e6), np.where(TIMES < 20, 100e6, 10e6), 0.9, "within"),
        (np.where(TIMES < 20, 9e6, 50e6), np.where(TIMES < 20, 10e6, 100e6), 0.9, "within"),
        (np.where(TIMES < 20, 15e6, 50e6), np.where(TIMES < 20, 10e6, 100e6), 1.5, "above"),
    ],
)
def test_a_link_is_judged_by_the_rate_it_had_at_that_time(
    bits: Any, rates: Any, share: float, verdict: str, tmp_path: Path
) -> None:
    record = record_of(tmp_path, bits, links=rates)
    (use,) = declared.link_uses(record)
    assert use.peak_share == pytest.approx(share)
    found = row(record, "link rate")
    assert found.verdict == verdict and found.declared.count(" → ") == 1 and found.note.startswith(f"{share:.0%}"[:-1])


def test_the_line_of_a_limit_is_drawn_only_while_it_was_in_force(tmp_path: Path) -> None:
    markup = render(record_of(tmp_path, 0.9e6, meter("m", 1e6, 10, 20)))
    assert "none → 1 Mbit/s → none (meter)" in markup and "nan" not in markup.lower().split("<script")[0]
    line = chart.Line("limit", [0, 10, 20, 40], [float("nan"), 1.0, float("nan"), float("nan")], step=True)
    frame = chart.Frame(chart.Axis("t", "s"), chart.Axis("rate", "bit/s"), [0, 40], [0, 1], 560, 270)
    drawn = chart._path(frame, line.x, line.y, step=True)
    assert drawn == f"M{frame.at_x(10):.1f} {frame.at_y(1):.1f}H{frame.at_x(20):.1f}"
