"""Traffic control without `tc`: the lines that `shaping` builds, as requests of a netlink batch.

Takes lines for an interface, puts them into a `netlink.Batch` beside the interface's own requests, so that a testbed
needs no process for each place where it shapes. Knows what bulk needs (HTB, fifos, TBF; `replace`); whatever else a
line says is for `tc` (`can`). Layouts and numbers are those of `linux/pkt_sched.h`, computed as `tc` does.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

from topology.engine import netlink

_NEWQDISC, _NEWTCLASS = 36, 40
_KIND, _OPTIONS = 1, 2
_ROOT = 0xFFFFFFFF
_HTB_PARMS, _HTB_INIT, _HTB_RATE64, _HTB_CEIL64 = 1, 2, 6, 7
_HTB_VERSION, _HTB_RATE_TO_QUANTUM = 3, 10
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_ETHERNET, _CELL_LOG = 1, 3
_TICKS_A_SECOND = 15_625_000
"""The kernel's unit of time for bursts: 64 ns, on every machine (PSCHED_SHIFT)."""
_LARGEST_RATE = 0xFFFFFFFF

Line = Sequence[str]


def can(lines: Sequence[Line]) -> bool:
    """Whether these lines are among those that are known here. Pure."""
    return all(_known(line) for line in lines)


def _known(line: Line) -> bool:
    if list(line[1:3]) != ["replace", "dev"]:
        return False
    words, kind = _place(line)[2], line[0]
    if kind == "class":
        return words[0] == "htb" and set(words[1::2]) == {"rate", "ceil", "burst", "cburst", "quantum"}
    if kind != "qdisc":
        return False
    options = set(words[1::2])
    return (words[0], frozenset(options)) in {
        ("htb", frozenset({"default"})),
        ("bfifo", frozenset({"limit"})),
        ("pfifo", frozenset({"limit"})),
        ("tbf", frozenset({"rate", "burst", "limit"})),
    }


def add(batch: netlink.Batch, index: int, lines: Sequence[Line], subject: str) -> None:
    """Append the lines (all for one interface, whose index it is) to the batch. Raises ValueError for unknown ones."""
    for line in lines:
        if not _known(line):
            raise ValueError(f"{' '.join(line)!r} is for `tc`")
        parent, handle, words = _place(line)
        values = dict(zip(words[1::2], words[2::2], strict=True))
        is_class = line[0] == "class"
        options = _htb_class(values) if is_class else _qdisc(words[0], values)
        body = struct.pack("=BxxxiIII", 0, index, handle, parent, 0)
        body += netlink.text_attribute(_KIND, words[0]) + netlink.attribute(_OPTIONS, options)
        kind = _NEWTCLASS if is_class else _NEWQDISC
        batch.add(kind, netlink.REQUEST_CREATE | netlink.REQUEST_REPLACE, body, f"{subject}: {' '.join(line)}")


def _place(line: Line) -> tuple[int, int, list[str]]:
    """Parent, handle, and the words after them."""
    words = list(line[4:])
    parent = handle = 0
    while words and words[0] in ("root", "parent", "handle", "classid"):
        word = words.pop(0)
        if word == "root":
            parent = _ROOT
        elif word == "parent":
            parent = _number(words.pop(0))
        else:
            handle = _number(words.pop(0))
    return parent, handle, words


def _number(text: str) -> int:
    major, _, minor = text.partition(":")
    return int(major, 16) << 16 | int(minor or "0", 16)


def _rate(text: str) -> int:
    return int(text.removesuffix("bit")) // 8


def _bytes(text: str) -> int:
    return int(text.removesuffix("b"))


def _ticks(size: int, rate: int) -> int:
    return min(_LARGEST_RATE, math.ceil(size / max(1, rate) * _TICKS_A_SECOND))


def _rate_specification(rate: int) -> bytes:
    # struct tc_ratespec. Told that the link is an Ethernet, the kernel wants no table of transmission times.
    return struct.pack("=BBHhHI", _CELL_LOG, _ETHERNET, 0, -1, 0, min(rate, _LARGEST_RATE))


def _rate64(kind: int, rate: int) -> bytes:
    return netlink.attribute(kind, struct.pack("=Q", rate)) if rate > _LARGEST_RATE else b""


def _htb_class(values: Mapping[str, str]) -> bytes:
    rate, ceil = _rate(values["rate"]), _rate(values["ceil"])
    parameters = _rate_specification(rate) + _rate_specification(ceil)
    parameters += struct.pack(
        "=IIIII", _ticks(_bytes(values["burst"]), rate), _ticks(_bytes(values["cburst"]), ceil), int(values["quantum"]),
        0, 0,
    )  # fmt: skip
    return netlink.attribute(_HTB_PARMS, parameters) + _rate64(_HTB_RATE64, rate) + _rate64(_HTB_CEIL64, ceil)


def _qdisc(kind: str, values: Mapping[str, str]) -> bytes:
    if kind == "htb":
        default = int(values["default"], 16)
        words = struct.pack("=IIIII", _HTB_VERSION, _HTB_RATE_TO_QUANTUM, default, 0, 0)
        return netlink.attribute(_HTB_INIT, words)
    if kind in ("bfifo", "pfifo"):
        return struct.pack("=I", int(values["limit"]))
    rate, burst = _rate(values["rate"]), _bytes(values["burst"])
    parameters = _rate_specification(rate) + bytes(12)
    parameters += struct.pack("=III", _bytes(values["limit"]), _ticks(burst, rate), 0)
    return (
        netlink.attribute(_TBF_PARMS, parameters)
        + netlink.attribute(_TBF_BURST, struct.pack("=I", burst))
        + _rate64(_TBF_RATE64, rate)
    )
