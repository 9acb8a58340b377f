"""A shell that stays: what `node.cmd()` talks to; folder, variables and background jobs are kept from call to call.

Owns one pseudo-terminal. The shell's prompt is the character 127, which tells the end of a command's output; a Ctrl-C
written to the terminal interrupts the command that runs.
"""

from __future__ import annotations

import codecs
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from topology.errors import TopologyError

SENTINEL = chr(127)
_START_S = 20.0
FIND_SHELL = "command -v bash >/dev/null 2>&1 && exec bash --norc --noediting -is; exec sh -is"
"""Mininet's shell is bash; an image without one has its sh."""


class Shell:
    """One running shell. `start` gets the terminal's file descriptor and gives the process that uses it."""

    def __init__(self, owner: str, start: Callable[[int], subprocess.Popen[bytes]]) -> None:
        self._owner = owner
        master, slave = pty.openpty()
        settings = termios.tcgetattr(slave)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self.file: IO[bytes] = os.fdopen(master, "rb", buffering=0)
        try:
            self.process = start(slave)
        except BaseException:
            self.file.close()
            raise
        finally:
            os.close(slave)
        self.ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._poll = select.poll()
        self._poll.register(self.file, select.POLLIN | select.POLLHUP)
        self._wait_for_prompt()
        self.write("unset HISTFILE; set +m\n")
        self._wait_for_prompt()

    def _wait_for_prompt(self) -> None:
        deadline = time.monotonic() + _START_S
        text = ""
        while SENTINEL not in text:
            if self.readable(max(0.0, deadline - time.monotonic()) * 1000):
                text += self.read(1024)
            if self.ended or time.monotonic() > deadline:
                self.close()
                raise TopologyError(f"{self._owner}: its shell does not answer: {text.strip()[-300:] or 'no output'}")

    def readable(self, timeout_ms: float | None = None) -> bool:
        """Whether something can be read, waiting for it up to that long (None: without end)."""
        return bool(self._poll.poll(timeout_ms))

    def read(self, size: int) -> str:
        """What is there, waiting for at least one byte; "" and `ended` once the shell is gone."""
        try:
            data = os.read(self.file.fileno(), size)
        except OSError:  # EIO: nobody holds the terminal's other side any more
            data = b""
        if not data:
            self.ended = True
        return self._decoder.decode(data)

    def write(self, text: str) -> None:
        """Write all of it to the terminal. Raises TopologyError where the shell is gone."""
        data = text.encode()
        try:
            while data:
                data = data[os.write(self.file.fileno(), data) :]
        except OSError as error:
            raise TopologyError(f"{self._owner}: its shell has ended") from error

    def close(self) -> None:
        """Hang up, and collect the shell's process."""
        with suppress(OSError):
            self.file.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:  # an interactive shell ignores SIGTERM
            self.process.kill()
            self.process.wait(timeout=5)
        self.ended = True
