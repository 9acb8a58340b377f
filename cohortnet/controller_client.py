"""The command line's side of the controller's REST: meters, flows, ports. Every call has a time-out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import requests

from cohortnet.orchestrator import describe_error
from topology.errors import TopologyError

TOKEN_VARIABLE = "COHORTNET_CONTROLLER_TOKEN"
"""Needed only where the controller listens on more than loopback."""
_CONNECT_S, _READ_S = 5.0, 60.0


class ControllerError(TopologyError):
    """The controller refused, failed, or does not answer; `status` is the HTTP status where it answered."""

    def __init__(self, message: str, errors: list[dict[str, Any]] | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []
        self.status = status


def controller_url(inventory: Mapping[str, Any]) -> str:
    """Where the host reaches the controller's REST of a testbed.

    Raises:
        ControllerError: where the testbed has no controller of ours.
    """
    controller = inventory["core"]["controller"]
    name = inventory["testbed"]
    if controller["kind"] == "external":
        raise ControllerError(f"testbed {name!r} is steered by the external controller at {controller['address']}: "
                              "its meters, flows and ports are shown and set there")  # fmt: skip
    if controller["kind"] == "none":
        raise ControllerError(f"testbed {name!r} has no controller (its switches learn by themselves), so no meters; "
                              "write `controller: {kind: builtin}` and raise it anew")  # fmt: skip
    for port in inventory["published"]:
        if port["node"] is None:
            return f"http://{port['host']}:{port['host_port']}"
    raise ControllerError(f"testbed {name!r} does not publish its controller's REST")


class Controller:
    """A client of one controller, e.g. `Controller("http://127.0.0.1:8080")`. All calls raise ControllerError."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the host's environment is no way into a testbed
        if token := os.environ.get(TOKEN_VARIABLE):
            self._session.headers["Authorization"] = f"Bearer {token}"

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._session.request(method, self.url + path, timeout=(_CONNECT_S, _READ_S), **options)
        except requests.RequestException as error:
            reason = getattr(error.args[0], "reason", error) if error.args else error
            raise ControllerError(
                f"the controller at {self.url} does not answer: {reason}\n"
                "    -> switches go on with the flows and meters that they have; `sudo cohortnet logs controller` says "
                "why"
            ) from None
        try:
            body = answer.json() if answer.content else {}
        except ValueError:
            body = {}
        if answer.status_code >= 400:
            errors = body.get("errors", []) if isinstance(body, dict) else []
            text = "\n".join(describe_error(item) for item in errors) or answer.text[:500]
            raise ControllerError(text or f"status {answer.status_code}", errors, answer.status_code)
        return body

    def set(self, bodies: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Set these meters (name -> body), all or none; gives their views. Repeating it changes nothing."""
        if len(bodies) == 1:
            ((name, body),) = bodies.items()
            return [dict(self._call("PUT", f"/v1/meters/{quote(name, safe='')}", json=dict(body)))]
        self._call("PUT", "/v1/meters", json={"meters": [{"name": name, **body} for name, body in bodies.items()]})
        return [self.meter(name) for name in bodies]

    def meters(self) -> list[dict[str, Any]]:
        """All meters, with what has passed and what was dropped."""
        listed: list[dict[str, Any]] = self._call("GET", "/v1/meters")["meters"]
        return listed

    def meter(self, name: str) -> dict[str, Any]:
        """One meter."""
        return dict(self._call("GET", f"/v1/meters/{quote(name, safe='')}"))

    def remove(self, name: str) -> None:
        """Take one meter away."""
        self._call("DELETE", f"/v1/meters/{quote(name, safe='')}")

    def remove_all(self) -> None:
        """Take all meters away."""
        self._call("DELETE", "/v1/meters")

    def flows(self, switch: str | None = None) -> dict[str, Any]:
        """Flows by switch, as the switches have them now."""
        return dict(self._call("GET", "/v1/flows", params={"switch": switch} if switch else None))

    def ports(self, switch: str | None = None) -> dict[str, Any]:
        """Ports by switch with their counters."""
        return dict(self._call("GET", "/v1/ports", params={"switch": switch} if switch else None))

    def topology(self) -> dict[str, Any]:
        """Switches and whether they are connected, links, nodes, boards."""
        return dict(self._call("GET", "/v1/topology"))


def with_name(names: Sequence[str], wanted: str) -> list[str]:
    """The meters that a user means by a name: that one, or the pair `NAME.up` and `NAME.down` that one command set."""
    return [wanted] if wanted in names else [name for name in (f"{wanted}.up", f"{wanted}.down") if name in names]
