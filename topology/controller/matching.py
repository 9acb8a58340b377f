"""Matches of flows that users make, in one canonical form: equal matches compare equal, however they were
written. Pure apart from os-ken's value types; sends nothing.

Also says which flows and meters are the controller's own, so that no face touches them.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from topology.controller.flows import COOKIE_OURS, COOKIE_OURS_MASK, LAST_METER

FIRST_USER_METER = LAST_METER + 1
"""Meters with lower numbers are the controller's own."""

Field = tuple[str, int | str, int | str | None]
"""Name, value, mask (None: the whole value)."""


def is_own_cookie(cookie: int) -> bool:
    """Whether a flow with this cookie is one that the controller itself keeps."""
    return cookie & COOKIE_OURS_MASK == COOKIE_OURS


def _number(value: int | str) -> tuple[int, int]:
    """A value as a number, and its length in bits (0 where it is a number already)."""
    if isinstance(value, int):
        return value, 0
    if value.count(":") == 5 and all(len(part) == 2 for part in value.split(":")):
        return int(value.replace(":", ""), 16), 48
    address = ipaddress.ip_address(value)
    return int(address), address.max_prefixlen


def _text(number: int, bits: int) -> int | str:
    if bits == 0:
        return number
    if bits == 48:
        return ":".join(f"{number:012x}"[at : at + 2] for at in range(0, 12, 2))
    return str(ipaddress.IPv4Address(number) if bits == 32 else ipaddress.IPv6Address(number))


def canonical(match: Any) -> tuple[Field, ...]:
    """The fields of an os-ken match, sorted by name: values without the bits that the mask hides, no mask
    where it hides nothing, no field where it hides everything."""
    fields: list[Field] = []
    for name, value in match.items():
        text, hidden = value if isinstance(value, tuple | list) else (value, None)
        try:
            number, bits = _number(text)
            mask = None if hidden is None else _number(hidden)[0]
        except ValueError:  # a field of the switch's maker, in base64
            fields.append((name, text, hidden))
            continue
        if mask is None:
            fields.append((name, _text(number, bits), None))
            continue
        if mask == 0:
            continue
        whole = bits and mask == (1 << bits) - 1
        fields.append((name, _text(number & mask, bits), None if whole else _text(mask, bits)))
    return tuple(sorted(fields, key=lambda field: field[0]))
