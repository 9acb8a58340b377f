"""Quantities: what is read back is what was written; what could be misunderstood is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology import units


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [("20 Mbit/s", 20_000_000), ("500mbit", 500_000_000), ("1.5 Gbit/s", 1_500_000_000), ("64 kbit/s", 64_000)],
)
def test_rates_are_read_as_bits_per_second(text: str, rate_bps: int) -> None:
    assert units.parse_rate(text) == rate_bps


REFUSED = ["20", 20, "20 Mbps", "20 MB/s", "-5 Mbit/s", "0 bit/s", "1 bit/s", "9999 Gbit/s", None, True, "1e3 bit/s"]


@pytest.mark.parametrize("value", REFUSED)
def test_rates_that_could_mean_two_things_are_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"Mbit/s|rate"):
        units.parse_rate(value)


def test_bytes_and_binary_bytes_differ() -> None:
    assert units.parse_size("1 MB") == 1_000_000
    assert units.parse_size("1 MiB") == 1_048_576


@pytest.mark.parametrize("value", ["0.01", 0.01, "101 %", "1 percent"])
def test_shares_are_written_in_per_cent(value: object) -> None:
    with pytest.raises(ValueError, match="%"):
        units.parse_fraction(value)


@given(st.integers(min_value=1, max_value=10**6))
def test_format_rate_is_read_back(kilobits: int) -> None:
    rate = kilobits * 1000
    assert units.parse_rate(units.format_rate(rate)) == pytest.approx(rate, rel=1e-5)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (units.parse_rate, units.parse_time, units.parse_size, units.parse_fraction):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
