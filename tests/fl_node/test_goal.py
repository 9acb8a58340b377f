"""A run whose goal is reached ends well: real server, real clients; and the agent's call for it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import requests

from tests.fl_node.agents import Agent
from tests.fl_node.harness import SMALL, Cohort
from tests.fl_node.nodes import wait_until


def test_sigusr1_ends_a_run_as_finished_with_the_weights_of_its_last_round(
    cohort: Callable[..., Cohort],
) -> None:
    """Exit codes 0 all over, no `run.failed`; the hash is that of a run of just so many rounds."""
    made = cohort(2, config={**SMALL, "num-server-rounds": 5000}).start()
    made.wait_event("round.metrics", source="server", round=2)
    made.processes["server"].send_signal(signal.SIGUSR1)
    assert made.wait("server", 30) == 0, made.log("server")
    assert [made.wait(name, 30) for name in made.names] == [0, 0], made.log("fc.10")
    assert [e["outcome"] for n in made.names for e in made.events("client.ended", n)] == ["finished"] * 2
    assert made.events("run.failed") == []
    last = made.events()[-1]
    assert last["kind"] == "run.finished" and last["stopped"] == "goal" and last["seconds"] > 0
    assert 2 <= last["rounds"] < 1000 and last["bytes_up"] > 0
    assert "finished (its goal is reached)" in made.log("server")

    same = cohort(2, config={**SMALL, "num-server-rounds": last["rounds"]}, run="same").start()
    assert same.wait("server") == 0, same.log("server")
    whole = same.events("run.finished")[0]
    assert whole["weights_sha256"] == last["weights_sha256"] and "stopped" not in whole


def test_before_the_run_has_begun_it_is_a_stop(cohort: Callable[..., Cohort]) -> None:
    made = cohort(2)
    made.start_server()
    made.processes["server"].send_signal(signal.SIGUSR1)
    assert made.wait("server", 30) == 1
    assert made.events("run.failed")[0]["error"] == "stopped"


def test_the_agent_has_a_server_finish(tmp_path: Path) -> None:
    """The process ends by itself and has succeeded; one that knows no such signal is stopped by it."""
    agent = Agent(tmp_path / "node")
    try:
        agent.server("good", "finishing", port=6140)
        agent.server("other", "wait", port=6141)
        agent.client("good", "wait")
        for run in ("good", "other"):
            agent.wait("server", run, "running")
        wait_until(lambda: "again" in str(agent.events("good", follow="false")), 5, "its handler")

        def stop(kind: str, run: str, reason: str) -> requests.Response:
            return requests.delete(f"{agent.url}/v1/{kind}/{run}", params={"reason": reason}, timeout=15)

        good = stop("server", "good", "goal").json()
        assert (good["state"], good["exit_code"], good["error"]) == ("succeeded", 0, None)
        assert [e["stopped"] for e in agent.events("good", follow="false") if e["kind"] == "run.finished"]
        assert stop("server", "good", "goal").json() == good
        assert stop("server", "other", "goal").json()["state"] == "stopped"
        for kind, reason in (("client", "goal"), ("server", "boredom"), ("server", "")):
            refused = stop(kind, "good", reason)
            assert refused.status_code == 400 and refused.json()["errors"][0]["path"] == "reason"
        assert agent.status("client", "good")["state"] == "running"
    finally:
        agent.close()
