"""Calls to the agents on the nodes (REST). Every call has time-outs; every failure names the node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests

from mlfo.errors import AgentError
from mlfo.inventory import Node

CONNECT_S = 3.0
READ_S = 15.0
ENDED = ("succeeded", "failed", "stopped")


class Agents:
    """The calls of docs/architecture.md. Stateless, so safe from many threads."""

    def start(
        self,
        node: Node,
        kind: str,
        request: dict[str, Any],
        attempts: int = 4,
        stop: Callable[[], bool] = bool,
    ) -> dict[str, Any]:
        """POST /v1/<kind>: starting is idempotent by run id, so a lost answer is asked for again,
        ``attempts`` times in all."""
        for attempt in range(attempts):
            try:
                return self._call("POST", node, f"/v1/{kind}", request)
            except AgentError as error:
                if (error.status is not None and error.status < 500) or attempt == attempts - 1 or stop():
                    raise
                time.sleep(0.25 * 2**attempt)
        raise AssertionError("unreachable")

    def start_by_form(self, node: Node, fields: dict[str, str]) -> dict[str, Any]:
        """POST /serv: a server as the family asks for it; the agent's answer names the run."""
        return self._call("POST", node, "/serv", form=fields)

    def status(self, node: Node, kind: str, run: str, timeout_s: float = READ_S) -> dict[str, Any]:
        return self._call("GET", node, f"/v1/{kind}/{run}", timeout_s=timeout_s)

    def stop(self, node: Node, kind: str, run: str) -> dict[str, Any] | None:
        """DELETE; None where the agent does not know the run."""
        try:
            return self._call("DELETE", node, f"/v1/{kind}/{run}")
        except AgentError as error:
            if error.status == 404:
                return None
            raise

    def finish(self, node: Node, run: str) -> dict[str, Any]:
        """DELETE with the reason that the goal is reached: the FL server ends its run well. The answer is its
        status, which may say that it still runs."""
        return self._call("DELETE", node, f"/v1/server/{run}?reason=goal")

    def _call(
        self,
        method: str,
        node: Node,
        path: str,
        body: dict[str, Any] | None = None,
        timeout_s: float = READ_S,
        form: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        url = f"http://{node.address}:{node.agent_port}{path}"
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy of the environment has no way into the testbed
                answer = session.request(
                    method,
                    url,
                    json=body,
                    data=form,
                    timeout=(min(CONNECT_S, timeout_s), timeout_s),
                    allow_redirects=False,
                )
                content = answer.json() if answer.content else {}
        except requests.ConnectTimeout as error:
            raise AgentError(
                node.name,
                f"{node.name}: its agent at {node.address}:{node.agent_port} is unreachable (no answer)",
            ) from error
        except requests.Timeout as error:
            raise AgentError(
                node.name, f"{node.name}: its agent did not answer {method} {path} within {timeout_s:g} s"
            ) from error
        except requests.ConnectionError as error:
            raise AgentError(
                node.name,
                f"{node.name}: its agent at {node.address}:{node.agent_port} is unreachable "
                f"({_cause(error)})",
            ) from error
        except (requests.RequestException, ValueError) as error:
            raise AgentError(
                node.name, f"{node.name}: {method} {path} gave no JSON: {_cause(error)}", 502
            ) from error
        if answer.status_code >= 300 or not isinstance(content, dict):
            raise AgentError(
                node.name,
                f"{node.name}: {method} {path} was answered {answer.status_code}: {_errors(content)}",
                answer.status_code,
            )
        return content


def _cause(error: BaseException) -> str:
    text = str(error)
    for known in ("Connection refused", "No route to host", "Network is unreachable", "Connection reset"):
        if known in text:
            return known.lower()
    return text[:160]


def _errors(content: Any) -> str:
    if isinstance(content, dict) and isinstance(content.get("errors"), list):
        parts = [
            f"{e.get('path') or ''} {e.get('message') or e}".strip()
            for e in content["errors"]
            if isinstance(e, dict)
        ]
        return "; ".join(parts)[:500]
    return str(content)[:200]
