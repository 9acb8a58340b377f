"""`cohortnet top` over a real testbed with a real run, in a pseudo terminal and without; and the report of that run."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitoring.report import write_report
from tests.monitoring.report.browser import Browser

pytestmark = pytest.mark.live
NAME = "t-e-top"
FILE = f"""
name: {NAME}
runtime: namespace
preset: {{kind: factory-satellite, cohorts: 1, clients: 2, campuses: 1}}
allow_unsupported: [delay]
controller: {{kind: builtin, rest_host_port: 18540}}
publish: []
monitoring: {{prometheus: host, period: 1 s, port: 18541, exporter_port: 18542}}
meters:
  - {{name: lab, cohort: "1", direction: both, rate: 8 Mbit/s}}
"""
COHORTNET = [sys.executable, "-m", "cohortnet"]


def cohortnet(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COHORTNET, *arguments], capture_output=True, text=True, timeout=180, check=False)
    assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The testbed; gives the folder of its runs."""
    folder = tmp_path_factory.mktemp("top")
    file = folder / "testbed.yaml"
    file.write_text(FILE)
    try:
        cohortnet("up", str(file), "--runs", str(folder / "runs"))
        yield folder / "runs"
    finally:
        cohortnet("down", NAME)


@pytest.fixture(scope="module")
def run(runs: Path) -> str:
    """A run that has begun."""
    sent = cohortnet(
        "intent", "send", "intents/drilling.yaml", "--cohort", "1", "--numround", "3", "--testbed", NAME, "--json"
    )
    identity = json.loads(sent.stdout)["id"]
    return str(identity)


def frame() -> dict[str, Any]:
    return dict(json.loads(cohortnet("top", "--testbed", NAME, "--json", "--period", "0.5").stdout))


def test_json_follows_a_run_with_rates_against_the_meter(run: str) -> None:
    seen, deadline = [], time.monotonic() + 90
    while time.monotonic() < deadline:
        seen.append(frame())
        cohort = seen[-1]["cohorts"][0]
        if cohort["state"] == "succeeded":
            break
    assert cohort["run"] == run and cohort["state"] == "succeeded" and cohort["round"] == 3 == cohort["rounds"], cohort
    assert 0.05 < cohort["accuracy"] <= 1 and cohort["loss"] > 0
    assert (cohort["down_limit_bps"], cohort["down_limit_kind"]) == (8_000_000, "meter")
    busiest = max(item["cohorts"][0]["down_bps"] or 0 for item in seen)
    assert busiest > 10_000, f"no frame of {len(seen)} saw the model go down: {busiest:.0f} bit/s at most"
    assert {meter["name"] for meter in seen[-1]["meters"]} == {"lab"}
    assert seen[-1]["nodes_up"] == seen[-1]["nodes_all"] and seen[-1]["problems"] == []
    assert seen[-1]["exporter"]["collect_seconds"] < 2.0


def test_once_prints_one_picture_and_pipes_get_lines(run: str) -> None:
    once = cohortnet("top", "--testbed", NAME, "--once")
    assert once.stdout.count("Cohorts (bit/s arrived / limit") == 1 and "lab" in once.stdout
    with started("--period", "0.3") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.terminate()
        assert process.wait(20) == 130
    assert NAME in lines[0] and any("cohort 1 (fed.1)" in line for line in lines)


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`cohortnet top` that runs on; ended with the block, whatever happens in it."""
    command = [*COHORTNET, "top", "--testbed", NAME, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_in_a_terminal_it_draws_sorts_and_leaves_the_terminal_as_it_was(run: str) -> None:
    master, slave = pty.openpty()
    process = None
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        before = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm-256color"}
        process = subprocess.Popen(
            [*COHORTNET, "top", "--testbed", NAME, "--period", "0.5"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        read_until(master, b"Nodes by CPU")
        os.write(master, b"s")
        read_until(master, b"Nodes by memory")
        os.write(master, b"q")
        tail = read_until(master, b"\x1b[?1049l")  # the screen from before is back
        assert process.wait(20) == 0 and b"Traceback" not in tail
        assert termios.tcgetattr(slave) == before
    finally:
        if process is not None:
            process.kill()
            process.wait(10)
        os.close(master)
        os.close(slave)


def read_until(terminal: int, wanted: bytes, seconds: float = 40.0) -> bytes:
    seen, deadline = b"", time.monotonic() + seconds
    while wanted not in seen:
        assert time.monotonic() < deadline, f"{wanted!r} did not come within {seconds:g} s: {seen[-2000:]!r}"
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536)
    return seen


def test_the_report_of_that_run_has_rates_rtt_cpu_and_no_empty_section(run: str, runs: Path, tmp_path: Path) -> None:
    deadline = time.monotonic() + 60
    while True:  # the record is complete before its series are
        manifest = json.loads((runs / run / "manifest.json").read_text())
        if manifest.get("complete") and manifest["series"]["state"] != "pending":
            break
        assert time.monotonic() < deadline, "the record was not complete within 60 s"
        time.sleep(0.3)
    assert manifest["series"]["state"] == "kept", manifest["series"]
    page = write_report(runs / run, tmp_path / "report.html")
    with Browser() as browser:
        browser.look_like(1280, 900)
        browser.open(page)
        assert browser.requests == [page.as_uri()] and browser.complaints == []
        assert browser.run("document.querySelector('.badge').innerText") == "succeeded"
        for section in ("learning", "durations", "traffic", "latency", "nodes"):
            drawn = browser.run(f"document.querySelectorAll('#{section} svg.chart').length")
            gaps = browser.run(f"[...document.querySelectorAll('#{section} .missing')].map(e=>e.innerText)")
            assert drawn >= 2 and gaps == [], f"{section}: {drawn} charts, missing: {gaps}"
        rows = browser.run("[...document.querySelectorAll('#declared tbody tr')].map(r=>r.innerText)")
        assert any(row.startswith("meter, down") for row in rows), rows
        assert browser.run("document.querySelectorAll('#clients tbody tr').length") == 2


def test_it_ends_with_the_testbed(runs: Path) -> None:
    with started("--period", "0.3") as process:
        assert process.stdout is not None
        process.stdout.readline()
        cohortnet("down", NAME)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and f"Testbed {NAME} was taken down." in rest and "Traceback" not in rest, rest
