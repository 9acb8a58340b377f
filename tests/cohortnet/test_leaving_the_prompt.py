"""Leaving topo.py by a signal: the removal that it begins is not broken off by another one. The testbed here is none:
its removal takes a second and leaves a file when it is done."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STAND_IN = """
import sys, time
from pathlib import Path
from cohortnet import lifecycle, prompt, topo
from topology.engine.removal import Removal

done = Path(sys.argv.pop())

def remove_all(name, progress):
    begun = time.monotonic()
    Path(str(done) + ".begun").touch()
    while time.monotonic() < begun + 1.0:
        time.sleep(0.01)
    done.touch()
    return Removal(name, ("everything",), (), 1.0)

class Prompt:
    def __init__(self, *_):
        pass

    def cmdloop(self):
        print("cohortnet> ", flush=True)
        time.sleep(60)

lifecycle.remove_all, prompt.Prompt, topo.need_root = remove_all, Prompt, lambda: None
topo.raise_chosen = lambda *_: {"testbed": "t-none"}
topo.print_raised = lambda _: None
sys.exit(topo.main(["1"]))
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20.0
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.01)


def start(done: Path, terminal: int) -> subprocess.Popen[bytes]:
    """The stand-in as the leader of a session whose terminal that is, as an ssh session has it."""
    return subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", STAND_IN, str(done)],
        stdin=terminal, stdout=terminal, stderr=terminal, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def read_until(master: int, word: bytes) -> bytes:
    seen = b""
    while word not in seen:
        seen += os.read(master, 4096)
    return seen


@pytest.mark.parametrize(("first", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_second_signal_does_not_break_off_the_removal(tmp_path: Path, first: signal.Signals, status: int) -> None:
    done = tmp_path / "done"
    master, terminal = pty.openpty()
    process = start(done, terminal)
    try:
        os.close(terminal)
        read_until(master, b"cohortnet> ")
        process.send_signal(first)
        wait_for(Path(f"{done}.begun"))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        output = read_until(master, b"things").decode()
        assert process.wait(timeout=20) == status
        assert done.exists() and "Removing t-none ..." in output and "Traceback" not in output
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_terminal_that_is_closed_takes_the_testbed_with_it(tmp_path: Path) -> None:
    done = tmp_path / "done"
    master, terminal = pty.openpty()
    process = start(done, terminal)
    try:
        os.close(terminal)
        read_until(master, b"cohortnet> ")
        os.close(master)  # from here on whatever is printed fails
        process.wait(timeout=20)
        assert done.exists()
    finally:
        process.kill()
        process.wait()
