"""Quantities with units as users write them ("20 Mbit/s", "12 ms", "512 MiB", "1 %"), turned into SI numbers.

From here on only bits per second, seconds, bytes and fractions travel. Every function raises ValueError with a text
that names the value
found and what is allowed. A bare number is refused: its unit would be a guess.
"""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ%/]+)\s*$")

RATES = {
    "bit/s": 1,
    "kbit/s": 10**3,
    "mbit/s": 10**6,
    "gbit/s": 10**9,
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
}
PACKET_RATES = ("packet/s", "packets/s")
TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip


def _split(value: object, what: str, example: str) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError(f"{value!r} has no unit; write {what} like {example!r}")
    match = _QUANTITY.match(value)
    if match is None:
        raise ValueError(f"{value!r} is not {what}; write it like {example!r}")
    number = float(match.group(1))
    if number > 1e18:
        raise ValueError(f"{value[:40]!r}: {what} is not that large; write it like {example!r}")
    return number, match.group(2)


def _scaled(value: object, table: dict[str, int] | dict[str, float], what: str, example: str) -> float:
    number, unit = _split(value, what, example)
    factor = table.get(unit.lower())
    if factor is None:
        raise ValueError(f"{value!r}: unknown unit {unit!r}; allowed are {', '.join(table)}, as in {example!r}")
    return number * factor


def parse_rate(value: object) -> int:
    """A bandwidth in bit/s. `Mbps` and `MB/s` are refused: the first means two things, the second is bytes."""
    number = _scaled(value, RATES, "a rate", "20 Mbit/s")
    if not 1000 <= number <= 10**12:
        raise ValueError(f"{value!r}: a rate is 1 kbit/s to 1000 Gbit/s; leave the key out for an unlimited link")
    return round(number)


def parse_meter_rate(value: object) -> tuple[int, str]:
    """A meter's rate with its unit: "20 Mbit/s" -> (20000000, "bit/s"), "500 packet/s" -> (500, "packet/s").

    What a meter can count (its range) is judged by who sets it, beside all else that is wrong with the meter.
    """
    number, unit = _split(value, "a meter's rate", "20 Mbit/s")
    if unit.lower() not in PACKET_RATES:
        try:
            return round(_scaled(value, RATES, "a meter's rate", "20 Mbit/s")), "bit/s"
        except ValueError as error:
            raise ValueError(f"{error}; or packets, as in '500 packet/s'") from None
    if number < 1 or number != int(number):
        raise ValueError(f"{value!r}: packets are counted whole, at least '1 packet/s'")
    return int(number), "packet/s"


def parse_burst(value: object) -> tuple[int, str]:
    """A meter's burst with what it counts: "10 Mbit" -> (10000000, "bit"), "500 packets" -> (500, "packet")."""
    number, unit = _split(value, "a burst", "10 Mbit")
    word = unit.lower()
    if word in ("packet", "packets"):
        if number < 1 or number != int(number):
            raise ValueError(f"{value!r}: packets are counted whole, at least '1 packet'")
        return int(number), "packet"
    if word.endswith("/s") or word not in RATES:
        raise ValueError(f"{value!r}: unknown unit {unit!r}; a burst is counted in bit, kbit, Mbit, Gbit, as in "
                         "'10 Mbit', or in packets, as in '500 packets'")  # fmt: skip
    return round(number * RATES[word]), "bit"


def parse_time(value: object) -> float:
    """A duration in seconds, zero allowed."""
    return _scaled(value, TIMES, "a time", "12 ms")


def parse_size(value: object) -> int:
    """A size in bytes; MB is 10^6 and MiB is 2^20."""
    return round(_scaled(value, SIZES, "a size", "512 MiB"))


def parse_fraction(value: object) -> float:
    """A probability written in per cent ("1 %"), as a fraction in [0, 1]."""
    number, unit = _split(value, "a share", "1 %")
    if unit != "%":
        raise ValueError(f"{value!r}: a share is written in per cent, as in '1 %'")
    if number > 100:
        raise ValueError(f"{value!r}: a share is at most '100 %'")
    return number / 100.0


def format_rate(rate_bps: int | None) -> str:
    """For people: 500000000 -> "500 Mbit/s", None -> "unlimited"."""
    if rate_bps is None:
        return "unlimited"
    for factor, unit in ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s")):
        if rate_bps >= factor:
            return f"{rate_bps / factor:g} {unit}"
    return f"{rate_bps} bit/s"


def format_time(seconds: float) -> str:
    """For people: 0.012 -> "12 ms"."""
    if seconds == 0:
        return "0"
    if seconds < 1e-3:
        return f"{seconds * 1e6:g} us"
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def format_size(size_bytes: float | None) -> str:
    """For people: 536870912 -> "512 MiB", None -> "unlimited"."""
    if size_bytes is None:
        return "unlimited"
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.4g} {unit}"
    return f"{size_bytes:g} B"
