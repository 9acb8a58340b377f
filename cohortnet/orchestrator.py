"""The command line's side of the edge MLFO's REST: send, list, show, stop, follow. Every call has a time-out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

TERMINAL_STATES = ("succeeded", "failed", "cancelled")
_CONNECT_S, _READ_S = 5.0, 30.0


class OrchestratorError(Exception):
    """The MLFO refused, failed, or does not answer; the text is meant for the user."""

    def __init__(self, message: str, errors: list[dict[str, Any]] | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []
        self.status = status


def edge_url(inventory: Mapping[str, Any]) -> str:
    """Where the host reaches the edge MLFO of a testbed: by its management address.

    Raises:
        OrchestratorError: where the testbed has no edge MLFO.
    """
    for node in inventory["nodes"]:
        if node["role"] == "mlfo-edge":
            return f"http://{node['management_address']}:8000"
    raise OrchestratorError(f"testbed {inventory['testbed']!r} has no node with `role: mlfo-edge`")


class Orchestrator:
    """A client of one MLFO, e.g. `Orchestrator("http://127.0.0.1:8000")`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the host's environment is no way into a testbed

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._session.request(method, self.url + path, timeout=(_CONNECT_S, _READ_S), **options)
        except requests.RequestException as error:
            raise OrchestratorError(f"the MLFO at {self.url} does not answer: {error}") from None
        try:
            body = answer.json()
        except ValueError:
            body = {}
        if answer.status_code >= 400:
            errors = body.get("errors", []) if isinstance(body, dict) else []
            text = "\n".join(describe_error(item) for item in errors) or answer.text[:500]
            raise OrchestratorError(text or f"status {answer.status_code}", errors, answer.status_code)
        return body

    def ready(self) -> bool:
        """Whether the MLFO answers."""
        try:
            self._call("GET", "/v1/status")
        except OrchestratorError:
            return False
        return True

    def send(self, file: Path, fields: Mapping[str, str]) -> dict[str, Any]:
        """Post an intent file with form fields; the answer holds `id`. Raises OrchestratorError with every error."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise OrchestratorError(f"{file}: cannot be read: {error.strerror}", status=400) from None
        answer: dict[str, Any] = self._call(
            "POST", "/receive", files={"file": (file.name, content, "application/yaml")}, data=dict(fields)
        )
        return answer

    def intents(self) -> list[dict[str, Any]]:
        """All intents, oldest first."""
        body = self._call("GET", "/v1/intents")
        listed: list[dict[str, Any]] = body["intents"] if isinstance(body, dict) else body
        return listed

    def intent(self, identity: str) -> dict[str, Any]:
        """One intent."""
        answer: dict[str, Any] = self._call("GET", f"/v1/intents/{identity}")
        return answer

    def stop(self, identity: str) -> dict[str, Any]:
        """Cancel an intent; stops its run."""
        answer: dict[str, Any] = self._call("DELETE", f"/v1/intents/{identity}")
        return answer

    def follow(self, identity: str, since: int = 0, *, patience_s: float = 60.0) -> Iterator[dict[str, Any]]:
        """Every event of an intent after `since`, until it has ended. Reconnects; gives up after `patience_s` without
        an answer.

        Raises:
            OrchestratorError: where the MLFO stays away for longer, or does not know the intent.
        """
        last_answer = time.monotonic()
        while True:
            try:
                for event in self._stream(identity, since):
                    last_answer = time.monotonic()
                    since = int(event.get("seq", since))
                    yield event
                if self.intent(identity)["state"] in TERMINAL_STATES:
                    yield from self._stream(identity, since, follow=False)
                    return
                last_answer = time.monotonic()
            except (requests.RequestException, OrchestratorError) as error:
                unknown = isinstance(error, OrchestratorError) and error.status == 404
                if unknown:
                    message = f"the MLFO at {self.url} knows no intent {identity!r}"
                    hint = "`sudo cohortnet intent list` lists them"
                    raise OrchestratorError(f"{message}; {hint}", status=404) from None
                if time.monotonic() - last_answer > patience_s:
                    raise OrchestratorError(f"lost intent {identity} at {self.url}: {error}") from None
            time.sleep(0.5)

    def all_events(self, since: int) -> Iterator[dict[str, Any]]:
        """The events of all intents after `since`, as they come; ends when the connection does.

        Raises:
            OrchestratorError: where the MLFO does not answer.
        """
        try:
            yield from self._events("/v1/events", since, follow=True)
        except requests.RequestException as error:
            raise OrchestratorError(f"the MLFO at {self.url} does not answer: {error}") from None

    def _stream(self, identity: str, since: int, *, follow: bool = True) -> Iterator[dict[str, Any]]:
        return self._events(f"/v1/intents/{identity}/events", since, follow=follow)

    def _events(self, path: str, since: int, *, follow: bool) -> Iterator[dict[str, Any]]:
        parameters = {"since": str(since), "follow": "true" if follow else "false"}
        limits = (_CONNECT_S, _READ_S)
        with self._session.get(self.url + path, params=parameters, stream=True, timeout=limits) as answer:
            if answer.status_code != 200:
                raise OrchestratorError(f"status {answer.status_code}: {answer.text[:300]}", status=answer.status_code)
            for line in answer.iter_lines(chunk_size=1):
                text = line.decode("utf-8").removeprefix("data:").strip()
                if text.startswith("{"):
                    yield json.loads(text)


def describe_error(item: Mapping[str, Any]) -> str:
    """One error of a REST answer as a line for people."""
    text = f"{item.get('path') or 'request'}: {item.get('message', '')} [{item.get('code', 'error')}]"
    return f"{text}\n    -> {item['hint']}" if item.get("hint") else text
