"""Agent and spawner together: an agent that was forked into a node has its FL processes forked beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_node.spawner_client import Spawned, Spawner
from tests.fl_node.nodes import Nest, alive, pss_kib, wait_until
from tests.fl_node.test_spawner import start_nest

pytestmark = pytest.mark.live

FAKES = str(Path(__file__).parent / "fakes")


class AgentInNode:
    """An agent in node `name`, asked with curl from inside the node's network."""

    def __init__(self, nest: Nest, name: str, module: str = "tests.fl_node.fakes.agent") -> None:
        self.init = nest.nodes[name].pid
        self.state = nest.folder / "nodes" / name
        self.state.mkdir(parents=True)
        environment = {
            "COHORTNET_NODE": name,
            "COHORTNET_ROLE": "server",
            "COHORTNET_ADDRESS": "127.0.0.1",
            "COHORTNET_STATE": str(self.state),
            "COHORTNET_SPAWNER": str(nest.socket),
        }
        self.process: Spawned = Spawner(nest.socket).start(
            name, ["python", "-m", module], environment, self.state / "program.log"
        )
        wait_until(
            lambda: "listening" in (self.state / "program.log").read_text(), 10, "the agent in the node"
        )

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        curl = ["nsenter", "-t", str(self.init), "-n", "curl", "-s", "-m", "15", "-X", method]
        if body is not None:
            curl += ["-d", json.dumps(body)]
        done = subprocess.run(
            [*curl, f"http://127.0.0.1:5000{path}"], capture_output=True, timeout=20, check=True
        )
        return json.loads(done.stdout)

    def events(self, run_id: str) -> bytes:
        curl = ["nsenter", "-t", str(self.init), "-n", "curl", "-s", "-m", "15"]
        url = f"http://127.0.0.1:5000/v1/events?run={run_id}&follow=false"
        return subprocess.run([*curl, url], capture_output=True, timeout=20, check=True).stdout

    def start(self, run_id: str, behave: str, port: int = 6000) -> dict[str, Any]:
        return self.call(
            "POST",
            "/v1/server",
            {
                "run_id": run_id,
                "application": "image_classification",
                "port": port,
                "clients": ["fc.1"],
                "config": {"behave": behave},
            },
        )

    def wait(self, run_id: str, state: str, seconds: float = 10) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.call("GET", f"/v1/server/{run_id}")
            return status if status["state"] == state else None

        return wait_until(reached, seconds, f"{run_id} to be {state}")


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Nest]:
    with contextlib.closing(start_nest(tmp_path, Path(FAKES).parent)) as made:
        made.add("fed.1")
        made.write()
        yield made


def test_runs_through_the_spawner(nest: Nest) -> None:
    """FL processes are forks of the application's template, in the node, with exit codes, stops and
    leases."""
    agent = AgentInNode(nest, "fed.1")
    spawner = Spawner(nest.socket)
    spawner.warm(FAKES, {})
    agent.start("good", "run")
    assert agent.wait("good", "succeeded")["exit_code"] == 0
    agent.start("bad", "fail")
    assert agent.wait("bad", "failed")["error"] == "client fc.9 is missing"
    waiting = agent.start("waiting", "wait")
    agent.wait("waiting", "running")
    child = next(item for item in spawner.status()["children"] if item["pid"] == waiting["host_pid"])
    assert child["application"] == FAKES and child["lease"] and child["node_pid"] == waiting["pid"]
    assert os.readlink(f"/proc/{waiting['host_pid']}/ns/net") == os.readlink(f"/proc/{agent.init}/ns/net")
    print(f"\nPSS: agent {pss_kib(agent.process.pid)} KiB, FL process {pss_kib(waiting['host_pid'])} KiB")
    stopped = agent.call("DELETE", "/v1/server/waiting")
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", -signal.SIGTERM)
    agent.start("finishing", "finishing")
    agent.wait("finishing", "running")
    wait_until(lambda: "again" in str(agent.events("finishing")), 5, "its handler")
    finished = agent.call("DELETE", "/v1/server/finishing?reason=goal")
    assert (finished["state"], finished["exit_code"]) == ("succeeded", 0)
    agent.start("stubborn", "stubborn")
    agent.wait("stubborn", "running")
    stopped = agent.call("DELETE", "/v1/server/stubborn")
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", -signal.SIGKILL)


def test_fl_processes_die_with_a_killed_agent_and_with_the_spawner(nest: Nest) -> None:
    agent = AgentInNode(nest, "fed.1")
    agent.start("a", "wait")
    pid = agent.wait("a", "running")["host_pid"]
    os.kill(agent.process.pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), 8, "the end of the FL process after its agent's")
    assert agent.process.wait(5) == -signal.SIGKILL
    nest.process.kill()
    nest.process.wait()


def test_a_spawner_that_has_gone_is_told(nest: Nest, tmp_path: Path) -> None:
    agent = AgentInNode(nest, "fed.1")
    nest.socket.unlink()
    answer = agent.start("a", "run")
    assert (
        answer["errors"][0]["code"] == "process.start" and "does not answer" in answer["errors"][0]["message"]
    )
