"""The desired state of meters: bodies, ids, the file, and that any history leaves exactly what is wanted. No kernel,
no os-ken."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.controller.meterworld import World, graph_of, spec_of, two_cohorts
from topology.controller.flows import Flow, Meter, match
from topology.controller.meter_body import read_spec
from topology.controller.meterbook import BookError, BookState, MeterBook, conflicts, open_book
from topology.controller.reconcile import reconcile

GRAPH = graph_of(two_cohorts("t-core"))
TARGETS: list[dict[str, Any]] = [
    {"kind": "cohort", "name": "1"},
    {"kind": "cohort", "name": "2"},
    {"kind": "client", "name": "c1"},
    {"kind": "server", "name": "fed.1"},
    {"kind": "port", "switch": "s1", "port": 3},
    {"kind": "port", "switch": "s2", "port": 1},
    {"kind": "address", "address": GRAPH.hosts[0].address},
    {"kind": "address", "address": "10.0.200.200"},
]
STRANGER = Flow(0, 500, match(in_port=99), goto=1, cookie=0x1234, meter=100_000)


@st.composite
def specs(draw: st.DrawFn) -> Any:
    return spec_of(
        GRAPH,
        draw(st.sampled_from(["m1", "m2", "m3", "m4"])),
        draw(st.sampled_from(TARGETS)),
        rate=draw(st.sampled_from(["1 Mbit/s", "20 Mbit/s", "500 packet/s"])),
        direction=draw(st.sampled_from(["up", "down", "both"])),
    )


STEPS = st.one_of(
    st.tuples(st.just("set"), st.lists(specs(), min_size=1, max_size=1)),
    st.tuples(st.just("bulk"), st.lists(specs(), max_size=4)),
    st.tuples(st.just("replace"), st.lists(specs(), max_size=4)),
    st.tuples(st.just("delete"), st.sampled_from(["m1", "m2", "m3", "m4"])),
    st.tuples(st.just("disconnect"), st.sampled_from([1, 2, 3])),
    st.tuples(st.just("reconnect"), st.sampled_from([1, 2, 3])),
    st.tuples(st.just("switch restart"), st.sampled_from([1, 2, 3])),
    st.tuples(st.just("link"), st.booleans()),
    st.tuples(st.just("controller restart"), st.none()),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(STEPS, st.none() | st.integers(0, 12)), max_size=14))
def test_any_history_leaves_exactly_what_is_wanted(history: list[tuple[tuple[str, Any], int | None]]) -> None:
    """The fake switches fail the test at once where a flow would refer to a missing meter, a meter would be added
    twice, or one that is used would be deleted. A number cuts the connection after so many messages."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(GRAPH, Path(folder) / "meters.json")
        strangers = set(GRAPH.switches)
        for switch in world.fake.switches.values():
            switch.meters[100_000] = Meter(100_000, "bit/s", 1, 1)
            switch.flows[STRANGER.key] = STRANGER
        for (step, value), cut in history:
            state = world.book.state
            if step in ("set", "bulk", "replace"):
                wanted = {spec.name: spec for spec in value}
                gone = state.entries.keys() - wanted.keys() if step == "replace" else set()
                after = state.changed(wanted.values(), gone)
                if not conflicts(after, dict.fromkeys(wanted, "")):
                    world.book.commit(after)
            elif step == "delete":
                world.book.commit(state.changed((), [value]))
            elif step == "disconnect":
                world.connected.discard(value)
            elif step == "reconnect":
                world.connected.add(value)
                world.hear(value)
            elif step == "switch restart":
                world.fake.switches[value].restart()
                strangers.discard(value)
                world.connected.add(value)
                world.hear(value)
            elif step == "link":
                name = GRAPH.links[0].name
                world.fake.down = frozenset() if value else frozenset({name})
                for at in sorted(world.connected):
                    world.hear(at)
            else:
                world.restart_controller()
            for at in sorted(world.connected):
                world.bring(at, cut=cut)
        kept = world.book.state
        world.connected = set(GRAPH.switches)
        world.restart_controller()
        world.bring_all()
        assert world.book.state == kept, "the file says the same"
        for at, switch in world.fake.switches.items():
            wanted_now, there = world.wanted(at), world.ours(at)
            assert set(there.flows) == set(wanted_now.flows) and set(there.meters) == set(wanted_now.meters)
            assert reconcile(wanted_now, there) == []
            assert (100_000 in switch.meters and STRANGER.key in switch.flows) == (at in strangers)


