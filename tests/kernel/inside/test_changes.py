"""Links whose delay, jitter and loss change while a stream passes: with real netem, and no packet lost on the way."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

from tests.kernel.inside import probe
from tests.topology.engine.stream import Stream
from topology.engine import change_shapes

pytestmark = pytest.mark.live
M = 1_000_000


def change(star: dict[str, Any], node: str, wanted: dict[str, Any]) -> None:
    start = time.monotonic()
    change_shapes.set_shape(star["testbed"], node, "s1", wanted, "a-to-b")
    print(f"{wanted}: {(time.monotonic() - start) * 1e3:.0f} ms")
    time.sleep(0.1)


def test_a_first_delay_and_none_any_more_lose_nothing(star: dict[str, Any]) -> None:
    without = probe.train(star, "plain", "sink", 200, interval_s=0.002)
    try:
        with Stream(star, "plain", "sink", per_second=300, size=400) as first:
            change(star, "plain", {"rate_bps": 20 * M})
        # The kernel stops an interface for a moment when it gets its first discipline: what is sent just then is lost.
        assert first.sent > 20 and len(first.lost) <= 2, first
        with Stream(star, "plain", "sink", per_second=300, size=400) as stream:
            change(star, "plain", {"delay_s": 0.02})
            delayed = probe.train(star, "plain", "sink", 200, interval_s=0.002)
            change(star, "plain", {"queue_packets": 300})
            change(star, "plain", {"jitter_s": 0.003, "distribution": "normal"})
            change(star, "plain", {"distribution": "pareto", "rate_bps": 5 * M})
            change(star, "plain", {"distribution": "uniform"})
            change(star, "plain", {"delay_s": 0.0, "jitter_s": 0.0, "distribution": None})
    finally:
        change_shapes.reset(star["testbed"])
    print(stream)
    probe.assert_near("delay in ms", (delayed.least_s - without.least_s) * 1e3, 20, 1.0)
    assert stream.sent > 200 and stream.lost == []


def test_a_delay_that_changes_in_place_loses_nothing(star: dict[str, Any]) -> None:
    try:
        with Stream(star, "deep", "sink", per_second=300, size=400) as stream:
            for delay in (0.03, 0.005, 0.05):
                change(star, "deep", {"delay_s": delay})
            late = probe.train(star, "deep", "sink", 200, interval_s=0.002)
            change(star, "deep", {"rate_bps": 10 * M, "delay_s": 0.02, "jitter_s": 0.002})
    finally:
        change_shapes.reset(star["testbed"])
    print(stream)
    assert late.least_s * 1e3 >= 50
    assert stream.sent > 100 and stream.lost == []


def test_a_normal_jitter_has_tails_that_a_uniform_one_has_not(star: dict[str, Any]) -> None:
    shares = {}
    try:
        for distribution in ("uniform", "normal"):
            change(star, "delayed", {"delay_s": 0.06, "jitter_s": 0.01, "distribution": distribution})
            train = probe.train(star, "delayed", "sink", 800, interval_s=0.001)
            middle = statistics.median(train.delays_s.values())
            shares[distribution] = sum(delay < middle - 0.013 for delay in train.delays_s.values()) / 800
    finally:
        change_shapes.reset(star["testbed"])
    print(shares)  # below 1.3 deviations: 9.7 % of a normal distribution; a uniform one ends at 1.0
    assert shares["uniform"] < 0.02 and 0.06 < shares["normal"] < 0.14
