"""Which client is how fast: classes of speed from the testbed file, drawn for its clients. Pure.

How many clients a class gets follows from its count, or from its share by largest remainders; which ones, from the
seed and their names alone, so that the same file always draws the same and a client more moves few others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import floor

from topology.errors import Problem
from topology.model import SpeedClass, Testbed


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """`total` split by shares (which sum up to 1) with largest remainders; of equal ones the earlier gets more."""
    exact = [total * share for share in shares]
    # What multiplication leaves of a whole number (0.29 * 100 = 28.999...) is that number.
    parts = [floor(round(value, 9)) for value in exact]
    order = sorted(range(len(shares)), key=lambda n: (-round(exact[n] - parts[n], 9), n))
    for n in order[: total - sum(parts)]:
        parts[n] += 1
    return parts


def draw(testbed: Testbed, clients: Sequence[str]) -> tuple[dict[str, SpeedClass], list[Problem]]:
    """The class of each client that has one, and what stands against the classes (then nothing is drawn)."""
    speeds = testbed.speeds
    if speeds is None:
        return {}, []
    problems = _check(speeds.classes, len(clients))
    if problems:
        return {}, problems
    seed = testbed.seed if speeds.seed is None else speeds.seed
    order = sorted(clients, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    shared = [item for item in speeds.classes if item.share is not None]
    rest = len(clients) - sum(item.count or 0 for item in speeds.classes)
    sizes = dict(zip((i.name for i in shared), apportion(rest, [i.share or 0.0 for i in shared]), strict=True))
    drawn: dict[str, SpeedClass] = {}
    for item in speeds.classes:
        size = sizes[item.name] if item.count is None else item.count
        drawn.update(dict.fromkeys(order[len(drawn) : len(drawn) + size], item))
    return drawn, []


def _check(classes: Sequence[SpeedClass], clients: int) -> list[Problem]:
    problems = []
    names = [item.name for item in classes]
    for index, item in enumerate(classes):
        path = f"speeds.classes[{index}]"
        if item.name in names[:index]:
            problems.append(Problem(f"{path}.name", "duplicate-name", f"{item.name!r} is used by another class",
                                    "give each its own name"))  # fmt: skip
        if (item.share is None) == (item.count is None):
            found = "neither `share` nor `count`" if item.share is None else "both `share` and `count`"
            problems.append(Problem(path, "share-or-count", f"class {item.name!r} has {found}",
                                    'write `share: "60 %"`, or `count: 3`'))  # fmt: skip
        if item.cpus is None and item.memory is None and item.cpuset is None:
            problems.append(Problem(path, "no-speed", f"class {item.name!r} says nothing of its clients",
                                    "add `cpus: 0.5`, `memory:` or `cpuset:`"))  # fmt: skip
    shares = [item.share for item in classes if item.share is not None]
    if shares and abs(sum(shares) - 1) > 1e-6:
        problems.append(Problem("speeds.classes", "shares", f"the shares sum up to {sum(shares) * 100:g} %, not 100 %",
                                "shares are of the clients that no `count` takes"))  # fmt: skip
    counted = sum(item.count or 0 for item in classes)
    if counted > clients:
        problems.append(Problem("speeds.classes", "too-many", f"the counts sum up to {counted}, and there are "
                                f"{clients} clients", "lower a `count`, or write a `share`"))  # fmt: skip
    elif not shares and counted < clients and not problems:
        problems.append(Problem("speeds.classes", "too-few", f"the counts sum up to {counted}, and there are "
                                f"{clients} clients", "raise a `count`, or give one class `share: \"100 %\"`: the "
                                "rest"))  # fmt: skip
    return problems