def test_a_change_of_rate_is_one_message_in_place(tmp_path: Path) -> None:
    world = World(GRAPH, tmp_path / "meters.json")
    target = {"kind": "cohort", "name": "1"}
    world.set(spec_of(GRAPH, "m", target, direction="up"))
    before = world.ours(3)
    world.book.commit(world.book.state.changed([spec_of(GRAPH, "m", target, direction="up", rate="5 Mbit/s")]))
    messages = reconcile(world.wanted(3), world.ours(3))
    assert [str(getattr(m, "command", "barrier")) for m in messages] == ["modify", "barrier"]
    world.bring_all()
    assert world.ours(3).flows == before.flows
    world.set(spec_of(GRAPH, "m", target, direction="up", rate="5 Mbit/s"))
    assert reconcile(world.wanted(3), world.ours(3)) == []


def test_ids_stay_with_their_name_go_round_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(GRAPH, "m", {"kind": "client", "name": "c1"})
    first = BookState().changed([spec])
    assert dict(first.entries["m"].ids) == {"up": 1, "down": 2}
    narrowed = first.changed([spec_of(GRAPH, "m", {"kind": "cohort", "name": "1"}, direction="down")])
    assert dict(narrowed.entries["m"].ids) == {"down": 2}
    assert dict(narrowed.changed([spec]).entries["m"].ids) == {"up": 3, "down": 2}, "not 1 again at once"
    last = BookState({}, 99_999).changed([spec])
    assert dict(last.entries["m"].ids) == {"up": 99_999, "down": 1}
    monkeypatch.setattr("topology.controller.meterbook.MAXIMUM_METERS", 1)
    with pytest.raises(BookError, match="at most 1"):
        first.changed([spec_of(GRAPH, "n", {"kind": "client", "name": "c2"})])


def test_when_a_meter_was_changed_is_kept_and_is_no_part_of_it(tmp_path: Path) -> None:
    world = World(GRAPH, tmp_path / "meters.json")
    one, two = (spec_of(GRAPH, name, target) for name, target in zip(("m1", "m2"), TARGETS, strict=False))
    world.book.commit(world.book.state.changed([one, two], at=100.0))
    world.book.commit(world.book.state.changed([replace(two, rate=5_000_000)], at=200.5))
    world.restart_controller()
    assert {name: entry.changed for name, entry in world.book.state.entries.items()} == {"m1": 100.0, "m2": 200.5}
    before = BookState().changed([one], at=1.0)
    assert before == BookState().changed([one], at=2.0)


def test_two_meters_on_one_thing_are_refused_and_swapping_names_is_not() -> None:
    c1, c2 = {"kind": "client", "name": "c1"}, {"kind": "client", "name": "c2"}
    state = BookState().changed([spec_of(GRAPH, "a", c1), spec_of(GRAPH, "b", c2, direction="up")])
    clash = state.changed([spec_of(GRAPH, "new", c2)])
    (fault,) = conflicts(clash, {"new": "meters[0]"})
    assert fault.kind == "conflict" and fault.problem.path == "meters[0].target" and "'b'" in fault.problem.message
    beside = state.changed([spec_of(GRAPH, "new", c2, direction="down")])
    assert conflicts(beside, {"new": ""}) == []
    swapped = state.changed([spec_of(GRAPH, "a", c2, direction="up"), spec_of(GRAPH, "b", c1)])
    assert conflicts(swapped, {"a": "", "b": ""}) == []


