"""The agent as a real process, which starts real (fake) FL processes: REST, ends, events, forms, restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fl_node.nodes import alive, wait_until

ROOT = Path(__file__).resolve().parents[2]
Post = Callable[..., requests.Response]


class Agent:
    """A running agent on a free port of the loopback."""

    def __init__(self, state: Path, *before: str, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = state
        identity = {
            "COHORTNET_NODE": "fed.1",
            "COHORTNET_ROLE": "server",
            "COHORTNET_TESTBED": "t-agent",
            "COHORTNET_COHORT": "1",
            "COHORTNET_ADDRESS": "127.0.0.1",
            "COHORTNET_STATE": str(state),
        }
        self.process = subprocess.Popen(
            [
                *before,
                sys.executable,
                "-m",
                "tests.fl_node.fakes.agent",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
            ],
            env={**os.environ, **identity, **environment},
            cwd=ROOT,
        )
        try:
            wait_until(self._answers, 15, "the agent")
        except BaseException:
            self.process.kill()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the agent has ended"
        try:
            return requests.get(f"{self.url}/v1/status", timeout=2).ok
        except requests.ConnectionError:
            return False

    def server(self, run_id: str, behave: str = "run", **body: Any) -> requests.Response:
        config = {"behave": behave, **body.pop("config", {})}
        whole = {
            "run_id": run_id,
            "application": "image_classification",
            "config": config,
            "clients": ["fc.1", "fc.2"],
            **body,
        }
        return requests.post(f"{self.url}/v1/server", json=whole, timeout=15)

    def client(self, run_id: str, behave: str = "run", **body: Any) -> requests.Response:
        whole = {
            "run_id": run_id,
            "application": "image_classification",
            "config": {"behave": behave},
            "server": "127.0.0.1:6000",
            "partition_id": 0,
            "num_partitions": 2,
            **body,
        }
        return requests.post(f"{self.url}/v1/client", json=whole, timeout=15)

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=15, **options)

    def status(self, kind: str, run_id: str) -> dict[str, Any]:
        answer = self.get(f"/v1/{kind}/{run_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, kind: str, run_id: str, *states: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status(kind, run_id)
            return status if status["state"] in states else None

        return wait_until(reached, 10, f"{kind} of {run_id} to be {' or '.join(states)}")

    def stop(self, kind: str, run_id: str) -> dict[str, Any]:
        answer = requests.delete(f"{self.url}/v1/{kind}/{run_id}", timeout=15)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, run_id: str, **query: Any) -> list[dict[str, Any]]:
        text = self.get("/v1/events", params={"run": run_id, **query}).text
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(12)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    made = Agent(tmp_path_factory.mktemp("agent"))
    yield made
    made.close()


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent of the test's own, to be killed."""
    made = Agent(tmp_path / "node")
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()


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


def test_events_since_and_follow(agent: Agent) -> None:
    """A follower sees events while they come, from the number it names on, and its stream ends with the
    run."""
    agent.server("followed", port=6108, config={"rounds": 10, "pause": 0.1})
    seen: list[tuple[float, int]] = []
    with agent.get("/v1/events", params={"run": "followed", "since": 2}, stream=True) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        for line in stream.iter_lines(chunk_size=1):
            if line.startswith(b"id: "):
                seen.append((time.monotonic(), int(line[4:])))
    assert [seq for _, seq in seen] == list(range(3, 16))
    assert seen[-1][0] - seen[0][0] > 0.5, "events came at once, not while the run went on"
    assert [event["seq"] for event in agent.events("followed", since=13)] == [14, 15]
    assert agent.events("followed", since=15, follow="false") == []
    with agent.get(
        "/v1/events", params={"run": "followed"}, headers={"Last-Event-ID": "14"}, stream=True
    ) as stream:
        assert b"id: 15" in stream.content and b"id: 14" not in stream.content


