"""Whole lives of intents: real edge and central processes, fake agents."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.mlfo.harness import SEED_INTENT, Testbed, free_port, values

Make = Callable[..., Testbed]
FORM: dict[str, Any] = {
    "ipstart": 10,
    "cohortsize": 4,
    "avgalgo": "FedAvg",
    "fracfit": "1.0",
    "minfit": 4,
    "minav": 4,
    "numround": 3,
}
LONG = SEED_INTENT + "rounds: 500\n"


def test_an_intent_runs_to_its_end_on_the_plans_server(testbed: Make) -> None:
    bed = testbed(2, 4)
    answer = bed.post(**{**FORM, "ipstart": 14})
    assert answer["server"] == "fed.2" and answer["clients"] == ["fc.14", "fc.15", "fc.16", "fc.17"]
    record = bed.wait(answer["id"])
    assert record["state"] == "succeeded", record["reason"]
    assert record["server_address"] == "127.0.0.102:6000" and record["server"] == "fed.2"
    assert set(record["phases"]) == {"accepted", "resolving", "allocating", "starting", "running"}
    events = bed.events(answer["id"])
    kinds = [e["kind"] for e in events]
    states = [k for k in kinds if k.startswith("intent.")]
    assert states == [
        "intent.accepted",
        "intent.resolving",
        "intent.resolved",
        "intent.allocating",
        "intent.allocated",
        "intent.starting",
        "intent.running",
        "intent.succeeded",
    ]
    assert (
        kinds.count("client.joined") == 4
        and kinds.count("run.finished") == 1
        and kinds.count("client.finished") == 4
    )
    assert [e["seq"] for e in events] == sorted(e["seq"] for e in events)
    finished = next(e for e in events if e["kind"] == "client.finished")
    assert finished["interface_end"]["rx_bytes"] == 1100 and finished["interface_start"]["tx_bytes"] == 200
    assert next(e for e in events if e["kind"] == "server.finished")["interface_end"]["tx_bytes"] == 2200
    assert all("phase_seconds" in e and e["monotonic"] for e in events if e["kind"] == "intent.running")
    # What the agents were asked: partitions by client order, one seed, the whole config.
    for index, client in enumerate(answer["clients"]):
        request = bed.agents.requests[(client, "client", answer["id"])]
        assert (request["partition_id"], request["num_partitions"], request["server"]) == (
            index,
            4,
            "127.0.0.102:6000",
        )
        assert request["config"]["num-server-rounds"] == 3 and request["seed"] == answer["seed"]
    server = bed.agents.requests[("fed.2", "server", answer["id"])]
    assert (
        server["clients"] == answer["clients"]
        and server["config"] == answer["config"]
        and server["port"] == 6000
    )
    assert server["join_timeout_s"] == 72.0
    servers = requests.get(f"{bed.url}/v1/servers", timeout=5).json()["servers"]
    assert [(s["name"], s["run"]) for s in servers] == [("fed.1", None), ("fed.2", None)]
    metrics = requests.get(f"{bed.url}/metrics", timeout=5).text
    assert 'mlfo_intents{node="mo.1",role="edge",state="succeeded"} 1.0' in metrics
    assert 'mlfo_momo_messages_total{direction="sent",method="Deploy",outcome="OK"} 1.0' in metrics
    assert 'mlfo_intent_phase_seconds_count{phase="running"} 1.0' in metrics
    measured = values(metrics)
    assert measured["mlfo_intents_accepted_total"] == 1 == measured["mlfo_intent_processing_seconds_count"]
    ran = next(e["time"] for e in events if e["kind"] == "intent.running") - answer["created"]
    assert measured["mlfo_intent_processing_seconds_sum"] == pytest.approx(ran, abs=0.1)
    ended = next(e["time"] for e in events if e["kind"] == "intent.succeeded")
    labels = f'intent="{answer["intentID"]}",run="{answer["id"]}",state="succeeded"'
    assert measured[f"mlfo_intent_state_timestamp_seconds{{{labels}}}"] == pytest.approx(ended, abs=0.1)
    assert sum(name.startswith("mlfo_intent_state_timestamp") for name in measured) == 1
    central = values(requests.get(f"{bed.central_url}/metrics", timeout=5).text)
    for method in ("Deploy", "Release"):
        name = f'mlfo_momo_bytes_total{{direction="%s",method="{method}"}}'
        sent, received = name % "sent", name % "received"
        assert measured[sent] == central[received] > 0 and measured[received] == central[sent] > 0
        seconds = f'mlfo_momo_seconds_sum{{method="{method}"}}'
        assert 0 < central[seconds] <= measured[seconds]


def test_low_privacy_learns_at_the_server_on_the_union_of_the_data(testbed: Make) -> None:
    bed = testbed(1, 4)
    text = SEED_INTENT.replace("high", "low") + "data: {samples_per_client: 100}\n"
    record = bed.wait(bed.post(text)["id"])
    assert record["state"] == "succeeded", record["reason"]
    clients = [k for k in bed.agents.requests if k[1] == "client"]
    assert clients == [("fed.1", "client", record["id"])]
    request = bed.agents.requests[clients[0]]
    assert request["num_partitions"] == 1 and request["config"]["samples-per-client"] == 400
    assert bed.agents.requests[("fed.1", "server", record["id"])]["clients"] == ["fed.1"]


def test_fifty_intents_at_once_each_server_once_at_a_time(testbed: Make) -> None:
    bed = testbed(10, 5, round_s=0.05)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda i: bed.post(ipstart=10 + i, cohortsize=1, numround=2), range(50)))
    records = [bed.wait(a["id"], timeout_s=60) for a in answers]
    assert Counter(r["state"] for r in records) == {"succeeded": 50}, {r["reason"] for r in records}
    assert all(len(runs) == 1 for runs in bed.agents.held.values()), bed.agents.held
    deployed = Counter(run for _, kind, run in bed.agents.requests if kind == "server")
    assert len(deployed) == 50 and set(deployed.values()) == {1}
    for answer, record in zip(answers, records, strict=True):
        if record["server"] != answer["server"]:
            assert any("next free one" in note for note in record["notes"]), record["notes"]


def test_no_free_server_fails_by_the_deadline_naming_the_holder(testbed: Make) -> None:
    bed = testbed(1, 4, edge=("--allocation-timeout", "1"))
    holder = bed.post(LONG, ipstart=10, cohortsize=2)["id"]
    bed.wait(holder, ("running",))
    late = bed.wait(bed.post(ipstart=12, cohortsize=2)["id"])
    assert late["state"] == "failed" and f"fed.1 by {holder}" in late["reason"]
    assert bed.get(holder)["state"] == "running"


def test_a_client_in_a_live_run_is_refused_naming_both(testbed: Make) -> None:
    bed = testbed(2, 4)
    first = bed.post(LONG, ipstart=10, cohortsize=4)["id"]
    refused = bed.post(expect=409, ipstart=13, cohortsize=2)
    assert [e["code"] for e in refused["errors"]] == ["client_busy"]
    assert "fc.13" in refused["errors"][0]["message"] and first in refused["errors"][0]["message"]
    assert requests.delete(f"{bed.url}/v1/intents/{first}", timeout=5).status_code == 202
    assert bed.wait(first)["state"] == "cancelled"
    assert bed.wait(bed.post(ipstart=13, cohortsize=2)["id"])["state"] == "succeeded"
    ended = [p["state"] for (n, k, r), p in bed.agents.processes.items() if r == first]
    assert set(ended) == {"stopped"}, ended


def test_kill_and_restart_of_the_edge_continues_a_running_intent(testbed: Make) -> None:
    bed = testbed(2, 4, round_s=0.1)
    run = bed.post(SEED_INTENT + "rounds: 30\n", ipstart=10, cohortsize=4)["id"]
    bed.wait(run, ("running",))
    bed.kill("edge")
    time.sleep(0.5)
    bed.start("edge")
    record = bed.wait(run)
    assert record["state"] == "succeeded", record["reason"]
    events = bed.events(run)
    rounds = [e["round"] for e in events if e["kind"] == "round.metrics" and e["source"] == "server"]
    assert rounds == list(range(1, 31)), "no event lost, none twice"
    assert "intent.resumed" in [e["kind"] for e in events]
    assert bed.agents.posts.count(("fed.1", "server", run)) == 1


def test_kill_while_starting_and_kill_of_the_central_are_survived(testbed: Make) -> None:
    bed = testbed(1, 4, round_s=0.1)
    bed.agents.behave["fc.13"] = "silent"
    run = bed.post(SEED_INTENT + "rounds: 20\n")["id"]
    bed.wait(run, ("starting",))
    bed.kill("edge")
    bed.kill("central")
    # The client joins at last; nobody follows.
    bed.agents.learn("fc.13", run, {"server": "127.0.0.101:6000", "num_partitions": 4}, None)
    bed.start("central")
    bed.start("edge")
    record = bed.wait(run)
    assert record["state"] == "succeeded", record["reason"]
    assert len([k for k in bed.agents.requests if k[1] == "server"]) == 1
    servers = requests.get(f"{bed.central_url}/v1/servers", timeout=5).json()["servers"]
    assert servers[0]["run"] is None


def test_sigterm_leaves_the_intent_live_for_the_next_start(testbed: Make) -> None:
    bed = testbed(1, 2, round_s=0.1)
    run = bed.post(SEED_INTENT + "rounds: 20\n")["id"]
    bed.wait(run, ("running",))
    began = time.monotonic()
    bed.kill("edge", signal.SIGTERM)
    assert time.monotonic() - began < 8
    bed.start("edge")
    assert bed.wait(run)["state"] == "succeeded"


def test_faulty_nodes_fail_their_intent_early_and_by_name(testbed: Make) -> None:
    bed = testbed(4, 2)
    for node in bed.content["nodes"]:
        if node["name"] == "fc.11":
            node["agent_port"] = free_port()  # nobody listens there
    bed.write()
    bed.agents.behave |= {"fc.13": "dies", "fc.15": "refuses", "fed.4": "fails"}
    began = time.monotonic()
    runs = [bed.post(ipstart=first, cohortsize=2)["id"] for first in (10, 12, 14, 16)]
    unreachable, died, refused, server = (bed.wait(run) for run in runs)
    assert time.monotonic() - began < 12
    assert {r["state"] for r in (unreachable, died, refused, server)} == {"failed"}
    assert "fc.11" in unreachable["reason"] and "unreachable" in unreachable["reason"]
    assert "fc.13" in died["reason"] and "killed by signal 9" in died["reason"]
    assert "fc.15" in refused["reason"] and "holds the port" in refused["reason"]
    assert "fed.4" in server["reason"] and "cannot be imported" in server["reason"]
    assert died["nodes_at_fault"] == ["fc.13"]
    live = [k for k, p in bed.agents.processes.items() if p["state"] in ("starting", "listening", "running")]
    assert live == [], "everything of a failed run is stopped"
    bed.agents.behave.clear()
    assert bed.wait(bed.post(ipstart=12, cohortsize=2)["id"])["state"] == "succeeded"


def test_a_client_that_never_joins_fails_the_intent_by_the_deadline(testbed: Make) -> None:
    bed = testbed(1, 2, edge=("--join-timeout", "-5", "--join-timeout-per-client", "0.2"))
    bed.agents.behave["fc.11"] = "silent"
    record = bed.wait(bed.post()["id"])
    assert (
        record["state"] == "failed"
        and "not joined" in record["reason"]
        and record["nodes_at_fault"] == ["fc.11"]
    )


def test_a_goal_ends_the_run_and_a_deadline_fails_it(testbed: Make) -> None:
    bed = testbed(3, 2)
    met = bed.post(SEED_INTENT + "rounds: 500\ngoal: {accuracy: 0.6}\n", ipstart=10, cohortsize=2)["id"]
    late = bed.post(
        SEED_INTENT + "rounds: 500\ngoal: {accuracy: 1.0, deadline: 1500 ms}\n", ipstart=12, cohortsize=2
    )["id"]
    unmet = bed.post(SEED_INTENT + "rounds: 2\ngoal: {accuracy: 0.9}\n", ipstart=14, cohortsize=2)["id"]
    record = bed.wait(met)
    assert (
        record["state"] == "succeeded"
        and record["goal"]["met"] is True
        and record["goal"]["reached"]["round"] == 2
    )
    assert bed.wait(late)["state"] == "failed" and "deadline of 1.5 s" in bed.get(late)["reason"]
    assert bed.wait(unmet)["state"] == "failed" and bed.get(unmet)["goal"]["met"] is False


def test_a_run_that_reached_its_goal_is_finished_and_a_deaf_server_is_stopped(testbed: Make) -> None:
    """`run.finished` says what came of it and nobody is stopped; the other way is bounded and ends as well."""
    bed = testbed(2, 2, edge=("--finish-timeout", "1"))
    bed.agents.behave["fed.2"] = "deaf"
    text = SEED_INTENT + "rounds: 500\ngoal: {accuracy: 0.6}\n"
    well, deaf = (bed.post(text, ipstart=first, cohortsize=2)["id"] for first in (10, 12))
    for run in (well, deaf):
        record = bed.wait(run)
        assert record["state"] == "succeeded" and record["reason"].startswith("goal met"), record["reason"]
        assert record["goal"]["met"] is True and record["goal"]["reached"]["round"] == 2
    states = {key: process["state"] for key, process in bed.agents.processes.items()}
    finished = [e for e in bed.events(well) if e["kind"] == "run.finished"]
    assert len(finished) == 1 and finished[0]["stopped"] == "goal" and finished[0]["rounds"] >= 2
    assert {state for (_, _, run), state in states.items() if run == well} == {"succeeded"}
    assert [q for n, k, r, q in bed.agents.deletes if r == well and k == "server"][0] == "reason=goal"
    assert {state for (_, _, run), state in states.items() if run == deaf} == {"stopped"}
    assert [q for n, k, r, q in bed.agents.deletes if r == deaf and k == "server"][:2] == ["reason=goal", ""]


def test_sameserver_reuses_by_source_and_model_also_after_restarts(testbed: Make) -> None:
    bed = testbed(3, 2)
    assert bed.wait(bed.post(ipstart=12, cohortsize=2, sameserver="nor")["id"])["server"] == "fed.2"
    bed.kill("central")
    bed.start("central")
    again = bed.wait(bed.post(ipstart=14, cohortsize=2, sameserver="yes")["id"])
    assert again["server"] == "fed.2" and any("used again" in n for n in again["notes"])
    other = bed.wait(bed.post(SEED_INTENT + "model: mlp\n", ipstart=14, cohortsize=2, sameserver="yes")["id"])
    assert other["server"] == "fed.3", "another model has no server to use again"
    assert bed.wait(bed.post(ipstart=14, cohortsize=2, sameserver="no")["id"])["server"] == "fed.3"
    assert bed.wait(bed.post(ipstart=10, cohortsize=2, sameserver="nor")["id"])["server"] == "fed.1"


def test_reset_cancels_and_frees_and_only_by_post(testbed: Make) -> None:
    bed = testbed(2, 2)
    run = bed.post(LONG)["id"]
    bed.wait(run, ("running",))
    assert requests.get(f"{bed.url}/v1/reset", timeout=5).status_code == 405
    reply = requests.post(f"{bed.url}/v1/reset", timeout=40).json()
    assert reply["cancelled"] == [run] and bed.get(run)["state"] == "cancelled"
    assert all(s["run"] is None for s in requests.get(f"{bed.url}/v1/servers", timeout=5).json()["servers"])
    assert bed.wait(bed.post()["id"])["state"] == "succeeded"


def test_a_central_that_is_away_for_a_while_is_waited_for(testbed: Make) -> None:
    bed = testbed(1, 2)
    bed.kill("central")
    run = bed.post()["id"]
    time.sleep(1.0)
    bed.start("central")
    assert bed.wait(run)["state"] == "succeeded"


def test_events_follow_live_and_end_with_the_intent(testbed: Make) -> None:
    bed = testbed(1, 2, round_s=0.1)
    run = bed.post(numround=5)["id"]
    seen = []
    with requests.get(f"{bed.url}/v1/intents/{run}/events", stream=True, timeout=15) as stream:
        for line in stream.iter_lines(chunk_size=1):
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
    assert seen[-1]["kind"] == "intent.succeeded" and seen == bed.events(run)
    middle = seen[5]["seq"]
    text = requests.get(f"{bed.url}/v1/intents/{run}/events?since={middle}&follow=false", timeout=5).text
    assert [int(x[4:]) for x in text.splitlines() if x.startswith("id: ")] == [e["seq"] for e in seen[6:]]


def test_a_server_node_that_vanishes_fails_the_intent_by_name(testbed: Make) -> None:
    bed = testbed(1, 2, edge=("--lost-after", "1"))
    run = bed.post(LONG)["id"]
    bed.wait(run, ("running",))
    bed.agents.vanish()
    record = bed.wait(run)
    assert (
        record["state"] == "failed"
        and "server lost" in record["reason"]
        and record["nodes_at_fault"] == ["fed.1"]
    )


def test_intents_wait_for_a_testbed_that_is_being_raised(testbed: Make) -> None:
    bed = testbed(1, 2)
    bed.content["state"] = "raising"
    bed.write()
    run = bed.post()["id"]
    time.sleep(0.3)
    assert bed.get(run)["state"] == "resolving"
    bed.content["state"] = "up"
    bed.write()
    assert bed.wait(run)["state"] == "succeeded"
