"""Who may call REST: the rules, and the controller as a process on an address that others could reach."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from tests.topology.controller.faces_lab import Http
from tests.topology.controller.lab import ROOT, Lab, plan_of, until
from topology.controller.auth import TOKEN_VARIABLE, is_loopback, protect, read_token, token_for
from topology.errors import TopologyError

TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [("0.0.0.0", False), ("::", False), ("192.0.2.7", False), ("host.example", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_where_the_token_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    environment = {TOKEN_VARIABLE: "x" * 20}
    assert read_token(None, environment) == "x" * 20
    assert environment == {}, "no child inherits it"
    assert read_token(file, {TOKEN_VARIABLE: "x" * 20}) == TOKEN, "the file goes first"
    assert read_token(None, {}) is None
    assert token_for("127.0.0.1", file, {}) is None, "nobody has to know it on loopback"
    assert token_for("0.0.0.0", file, {}) == TOKEN


@pytest.mark.parametrize("text", ["", "short", "with a blank in the middle", "ü" * 20, "x" * 1025])
def test_tokens_that_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(TopologyError) as caught:
        read_token(tmp_path / "token", {})
    assert "token" in str(caught.value) and (not text or text not in str(caught.value))


def test_no_token_for_others_is_refused(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        with pytest.raises(TopologyError, match="--token-file"):
            token_for(host, None, {})
    with pytest.raises(TopologyError, match="cannot be read"):
        token_for("0.0.0.0", tmp_path / "none", {})


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("path", ["/v1/topology", "/stats/switches", "/onos/v1/devices", "/metrics", "/none"])
@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, "never"),
        ("", "never"),
        ("Bearer", "never"),
        ("Bearer wrong", "never"),
        (f"Bearer {TOKEN}x", "never"),
        (f"Bearer {TOKEN[:-1]}", "never"),
        (f"Token {TOKEN}", "never"),
        (TOKEN, "never"),
        ("Basic ????", "never"),
        ("Basic " + base64.b64encode(TOKEN.encode()).decode(), "never"),
        (basic("onos", "rocks"), "never"),
        (basic(TOKEN, "onos"), "never"),
        (f"Bearer {TOKEN}", "always"),
        (f"bearer  {TOKEN} ", "always"),
        (basic("onos", TOKEN), "onos"),
        (basic("", TOKEN), "onos"),
    ],
)
def test_the_matrix_of_headers(path: str, header: str | None, known: str) -> None:
    app = Flask("auth")
    for known_path in ("/v1/topology", "/stats/switches", "/onos/v1/devices", "/metrics"):
        app.add_url_rule(known_path, known_path, lambda: "in")
    protect(app, TOKEN)
    answer = app.test_client().get(path, headers={} if header is None else {"Authorization": header})
    let_in = known == "always" or (known == "onos" and path.startswith("/onos/"))
    if let_in:
        assert answer.status_code == (404 if path == "/none" else 200)
    else:
        assert answer.status_code == 401 and TOKEN not in answer.text
        assert answer.json is not None and answer.json["errors"][0]["code"] == "unauthorised"
        offered = answer.headers.getlist("WWW-Authenticate")
        assert [word.split()[0] for word in offered] == ["Bearer"] + ["Basic"] * path.startswith("/onos/")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(plan_of("t-faces-auth", [{"name": "s1"}], ["h1"], [("h1", "s1")]), hosts=False) as made:
        yield made


def controller(lab: Lab, *arguments: str, token: str | None = None) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key != TOKEN_VARIABLE}
    if token is not None:
        environment[TOKEN_VARIABLE] = token
    with (lab.folder / "controller.out").open("wb") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", lab.core, sys.executable, "-m", "topology.controller"]
            + ["--inventory", str(lab.inventory), *arguments],
            cwd=ROOT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
        )
    lab.processes["controller"] = process
    return process


@pytest.mark.live
@pytest.mark.parametrize("way", ["file", "environment"])
def test_a_controller_that_others_can_reach(lab: Lab, way: str) -> None:
    (lab.folder / "token").write_text(TOKEN)
    file = ("--token-file", str(lab.folder / "token")) if way == "file" else ()
    process = controller(lab, "--rest", "0.0.0.0:8081", *file, token=TOKEN if way == "environment" else None)
    until("REST answers", lambda: "REST on" in lab.log())
    http = Http(lab, 8081)
    paths = (
        "/v1/topology",
        "/v1/status",
        "/v1/meters",
        "/metrics",
        "/stats/switches",
        "/onos/v1/devices",
        "/x",
    )
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            assert http.call(method, path, b"{}")[0] == 401, (method, path)
    for path in paths[:-1]:
        assert http.call("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})[0] != 401, path
    assert http.call("GET", "/onos/v1/devices", headers={"Authorization": basic("onos", TOKEN)})[0] == 200
    http.close()
    assert TOKEN.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert lab.end("controller") == 0
    assert TOKEN not in lab.log(), "a token is never logged"


@pytest.mark.live
def test_a_controller_without_a_token_does_not_open_to_others(lab: Lab) -> None:
    for address in ("0.0.0.0:8082", "[::]:8082"):
        process = controller(lab, "--rest", address)
        assert process.wait(15) == 1
        del lab.processes["controller"]
        assert "--token-file FILE" in lab.log() and "REST on http" not in lab.log()