def test_watchers_are_many_and_bounded(agent: Agent) -> None:
    """Sixteen follow, the next is told to come back, other calls go on, and a watcher that leaves makes
    room."""
    agent.server("watched", "wait", port=6109)
    agent.wait("server", "watched", "running")
    url = f"{agent.url}/v1/events?run=watched"
    streams = [requests.get(url, stream=True, timeout=15) for _ in range(16)]
    assert {stream.status_code for stream in streams} == {200}
    refused = requests.get(url, timeout=5)
    assert refused.status_code == 503 and refused.headers["Retry-After"] and "errors" in refused.json()
    assert agent.get("/v1/events?run=watched&follow=false").status_code == 200
    assert (
        'cohortnet_agent_watchers{cohort="1",node="fed.1",role="server",testbed="t-agent"} 16.0'
        in agent.get("/metrics").text
    )
    agent.stop("server", "watched")
    assert all("process.ended" in stream.text for stream in streams)
    wait_until(lambda: requests.get(url, timeout=5).status_code == 200, 5, "room for a watcher")


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


def test_forms_of_this_family(agent: Agent) -> None:
    """/serv and /cli without ids meet under one id; the same again after the end is a new run."""
    form = {"algo": "FedAvg", "fracfit": "0.5", "minfit": "2", "minav": "4", "numround": "3"}
    first = requests.post(f"{agent.url}/serv", data=form, timeout=15)
    assert first.status_code == 201 and first.json()["run_id"] == "legacy"
    cli = {"source": "handmnist", "model": "complex", "server": "127.0.0.1:6000", "cohsize": "4", "part": "3"}
    client = requests.post(
        f"{agent.url}/cli", files={key: (None, value) for key, value in cli.items()}, timeout=15
    )
    assert client.status_code == 201 and client.json()["run_id"] == "legacy"
    assert any("handmnist" in note for note in client.json()["notes"])
    for kind in ("server", "client"):
        agent.wait(kind, "legacy", "succeeded")
    config = json.loads((agent.state / "runs/legacy/server/config.json").read_text())
    assert (
        config["clients"] == ["part-0", "part-1", "part-2", "part-3"]
        and config["config"]["num-server-rounds"] == 3
    )
    assert config["config"]["fraction-train"] == 0.5 and config["config"]["min-available-nodes"] == 4
    config = json.loads((agent.state / "runs/legacy/client/config.json").read_text())
    assert config["name"] == "part-3" and config["partition_id"] == 3 and config["num_partitions"] == 4
    assert config["config"] == {"dataset": "fashionmnist", "model": "lenet"}
    second = requests.post(f"{agent.url}/serv", data=form, timeout=15)
    assert second.status_code == 201 and second.json()["pid"] != first.json()["pid"]
    assert agent.wait("server", "legacy", "succeeded")
    assert agent.events("legacy", follow="false")[0]["seq"] == 1
    bad = requests.post(
        f"{agent.url}/cli", data={**cli, "part": "4", "source": "imagenet", "x": "1"}, timeout=15
    )
    assert bad.status_code == 400
    assert {item["path"] for item in bad.json()["errors"]} == {"part", "source", "x"}


