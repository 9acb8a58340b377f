"""What patterns promise: the declared mean, no gaps, the same again from the same seed, entry at any moment."""

from __future__ import annotations

from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.traffic.schedule import LEAST_STEP_S, Pattern, Segment, peak_bps, segments, wrong_numbers

RATES = st.integers(10_000, 10**9)


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    rate = draw(RATES)
    kind = draw(st.sampled_from(["constant", "on-off", "sine", "poisson"]))
    if kind == "on-off":
        period = draw(st.floats(2.0, 600.0))
        return Pattern(kind, rate, period_s=period, on_s=draw(st.floats(1.0, period - 1.0)))
    if kind == "sine":
        return Pattern(kind, rate, period_s=draw(st.floats(8.0, 3600.0)), low_bps=draw(st.integers(0, rate)))
    if kind == "poisson":
        size = draw(st.integers(max(100, rate // 400), max(101, rate // 4)))  # 50 arrivals a second to one in two
        return Pattern(kind, rate, size_bytes=size, seed=draw(st.integers(0, 2**31 - 1)))
    return Pattern(kind, rate)


def until(pattern: Pattern, end_s: float, from_s: float = 0.0, ceiling_bps: int | None = None) -> list[Segment]:
    return list(takewhile(lambda s: s.end_s <= end_s + 1e-6, segments(pattern, from_s, ceiling_bps)))


def mean_bps(found: list[Segment]) -> float:
    return sum(s.rate_bps * s.duration_s for s in found) / sum(s.duration_s for s in found)


@settings(max_examples=120, deadline=None)
@given(patterns())
def test_the_mean_over_a_long_time_is_the_declared_rate(pattern: Pattern) -> None:
    assert wrong_numbers(pattern) == []
    if pattern.kind == "poisson":
        assert pattern.size_bytes is not None
        arrivals_per_s = pattern.rate_bps / 8 / pattern.size_bytes
        horizon = 2000.0
        # Five standard deviations of the number of blocks that arrive.
        tolerance = 5 / (arrivals_per_s * horizon) ** 0.5
    else:
        horizon, tolerance = 20 * (pattern.period_s or 600.0), 0.001
    # A foot of a sine below 1 kbit/s sends nothing: of the smallest rate that is up to a part in a hundred.
    tolerance += 1000 / pattern.rate_bps if pattern.kind == "sine" else 0
    assert mean_bps(until(pattern, horizon)) == pytest.approx(pattern.rate_bps, rel=tolerance)


@settings(max_examples=120, deadline=None)
@given(patterns(), st.floats(0.0, 5000.0))
def test_segments_follow_one_another_without_a_gap_from_any_moment(pattern: Pattern, from_s: float) -> None:
    found = until(pattern, from_s + 3 * (pattern.period_s or 600.0), from_s)
    assert found[0].start_s == pytest.approx(from_s, abs=1e-6)
    assert all(b.start_s == pytest.approx(a.end_s, abs=1e-6) for a, b in pairwise(found))
    assert all(s.duration_s > 0 and s.rate_bps >= 0 for s in found)
    if pattern.kind != "poisson":
        assert max(s.rate_bps for s in found) <= peak_bps(pattern)
    assert min(s.duration_s for s in found[1:]) >= LEAST_STEP_S - 1e-6


@settings(max_examples=60, deadline=None)
@given(patterns(), st.floats(0.0, 3000.0))
def test_whoever_enters_later_meets_the_same_segments(pattern: Pattern, from_s: float) -> None:
    end = from_s + 2 * (pattern.period_s or 100.0) + 10
    whole = [s for s in until(pattern, end) if s.start_s > from_s + 1e-6]
    later = [s for s in until(pattern, end, from_s) if s.start_s > from_s + 1e-6]
    assert [s.rate_bps for s in later] == [s.rate_bps for s in whole]
    assert until(pattern, end) == until(pattern, end)


def test_another_seed_sends_at_other_moments() -> None:
    one, two = (Pattern("poisson", 20_000_000, size_bytes=1_000_000, seed=seed) for seed in (1, 2))
    assert [s.rate_bps for s in until(one, 100)] != [s.rate_bps for s in until(two, 100)]


def test_poisson_counts_scatter_as_they_should() -> None:
    pattern = Pattern("poisson", 20_000_000, size_bytes=500_000, seed=7)  # five blocks a second
    counts = [s.rate_bps / 8 / 500_000 for s in until(pattern, 5000)]
    mean = sum(counts) / len(counts)
    variance = sum((c - mean) ** 2 for c in counts) / (len(counts) - 1)
    assert variance / mean == pytest.approx(1.0, abs=0.1)


def test_what_the_path_cannot_carry_at_once_is_carried_later() -> None:
    pattern = Pattern("poisson", 8_000_000, size_bytes=1_000_000, seed=3)
    found = until(pattern, 4000, ceiling_bps=12_000_000)
    assert max(s.rate_bps for s in found) == 12_000_000
    assert mean_bps(found) == pytest.approx(mean_bps(until(pattern, 4000)), rel=0.01)


def test_an_on_off_flow_sends_more_while_it_is_on() -> None:
    found = until(Pattern("on-off", 10_000_000, period_s=10.0, on_s=2.5), 20)
    assert [(s.start_s, s.duration_s, s.rate_bps) for s in found] == [
        (0.0, 2.5, 40_000_000), (2.5, 7.5, 0), (10.0, 2.5, 40_000_000), (12.5, 7.5, 0),
    ]  # fmt: skip


def test_a_sine_swings_between_its_lowest_rate_and_as_much_above() -> None:
    found = until(Pattern("sine", 10_000_000, period_s=60.0, low_bps=5_000_000), 60)
    rates = [s.rate_bps for s in found]
    assert len(rates) == 24 and rates[6] < peak_bps(Pattern("sine", 10_000_000, low_bps=5_000_000)) == 15_000_000
    assert max(rates) == pytest.approx(15_000_000, rel=0.01) and min(rates) == pytest.approx(5_000_000, rel=0.02)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        (Pattern("constant", 5000), "rate"),
        (Pattern("on-off", 10**6, period_s=1.0, on_s=0.5), "period"),
        (Pattern("on-off", 10**6, period_s=10.0, on_s=9.5), "on"),
        (Pattern("on-off", 10**6, period_s=10.0, on_s=0.5), "on"),
        (Pattern("sine", 10**6, period_s=5.0, low_bps=0), "period"),
        (Pattern("sine", 10**6, period_s=10**6, low_bps=0), "period"),
        (Pattern("sine", 10**6, period_s=60.0, low_bps=2 * 10**6), "low"),
        (Pattern("poisson", 10**9, size_bytes=1000, seed=1), "size"),
        (Pattern("poisson", 10**6, size_bytes=10**11, seed=1), "size"),
    ],
)
def test_numbers_that_cannot_be_played_are_named(pattern: Pattern, key: str) -> None:
    wrong = wrong_numbers(pattern)
    assert [w.key for w in wrong] == [key] and wrong[0].message and wrong[0].hint
