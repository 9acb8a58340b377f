"""One FL process of one run: its state from request to end, as REST shows it.

Takes what its launcher and its event file say, gives a status. Thread-safe. Starts no thread, answers no
request.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from fl_node.agent import interface
from fl_node.agent.eventlog import Tail
from fl_node.agent.launcher import Handle
from fl_node.agent.validation import ClientRequest, ServerRequest

LIVE = frozenset({"starting", "listening", "running"})
STATES = ("starting", "listening", "running", "succeeded", "failed", "stopped")
_TAIL_BYTES = 4 << 20


class FlProcess:
    """State is starting, listening (servers), running, then one of succeeded, failed, stopped."""

    def __init__(
        self, request: ServerRequest | ClientRequest, folder: Path, address: str, interface_name: str
    ) -> None:
        self.request = request
        self.kind = request.kind
        self.run_id = request.run_id
        self.folder = folder
        self.log = folder / "log.txt"
        self.tail = Tail(folder / "events.jsonl")
        self.launched = threading.Event()  # launched, or known not to be
        self.ended = threading.Event()
        self.ever_launched = False
        self.handle: Handle | None = None
        self.stop_requested = False
        self._lock = threading.Lock()
        self._interface_name = interface_name
        self._state = "starting"
        self._exit_code: int | None = None
        self._error: str | None = None
        self._event_error: str | None = None
        self._finished = False
        self._started: float | None = None
        self._ended_at: float | None = None
        self._interface_start: interface.Counters | None = None
        self._interface_end: interface.Counters | None = None
        self._address = address

    @property
    def state(self) -> str:
        with self._lock:
            return self._state

    @property
    def live(self) -> bool:
        return self.state in LIVE

    def prepare(self) -> Path:
        """Make the folder anew and write the process's configuration. Returns its path. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in ("events.jsonl", "log.txt", "status.json"):
            (self.folder / stale).unlink(missing_ok=True)
        path = self.folder / "config.json"
        path.write_text(json.dumps(self.request.body(), indent=1))
        with self._lock:
            self._started = time.time()
            self._interface_start = interface.counters(self._interface_name)
        return path

    def on_launched(self, handle: Handle) -> None:
        with self._lock:
            self.handle = handle
            self.ever_launched = True
            if self.kind == "client":
                self._state = "running"  # a server is starting until it says that it listens
        self.launched.set()

    def on_event(self, event: dict[str, Any]) -> None:
        """What the process says of itself moves its state forward."""
        kind = event.get("kind")
        with self._lock:
            if self._state not in LIVE:
                return
            if kind == "server.listening" and self._state == "starting":
                self._state = "listening"
            elif kind == "run.started":
                self._state = "running"
            elif kind == "run.finished":
                self._finished = True
            elif kind == "run.failed":
                self._event_error = str(event.get("error") or "the run failed without saying why")

    def on_end(self, code: int | None, error: str | None = None) -> None:
        """`code` None: it was never launched, and `error` says why."""
        last_words = "" if error else self.last_words()
        with self._lock:
            self._exit_code = code
            self._ended_at = time.time()
            self._interface_end = interface.counters(self._interface_name)
            if code == 0 and (self._finished or not self.stop_requested):
                self._state = "succeeded"
            elif self.stop_requested:
                self._state = "stopped"
                self._error = self._event_error
            else:
                self._state = "failed"
                self._error = error or self._event_error or last_words or _exit_text(code)
        self._write_status()
        self.launched.set()

    def recall(self, node_address: str) -> None:
        """Take up what an earlier life of the agent knew of this process; one that was alive then has
        failed."""
        try:
            known = json.loads((self.folder / "status.json").read_text())["status"]
        except (OSError, ValueError, KeyError, TypeError):
            known = {
                "state": "failed",
                "error": "the agent ended while this process ran, and it ended with the agent",
            }
        with self._lock:
            self.ever_launched = True
            if isinstance(self.request, ServerRequest):
                self._address = f"{node_address or '127.0.0.1'}:{self.request.port}"
            self._state = known.get("state") if known.get("state") in STATES else "failed"
            self._exit_code, self._error = known.get("exit_code"), known.get("error")
            self._started, self._ended_at = known.get("started"), known.get("ended")
            self._interface_start, self._interface_end = (
                known.get("interface_start"),
                known.get("interface_end"),
            )
        self.launched.set()
        self.ended.set()

    def status(self) -> dict[str, Any]:
        with self._lock:
            return {
                "run_id": self.run_id,
                "kind": self.kind,
                "state": self._state,
                "pid": self.handle.pid if self.handle else None,
                "host_pid": self.handle.host_pid if self.handle else None,
                "address": self._address,
                "application": self.request.application,
                "exit_code": self._exit_code,
                "error": self._error,
                "started": self._started,
                "ended": self._ended_at,
                "interface_start": self._interface_start,
                "interface_end": self._interface_end,
            }

    def last_words(self) -> str:
        """The last line of the log that is not empty, as a program's traceback ends with what was wrong."""
        lines = [line.strip() for line in self.log_tail(50).splitlines() if line.strip()]
        return lines[-1][:500] if lines else ""

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines of what the process printed (of its last 4 MiB)."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                data = file.read(_TAIL_BYTES)
        except OSError:
            return ""
        text = data.decode(errors="replace")
        return "".join(text.splitlines(keepends=True)[-lines:])

    def _write_status(self) -> None:
        path = self.folder / "status.json"
        try:
            path.write_text(json.dumps({"status": self.status(), "request": self.request.body()}))
        except OSError:  # a full disk must not keep the end of a process from being known
            return


def _exit_text(code: int | None) -> str:
    if code is None:
        return "it was not started"
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
