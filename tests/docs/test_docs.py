"""README and docs/ tell the truth: files in them are valid, commands in them exist and work as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from cohortnet.cli import app
from tests.system.conftest import REPOSITORY, delay_options, run
from tests.system.leftovers import wait_for_none
from topology.model import parse_testbed
from topology.planning import make_plan

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def page(name: str) -> Path:
    return REPOSITORY / name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_testbeds_in_the_pages_are_valid(path: Path) -> None:
    for text in blocks(path, "yaml"):
        data = yaml.safe_load(text)
        if "name" in data:
            assert make_plan(parse_testbed(data)).nodes


def known_commands() -> set[str]:
    top = typer.main.get_command(app)
    names: set[str] = set()
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        names.add(name)
        names |= {f"{name} {child}" for child in getattr(command, "commands", {})}
    return names


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_named_in_the_pages_exist(path: Path) -> None:
    known = known_commands()
    groups = {name.split()[0] for name in known if " " in name}
    for words in re.findall(r"(?:`|/|^|sudo )cohortnet ([a-z]+(?: [a-z]+)?)", path.read_text(), re.MULTILINE):
        first = words.split()[0]
        assert (words if first in groups else first) in known, f"{path.name}: cohortnet {words}"


def test_links_between_pages_lead_somewhere() -> None:
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{path.name}: {target}"


def as_root(command: str) -> str:
    """The command as typed in the page, without sudo (the test is root) and with this interpreter."""
    return command.replace("sudo ", "").replace(".venv/bin/cohortnet", f"{sys.executable} -m cohortnet").replace(
        "python3 topo.py", f"{sys.executable} topo.py"
    )  # fmt: skip


def shell(command: str, folder: Path, timeout_s: float = 240.0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=timeout_s, cwd=folder,
                          env=environment, check=False)  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.live
def test_the_readme_s_work_with_a_testbed(tmp_path: Path) -> None:
    commands = [text for text in blocks(page("README.md"), "bash")]
    topo = next(line for text in commands for line in text.splitlines() if "--runtime namespace" in line)
    curl = next(text for text in commands if text.startswith("curl"))
    send = next(text for text in commands if "intent send" in text)
    runs = f" --runs {tmp_path / 'runs'}"
    try:
        shell(" ".join([as_root(topo), "--no-shell", *delay_options(), runs]), REPOSITORY)
        first = yaml.safe_load(shell(curl, REPOSITORY))
        assert first["state"] and first["server"] == "fed.1"
        run("intent", "wait", first["id"], "--testbed", "factory-satellite", "--runs", str(tmp_path / "runs"))
        output = shell(as_root(send).strip() + " --testbed factory-satellite" + runs, REPOSITORY)
        assert "succeeded" in output
        nightly = next(text for text in blocks(page("docs/intents.md"), "yaml") if "nightly" in text)
        (tmp_path / "nightly.yaml").write_text(nightly)
        post = next(text for text in blocks(page("docs/intents.md"), "bash") if "nightly" in text)
        answer = yaml.safe_load(shell(post, tmp_path))
        run(
            "intent",
            "wait",
            answer["id"],
            "--testbed",
            "factory-satellite",
            "--runs",
            str(tmp_path / "runs"),
            check=False,
        )  # fmt: skip - its goal may be out of reach: what counts is that every key was taken and acted on
        shown = yaml.safe_load(run("intent", "show", answer["id"], "--testbed", "factory-satellite").stdout)
        assert shown["config"]["dataset"] == "digits" and shown["config"]["num-server-rounds"] == 5
        assert shown["state"] in ("succeeded", "failed") and shown["goal"]["met"] is not None
    finally:
        run("down", "factory-satellite")


@pytest.mark.live
def test_the_readme_s_own_testbed_comes_up(tmp_path: Path) -> None:
    text = next(text for text in blocks(page("README.md"), "yaml") if text.startswith("name: lab"))
    (tmp_path / "lab.yaml").write_text(text)
    try:
        run("up", str(tmp_path / "lab.yaml"), "--runs", str(tmp_path / "runs"))
        assert "2 received" in run("exec", "--testbed", "lab", "fc.1", "ping", "-c", "2", "fed.1").stdout
    finally:
        run("down", "lab")
    assert wait_for_none("lab") == []


@pytest.mark.live
def test_the_quickstart_shows_two_cohorts_that_learned_and_leaves_nothing(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "quickstart.sh"
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=900, check=False,
                          env={**os.environ, "COHORTNET_RUNS": str(tmp_path / "runs")})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("Runs (bytes") :]
    assert table.count("succeeded") == 2 and "fed.1" in table and "fed.2" in table
    assert wait_for_none("quickstart") == []
