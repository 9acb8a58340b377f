"""Leaving topo.py by a signal: the removal that it begins is not broken off by another one. The testbed here is none:
its removal takes a second and leaves a file when it is done."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import FileIO
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


@contextlib.contextmanager
def at_the_prompt(done: Path) -> Iterator[tuple[subprocess.Popen[bytes], FileIO]]:
    """The stand-in at its prompt, as the leader of a session whose terminal `screen` is the other end of, as an ssh
    session has it; ended with the block, whatever happens in it.
    """
    master, terminal = pty.openpty()
    with open(master, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-c", STAND_IN, str(done)],
            stdin=terminal, stdout=terminal, stderr=terminal, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        try:
            os.close(terminal)
            read_until(screen, b"cohortnet> ")
            yield process, screen
        finally:
            process.kill()
            process.wait()


def read_until(screen: FileIO, word: bytes) -> bytes:
    seen = b""
    while word not in seen:
        seen += screen.read(4096) or b""
    return seen


@pytest.mark.parametrize(("first", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_second_signal_does_not_break_off_the_removal(tmp_path: Path, first: signal.Signals, status: int) -> None:
    done = tmp_path / "done"
    with at_the_prompt(done) as (process, screen):
        process.send_signal(first)
        wait_for(Path(f"{done}.begun"))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        output = read_until(screen, b"things").decode()
        assert process.wait(timeout=20) == status
        assert done.exists() and "Removing t-none ..." in output and "Traceback" not in output


def test_a_terminal_that_is_closed_takes_the_testbed_with_it(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with at_the_prompt(done) as (process, screen):
        screen.close()  # from here on whatever is printed fails
        process.wait(timeout=20)
        assert done.exists()
