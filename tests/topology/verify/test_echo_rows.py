"""Rows of round trips and loss, on answers that a network gives which is exactly as declared: no packet is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.topology.verify.test_loads import inventory_of
from topology.verify import verification
from topology.verify.reach import Echoes
from topology.verify.routes import Routes
from topology.verify.verification import Row


def rows(monkeypatch: pytest.MonkeyPatch, inventory: dict[str, Any], wrong: Mapping[str, float]) -> list[Row]:
    """Rows where every echo takes as long, and as many are lost, as declared; pairs of a `wrong` node's take longer."""
    routes = Routes(inventory)

    def ping(
        _: Any, pairs: Sequence[tuple[str, str]], counts: Mapping[tuple[str, str], int], *, wait_s: float,
        default_count: int,
    ) -> list[Echoes]:  # fmt: skip
        found = []
        for source, target in pairs:
            way = [routes.declared[hop] for hop in (*routes.path(source, target), *routes.path(target, source))]
            took = sum(hop.delay_s for hop in way) + wrong.get(source, 0.0) + wrong.get(target, 0.0)
            sent = counts.get((source, target), default_count)
            received = max(1, round(sent * math.prod(hop.survival for hop in way)))
            found.append(Echoes(source, target, sent, [took] * received))
        return found

    monkeypatch.setattr(verification, "ping", ping)
    monkeypatch.setattr(verification, "loads", lambda *_: [])
    return list(verification.verify(inventory).rows)


def preset(**shape: float) -> dict[str, Any]:
    """The preset, where the link of fc.10 alone has that shape as well, in both directions."""
    inventory = inventory_of(preset={"cohorts": 2, "clients": 6})
    own = next(link for link in inventory["links"] if "fc.10" in (link["a"], link["b"]))
    for direction in ("a_to_b", "b_to_a"):
        own[direction] |= shape
    return inventory


@pytest.mark.parametrize("shape", [{"delay_s": 0.02}, {"loss": 0.2}, {"delay_s": 0.02, "loss": 0.2}])
def test_a_link_that_differs_from_others_of_its_kind_is_compared_with_its_own_declaration(
    monkeypatch: pytest.MonkeyPatch, shape: dict[str, float]
) -> None:
    inventory = preset(**shape)
    found = rows(monkeypatch, inventory, {})
    out = [(row.kind, row.subject, row.declared, row.measured) for row in found if not row.ok]
    assert out == []
    own = {row.subject for row in found if " (as " in row.subject and "fc.10" in row.subject}
    assert own, "the pairs of fc.10 have rows of their own, which name one of them"
    # Nor does what the others do hide it: where it alone is late, its rows say so.
    late = rows(monkeypatch, inventory, {"fc.10": 0.05})
    assert own <= {row.subject for row in late if not row.ok and row.kind == "rtt"}


def test_pairs_of_one_kind_that_are_declared_alike_have_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [row for row in rows(monkeypatch, preset(), {}) if row.kind == "rtt"]
    assert all(row.ok and " (as " not in row.subject for row in found)
    assert len({row.subject for row in found}) == len(found)