def test_the_file_says_what_is_wanted_and_a_broken_one_is_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "meters.json"
    body = {"name": "first", "target": {"kind": "cohort", "name": "1"}, "rate": 5_000_000, "unit": "bit/s"}
    wrong = {"name": "second", "target": {"kind": "cohort", "name": "9"}, "rate": 5_000_000, "unit": "bit/s"}
    twice = {**body, "name": "third", "direction": "up"}
    graph = graph_of(two_cohorts("t-core"))
    graph.inventory["meters"] = [body, wrong, twice]  # type: ignore[index]
    book, problems = open_book(graph, path)
    assert list(book.state.entries) == ["first"] and len(problems) == 2
    assert "no cohort is called '9'" in problems[0] and "'first' already limits" in problems[1]
    book.commit(book.state.changed((), ["first"]))
    again, problems = open_book(graph, path)
    assert again.state == book.state and not problems, "a file without meters is not a missing file"
    path.write_text('{"version": 1, "meters": [{"nam')
    third, problems = open_book(graph, path)
    assert list(third.state.entries) == ["first"] and "cannot be used" in problems[0]
    assert path.with_name("meters.json.broken").exists()
    with pytest.raises(BookError, match="cannot be written"):
        MeterBook(tmp_path / "absent" / "meters.json").commit(BookState())


GOOD = {"target": {"kind": "cohort", "name": "1"}, "direction": "up", "rate": "20 Mbit/s"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (20_000_000, None, "bit/s")),
        ({"rate": "100mbit"}, (100_000_000, None, "bit/s")),
        ({"rate": 20000, "unit": "bit/s", "burst": 12_144}, (20_000, 12_144, "bit/s")),
        ({"rate": 1.5e6, "unit": "bit/s", "burst": "750 kbit"}, (1_500_000, 750_000, "bit/s")),
        ({"rate": "500 packet/s", "burst": "250 packets"}, (500, 250, "packet/s")),
        ({"rate": 500, "unit": "packet/s"}, (500, None, "packet/s")),
        ({"name": "m", "burst": None, "unit": None}, (20_000_000, None, "bit/s")),
    ],
)
def test_a_meter_is_read(change: dict[str, Any], expected: tuple[int, int | None, str]) -> None:
    spec, faults = read_spec({**GOOD, **change}, GRAPH, lambda *_: False, "m")
    assert spec is not None and not faults
    assert (spec.rate, spec.burst, spec.unit) == expected
    assert read_spec(json.loads(json.dumps(spec.as_body())), GRAPH, lambda *_: False) == (spec, [])


