"""The agent as a real process and the (fake) FL processes that it starts: states, ends, stops, restarts."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fl_node.agents import Agent
from tests.fl_node.nodes import alive, wait_until


def test_a_run_from_start_to_end(agent: Agent) -> None:
    """States, exit code, interface counters, events in their order with the agent's own numbers."""
    answer = agent.server("whole", port=6101, config={"pause": 0.2})
    assert answer.status_code == 201
    assert answer.json()["state"] in ("starting", "listening", "running")
    assert answer.json()["address"] == "127.0.0.1:6101" and answer.json()["pid"] > 0
    status = agent.wait("server", "whole", "succeeded")
    assert status["exit_code"] == 0 and status["error"] is None and status["ended"] > status["started"]
    assert status["interface_start"]["name"] == status["interface_end"]["name"] == "lo"
    assert status["interface_end"]["rx_bytes"] >= status["interface_start"]["rx_bytes"] > 0
    events = agent.events("whole", follow="false")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["kind"] for event in events] == [
        "process.started",
        "server.listening",
        "run.started",
        *["round.metrics"] * 3,
        "run.finished",
        "process.ended",
    ]
    assert all(event["node"] == "fed.1" and event["run"] == "whole" for event in events)
    assert events[0]["interface"]["name"] == "lo" and events[-1]["exit_code"] == 0
    config = json.loads((agent.state / "runs/whole/server/config.json").read_text())
    assert config["host"] == "0.0.0.0" and config["port"] == 6101 and Path(config["events"]).is_absolute()
    assert "behaves: run" in agent.get("/v1/logs/whole", params={"kind": "server"}).text


def test_a_client_is_told_its_state_folder_and_name(agent: Agent) -> None:
    assert agent.client("cl", seed=7).status_code == 201
    agent.wait("client", "cl", "succeeded")
    config = json.loads((agent.state / "runs/cl/client/config.json").read_text())
    assert config["name"] == "fed.1" and config["state"].startswith(str(agent.state))
    assert config["seed"] == 7 and config["partition_id"] == 0


def test_the_same_request_starts_once(agent: Agent) -> None:
    """Twenty at once: one 201, one process; another body is refused naming what differs."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: agent.server("once", "wait", port=6102), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["pid"] for answer in answers}) == 1
    other = agent.server("once", "wait", port=6102, config={"rounds": 9})
    assert other.status_code == 409
    assert (
        other.json()["errors"][0]["path"] == "config.rounds" and "9" in other.json()["errors"][0]["message"]
    )
    agent.stop("server", "once")


def test_one_server_a_port(agent: Agent) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: agent.server(f"port-{number}", "wait", port=6103), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    holder = next(answer.json()["run_id"] for answer in answers if answer.status_code == 201)
    assert all(f"'{holder}'" in answer.json()["errors"][0]["message"] for answer in answers if not answer.ok)
    agent.stop("server", holder)
    assert agent.server("port-after", "wait", port=6103).status_code == 201
    agent.stop("server", "port-after")


def test_stop_is_sigterm_then_sigkill_and_takes_the_group(agent: Agent) -> None:
    agent.server("polite", "wait", port=6104)
    agent.server("stubborn", "stubborn", port=6105)
    agent.server("children", "children", port=6106)
    for run in ("polite", "stubborn", "children"):
        agent.wait("server", run, "running")
    grandchild = int((agent.state / "runs/children/server/grandchild").read_text())
    assert alive(grandchild)
    assert agent.stop("server", "children")["state"] == "stopped"
    wait_until(lambda: not alive(grandchild), 2, "the grandchild's end")
    polite = agent.stop("server", "polite")
    assert (polite["state"], polite["exit_code"]) == ("stopped", -signal.SIGTERM)
    began = time.monotonic()
    stubborn = agent.stop("server", "stubborn")
    assert (stubborn["state"], stubborn["exit_code"]) == ("stopped", -signal.SIGKILL)
    assert 4.5 < time.monotonic() - began < 7.5
    assert agent.stop("server", "stubborn") == stubborn
    assert not any(alive(status["pid"]) for status in (polite, stubborn))


def test_failures_say_why(agent: Agent) -> None:
    """The last run.failed event, else the last line that the process printed."""
    agent.server("failing", "fail", port=6107)
    status = agent.wait("server", "failing", "failed")
    assert status["exit_code"] == 3 and status["error"] == "client fc.9 is missing"
    agent.server("crashing", "crash", port=6107)
    status = agent.wait("server", "crashing", "failed")
    assert status["exit_code"] == 1 and status["error"] == "RuntimeError: the fake has crashed"
    agent.client("killed", "wait")
    os.kill(agent.wait("client", "killed", "running")["host_pid"], signal.SIGKILL)
    assert agent.wait("client", "killed", "failed")["exit_code"] == -signal.SIGKILL


def test_everything_dies_with_a_killed_agent(own_agent: Agent) -> None:
    """kill -9: the kernel ends the processes; the next agent knows what was, and starts anew under other
    ids."""
    own_agent.server("a", "stubborn", port=6110)
    own_agent.client("a", "wait")
    own_agent.server("done", port=6111)
    own_agent.wait("server", "done", "succeeded")
    pids = [own_agent.wait(kind, "a", "running")["pid"] for kind in ("server", "client")]
    before = own_agent.events("done", follow="false")
    own_agent.process.kill()
    own_agent.process.wait()
    left = pids
    wait_until(lambda: not any(alive(pid) for pid in left), 2, f"the end of {left}")
    again = Agent(own_agent.state)
    try:
        lost, done = again.status("server", "a"), again.status("server", "done")
        assert lost["state"] == "failed" and "agent ended" in lost["error"]
        assert done["state"] == "succeeded" and again.events("done") == before
        assert again.server("done", port=6111).status_code == 200
        assert again.server("b", "wait", port=6110).status_code == 201
    finally:
        again.close()


@pytest.mark.live
def test_as_pid_1_it_collects_orphans(tmp_path: Path) -> None:
    """In a container nobody else does; its own children's exit codes are still its own."""
    made = Agent(tmp_path / "node", "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    try:
        children = Path(f"/proc/{made.process.pid}/task/{made.process.pid}/children")
        agent_pid = int(children.read_text())
        for number in range(5):
            assert made.server(f"orphans-{number}", "orphans", port=6120 + number).status_code == 201
        assert made.server("bad", "fail", port=6119).status_code == 201
        for number in range(5):
            made.wait("server", f"orphans-{number}", "succeeded")
        assert made.wait("server", "bad", "failed")["exit_code"] == 3
        left = Path(f"/proc/{agent_pid}/task/{agent_pid}/children")
        wait_until(lambda: not left.read_text().strip(), 5, "the orphans to be collected")
        os.kill(agent_pid, signal.SIGTERM)
        assert made.process.wait(10) == 0
    finally:
        made.process.kill()
        made.process.wait()


def test_sigterm_stops_the_processes_first(own_agent: Agent) -> None:
    own_agent.server("a", "wait", port=6112)
    pid = own_agent.wait("server", "a", "running")["pid"]
    watcher = own_agent.get("/v1/events?run=a", stream=True)
    began = time.monotonic()
    own_agent.process.terminate()
    assert own_agent.process.wait(12) == 0
    assert time.monotonic() - began < 4 and not alive(pid)
    watcher.close()
    kept = (own_agent.state / "runs/a/events.jsonl").read_text()
    assert json.loads(kept.splitlines()[-1])["kind"] == "process.ended"
