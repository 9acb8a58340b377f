"""Dataclasses as plain data for JSON: dictionaries and lists, down to the last leaf.

As `dataclasses.asdict`, but tuples become lists, as a reader of the JSON has them, and without its copies of every
leaf: a testbed's plan is tens of thousands of them. Pure.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, cast

_LEAVES = frozenset((str, int, float, bool, type(None)))


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def plain(value: Any) -> Any:
    """The value with every dataclass in it as a dictionary of its fields. Raises TypeError for what JSON has not."""
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is tuple or kind is list:
        return [plain(item) for item in value]
    if kind is dict:
        return {key: plain(item) for key, item in value.items()}
    names = _names(cast(Any, kind))
    return {name: plain(getattr(value, name)) for name in names}
