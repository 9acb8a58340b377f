"""Streams of events: one of everything for the recorder, one for each user, and a bound."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import requests

from mlfo.rest import HEARTBEAT_S, MAX_FOLLOWERS
from tests.mlfo.harness import SEED_INTENT, Testbed

Make = Callable[..., Testbed]


class Recorder(threading.Thread):
    """Follows all events as the recorder does: one stream, taken up by `since` when it breaks off.

    It hangs up after every `hang_up_after` events (0: never).
    """

    def __init__(self, url: str, hang_up_after: int = 0) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.hang_up_after = hang_up_after
        self.events: list[dict[str, Any]] = []
        self.comments: list[bytes] = []
        self.streams = 0
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            since = self.events[-1]["seq"] if self.events else 0
            with contextlib.suppress(requests.RequestException):  # the orchestrator is being started again
                self._follow(since)
            self.enough.wait(0.05)

    def _follow(self, since: int) -> None:
        path = f"{self.url}/v1/events?follow=true&since={since}"
        with requests.get(path, stream=True, timeout=15) as stream:
            assert stream.status_code == 200, stream.text
            self.streams += 1
            taken = 0
            for line in stream.iter_lines(chunk_size=1):
                if line.startswith(b":"):
                    self.comments.append(line)
                elif line.startswith(b"data: "):
                    self.events.append(json.loads(line[6:]))
                    taken += 1
                if self.enough.is_set() or (self.hang_up_after and taken >= self.hang_up_after):
                    return


def everything(bed: Testbed) -> list[dict[str, Any]]:
    """All events that are kept."""
    text = requests.get(f"{bed.url}/v1/events?follow=false", timeout=20).text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def test_one_stream_has_all_events_of_all_runs_each_once(testbed: Make) -> None:
    """Whole streams and ones that break off again and again, over a kill -9 of the orchestrator; ends included."""
    bed = testbed(6, 2, round_s=0.02)
    recorders = [Recorder(bed.url), Recorder(bed.url, 7), Recorder(bed.url, 3)]
    for recorder in recorders:
        recorder.start()
    text = SEED_INTENT + "rounds: 15\n"
    runs = [bed.post(text, ipstart=10 + 2 * i, cohortsize=2)["id"] for i in range(3)]
    failed = bed.post(SEED_INTENT + "rounds: 2\ngoal: {accuracy: 0.9}\n", ipstart=16, cohortsize=2)["id"]
    cancelled = bed.post(SEED_INTENT + "rounds: 5000\n", ipstart=18, cohortsize=2)["id"]
    bed.wait(cancelled, ("running",))
    bed.kill("edge")
    bed.start("edge")
    requests.delete(f"{bed.url}/v1/intents/{cancelled}", timeout=5)
    ends = {run: bed.wait(run)["state"] for run in (*runs, failed, cancelled)}
    assert ends == {**dict.fromkeys(runs, "succeeded"), failed: "failed", cancelled: "cancelled"}
    kept = everything(bed)
    end = time.monotonic() + 20
    while any(len(r.events) < len(kept) for r in recorders) and time.monotonic() < end:
        time.sleep(0.05)
    for recorder in recorders:
        recorder.enough.set()
        assert recorder.events == kept, (len(recorder.events), len(kept), recorder.streams)
        assert {e["run"]: e["kind"].removeprefix("intent.") for e in recorder.events if "run" in e} == ends
    assert recorders[0].streams == 2 and recorders[2].streams > 20


def test_a_quiet_stream_lives_and_tells_at_once(testbed: Make) -> None:
    bed = testbed(1, 2)
    recorder = Recorder(bed.url)
    recorder.start()
    time.sleep(2 * HEARTBEAT_S + 1)
    assert recorder.comments.count(b": still here") >= 2 and recorder.streams == 1
    bed.post()
    end = time.monotonic() + 1
    while not recorder.events and time.monotonic() < end:
        time.sleep(0.01)
    assert recorder.events and recorder.streams == 1
    recorder.enough.set()


def test_as_many_streams_as_are_allowed_and_calls_go_on(testbed: Make) -> None:
    """One more is 503 with Retry-After; closed ones, also those that were never read, give their place back."""
    bed = testbed(1, 2)
    port = bed.rest_port
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            for _ in range(MAX_FOLLOWERS)
        ]
        for stream in streams:
            stream.sendall(b"GET /v1/events?follow=true&since=0 HTTP/1.1\r\nHost: mo.1\r\n\r\n")
        for stream in streams:
            assert stream.recv(64).startswith(b"HTTP/1.1 200")
        refused = requests.get(f"{bed.url}/v1/events", timeout=5)
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert refused.json()["errors"][0]["code"] == "busy"
        began = time.monotonic()
        run = bed.post()["id"]
        assert bed.wait(run)["state"] == "succeeded" and time.monotonic() - began < 15
        for stream in streams:
            stream.settimeout(5)
            seen = b""
            while b'"intent.succeeded"' not in seen:
                seen = seen[-100:] + stream.recv(65536)
    end = time.monotonic() + 0.8 * HEARTBEAT_S
    while (status := stream_status(bed)) != 200 and time.monotonic() < end:
        time.sleep(0.2)
    assert status == 200, "closed streams keep their places"


def stream_status(bed: Testbed) -> int:
    with requests.get(f"{bed.url}/v1/events", stream=True, timeout=5) as answer:
        return answer.status_code
