"""Whole runs with real processes on loopback: learning, repeating, the shipped and a foreign application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fl_node.harness import SMALL, Cohort

APPS = Path(__file__).resolve().parent / "apps"
LENET = {"model": "lenet", "dataset": "fashionmnist", "min-train-nodes": 4, "min-available-nodes": 4}


def test_lenet_learns_fashion_mnist_and_repeats_to_the_bit(cohort: Callable[..., Cohort]) -> None:
    """Four clients, 2,000 images each, three rounds; a second run ends in the same weights."""
    finished = []
    for run in ("first", "second"):
        made = cohort(4, config=LENET, run=run).start()
        assert made.wait("server", 150) == 0, made.log("server")
        assert [made.wait(name, 30) for name in made.names] == [0, 0, 0, 0]
        accuracy = made.accuracies()
        assert len(accuracy) == 4
        assert accuracy[-1] > accuracy[1] > accuracy[0], accuracy
        assert accuracy[-1] > 0.70, accuracy
        finished.append(made.events("run.finished")[0])
    assert finished[0]["weights_sha256"] == finished[1]["weights_sha256"]
    assert len(finished[0]["weights_sha256"]) == 64

    events = made.events()
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert all(e["node"] == "fed.1" and e["run"] == "second" for e in events)
    kinds = [e["kind"] for e in events]
    assert kinds[0] == "server.listening" and kinds[-1] == "run.finished"
    assert kinds.count("client.joined") == 4 and kinds.count("cohort.complete") == 1
    started = made.events("run.started")[0]
    assert started["num_clients"] == 4 and started["config"]["model"] == "lenet"
    assert 61_706 * 4 < started["model_bytes"] < 61_706 * 4 * 1.02

    phases = made.events("phase.finished")
    assert [(p["round"], p["phase"]) for p in phases] == [
        (number, phase) for number in (1, 2, 3) for phase in ("train", "evaluate")
    ]
    assert all(p["replies"] == 4 and p["errors"] == 0 and p["seconds"] > 0 for p in phases)
    replies = made.events("client.reply", phase="train", round=1)
    assert {r["client"] for r in replies} == set(made.names)
    for reply in replies:
        assert reply["num_examples"] == 2000 and reply["error"] is None
        assert set(reply["metrics"]) == {"loss", "accuracy"}
        for direction in ("bytes_down", "bytes_up"):
            assert 1.0 < reply[direction] / started["model_bytes"] < 1.02
    sources = {(e["round"], e["source"]) for e in made.events("round.metrics")}
    assert sources == {(0, "server")} | {
        (n, s) for n in (1, 2, 3) for s in ("train", "distributed", "server")
    }
    assert started["num_rounds"] == 3
    aggregated = made.events("aggregate.finished")
    assert [(e["round"], e["phase"]) for e in aggregated] == [(p["round"], p["phase"]) for p in phases]
    evaluated = made.events("server_evaluate.finished")
    assert [e["round"] for e in evaluated] == [0, 1, 2, 3]
    rounds = made.events("round.finished")
    assert [e["round"] for e in rounds] == [1, 2, 3] and rounds[0]["memory_bytes"] > 50e6
    for each in rounds:
        parts = [e["seconds"] for e in (*phases, *aggregated, *evaluated) if e["round"] == each["round"]]
        assert 0 <= each["seconds"] - sum(parts) < 0.5, (each, parts)
    assert evaluated[0]["seconds"] + sum(e["seconds"] for e in rounds) <= finished[1]["seconds"] + 0.01

    total = sum(p["bytes_down"] for p in phases)
    assert 0 <= finished[1]["bytes_down"] - total < 2000  # welcomes, confirmations, the end


def test_another_seed_gives_other_weights(cohort: Callable[..., Cohort]) -> None:
    """The seed of the request reaches selection, partition and training."""
    hashes = []
    for seed in (1, 2):
        made = cohort(2, config=SMALL, server={"seed": seed}, client={"seed": seed}).start()
        assert made.wait() == 0, made.log("server")
        hashes.append(made.events("run.finished")[0]["weights_sha256"])
        assert made.events("run.started")[0]["config"]["seed"] == seed
    assert hashes[0] != hashes[1]


def test_a_foreign_application_runs_unmodified(cohort: Callable[..., Cohort]) -> None:
    """A strategy subclass with its own start, a mod, Context.state, a query by push and pull."""
    made = cohort(3, application=str(APPS / "custom"), config={}).start()
    assert made.wait() == 0, made.log("server")
    assert "PARTITIONS [0, 1, 2]" in made.log("server")
    assert "MY OWN START" in made.log("server")
    train = made.events("round.metrics", source="train")
    assert [(e["round"], round(e["metrics"]["calls"], 6), e["metrics"]["replies"]) for e in train] == [
        (1, 1.0, 3),
        (2, 2.0, 3),
        (3, 3.0, 3),
    ]
    assert all(round(e["metrics"]["marked"], 6) == 1.0 for e in train)
    assert [p["phase"] for p in made.events("phase.finished")][:3] == ["query", "train", "evaluate"]
    assert len(made.events("run.finished")[0]["weights_sha256"]) == 64


def test_clients_may_be_counted_instead_of_named(cohort: Callable[..., Cohort]) -> None:
    """The form of `POST /serv` knows how many clients come, not which: the same weights, and no third one."""
    named, counted = cohort(2), cohort(2, server={"clients": 2})
    for made in (named, counted):
        made.start()
        assert made.wait() == 0, made.log("server")
    assert counted.events("cohort.complete")[0]["clients"] == ["fc.10", "fc.11"]
    hashes = [each.events("run.finished")[0]["weights_sha256"] for each in (named, counted)]
    assert hashes[0] == hashes[1]

    short = cohort(2, server={"clients": 3, "join_timeout_s": 20}).start()
    assert short.wait() == 1
    assert "1 of any name never connected (fc.10, fc.11 did)" in short.events("run.failed")[0]["error"]


def test_large_models_travel_in_chunks(cohort: Callable[..., Cohort]) -> None:
    """40 MB down and up, many times gRPC's limit for one message, whole and in order."""
    made = cohort(2, application=str(APPS / "large"), config={"megabytes": 40}).start()
    assert made.wait() == 0, made.log("server")
    assert "DIFFERENCE [1.0]" in made.log("server")
    for reply in made.events("client.reply"):
        assert 1.0 < reply["bytes_down"] / 40_000_000 < 1.001
        assert 1.0 < reply["bytes_up"] / 40_000_000 < 1.001
