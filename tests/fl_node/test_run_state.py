"""What becomes of events: the state of a run at its server and at a client, whatever the events look like."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.agent.run_state import REASONS, ClientState, ServerState, quality
from fl_node.rounds import RoundClock


def reply(client: str, number: int, phase: str = "train", seconds: float = 1.0, **more: Any) -> dict[str, Any]:
    body = {"round": number, "phase": phase, "client": client, "seconds": seconds, "bytes_down": 100, "bytes_up": 90}
    return {"kind": "client.reply", "num_examples": 20, "error": None, "time": 50.0, **body, **more}


def told(*events: dict[str, Any]) -> ServerState:
    state = ServerState()
    for event in events:
        state.learn(event)
    return state


def whole_round(number: int, seconds: list[float], at: float = 10.0) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for phase in ("train", "evaluate"):
        events.append({"kind": "phase.started", "round": number, "phase": phase, "time": at})
        events += [reply(f"c{index}", number, phase, each) for index, each in enumerate(seconds)]
        events.append({"kind": "phase.finished", "round": number, "phase": phase, "seconds": max(seconds)})
        events.append({"kind": "aggregate.finished", "round": number, "phase": phase, "seconds": 0.2})
    events.append({"kind": "round.finished", "round": number, "seconds": 2.5, "memory_bytes": 7})
    return events


def test_a_run_from_its_start_to_its_end() -> None:
    state = told(
        {"kind": "client.joined", "client": "c0", "joined": 2, "expected": 3},
        {"kind": "run.started", "num_clients": 3, "model_bytes": 40, "num_rounds": 5, "config": {}},
        {"kind": "server_evaluate.finished", "round": 0, "seconds": 0.3},
        *whole_round(1, [1.0, 1.0, 1.0], at=10.0),
        *whole_round(2, [1.0, 2.0, 3.0], at=20.0),
        {"kind": "round.metrics", "round": 2, "source": "server", "metrics": {"loss": 0.5, "accuracy": 0.8}},
    )
    assert (state.joined, state.expected, state.rounds_planned, state.model_bytes) == (2, 3, 5, 40)
    assert (state.round, state.round_began, state.running, state.memory_bytes) == (2, 20.0, True, 7)
    assert state.quality == {"server": {"loss": 0.5, "accuracy": 0.8}}
    counts = {phase: sum(each.counts) for phase, each in state.durations.items()}
    assert counts == {"train": 2, "evaluate": 2, "aggregate": 4, "round": 2, "server_evaluate": 1}
    assert state.durations["train"].last_s == 3.0 and state.durations["train"].total_s == 4.0
    assert state.message_bytes["c1", "down"] == 400 and state.round_bytes["c1", "up"] == 180
    assert state.samples == {"c0": 20, "c1": 20, "c2": 20} and state.client_seconds["c2", "evaluate"] == 3.0
    assert state.failures == {("c0", reason): 0 for reason in REASONS} and not state.stragglers
    state.learn({"kind": "run.finished"})
    assert not state.running


def test_bytes_of_a_round_are_shown_once_it_has_ended() -> None:
    """Also where nobody says that it has: the next round, or the run's end, says so."""
    started = {"kind": "phase.started", "phase": "train", "time": 1.0}
    state = told({**started, "round": 1}, reply("c0", 1))
    assert state.round_bytes == {}
    state.learn({**started, "round": 2})
    assert state.round_bytes == {("c0", "down"): 100, ("c0", "up"): 90}
    state.learn(reply("c1", 2))
    assert ("c1", "up") not in state.round_bytes and state.message_bytes["c1", "up"] == 90
    state.learn({"kind": "run.failed"})
    assert state.round_bytes == {("c1", "down"): 100, ("c1", "up"): 90}


def test_stragglers_are_late_for_their_own_phase() -> None:
    assert told(*whole_round(1, [1.0, 1.1, 1.2, 2.5])).stragglers == 2, "in training and in evaluation"
    assert told(*whole_round(1, [1.0, 1.1, 1.2, 2.2])).stragglers == 0, "twice the median of 1.15 is 2.3"
    assert told(*whole_round(1, [1.0, 9.0])).stragglers == 0, "of two replies nobody can say which is late"