def test_every_error_is_told_at_once(agent: Agent) -> None:
    body: dict[str, Any] = {
        "run_id": "../etc",
        "application": "x",
        "clients": 0,
        "port": "6000",
        "grace_s": -1,
        "colour": "red",
        "config": {"a": {"b": 1}},
    }
    answer = requests.post(f"{agent.url}/v1/server", json=body, timeout=15)
    assert answer.status_code == 400
    errors = answer.json()["errors"]
    assert {item["path"] for item in errors} == {"run_id", "clients", "port", "grace_s", "colour", "config.a"}
    assert all(item["code"] and item["message"] and item["hint"] for item in errors)
    unknown = agent.server("unknown-app", application="nonsense")
    assert unknown.status_code == 400 and unknown.json()["errors"][0]["path"] == "application"
    names = agent.server("names", clients=["fc.1", "fc 2", "fc.1"])
    assert names.status_code == 400 and "clients.1" in {item["path"] for item in names.json()["errors"]}
    twice = agent.server("twice", clients=["fc.1", "fc.1"])
    assert twice.status_code == 400 and "fc.1 more than once" in twice.text
    outside = agent.client("outside", partition_id=2)
    assert outside.status_code == 400 and "allowed are 0 to 1" in outside.text


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/server/none", 404),
        ("DELETE", "/v1/client/none", 404),
        ("GET", "/v1/events?run=none", 404),
        ("GET", "/v1/events", 400),
        ("GET", "/v1/events?run=x&since=-1", 400),
        ("GET", "/v1/logs/%2e%2e", 400),
        ("GET", "/v1/logs/x?tail=0", 400),
        ("GET", "/v1/server/..%2f..%2fetc", 404),
        ("PUT", "/v1/server", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v1/events?run=x&follow=perhaps", 400),
    ],
)
def test_calls_that_make_no_sense(agent: Agent, method: str, path: str, code: int) -> None:
    answer = requests.request(method, agent.url + path, timeout=15)
    assert answer.status_code == code and answer.json()["errors"][0]["code"]


def test_large_bodies_are_refused(agent: Agent) -> None:
    for size in (1 << 20, 10 << 20):
        body = b'{"run_id": "' + b"x" * size + b'"}'
        try:
            assert requests.post(f"{agent.url}/v1/server", data=body, timeout=15).status_code == 413
        except requests.ConnectionError:  # the answer may be lost where the agent closes while we still send
            assert size > 1 << 20
    assert requests.post(f"{agent.url}/v1/server", data=b"[" * 500_000, timeout=15).status_code == 400
    assert agent.get("/v1/status").ok


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "run_id",
        "application",
        "config",
        "clients",
        "seed",
        "port",
        "grace_s",
        "server",
        "partition_id",
        "num_partitions",
        "join_timeout_s",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["server", "client"]),
    body=st.one_of(
        JSON.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=200),
        st.dictionaries(KEYS, JSON, max_size=9).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_malformed_bodies_get_a_400_with_errors(agent: Agent, kind: str, body: bytes) -> None:
    """Whatever is sent: no 500, nothing started, and each error has its four parts."""
    answer = requests.post(f"{agent.url}/v1/{kind}", data=body, timeout=15)
    assert answer.status_code == 400, answer.text
    errors = answer.json()["errors"]
    assert errors and all(set(item) == {"path", "code", "message", "hint"} for item in errors)


def test_metrics(agent: Agent) -> None:
    agent.client("measured")
    agent.wait("client", "measured", "succeeded")
    text = agent.get("/metrics").text
    assert (
        'cohortnet_agent_processes{cohort="1",kind="client",node="fed.1",role="server",state="succeeded",testbed="t-agent"}'
        in text
    )
    assert "cohortnet_agent_process_exits_total" in text


def test_thousands_of_events_are_kept_in_order(agent: Agent) -> None:
    """A follower that is as fast as the run, and one that comes after, read the same."""
    agent.server("long", port=6113, config={"rounds": 20_000})
    live: list[int] = []

    def follow() -> None:
        live.extend(event["seq"] for event in agent.events("long"))

    follower = threading.Thread(target=follow)
    follower.start()
    agent.wait("server", "long", "succeeded")
    follower.join(20)
    assert live == list(range(1, 20_006))
    assert [event["round"] for event in agent.events("long", since=3, follow="false")[:2]] == [1, 2]


def test_without_identity_it_says_what_is_missing() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COHORTNET_")}
    result = subprocess.run(
        [sys.executable, "-m", "fl_node.agent"],
        env=environment,
        cwd=ROOT,
        timeout=20,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and "COHORTNET_NODE, COHORTNET_STATE not set" in result.stderr
