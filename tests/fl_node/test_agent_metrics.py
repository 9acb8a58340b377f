"""The metrics of an agent, at both of its ports, and those of a real run at all of its agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from fl_node.agent.model_metrics import DECLARED
from tests.fl_node.agents import Agent
from tests.fl_node.harness import SMALL, free_port
from tests.fl_node.nodes import wait_until


def samples(text: str, run: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values of a run by name, then by the labels that are not the run's or the node's, in the order of names."""
    common = {"testbed", "node", "role", "cohort", "run"}
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("run") == run:
                own = tuple(value for key, value in sorted(sample.labels.items()) if key not in common)
                found.setdefault(sample.name, {})[own] = sample.value
    return found


def test_processes_and_exits(agent: Agent) -> None:
    agent.client("measured")
    agent.wait("client", "measured", "succeeded")
    text = agent.get("/metrics").text
    labels = 'cohort="1",kind="client",node="fed.1",role="server",state="succeeded",testbed="t-agent"'
    assert f"cohortnet_agent_processes{{{labels}}}" in text
    assert "cohortnet_agent_process_exits_total" in text


def test_the_second_port_gives_metrics_and_nothing_else(agent: Agent) -> None:
    url = f"http://127.0.0.1:{agent.metrics_port}"
    assert requests.head(f"{url}/metrics", timeout=5).status_code == 200
    assert agent.metrics().splitlines()[0] == agent.get("/metrics").text.splitlines()[0]
    for method, path in (("GET", "/v1/status"), ("GET", "/"), ("POST", "/metrics"), ("POST", "/v1/server"),
                         ("DELETE", "/v1/server/x"), ("GET", "/v1/events?run=x"), ("POST", "/serv")):  # fmt: skip
        answer = requests.request(method, url + path, timeout=5, headers={"Host": f"127.0.0.1:{agent.port}"})
        assert answer.status_code == 404 and answer.json()["errors"][0]["code"] == "metrics-only", (method, path)
    assert agent.get("/v1/status").ok


def test_a_taken_metrics_port_is_named(agent: Agent, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="the agent has ended"):
        Agent(tmp_path / "node", metrics_port=agent.metrics_port)
    assert "choose another port with --metrics-port" in capfd.readouterr().err


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[Agent]]:
    """A server's and two clients', which start real FL processes."""
    made: list[Agent] = []
    try:
        for name, role in (("fed.1", "server"), ("fc.10", "client"), ("fc.11", "client")):
            environment = {"COHORTNET_NODE": name, "COHORTNET_ROLE": role}
            made.append(Agent(tmp_path / name, module="fl_node.agent", **environment))
        yield made
    finally:
        for each in made:
            each.close()


def test_a_real_run_is_seen_from_all_of_its_agents(agents: list[Agent]) -> None:
    """Two rounds of a real model: every declared series has a value, and they agree with the events."""
    server, *clients = agents
    port, names, run = free_port(), ["fc.10", "fc.11"], "seen"
    started = server.server(run, None, config=SMALL, clients=names, port=port, seed=1)
    assert started.status_code == 201, started.text
    server.wait("server", run, "listening")
    for number, each in enumerate(clients):
        body = {"server": f"127.0.0.1:{port}", "partition_id": number, "config": SMALL, "seed": 1}
        assert each.client(run, **body).status_code == 201
    running: set[float] = set()

    def over() -> bool:
        running.update(samples(server.metrics(), run).get("fl_run_running", {}).values())
        return server.status("server", run)["state"] not in ("starting", "listening", "running")

    wait_until(over, 90, "the run's end")
    assert server.status("server", run)["state"] == "succeeded", server.get(f"/v1/logs/{run}").text
    assert running == {0.0, 1.0}
    events = server.events(run, follow="false")
    found = samples(server.metrics(), run)
    expected = set(DECLARED) - {"fl_client_failed_timestamp_seconds"}
    shown = {name.removesuffix("_total").removesuffix("_bucket") for name in found}
    assert expected <= shown, expected - shown
    assert found["fl_round"] == {(): 2.0} == found["fl_rounds_planned"] and found["fl_clients_joined"] == {(): 2.0}
    assert set(found["model_accuracy"]) == {("server",), ("distributed",), ("train",)}
    last = [e for e in events if e["kind"] == "round.metrics" and e["source"] == "server"][-1]["metrics"]
    assert found["model_accuracy"][("server",)] == last["accuracy"] and found["model_loss"][("server",)] == last["loss"]
    replies = [e for e in events if e["kind"] == "client.reply"]
    for name in names:
        moved = sum(e["bytes_up"] for e in replies if e["client"] == name)
        assert found["fl_message_bytes_total"][name, "up"] == moved > 0
        last_round = sum(e["bytes_up"] for e in replies if e["client"] == name and e["round"] == 2)
        assert found["fl_client_round_bytes"][name, "up"] == last_round > 0
        assert found["fl_client_samples"][name,] == SMALL["samples-per-client"]
    counts = {phase: number for (phase,), number in found["fl_phase_seconds_count"].items()}
    assert counts == {"train": 2, "evaluate": 2, "aggregate": 4, "server_evaluate": 3, "round": 2}
    assert set(found["fl_process_memory_bytes"]) == {("server",)}
    assert len(found["fl_client_failures_total"]) == 6 and not any(found["fl_client_failures_total"].values())
    for each in clients:
        own = samples(each.metrics(), run)
        assert set(own) == {"model_loss", "model_accuracy", "fl_process_memory_bytes"}
        assert set(own["model_loss"]) == {("client",)} and own["fl_process_memory_bytes"][("client",)] > 50e6