def test_failures_are_counted_once_by_reason() -> None:
    state = told(
        {"kind": "run.started"},
        reply("c0", 1, error="ValueError: no", failure="application", time=5.0),
        {"kind": "client.left", "client": "c1", "final": False, "joined": 1, "expected": 2},
        {"kind": "client.left", "client": "c1", "final": True, "time": 6.0, "joined": 1, "expected": 2},
        reply("c1", 1, error="client c1 is gone", failure="gone"),
        reply("c2", 1, error="did not answer", failure="no-reply", time=7.0),
        reply("c2", 2, error="of an older server"),
        {"kind": "run.finished"},
        {"kind": "client.left", "client": "c0", "final": True, "time": 9.0},
    )
    assert state.failures == {
        ("c0", "application"): 1, ("c1", "lost"): 1, ("c2", "no-reply"): 1, ("c2", "error"): 1,
    }  # fmt: skip
    assert state.failed_at == {"c0": 5.0, "c1": 6.0, "c2": 50.0}
    assert not state.client_seconds, "an error's time says nothing of the client's work"


def test_planned_rounds_come_from_the_strategy_else_from_the_configuration() -> None:
    assert told({"kind": "run.started", "config": {"num-server-rounds": 4}}).rounds_planned == 4
    both = {"kind": "run.started", "num_rounds": 3, "config": {"num-server-rounds": 4}}
    assert told(both).rounds_planned == 3
    assert told({"kind": "run.started", "config": {}}).rounds_planned is None


def test_loss_and_accuracy_are_found_under_the_names_that_applications_use() -> None:
    assert quality({"loss": 1, "accuracy": 0.5, "lr": 3}) == {"loss": 1.0, "accuracy": 0.5}
    assert quality({"train_loss": 0.25, "eval-acc": 0.75}) == {"loss": 0.25, "accuracy": 0.75}
    assert quality({"loss": 1.0, "train_loss": 2.0}) == {"loss": 1.0}
    assert quality({"a_loss": 1.0, "b_loss": 2.0}) == {}, "which of them, nobody says"
    assert quality({"loss": None, "accuracy": float("nan"), "closs": 1.0}) == {}
    assert quality(None) == {}


def test_the_last_metrics_replace_those_before() -> None:
    """A model that has diverged (NaN, null in an event) shows no old loss."""
    event = {"kind": "round.metrics", "round": 1, "source": "train", "metrics": {"loss": 1.0}}
    state = told(event, {**event, "round": 2, "metrics": {"loss": None}})
    assert state.quality == {"train": {}}


def test_a_clients_own_work() -> None:
    state = ClientState()
    handled = {"kind": "client.handled", "metrics": {"loss": 0.4, "accuracy": 0.9}, "memory_bytes": 1000}
    state.learn(handled)
    state.learn({**handled, "metrics": {}, "memory_bytes": 2000, "error": "ValueError: no"})
    state.learn(reply("c0", 1))
    assert state.quality == {"loss": 0.4, "accuracy": 0.9} and state.memory_bytes == 2000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from([*ServerState()._learns, "client.handled", "other", 7])
FIELDS = st.sampled_from(
    ["round", "phase", "client", "seconds", "bytes_down", "num_examples", "metrics", "source", "error", "failure",
     "final", "joined", "config", "num_rounds", "model_bytes", "memory_bytes", "time"])  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(KINDS, st.dictionaries(FIELDS, VALUES, max_size=8)), max_size=12))
def test_no_event_harms(events: list[tuple[Any, dict[str, Any]]]) -> None:
    """An application writes into the same file; and the thread that reads is the only one."""
    states = ServerState(), ClientState()
    for kind, fields in events:
        for state in states:
            state.learn({**fields, "kind": kind})
    for each in states[0].durations.values():
        assert each.buckets()[-1] == ("+Inf", sum(each.counts))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_round_lasts_from_its_configuration_to_the_next() -> None:
    found: list[tuple[int, float]] = []
    time = Clock()
    clock = RoundClock(lambda number, seconds: found.append((number, seconds)), time)
    time.now = 5.0
    clock.seen(0)
    for now, call, number in ((6, clock.configured, 1), (8, clock.configured, 1), (9, clock.seen, 1),
                              (10, clock.configured, 2), (12, clock.seen, 2)):  # fmt: skip
        time.now = now
        call(number)
    time.now = 13.0
    clock.ended()
    assert found == [(1, 4.0), (2, 3.0)]


def test_a_strategy_that_configures_nothing_has_rounds_between_what_is_seen() -> None:
    found: list[tuple[int, float]] = []
    time = Clock()
    clock = RoundClock(lambda number, seconds: found.append((number, seconds)), time)
    for now, number in ((1, 0), (3, 1), (4, 1), (8, 2)):
        time.now = now
        clock.seen(number)
    clock.ended()
    assert found == [(1, 3.0), (2, 4.0)]
