"""A program in a node that lives no longer than this process: started, read line by line, ended.

Each program has a thread, which enters the node, starts the program and waits for it. The kernel kills the program when
that thread ends, so not even `kill -9` of this process leaves one behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import tty
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from topology.engine import launch, namespaces

MOST_LINE = 4096
START_S = 10.0


class Trouble(Exception):
    """Why a flow cannot go on, for people: names the node and what happened."""


class Program:
    """One program in one node. Its callbacks are called in the event loop."""

    def __init__(
        self, entry: Mapping[str, Any], argv: Sequence[str], on_line: Callable[[str], None],
        on_exit: Callable[[], None],
    ) -> None:  # fmt: skip
        self._entry = entry
        self._argv = list(argv)
        self._on_line = on_line
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[subprocess.Popen[bytes]] = self._loop.create_future()
        self._process: subprocess.Popen[bytes] | None = None
        self.exited = asyncio.Event()
        self.status: int | None = None

    @property
    def pid(self) -> int:
        """Its process's number on the host; only of a program that was started."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it. Raises Trouble where the node or the program is not there."""
        name = self._entry["name"]
        threading.Thread(target=self._run, name=f"{self._argv[0]} in {name}", daemon=True).start()
        try:
            await asyncio.wait_for(asyncio.shield(self._started), START_S)
        except TimeoutError:
            raise Trouble(f"{name}: {self._argv[0]} did not start in {START_S:g} s") from None
        except FileNotFoundError as error:
            missing = error.filename == self._argv[0]
            said = f"{self._argv[0]} is not installed there" if missing else "is not running"
            raise Trouble(f"{name}: {said}") from None
        except (OSError, subprocess.SubprocessError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise Trouble(f"{name}: {self._argv[0]} cannot be started: {reason}") from None

    def _run(self) -> None:
        # A terminal, not a pipe: into a pipe iperf3 writes its lines only once a second, also that it is connected.
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            self._tell(self._set_failed, error)
            return
        with os.fdopen(ours, "rb") as output:
            try:
                tty.setraw(theirs)
                process = namespaces.start_in_node(
                    self._entry["pid"], self._entry["cgroups"], self._argv, env=launch.node_environment(self._entry),
                    stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, new_session=True, with_thread=True,
                )  # fmt: skip
            except (OSError, subprocess.SubprocessError) as error:
                self._tell(self._set_failed, error)
                return
            finally:
                os.close(theirs)
            self._tell(self._set_started, process)
            with suppress(OSError):  # a terminal's end of file, when the program has ended
                while line := output.readline(MOST_LINE):
                    self._tell(self._on_line, line.decode(errors="replace").rstrip())
        self._tell(self._set_exited, process.wait())

    def _tell(self, what: Callable[..., None], value: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(what, value)

    def _set_started(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._started.set_result(process)

    def _set_failed(self, error: BaseException) -> None:
        self._started.set_exception(error)

    def _set_exited(self, status: int) -> None:
        self.status = status
        self.exited.set()
        self._on_exit()

    def signal(self, number: int) -> None:
        """Send it a signal, where it still runs."""
        if self._process is not None and self.status is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self, *, interrupt: bool = True, within_s: float = 0.0) -> bool:
        """End it: SIGINT where `interrupt`, and SIGKILL after `within_s`. True where it ended without the latter."""
        if not self._started.done():  # its thread is still at it, and what it starts has to go too
            with suppress(TimeoutError, OSError, subprocess.SubprocessError):
                await asyncio.wait_for(asyncio.shield(self._started), START_S)
        if self._process is None:
            return True
        if interrupt:
            self.signal(signal.SIGINT)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), within_s)
        if self.status is not None:
            return True
        self.signal(signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), START_S)
        return False
