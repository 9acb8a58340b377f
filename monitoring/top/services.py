"""What the MLFO and the controller say of intents, rounds and meters: asked in a thread of its own, with time-outs.

A service that is slow or away never stops the picture: `latest` gives what was last heard, and what is wrong.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import requests

from monitoring.inventory import Inventory

CONNECT_S, READ_S = 1.0, 5.0
ENDED = ("succeeded", "failed", "cancelled")
MOST_EVENTS = 200_000
"""Of one answer: a stream that never ends is not read for ever."""
TOKEN_VARIABLE = "COHORTNET_CONTROLLER_TOKEN"


@dataclass
class Progress:
    """How far a run is, from its events."""

    since: int = 0
    round: int | None = None
    phase: str = ""
    joined: int = 0
    loss: float | None = None
    accuracy: float | None = None
    source: str = ""
    failures: int = 0
    over: bool = False


@dataclass(frozen=True)
class Told:
    """What was last heard; `meters_before` is the answer before it, for rates."""

    intents: Sequence[Mapping[str, Any]] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)
    meters: Sequence[Mapping[str, Any]] = ()
    meters_time: float = 0.0
    meters_before: Sequence[Mapping[str, Any]] = ()
    meters_before_time: float = 0.0
    problems: Sequence[str] = ()


def mlfo_url(inventory: Inventory) -> str | None:
    """Of the edge MLFO, by its management address; None where there is none."""
    for node in inventory.nodes:
        if node.role == "mlfo-edge" and node.management_address:
            return f"http://{node.management_address}:8000"
    return None


def controller_url(inventory: Inventory) -> str | None:
    """Of the built-in controller's published REST; None where there is none."""
    if inventory.controller != "builtin" or inventory.controller_rest is None:
        return None
    host, port = inventory.controller_rest
    return f"http://{host}:{port}"


_RANK = {"server": 2, "distributed": 1, "train": 0}


def follow(progress: Progress, event: Mapping[str, Any]) -> None:
    """Take one event of a run into its progress."""
    kind = event["kind"]
    progress.since = max(progress.since, int(event.get("seq", 0)))
    if kind == "client.joined":
        progress.joined = int(event.get("joined") or progress.joined + 1)
        progress.phase = "joining"
    elif kind == "phase.started":
        progress.round, progress.phase = int(event["round"]), str(event["phase"])
    elif kind == "phase.finished":
        progress.phase = "server"
    elif kind == "round.metrics":
        _measured(progress, event)
    elif _failed(event) and not progress.over:
        progress.failures += 1
    elif kind in ("run.finished", "run.failed"):
        progress.over, progress.phase = True, ""


def _failed(event: Mapping[str, Any]) -> bool:
    # Whether a client failed by it. A lost link is still waited for until `final`; what a client that is gone still
    # owed is part of its loss.
    if event["kind"] == "client.left":
        return event.get("final") is True
    return event["kind"] == "client.reply" and bool(event.get("error")) and event.get("failure") != "gone"


def _measured(progress: Progress, event: Mapping[str, Any]) -> None:
    source = str(event.get("source") or "")
    # What is better known stands until the same source says something new: the server's test set before the clients'.
    if _RANK.get(source, -1) < _RANK.get(progress.source, -1):
        return
    progress.source = source
    for name, value in (event.get("metrics") or {}).items():
        plain = name.replace("_", "-").lower().removeprefix("eval-").removeprefix("train-")
        if isinstance(value, int | float) and plain in ("loss", "accuracy", "acc"):
            if plain == "loss":
                progress.loss = float(value)
            else:
                progress.accuracy = float(value)


class Services:
    """Asks both services: each time that it is told to, or once started every `period_s` seconds until it is closed."""

    def __init__(self, inventory: Inventory, period_s: float) -> None:
        self._mlfo, self._controller = mlfo_url(inventory), controller_url(inventory)
        self._period_s = period_s
        self._progress: dict[str, Progress] = {}
        self._told = Told()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the host's environment is no way into a testbed
        self._thread = threading.Thread(target=self._run, name="top-services", daemon=True)

    @property
    def latest(self) -> Told:
        """What was last heard."""
        with self._lock:
            return self._told

    def start(self) -> None:
        """Go on asking in the background; from then on nobody else asks."""
        self._thread.start()

    def close(self) -> None:
        """Stop asking; waits for an answer that is under way."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(CONNECT_S + READ_S + 1.0)
        self._session.close()

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            self.ask()

    def ask(self) -> None:
        """One round of questions; never two at a time."""
        problems: list[str] = []
        intents = self._intents(problems)
        meters = self._meters(problems)
        now = time.monotonic()
        with self._lock:
            before = self._told
            self._told = Told(
                intents=before.intents if intents is None else intents,
                progress={name: replace(item) for name, item in self._progress.items()},
                meters=before.meters if meters is None else meters,
                meters_time=before.meters_time if meters is None else now,
                meters_before=before.meters_before if meters is None else before.meters,
                meters_before_time=before.meters_before_time if meters is None else before.meters_time,
                problems=tuple(problems),
            )

    def _intents(self, problems: list[str]) -> list[dict[str, Any]] | None:
        if self._mlfo is None:
            return None
        try:
            listed = self._get(f"{self._mlfo}/v1/intents", {"limit": "200"})["intents"]
            for intent in listed:
                progress = self._progress.setdefault(str(intent["id"]), Progress())
                if not progress.over and (intent["state"] == "running" or intent["state"] in ENDED):
                    self._events(str(intent["id"]), progress)
                    progress.over = progress.over or intent["state"] in ENDED
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            problems.append(f"MLFO: {_why(error)}")
            return None
        known = {str(intent["id"]) for intent in listed}
        self._progress = {name: item for name, item in self._progress.items() if name in known}
        return list(listed)

    def _events(self, identity: str, progress: Progress) -> None:
        url = f"{self._mlfo}/v1/intents/{identity}/events"
        parameters = {"since": str(progress.since), "follow": "false"}
        with self._session.get(url, params=parameters, stream=True, timeout=(CONNECT_S, READ_S)) as answer:
            answer.raise_for_status()
            for count, line in enumerate(answer.iter_lines()):
                text = line.decode("utf-8", "replace").removeprefix("data:").strip()
                if text.startswith("{"):
                    follow(progress, json.loads(text))
                if count > MOST_EVENTS:
                    return

    def _meters(self, problems: list[str]) -> list[dict[str, Any]] | None:
        if self._controller is None:
            return None
        try:
            token = os.environ.get(TOKEN_VARIABLE)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return list(self._get(f"{self._controller}/v1/meters", {}, headers)["meters"])
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            problems.append(f"controller: {_why(error)}")
            return None

    def _get(self, url: str, parameters: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Any:
        answer = self._session.get(url, params=parameters, headers=headers, timeout=(CONNECT_S, READ_S))
        answer.raise_for_status()
        return answer.json()


def _why(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "does not answer"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"status {error.response.status_code}"
    return f"unexpected answer ({type(error).__name__})"
