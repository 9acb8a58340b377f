"""Events of a run as its agent gives them: followed, from any number on, by many, in order."""

from __future__ import annotations

import threading
import time

import requests

from tests.fl_node.agents import Agent
from tests.fl_node.nodes import wait_until


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
