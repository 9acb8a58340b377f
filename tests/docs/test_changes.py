"""Every command of docs/changes.md is executed as it stands there, on its own testbed; a run uses the added client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_docs import as_root, blocks, page, shell
from tests.system.conftest import run
from tests.system.leftovers import wait_for_none
from tests.topology.engine import lab

NAME = "t-eng-change-docs"


def typed(command: str) -> str:
    return as_root(command.replace("changes", NAME))


@pytest.mark.live
def test_the_page_s_commands_work_as_they_stand(tmp_path: Path) -> None:
    (text,) = [text for text in blocks(page("docs/changes.md"), "yaml") if text.startswith("name:")]
    text = text.replace("19082", str(lab.free_port())).replace("name: changes", f"name: {NAME}")
    (tmp_path / f"{NAME}.yaml").write_text(text)
    lines = [line for text in blocks(page("docs/changes.md"), "bash") for line in text.splitlines()]
    assert len(lines) == 14
    said = {}
    try:
        for line in lines:
            command = typed(line)
            if " up " in command and "link" not in command:
                command += f" --runs {tmp_path / 'runs'}"
            if "node remove" in command:
                run("intent", "send", "intents/drilling.yaml", "--ipstart", "10", "--cohortsize", "5", "--numround",
                    "1", "--wait", "--testbed", NAME, "--runs", str(tmp_path / "runs"))  # fmt: skip
                (record,) = [path for path in (tmp_path / "runs").iterdir() if (path / "clients.csv").exists()]
                assert "fc.60" in (record / "clients.csv").read_text()
            said[line] = shell(command, tmp_path)
        shown = next(text for line, text in said.items() if "link show" in line)
        assert "2 Mbit/s" in shown and "10 Mbit/s" in shown and "500 Mbit/s" in shown
        assert "paused" in next(text for line, text in said.items() if "node pause" in line)
        listed = next(text for line, text in said.items() if "node list" in line)
        assert listed.count("slow") == 2 or listed.count("slow") == 3
        refused = subprocess.run(
            [sys.executable, "-m", "cohortnet", "link", "set", "fc.10", "swCampus1", "--rate", "1", "--loss", "x",
             "--testbed", NAME, "--json"], capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert {error["path"] for error in json.loads(refused.stdout)["errors"]} == {"--rate", "--loss"}
        for words in (["link", "down", "fc.10", "fc.11"], ["node", "pause", "fc.99"], ["link", "show", "fc.10"]):
            wrong = subprocess.run([sys.executable, "-m", "cohortnet", *words, "--testbed", NAME], capture_output=True,
                                   text=True, timeout=60, check=False)  # fmt: skip
            assert wrong.returncode == 2 and "1 problem" in wrong.stderr, wrong
        gone = subprocess.run([sys.executable, "-m", "cohortnet", "node", "remove", "fed.1", "--testbed", NAME],
                              capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert gone.returncode == 2 and "server of cohort" in gone.stderr
    finally:
        run("down", NAME)
    assert wait_for_none(NAME) == []
