"""The numbers of a report: rates keep every byte, gaps stay gaps, limits count as they were in force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.report import declared, learning, palette, sampled, scale
from monitoring.report.html import el, script_data
from monitoring.report.limits import always
from monitoring.report.record import read_record
from monitoring.report.samples import Sampled, Samples, spread, summed_rate
from tests.monitoring.report.made import LIMIT, Made


def counter(times: list[float], values: list[float], **labels: str) -> Sampled:
    return Sampled(labels, np.array(times), np.array(values))


def test_rates_of_nodes_sampled_at_other_times_keep_every_byte() -> None:
    one, two = counter([0, 5, 10, 15], [0, 100, 100, 700]), counter([2, 7, 12], [50, 60, 90])
    rates = summed_rate([one, two], np.arange(0, 15.1, 2.5))
    assert rates is not None
    assert np.nansum(rates) * 2.5 == pytest.approx(700 + 40)


def test_a_counter_that_restarted_goes_on_and_a_gap_is_no_zero() -> None:
    item = counter([0, 1, 2, 3, 4, 14, 15], [10, 20, 30, 5, 15, 20, 30])
    assert item.growth() == 10 + 10 + 5 + 10 + 5 + 10
    rates = summed_rate([item], np.arange(0, 15.1, 1.0))
    assert rates is not None
    assert rates[1:5].tolist() == [10, 10, 5, 10]
    assert np.isnan(rates[6:13]).all() and rates[15] == 10


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=40))
def test_quantiles_of_one_gauge_are_its_samples(values: list[float]) -> None:
    times = np.arange(len(values), dtype=float)
    found = spread([Sampled({}, times, np.array(values))], times, (0.0, 0.5, 1.0))
    assert found is not None and all(part.tolist() == pytest.approx(values) for part in found)


def test_a_record_becomes_the_numbers_that_were_put_into_it(tmp_path: pytest.TempPathFactory) -> None:
    record = read_record(Made().write(tmp_path / "run"))  # type: ignore[operator]
    rounds = learning.rounds(record.events, record.start)
    assert [item.number for item in rounds] == [0, 1, 2, 3, 4]
    assert rounds[2].seconds == pytest.approx(
        {"train": 5.0, "aggregate": 0.1, "evaluate": 0.9, "server_evaluate": 1.0, "round": 7.5, "rest": 0.5}
    )
    assert learning.headline(rounds, "accuracy") == ("server", 4, pytest.approx(0.8))
    clients = learning.clients(record.events, record.clients, record.start)
    assert [client.stragglers for client in clients] == [0, 0, 0, 4]
    flows = {(flow.cohort, flow.direction): flow for flow in sampled.flows(record)}
    for cohort, rate in (("1", 1e6), ("2", 2e6)):
        arrived = flows[(cohort, "up")].arrived_bps
        assert arrived is not None and np.nanmean(arrived) == pytest.approx(rate, rel=1e-6)
    up = flows[("1", "up")]
    assert up.limit is not None and up.limit.rates_bps == [LIMIT, LIMIT / 4]
    assert up.highest_share == pytest.approx(1e6 / (LIMIT / 4)), "of the limit that was in force, not of the first"
    trips = sampled.round_trips(record)
    assert trips[0].extra["lowest"] == pytest.approx(0.020) and np.nanmax(trips[0].high) < 0.024
    rows = {(row.what, row.subject): row for row in declared.rows(record, rounds, sampled.flows(record), trips)}
    assert rows[("meter, up", "cohort 1 (m)")].verdict == "above", "twice the limit for 30 s is no burst"
    assert rows[("rounds", "the run")].verdict == "reached"
    delay = rows[("delay there and back", "fed.1 ↔ its clients")]
    assert (delay.declared, delay.measured, delay.verdict) == ("16 ms", "20 ms", "reached")


@pytest.mark.parametrize(
    ("peak", "seconds", "verdict"),
    [(0.5, 60, "not tested"), (0.95, 60, "within"), (1.8, 1, "within"), (1.8, 20, "above")],
)
def test_a_meter_is_judged_with_its_burst(
    peak: float, seconds: int, verdict: str, tmp_path: pytest.TempPathFactory
) -> None:
    record = read_record(Made(series=False).write(tmp_path / "run"))  # type: ignore[operator]
    rates = np.zeros(120)
    rates[30 : 30 + seconds] = LIMIT * peak
    limit = always("meter", [("m", float(LIMIT))])
    flow = sampled.Flow("1", "up", np.arange(120.0), rates, limit=limit)
    (row,) = (row for row in declared.rows(record, [], [flow], []) if row.what == "meter, up")
    assert row.verdict == verdict, row


def test_series_without_samples_are_no_series() -> None:
    assert Samples({}).grid().size == 0 and summed_rate([], np.arange(5.0)) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234567.0, "1\u202f234\u202f567"),
        (0.001234, "0.00123"),
        (99.94, "99.9"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_numbers_for_people(value: float | None, text: str) -> None:
    assert scale.number(value, 7 if value and value > 1e6 else 3) == text


@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9))
def test_ticks_are_few_even_and_cover_the_values(low: float, span: float) -> None:
    ticks = scale.ticks(low, low + span)
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= 12 and np.allclose(steps, steps[0], rtol=1e-3)
    assert ticks[0] <= low + 1e-6 * span + 1e-9 * abs(low) and ticks[-1] >= low + span * (1 - 1e-6) - 1e-9 * abs(low)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("place", "ground"), [(1, "#ffffff"), (2, "#14171c")])
def test_every_hue_is_seen_on_its_ground(place: int, ground: str) -> None:
    for hue in palette.HUES:
        light, dark = sorted((luminance(hue[place]), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3.0, f"{hue[0]} on {ground}"


def test_more_cohorts_than_hues_differ_by_their_dash() -> None:
    order = palette.Palette(str(number) for number in range(1, 19))
    looks = {(order.css_class(str(number)), order.dash(str(number))) for number in range(1, 19)}
    assert len(looks) == 18


def test_text_is_escaped_wherever_it_meets_markup() -> None:
    assert el("a", "<b>", href='"><i>') == '<a href="&quot;&gt;&lt;i&gt;">&lt;b&gt;</a>'
    assert "</script" not in script_data('{"a": "</script><!--"}')


def test_a_lost_link_counts_once_whether_it_comes_back_or_not() -> None:
    happened = (
        ("client.joined", "c0", {}),
        ("client.left", "c0", {"final": False}),
        ("client.reconnected", "c0", {}),
        ("client.left", "c0", {"final": False}),
        ("client.left", "c0", {"final": True}),
        ("client.left", "c1", {"final": True}),
        ("client.joined", "c1", {}),
        ("run.finished", "", {}),
        ("client.left", "c1", {"final": True}),
    )
    events = [{"kind": kind, "client": name, "time": 1.0, **more} for kind, name, more in happened]
    assert {item.name: item.left for item in learning.clients(events, ["c0", "c1"], 0.0)} == {"c0": 2, "c1": 1}
