"""The allocation rule, and its keeper under many threads."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfo.allocation import Allocator, Busy, Choice, choose
from mlfo.store import Store

ORDER = ["fed.1", "fed.2", "fed.3"]


@pytest.mark.parametrize(
    ("planned", "last", "held", "sameserver", "server", "reason"),
    [
        ("fed.2", None, {}, None, "fed.2", "plan"),
        ("fed.2", "fed.3", {}, "no", "fed.2", "plan"),
        ("fed.2", "fed.3", {}, "nor", "fed.2", "plan"),
        ("fed.2", "fed.3", {}, "yes", "fed.3", "reuse"),
        ("fed.2", None, {}, "yes", "fed.2", "plan"),
        ("fed.2", None, {"fed.2": "b"}, None, "fed.3", "fallback"),
        ("fed.3", None, {"fed.3": "b"}, None, "fed.1", "fallback"),
        ("fed.2", "fed.3", {"fed.3": "b"}, "yes", "fed.1", "fallback"),
        (None, None, {"fed.1": "b"}, None, "fed.2", "fallback"),
        ("fed.2", None, {"fed.1": "a"}, None, "fed.1", "held"),
    ],
)
def test_the_rule(
    planned: str | None,
    last: str | None,
    held: dict[str, str],
    sameserver: str | None,
    server: str,
    reason: str,
) -> None:
    chosen = choose(ORDER, planned, last, held, "a", sameserver)
    assert isinstance(chosen, Choice) and (chosen.server, chosen.reason) == (server, reason)
    assert chosen.notes or reason in ("plan", "held")


def test_those_who_asked_before_come_first_but_a_wanted_free_server_is_given() -> None:
    held = {"fed.1": "x", "fed.2": "y"}
    busy = choose(ORDER, "fed.1", None, held, "a", None, ahead=1)
    assert (
        isinstance(busy, Busy) and "fed.1 by x, fed.2 by y" in busy.message() and "1 run(s)" in busy.message()
    )
    own = choose(ORDER, "fed.3", None, held, "a", None, ahead=1)
    assert isinstance(own, Choice) and own.server == "fed.3"


@given(st.permutations(range(12)))
def test_without_clashes_order_of_arrival_decides_nothing(arrival: list[int]) -> None:
    order = [f"fed.{i}" for i in range(12)]
    held: dict[str, str] = {}
    for i in arrival:
        chosen = choose(order, f"fed.{i}", None, held, f"run{i}", None)
        assert isinstance(chosen, Choice) and chosen.server == f"fed.{i}"
        held[chosen.server] = f"run{i}"


def test_fifty_threads_ten_servers_each_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    allocator = Allocator(store)
    order = [f"fed.{i}" for i in range(10)]
    with ThreadPoolExecutor(50) as pool:
        chosen = list(
            pool.map(lambda i: allocator.allocate(f"r{i}", order, order[i % 10], "s", "m", None), range(50))
        )
    given_out = Counter(c.server for c in chosen if isinstance(c, Choice))
    assert given_out == dict.fromkeys(order, 1)
    assert len(store.allocations()) == 10
    store.close()
    again = Store(tmp_path / "s.sqlite")
    assert len(again.allocations()) == 10 and again.registered("s", "m") in order
    holder = again.allocations()["fed.0"]["run"]
    kept = Allocator(again).allocate(holder, order, "fed.5", "s", "m", None)
    assert isinstance(kept, Choice) and (kept.server, kept.reason) == ("fed.0", "held")
    again.close()
