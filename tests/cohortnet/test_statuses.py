"""Exit statuses and messages where a name is wrong, root is missing, or the system refuses; on a testbed made of
files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cohortnet import controller_client, lifecycle, logs, orchestrator, show  # noqa: F401 - what commands import late
from cohortnet.cli import app, print_raised
from cohortnet.orchestrator import Orchestrator, OrchestratorError
from topology import inventory as inventory_file
from topology.engine import engine, state
from topology.engine.removal import Removal
from topology.errors import TopologyError
from topology.model import parse_testbed
from topology.planning import make_plan

NAME = "t-statuses"
NOBODY = 65534


def invoke(*typed: str) -> Result:
    """The command in this process. An exception that it let through, which a user would see as a traceback, is raised
    here."""
    return CliRunner().invoke(app, list(typed), catch_exceptions=False)


@pytest.fixture
def testbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Files as of a testbed that is up, in a folder that only root may read; nothing runs."""
    root = Path(tempfile.mkdtemp(prefix="cohortnet-statuses-"))  # pytest's own folders are closed to nobody
    root.chmod(0o755)
    plan = make_plan(parse_testbed({"name": NAME, "preset": {"clients": 4, "cohorts": 1}}))
    facts = inventory_file.build_inventory(plan, inventory_file.CoreFacts("netdev", "/nowhere"), {}, up=True)
    folder = root / NAME
    facts["paths"] = {name: str(folder / name) for name in ("shared", "logs", "spawner")} | {"state": str(folder)}
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "controller.log").write_text("one\ntwo\nthree\n")
    inventory_file.write_inventory(folder / "shared" / "inventory.json", facts)
    folder.chmod(0o700)
    for module in (state, inventory_file):
        monkeypatch.setattr(module, "STATE_ROOT", root)
    try:
        yield facts
    finally:
        shutil.rmtree(root)


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "typed",
    ["intent list", "intent show x", "intent send x.yaml", "logs controller", "meter show", "show flows"],
)
def test_without_root_the_message_says_sudo(testbed: dict[str, Any], typed: str) -> None:
    with as_nobody():
        done = invoke(*typed.split(), "--testbed", NAME)
        told = invoke("intent", "list", "--testbed", NAME, "--json")
    assert done.exit_code == 2 and "put `sudo` in front" in done.stderr
    assert "put `sudo` in front" in json.loads(told.stdout)["errors"][0]["message"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("intent list --testbed nope", "no testbed is called 'nope'"),
        ("logs controller --testbed Foo/../x", "no testbed is called 'Foo/../x'"),
        (f"logs nosuch --testbed {NAME}", "daemons: controller"),
        (f"logs ../controller --testbed {NAME}", "no node or daemon"),
        (f"intent send missing.yaml --testbed {NAME}", "missing.yaml: cannot be read: No such file"),
    ],
)
def test_wrong_names_are_wrong_input(testbed: dict[str, Any], typed: str, said: str) -> None:
    done = invoke(*typed.split())
    assert done.exit_code == 2 and said in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (f"exec --testbed {NAME} nosuch true", "nodes: fed.1"),
        ("down Foo/../x", "is no testbed's name"),
        (f"down {NAME} --all", "not both"),
    ],
)
def test_wrong_names_where_root_is_needed(
    testbed: dict[str, Any], typed: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortnet.cli.need_root", lambda: None)
    monkeypatch.setattr(engine, "remove_testbed", lambda *_: pytest.fail("something was removed"))
    done = invoke(*typed.split())
    assert done.exit_code == 2 and said in done.stderr, done.stderr


def test_an_intent_that_the_mlfo_does_not_know_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> Iterator[dict[str, Any]]:
        raise OrchestratorError("status 404", status=404)

    monkeypatch.setattr(Orchestrator, "_events", unknown)
    with pytest.raises(OrchestratorError, match="knows no intent 'x'") as refused:
        list(Orchestrator("http://nowhere").follow("x"))
    assert refused.value.status == 404


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_could_not_be_removed_is_a_failure(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cohortnet.cli.need_root", lambda: None)
    monkeypatch.setattr(lifecycle, "remove_all", lambda *_: Removal(NAME, ("node a",), ("bridge b",), 0.1))
    done = invoke("down", NAME, *options)
    assert done.exit_code == 1 and "bridge b" in done.stdout
    if options:
        assert json.loads(done.stdout) == {NAME: {"removed": ["node a"], "remaining": ["bridge b"]}}


def test_logs_are_read_from_their_end(testbed: dict[str, Any], tmp_path: Path) -> None:
    assert invoke("logs", "controller", "--tail", "2", "--testbed", NAME).stdout == "two\nthree\n"
    log = Path(testbed["paths"]["logs"]) / "controller.log"
    assert logs.end_of(log, 1) == "three" and logs.end_of(tmp_path / "none.log") == "(no log)"


@pytest.mark.parametrize(
    ("error", "said"),
    [(FileNotFoundError(), "is not installed"), (subprocess.TimeoutExpired("docker", 30), "within 30 s")],
)
def test_logs_of_a_container_need_docker_to_answer(
    testbed: dict[str, Any], error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(logs.subprocess, "run", failing)
    done = invoke("logs", "fed.1", "--testbed", NAME)
    assert done.exit_code == 1 and "fed.1: " in done.stderr and said in done.stderr


def test_a_node_without_a_program_has_no_log(testbed: dict[str, Any]) -> None:
    with pytest.raises(TopologyError, match="runs no program of its own"):
        logs.read_log({**testbed, "nodes": [{"name": "a", "container": None, "program": None}]}, "a", None, 1)


def test_what_the_system_refuses_is_a_message(testbed: dict[str, Any]) -> None:
    inventory = Path(testbed["paths"]["shared"]) / "inventory.json"
    inventory.unlink()
    inventory.mkdir()
    done = invoke("intent", "list", "--testbed", NAME)
    assert done.exit_code == 1 and "Is a directory" in done.stderr


def test_what_is_said_after_raising_can_be_typed(
    testbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortnet.terminal.shutil.which", lambda name: f"/usr/bin/{name}")
    print_raised(testbed)
    said = capsys.readouterr().out
    assert f"sudo cohortnet intent send intents/drilling.yaml --testbed {NAME} --cohort 1 --wait" in said
    assert f"sudo cohortnet down {NAME}" in said
    print_raised({**testbed, "nodes": []})
    assert "intent send" not in capsys.readouterr().out
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "cohortnet").touch()
    monkeypatch.setattr("cohortnet.terminal.shutil.which", lambda _: None)
    monkeypatch.setattr("cohortnet.terminal.sys.prefix", str(tmp_path / ".venv"))
    monkeypatch.chdir(tmp_path)
    print_raised(testbed)
    assert f"sudo .venv/bin/cohortnet down {NAME}" in capsys.readouterr().out
