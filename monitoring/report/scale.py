"""Numbers for people and for axes: round ticks, units that fit, lines thinned without losing extremes. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Unit:
    """`factor` of these make one of `name` (Mbit/s: 1e6 bit/s)."""

    name: str
    factor: float = 1.0


_RATES = (Unit("bit/s"), Unit("kbit/s", 1e3), Unit("Mbit/s", 1e6), Unit("Gbit/s", 1e9))
_SIZES = (Unit("B"), Unit("kB", 1e3), Unit("MB", 1e6), Unit("GB", 1e9), Unit("TB", 1e12))
_MEMORY = (Unit("B"), Unit("KiB", 2**10), Unit("MiB", 2**20), Unit("GiB", 2**30))
_TIMES = (Unit("µs", 1e-6), Unit("ms", 1e-3), Unit("s"))


def _fitting(units: Sequence[Unit], largest: float) -> Unit:
    fitting = [unit for unit in units if abs(largest) >= unit.factor]
    return fitting[-1] if fitting else units[0]


def rate_unit(largest_bps: float) -> Unit:
    """For an axis up to this many bit/s."""
    return _fitting(_RATES, largest_bps)


def size_unit(largest_bytes: float) -> Unit:
    """For an axis up to this many bytes, decimal (traffic)."""
    return _fitting(_SIZES, largest_bytes)


def memory_unit(largest_bytes: float) -> Unit:
    """For an axis up to this many bytes, binary (memory)."""
    return _fitting(_MEMORY, largest_bytes)


def time_unit(largest_s: float) -> Unit:
    """For an axis up to this many seconds."""
    return _fitting(_TIMES, largest_s)


def number(value: float | None, digits: int = 3) -> str:
    """Three digits that count, no exponent below a million: 0.00123, 12.3, 1230; "–" for None and NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if not -4 <= places <= 8:
        return f"{value:.{digits - 1}e}"
    shown = f"{value:,.{max(places, 0)}f}".replace(",", "\u202f")
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def in_unit(value: float | None, unit: Unit, digits: int = 3) -> str:
    """A value with its unit: 12.3 Mbit/s."""
    return "–" if value is None or not math.isfinite(value) else f"{number(value / unit.factor, digits)} {unit.name}"


def rate(value_bps: float | None) -> str:
    """12.3 Mbit/s."""
    return "–" if value_bps is None else in_unit(value_bps, rate_unit(value_bps))


def size(value_bytes: float | None) -> str:
    """12.3 MB (decimal)."""
    return "–" if value_bytes is None else in_unit(value_bytes, size_unit(value_bytes))


def memory(value_bytes: float | None) -> str:
    """12.3 MiB (binary)."""
    return "–" if value_bytes is None else in_unit(value_bytes, memory_unit(value_bytes))


def seconds(value_s: float | None) -> str:
    """1.23 s, 4 min 5 s, 2 h 3 min; below a second in ms."""
    if value_s is None or not math.isfinite(value_s):
        return "–"
    if abs(value_s) < 120:
        return in_unit(value_s, time_unit(value_s))
    whole = round(value_s)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(share: float | None) -> str:
    """0.123 -> 12.3 %; never finer than a hundredth of a per cent."""
    if share is None or not math.isfinite(share):
        return "–"
    value = share * 100
    return "< 0.01 %" if 0 < value < 0.005 else f"{number(round(value, 2))} %"


def clock(unix_s: float | None) -> str:
    """2026-11-22 07:14:38 UTC."""
    return "–" if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ticks(low: float, high: float, about: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers (1, 2, 2.5, 5 times a power of ten), from the last at or below `low` to the first at or above
    `high`."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        span = abs(high) or 1.0
    rough = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    if whole:
        step = max(1.0, 3.0 if step == 2.5 else float(round(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """A tick with just the decimals that its step needs."""
    places = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    if round(step * 10**places, 9) != round(step * 10**places):
        places += 1
    return f"{value:,.{places}f}".replace(",", "\u202f").replace("-", "−")


def thin(x: Sequence[float], y: Sequence[float], most: int = 600) -> tuple[list[float], list[float]]:
    """At most about `most` points: of each stretch its lowest and its highest, in order. NaN (a gap) stays one."""
    if len(x) <= most:
        return list(x), list(y)
    kept: list[int] = []
    size_ = math.ceil(len(x) / (most / 2))
    for start in range(0, len(x), size_):
        part = range(start, min(start + size_, len(x)))
        known = [index for index in part if math.isfinite(y[index])]
        gap = [index for index in part if not math.isfinite(y[index])][:1]
        ends = {min(known, key=lambda i: y[i]), max(known, key=lambda i: y[i])} if known else set()
        kept += sorted(ends | set(gap))
    return [x[index] for index in kept], [y[index] for index in kept]
