"""`cohortnet report`: finds records, refuses with status 2 and says what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.monitoring.report.made import Made


def report(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cohortnet", "report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_writes_one_file_that_names_no_address(tmp_path: Path) -> None:
    folder = Made().write(tmp_path / "runs" / "made-1")
    out = tmp_path / "deep" / "page.html"
    done = report("made-1", "--runs", str(tmp_path / "runs"), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] == str(out)
    page = out.read_text()
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert report(str(folder)).returncode == 0 and (folder / "report.html").exists()


def test_an_unknown_run_ends_with_2_and_names_those_that_are_there(tmp_path: Path) -> None:
    Made(series=False).write(tmp_path / "runs" / "edgeintent02-1111")
    done = report("edgeintent02-1112", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 2 and "did you mean edgeintent02-1111?" in done.stderr and "Traceback" not in done.stderr
    done = report("x", "--runs", str(tmp_path / "nothing"))
    assert done.returncode == 2 and "holds no runs" in done.stderr


def test_a_damaged_record_is_reported_with_what_is_left(tmp_path: Path) -> None:
    folder = Made(series=False).write(tmp_path / "runs" / "cut")
    with open(folder / "events.jsonl", "a") as file:
        file.write('{"kind": "cut o')
    (folder / "inventory.json").unlink()
    (folder / "series.parquet").write_bytes(b"no parquet")
    assert report("cut", "--runs", str(tmp_path / "runs")).returncode == 0
    page = (folder / "report.html").read_text()
    for said in ("1 line(s) of events.jsonl", "No inventory.json", "The time series cannot be read"):
        assert said in page
    (folder / "manifest.json").write_text("{")
    done = report("cut", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 2 and "manifest.json is not readable" in done.stderr


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    Made(series=False).write(tmp_path / "runs" / "r")
    (tmp_path / "file").write_text("")
    done = report("r", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "file" / "x.html"))
    assert done.returncode == 2 and "--out" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["report", "top"])
def test_help_has_an_example(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cohortnet", command, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and f"cohortnet {command}" in done.stdout and "Example: " in done.stdout
