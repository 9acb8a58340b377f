"""Starting the orchestrator, and the sender of intents, as users type them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mlfo.harness import ROOT, Testbed, free_port, inventory

Make = Callable[..., Testbed]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--node", "nobody"], "'nobody' is not in"),
        (["--inventory", "/nonexistent/inventory.json"], "is the testbed up?"),
        (["--catalogue", "/nonexistent.yaml"], "catalogue /nonexistent.yaml cannot be read"),
        (["--rest", "8000"], "HOST:PORT is wanted"),
        (["--central", "cloud"], "HOST:PORT is wanted"),
    ],
)
def test_a_wrong_start_is_one_clear_line_and_status_2(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(1, 1)))
    argv = [
        sys.executable,
        "-m",
        "mlfo",
        "--role",
        "edge",
        "--node",
        "mo.1",
        "--inventory",
        str(tmp_path / "inventory.json"),
    ]
    argv += [
        "--state",
        str(tmp_path),
        "--inventory-timeout",
        "0.2",
        "--rest",
        f"127.0.0.1:{free_port()}",
        *arguments,
    ]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def send(bed: Testbed, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / "sendintent.py"), "--url", bed.url, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/")


def test_the_sender(testbed: Make, tmp_path: Path) -> None:
    bed = testbed(5, 10)
    done = send(bed, "--preset", "30-10-10", "--rounds", "2", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)["intents"]
    assert [(r["server"], len(r["clients"]), r["state"]) for r in records] == [
        ("fed.1", 30, "succeeded"),
        ("fed.4", 10, "succeeded"),
        ("fed.5", 10, "succeeded"),
    ]
    assert records[0]["form"]["sameserver"] == "nor" and records[1]["form"]["sameserver"] == "no"
    assert records[0]["config"]["fraction-train"] == 0.5 and "round 2 server accuracy" in done.stderr

    scenario = tmp_path / "scenario.yaml"
    welding = ROOT / "intents" / "welding.yaml"
    scenario.write_text(f"intents:\n - {{intent: {welding}, cohort: '2', numround: 1, sameserver: no}}\n")
    done = send(bed, "--scenario", str(scenario), "--wait")
    assert done.returncode == 0 and "note: source 'handmnist' is not installed here" in done.stdout, (
        done.stderr
    )
    scenario.write_text("intents:\n - {intent: x.yaml, colour: red, delay_s: -1}\n")
    done = send(bed, "--scenario", str(scenario))
    assert done.returncode == 2 and "2 fault(s)" in done.stderr and "colour" in done.stderr

    done = send(bed, "--sizes", "51")
    assert done.returncode == 1 and "no client at" in done.stdout
    assert send(bed, "--url", f"http://127.0.0.1:{free_port()}").returncode == 2
