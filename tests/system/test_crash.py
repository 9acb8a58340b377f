"""`kill -9` of topo.py during set-up, when up, and during a run; then `cohortnet down`: nothing of ours, all that is
foreign."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.system.conftest import REPOSITORY, delay_options, run
from tests.system.leftovers import leftovers, wait_for_none

pytestmark = pytest.mark.live

NAME = "t-crash"
ADDRESS_SYSCTLS = ("net/core/rmem_default", "net/core/rmem_max", "net/ipv4/ip_forward")


def sysctls() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text().strip() for name in ADDRESS_SYSCTLS}


@pytest.fixture
def foreign() -> Iterator[None]:
    """A bridge, a namespace and a container that somebody made by hand."""
    image = "cohortnet/node:latest"
    commands = [
        ["ip", "link", "add", "handmade0", "type", "bridge"],
        ["ip", "netns", "add", "handmade"],
        ["docker", "run", "--detach", "--network", "none", "--name", "handmade", image, "sleep", "600"],
    ]
    for command in commands:
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    try:
        yield
        subprocess.run(["ip", "link", "show", "handmade0"], check=True, timeout=10, stdout=subprocess.DEVNULL)
        assert "handmade" in subprocess.run(["ip", "netns"], capture_output=True, text=True, timeout=10).stdout.split()
        running = ["docker", "ps", "--quiet", "--filter", "name=^handmade$"]
        assert subprocess.run(running, capture_output=True, text=True, timeout=20).stdout.strip()
    finally:
        subprocess.run(["ip", "link", "del", "handmade0"], timeout=10, check=False)
        subprocess.run(["ip", "netns", "del", "handmade"], timeout=10, check=False)
        subprocess.run(["docker", "rm", "--force", "handmade"], timeout=30, check=False, stdout=subprocess.DEVNULL)


def start_topo(runs: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(REPOSITORY / "topo.py"), "2", "--clients", "8", "--campuses", "2", "--name", NAME,
               "--runs", str(runs), *arguments, *delay_options()]  # fmt: skip
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_up(process: subprocess.Popen[bytes], timeout_s: float = 180.0) -> None:
    assert process.stdout is not None
    deadline, seen = time.monotonic() + timeout_s, b""
    while b"is up" not in seen:
        assert time.monotonic() < deadline, seen.decode()
        chunk = os.read(process.stdout.fileno(), 4096)
        assert chunk, f"topo.py ended: {seen.decode()}"
        seen += chunk


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)


def check_clean_after_down(before: dict[str, str]) -> None:
    run("down", NAME, timeout_s=120)
    assert wait_for_none(NAME) == []
    assert sysctls() == before
    run("down", NAME)


@pytest.mark.parametrize("runtime", ["namespace", "docker"])
def test_killed_during_set_up(tmp_path: Path, foreign: None, runtime: str) -> None:
    before = sysctls()
    chance = random.Random(7)
    for wait_s in (chance.uniform(0.2, 1.0), chance.uniform(1.0, 2.0), chance.uniform(2.0, 5.0)):
        process = start_topo(tmp_path / "runs", "--runtime", runtime)
        try:
            time.sleep(wait_s)
        finally:
            kill(process)
        check_clean_after_down(before)


def test_killed_when_up_and_during_a_run(tmp_path: Path, foreign: None) -> None:
    before = sysctls()
    for running in (False, True):
        process = start_topo(tmp_path / "runs", "--runtime", "namespace")
        try:
            wait_up(process)
            if running:
                with open(REPOSITORY / "intents" / "drilling.yaml", "rb") as file:
                    form = {"ipstart": "10", "cohortsize": "4", "numround": "20"}
                    answer = requests.post("http://127.0.0.1:8000/receive", files={"file": file}, data=form, timeout=20)
                assert answer.status_code == 202, answer.text
                time.sleep(5)
        finally:
            kill(process)
        assert leftovers(NAME), "the testbed outlives its prompt's crash"
        check_clean_after_down(before)


def test_leaving_the_prompt_removes_the_testbed(tmp_path: Path) -> None:
    process = start_topo(tmp_path / "runs", "--runtime", "namespace")
    commands = b"nodes\nlinks\nfc.10 ping -c 1 fed.1\npingall\niperf fc.10 fed.1 1\nlink aggsw10 satsw11 down\n" \
               b"fc.10 ping -c 1 -W 1 fed.1\nlink aggsw10 satsw11 up\nintents\nmeters\nnonsense\nexit\n"  # fmt: skip
    try:
        output = process.communicate(commands, timeout=240)[0].decode()
    finally:
        kill(process)
        run("down", NAME)
    print(output)
    assert process.returncode == 0
    assert "210 of 210 pairs answered" in output
    assert "1 received" in output and "0 received" in output
    assert "retransmissions" in output and "'nonsense' is no command" in output
    assert wait_for_none(NAME) == []
