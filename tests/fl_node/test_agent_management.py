"""The management network of the host reaches every agent, and may start nothing there."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from fl_node.agent.identity import Identity, IdentityError
from tests.fl_node.agents import Agent


def test_the_management_network_may_only_look(tmp_path: Path) -> None:
    """POST and DELETE from it are 403 on every path; the same from elsewhere works; reading is for all."""
    made = Agent(tmp_path / "node", COHORTNET_MANAGEMENT="127.0.0.64/26")
    body = json.dumps(
        {
            "run_id": "a",
            "application": "image_classification",
            "config": {"behave": "wait"},
            "clients": ["fc.1"],
            "port": 6130,
        }
    )

    def ask(source: str, method: str, path: str, data: str | None = None) -> tuple[int, dict[str, Any]]:
        call = http.client.HTTPConnection("127.0.0.1", made.port, timeout=15, source_address=(source, 0))
        with contextlib.closing(call):
            # A header that a proxy would set says nothing of who is asking.
            call.request(method, path, data, {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"})
            answer = call.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")

    try:
        for method, path in (
            ("POST", "/v1/server"),
            ("POST", "/v1/client"),
            ("POST", "/serv"),
            ("POST", "/cli"),
            ("DELETE", "/v1/server/a"),
            ("PUT", "/nonsense"),
        ):
            status, answer = ask("127.0.0.70", method, path, body)
            assert (status, answer["errors"][0]["code"]) == (403, "management-read-only"), (method, path)
            assert "127.0.0.70" in answer["errors"][0]["message"] and "MLFO" in answer["errors"][0]["hint"]
        assert ask("127.0.0.70", "GET", "/v1/status")[1]["processes"] == []
        assert ask("127.0.0.70", "HEAD", "/v1/status")[0] == 200
        assert ask("127.0.0.2", "POST", "/v1/server", body)[0] == 201
        assert ask("127.0.0.70", "GET", "/v1/server/a")[0] == 200
        assert ask("127.0.0.70", "DELETE", "/v1/server/a")[0] == 403
        assert ask("127.0.0.2", "DELETE", "/v1/server/a")[1]["state"] == "stopped"
    finally:
        made.close()


def test_a_management_network_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    known = {"COHORTNET_NODE": "fc.1", "COHORTNET_STATE": str(tmp_path)}
    assert Identity.from_environment(known).management is None
    assert Identity.from_environment({**known, "COHORTNET_MANAGEMENT": ""}).management is None
    loose = Identity.from_environment({**known, "COHORTNET_MANAGEMENT": "100.74.144.1/20"})
    assert str(loose.management) == "100.74.144.0/20"
    with pytest.raises(IdentityError, match="COHORTNET_MANAGEMENT is '100.74.144.0/40'"):
        Identity.from_environment({**known, "COHORTNET_MANAGEMENT": "100.74.144.0/40"})