def test_the_default_burst_follows_what_is_in_force() -> None:
    """A second where it drops, 50 ms and at least two full frames where it queues; the user's own in both."""
    for rate, drop, queue in (("20 Mbit/s", 20_000_000, 1_000_000), ("16 kbit/s", 16_000, 24_288)):
        spec = spec_of(GRAPH, "m", TARGETS[0], rate=rate)
        assert (spec.burst_for("drop"), spec.burst_for("queue")) == (drop, queue)
    spec = spec_of(GRAPH, "m", TARGETS[0], burst="30 Mbit")
    assert spec.burst_for("drop") == spec.burst_for("queue") == 30_000_000


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        ({"rate": "20"}, "rate", "bad-value"),
        ({"rate": 20}, "unit", "missing-key"),
        ({"rate": "20 Mbps"}, "rate", "bad-value"),
        ({"rate": "1 kbit/s"}, "rate", "bad-value"),
        ({"rate": "2000 Gbit/s"}, "rate", "bad-value"),
        ({"rate": float("nan"), "unit": "bit/s"}, "rate", "bad-value"),
        ({"rate": 10**400, "unit": "bit/s"}, "rate", "bad-value"),
        ({"rate": "9" * 400 + " bit/s"}, "rate", "bad-value"),
        ({"rate": -5, "unit": "packet/s"}, "rate", "bad-value"),
        ({"rate": 1.5, "unit": "packet/s"}, "rate", "bad-value"),
        ({"rate": True, "unit": "bit/s"}, "rate", "bad-value"),
        ({"unit": "packet/s"}, "unit", "contradiction"),
        ({"unit": "byte/s"}, "unit", "bad-value"),
        ({"unit": ["bit/s"]}, "unit", "bad-value"),
        ({"burst": "2 Mbit"}, "burst", "small-burst"),
        ({"burst": "500 packets"}, "burst", "wrong-unit"),
        ({"burst": "10 Mbit/s"}, "burst", "bad-value"),
        ({"burst": []}, "burst", "bad-value"),
        ({"burst": 10**30}, "burst", "bad-value"),
        ({"rate": "16 kbit/s", "burst": "8 kbit"}, "burst", "small-burst"),
        ({"direction": "sideways"}, "direction", "bad-value"),
        ({"direction": {}}, "direction", "bad-value"),
        ({"enforce": "police"}, "enforce", "bad-value"),
        ({"enforce": "queue", "rate": "5 packet/s"}, "enforce", "cannot-queue"),
        ({"speed": 3}, "speed", "unknown-key"),
        ({"name": "other"}, "name", "contradiction"),
        ({"target": None}, "target", "bad-value"),
        ({"target": {"kind": "planet"}}, "target.kind", "bad-value"),
        ({"target": {"kind": ["cohort"]}}, "target.kind", "bad-value"),
        ({"target": {"kind": "cohort", "name": 1}}, "target.name", "bad-value"),
        ({"target": {"kind": "cohort", "name": "7"}}, "target.name", "unknown-cohort"),
        ({"target": {"kind": "cohort", "name": "1", "port": 3}}, "target.port", "unknown-key"),
        ({"target": {"kind": "client", "name": "fed.1"}}, "target.kind", "wrong-kind"),
        ({"target": {"kind": "client", "name": "nobody"}}, "target.name", "unknown-client"),
        ({"target": {"kind": "port", "switch": "s9", "port": 1}}, "target.switch", "unknown-switch"),
        ({"target": {"kind": "port", "switch": "s1", "port": 77}}, "target.port", "unknown-port"),
        ({"target": {"kind": "port", "switch": "s1", "port": True}}, "target.port", "bad-value"),
        ({"target": {"kind": "address", "address": "10.0.1.300"}}, "target.address", "bad-value"),
        ({"target": {"kind": "address", "address": "224.0.0.1"}}, "target.address", "bad-value"),
    ],
)
def test_a_wrong_meter_is_refused_by_path(change: dict[str, Any], path: str, code: str) -> None:
    spec, faults = read_spec({**GOOD, **change}, GRAPH, lambda *_: False, "m")
    assert spec is None
    assert [(fault.problem.path, fault.problem.code) for fault in faults] == [(path, code)]
    assert all(fault.problem.message for fault in faults)


@pytest.mark.parametrize("name", ["", "a/b", "-a", "x" * 64, "a b", 7, None])
def test_a_wrong_name_is_refused(name: Any) -> None:
    _, faults = read_spec({**GOOD, "name": name}, GRAPH, lambda *_: False)
    assert [fault.problem.path for fault in faults] == ["name"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    body = {"target": {"kind": "cohort", "name": "7"}, "direction": "?", "rate": "5", "burts": 1}
    _, faults = read_spec(body, GRAPH, lambda *_: False, "m", "meters[4]")
    assert sorted(fault.problem.path for fault in faults) == [
        "meters[4].burts",
        "meters[4].direction",
        "meters[4].rate",
        "meters[4].target.name",
    ]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["name", "target", "direction", "rate", "unit", "burst", "enforce", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(["up", "bit/s"]),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "name", "port", "switch", "address"]), inner, max_size=4),
        ),
    )
)
def test_no_body_at_all_breaks_the_reader(body: dict[str, Any]) -> None:
    spec, faults = read_spec(body, GRAPH, lambda *_: False, "m")
    assert (spec is None) == bool(faults)
