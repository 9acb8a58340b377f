"""The command line without root: help everywhere, exit status 2 and every problem for wrong input, JSON for scripts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cohortnet.cli import app

TOP = typer.main.get_command(app)
GROUPS = {name: command for name, command in TOP.commands.items() if hasattr(command, "commands")}  # type: ignore[attr-defined]
COMMANDS = [
    "",
    *TOP.commands,  # type: ignore[attr-defined]
    *(f"{group} {name}" for group, command in GROUPS.items() for name in command.commands),
]


def cohortnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cohortnet", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_leaves_an_example(command: str) -> None:
    done = cohortnet(*command.split(), "--help")
    assert done.returncode == 0
    if command and command not in GROUPS:
        assert "Example: " in done.stdout


def test_plan_prints_the_whole_plan_as_json() -> None:
    done = cohortnet("plan", "--cohorts", "2", "--clients", "8", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["nodes"]) == 2 + 8 + 5


def test_wrong_input_ends_with_status_2_and_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("name: x\nlinks:\n- {a: h, b: s, rate: 10}\n- {a: h}\n")
    done = cohortnet("validate", str(file))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "links[0].rate" in done.stderr and "links[1].b" in done.stderr
    listed = json.loads(cohortnet("validate", str(file), "--json").stdout)
    found = [(error["path"], error.get("line")) for error in listed["errors"]]
    assert {("nodes", 1), ("links[0].rate", 3), ("links[0].a", 3), ("links[1].b", 4)} <= set(found)


@pytest.mark.parametrize(
    "text", ["name: [", "- 1", "name: 2024-13-45", "name: " + 3000 * "[", "", "name: x\n\tbad: 1", "\x00", "&a [*a]"]
)
def test_files_that_are_no_testbed_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    done = cohortnet("plan", str(file))
    assert done.returncode == 2 and "Traceback" not in done.stderr and "problem" in done.stderr


def test_a_file_and_preset_numbers_contradict_one_another(tmp_path: Path) -> None:
    done = cohortnet("plan", str(tmp_path / "missing.yaml"), "--clients", "3")
    assert done.returncode == 2 and "--clients cannot be combined" in done.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "a/b", "Nobody"])
def test_what_is_no_name_is_never_removed(name: str) -> None:
    from topology.engine import cgroups, engine
    from topology.errors import TopologyError

    with pytest.raises(TopologyError, match="is no testbed's name"):
        engine.remove_testbed(name)
    if name != "Nobody":
        with pytest.raises(TopologyError):
            cgroups.members(name)


def test_unknown_runs_are_named(tmp_path: Path) -> None:
    done = cohortnet("runs", "table", "nothing", "--runs", str(tmp_path))
    assert done.returncode == 2 and "nothing" in done.stderr


def test_topo_py_says_what_to_type() -> None:
    script = str(Path(__file__).parents[2] / "topo.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "topo.py 3" in done.stderr
