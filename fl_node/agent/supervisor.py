"""All FL processes of a node: started once a run, one server a port, watched, stopped, remembered.

Takes valid requests, gives statuses and event logs. Threads: one that reads the event files of live
processes, and one a live process that launches it and waits for its end. Never speaks HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_node.agent import interface
from fl_node.agent.eventlog import EventLog
from fl_node.agent.forms import LEGACY_RUN_ID
from fl_node.agent.identity import Identity
from fl_node.agent.launcher import (
    STOP_SECONDS,
    Launcher,
    LaunchError,
    SubprocessLauncher,
    process_environment,
)
from fl_node.agent.model_runs import ModelRuns
from fl_node.agent.process import FlProcess
from fl_node.agent.validation import (
    ClientRequest,
    InvalidRequest,
    RequestProblem,
    ServerRequest,
    parse,
    problem,
    valid_run_id,
)

MAX_LIVE = 64
MAX_REMEMBERED = 256  # runs; the oldest ended one is forgotten, with its folder
LAUNCH_SECONDS = 5.0  # how long an answer waits for the process's pid
TAIL_SECONDS = 0.1

Commands = Callable[[str, Path], list[str]]
Resolve = Callable[[str], Path]


class Conflict(Exception):
    """Another run, or the same run with another request, is in the way."""

    def __init__(self, problems: list[RequestProblem]) -> None:
        super().__init__("; ".join(item["message"] for item in problems))
        self.problems = problems


class Busy(Exception):
    """As many processes as one node may have are alive."""


class NotStarted(Exception):
    """The process could not be launched."""


class UnknownRun(Exception):
    """Nothing of that run is on this node."""


@dataclass(frozen=True)
class Started:
    status: dict[str, Any]
    created: bool


def default_commands(kind: str, config: Path) -> list[str]:
    return ["python", "-m", f"fl_node.{kind}", "--config", str(config)]


def default_resolve(application: str) -> Path:
    """The application's folder. Raises ValueError saying why there is none."""
    from fl_node.applications import resolve

    try:
        return Path(resolve(application))
    except Exception as error:  # its own error class is its own affair; the text is for the sender
        raise ValueError(str(error)) from error


class Supervisor:
    """Thread-safe. `close()` stops every process."""

    def __init__(
        self,
        identity: Identity,
        launcher: Launcher,
        commands: Commands = default_commands,
        resolve: Resolve = default_resolve,
    ) -> None:
        self.identity = identity
        self.events_read = 0
        self.exits: dict[tuple[str, str], int] = {}
        self.runs = ModelRuns()
        self._launcher = launcher
        self._commands = commands
        self._resolve = resolve
        self._interface = interface.holding(identity.address)
        self._lock = threading.RLock()
        self._processes: dict[tuple[str, str], FlProcess] = {}
        self._logs: dict[str, EventLog] = {}
        self._closing = threading.Event()
        self._runs = identity.state / "runs"
        self._runs.mkdir(parents=True, exist_ok=True)
        self._remember()
        self._tailer = threading.Thread(target=self._tail_all, name="tailer", daemon=True)
        self._tailer.start()

    # requests

    def start(self, request: ServerRequest | ClientRequest) -> Started:
        """Start what is asked for, once: the same request again gives the same process.

        Raises Conflict, Busy, NotStarted, or InvalidRequest where the application is not known.
        """
        application = self._application(request.application)
        key = (request.kind, request.run_id)
        with self._lock:
            found = self._processes.get(key)
            if found is not None and not self._replaceable(found):
                differences = _differences(found.request.body(), request.body(), request.run_id)
                if differences:
                    raise Conflict(differences)
                process, created = found, False
            else:
                self._admit(request)
                process, created = self._new(request), True
        if created:
            waiter = threading.Thread(
                target=self._live,
                args=(process, application),
                name=f"{process.kind}-{process.run_id}",
                daemon=True,
            )
            waiter.start()
        process.launched.wait(LAUNCH_SECONDS)
        if not process.live and not process.ever_launched:
            raise NotStarted(process.status()["error"] or "the process was not started")
        return Started(process.status(), created)

    def status(self, kind: str, run_id: str) -> dict[str, Any]:
        return self._find(kind, run_id).status()

    def stop(self, kind: str, run_id: str, well: bool = False) -> dict[str, Any]:
        """Stop and wait: at most some 8 s. A process that has ended stays as it ended.

        `well`: a server is asked to end its run as a success. It may take longer than the wait; whoever asked
        looks again, and stops it where it does not end.
        """
        process = self._find(kind, run_id)
        self._stop(process, well)
        process.ended.wait(STOP_SECONDS + 3.0)
        return process.status()

    def log_tail(self, kind: str | None, run_id: str, lines: int) -> str:
        if kind is None:
            kind = "server" if ("server", run_id) in self._processes else "client"
        return self._find(kind, run_id).log_tail(lines)

    def all(self) -> list[FlProcess]:
        with self._lock:
            return list(self._processes.values())

    def events(self, run_id: str) -> EventLog:
        with self._lock:
            log = self._logs.get(run_id)
        if log is None:
            raise UnknownRun(f"run {run_id!r} is not known on node {self.identity.node}")
        return log

    def close(self) -> None:
        """Stop every process, at most some 8 s."""
        self._closing.set()
        live = [process for process in self.all() if process.live]
        for process in live:
            self._stop(process)
        deadline = time.monotonic() + STOP_SECONDS + 1.0
        for process in live:
            process.ended.wait(max(0.0, deadline - time.monotonic()))
        for process in live:
            if process.handle is not None and not process.ended.is_set():
                process.handle.kill()
        for process in live:
            process.ended.wait(1.0)

    # a process's life

    def _live(self, process: FlProcess, application: Path) -> None:
        """One thread a process: launch it, wait for its end, tell."""
        log = self._logs[process.run_id]
        code: int | None = None
        error: str | None = None
        try:
            config = process.prepare()
            body = json.loads(config.read_text()) | self._extras(process)
            config.write_text(json.dumps(body, indent=1))
            argv = self._commands(process.kind, config)
            handle = self._launcher.launch(argv, process_environment(), process.log, application)
        except (LaunchError, OSError) as reason:
            error = str(reason)
        else:
            started = {
                "kind": "process.started",
                "process": process.kind,
                "pid": handle.pid,
                "host_pid": handle.host_pid,
                "exit_code": None,
                "interface": process.status()["interface_start"],
            }
            self._append(log, started)
            process.on_launched(handle)
            if process.stop_requested or self._closing.is_set():
                self._stop(process)
            code = handle.wait()
            self._drain(process)
        process.on_end(code, error)
        self.runs.end(process.kind, process.run_id)
        status = process.status()
        self._append(
            log,
            {
                "kind": "process.ended",
                "process": process.kind,
                "pid": status["pid"],
                "exit_code": code,
                "state": status["state"],
                "error": status["error"],
                "interface": status["interface_end"],
            },
        )
        with self._lock:
            outcome = (process.kind, status["state"])
            self.exits[outcome] = self.exits.get(outcome, 0) + 1
            process.ended.set()
            log.set_ended(not self._run_is_live(process.run_id))

    def _extras(self, process: FlProcess) -> dict[str, Any]:
        events = str(process.tail.path)
        if process.kind == "server":
            return {"events": events, "host": "0.0.0.0"}
        name = getattr(process.request, "name", None) or self.identity.node
        return {"events": events, "state": str(process.folder / "state"), "name": name}

    def _stop(self, process: FlProcess, well: bool = False) -> None:
        with self._lock:
            if not process.live:
                return
            process.stop_requested = True
            handle = process.handle
        if handle is not None:  # else it is not launched yet, and _live() stops it when it is
            if well:
                handle.finish()
            else:
                handle.stop()

    def _tail_all(self) -> None:
        while True:
            live = [process for process in self.all() if process.live and process.handle is not None]
            for process in live:
                self._drain(process)
            if os.getpid() == 1 and isinstance(self._launcher, SubprocessLauncher):
                self._launcher.collect_orphans()
            time.sleep(TAIL_SECONDS if live else 3 * TAIL_SECONDS)

    def _drain(self, process: FlProcess) -> None:
        """Move what the process has written to its event file into the run's log."""
        log = self._logs.get(process.run_id)
        with process.tail.lock:
            more = True
            while more:
                try:
                    events, more = process.tail.read()
                except OSError as error:
                    print(f"agent: {process.tail.path}: {error}", file=sys.stderr, flush=True)
                    return
                for event in events:
                    event.pop("seq", None)
                    process.on_event(event)
                    self.runs.learn(process.kind, process.run_id, event)
                    if log is not None:
                        self._append(log, event)
                    self.events_read += 1

    def _append(self, log: EventLog, event: dict[str, Any]) -> None:
        try:
            log.append(event)
        except (OSError, ValueError) as error:  # a full disk, or a value that is no JSON: the run goes on
            print(
                f"agent: {log.path}: event {event.get('kind')!r} is lost: {error}",
                file=sys.stderr,
                flush=True,
            )

    # the table

    def _application(self, name: str) -> Path:
        try:
            return self._resolve(name)
        except (ValueError, LookupError, OSError) as error:
            raise InvalidRequest([problem("application", "application.unknown", str(error))]) from error

    def _find(self, kind: str, run_id: str) -> FlProcess:
        with self._lock:
            process = self._processes.get((kind, run_id))
        if process is None:
            raise UnknownRun(f"run {run_id!r} has no {kind} on node {self.identity.node}")
        return process

    def _replaceable(self, process: FlProcess) -> bool:
        """Whether the same id may be started again: it was never launched, or its form had no id to name a
        run by."""
        return not process.live and (not process.ever_launched or process.run_id == LEGACY_RUN_ID)

    def _run_is_live(self, run_id: str) -> bool:
        return any(run == run_id and not item.ended.is_set() for (_, run), item in self._processes.items())

    def _admit(self, request: ServerRequest | ClientRequest) -> None:
        live = [process for process in self._processes.values() if process.live]
        if self._closing.is_set() or len(live) >= MAX_LIVE:
            raise Busy(
                f"node {self.identity.node} has {len(live)} FL processes, {MAX_LIVE} are allowed: "
                "stop one first"
            )
        if not isinstance(request, ServerRequest):
            return
        for process in live:
            other = process.request
            if isinstance(other, ServerRequest) and other.port == request.port:
                text = f"port {request.port} of node {self.identity.node} serves run {other.run_id!r}"
                hint = f"DELETE /v1/server/{other.run_id}, or another port"
                raise Conflict([problem("port", "port.taken", text, hint)])

    def _new(self, request: ServerRequest | ClientRequest) -> FlProcess:
        run_id = request.run_id
        folder = self._runs / run_id
        if isinstance(request, ServerRequest):
            address = f"{self.identity.address or '127.0.0.1'}:{request.port}"
        else:
            address = request.server
        if run_id == LEGACY_RUN_ID and run_id in self._logs and not self._run_is_live(run_id):
            self._forget(run_id)  # the next run under the id that names none
        process = FlProcess(request, folder / request.kind, address, self._interface)
        if run_id not in self._logs:
            self._logs[run_id] = EventLog(folder / "events.jsonl", self.identity.node, run_id)
        self._logs[run_id].set_ended(False)
        self._processes[(request.kind, run_id)] = process
        self.runs.begin(request.kind, run_id, request.application)
        ended = [item for item in self._logs if item != run_id and not self._run_is_live(item)]
        for oldest in ended[: max(0, len(self._logs) - MAX_REMEMBERED)]:
            self._forget(oldest)
        return process

    def _forget(self, run_id: str) -> None:
        for kind in ("server", "client"):
            self._processes.pop((kind, run_id), None)
        self._logs.pop(run_id).close()
        shutil.rmtree(self._runs / run_id, ignore_errors=True)

    def _remember(self) -> None:
        """Know the runs of an earlier life of this agent. What was alive then has ended with it."""
        folders = [item for item in self._runs.iterdir() if item.is_dir() and valid_run_id(item.name)]
        for folder in sorted(folders, key=lambda item: item.stat().st_mtime):
            log = EventLog(folder / "events.jsonl", self.identity.node, folder.name)
            self._logs[folder.name] = log
            for kind in ("server", "client"):
                try:
                    body = json.loads((folder / kind / "config.json").read_text())
                    for extra in ("events", "host", "state"):
                        body.pop(extra, None)
                    if body.get("name") == self.identity.node:
                        del body["name"]
                    request = parse(kind, body)
                except (OSError, ValueError, InvalidRequest):
                    continue
                process = FlProcess(request, folder / kind, body.get("server", ""), self._interface)
                process.recall(self.identity.address)
                self._processes[(kind, folder.name)] = process
            log.set_ended(True)


def _differences(old: dict[str, Any], new: dict[str, Any], run_id: str) -> list[RequestProblem]:
    """What a second request for a run says otherwise, key by key."""
    found = []
    flat_old, flat_new = _flat(old), _flat(new)
    for path in sorted(flat_old.keys() | flat_new.keys()):
        before, after = flat_old.get(path), flat_new.get(path)
        if before != after or type(before) is not type(after):
            text = f"run {run_id!r} was started with {path} {before!r}, now {after!r} is asked for"
            found.append(
                problem(path, "run.conflict", text[:500], "use another run_id, or DELETE the run first")
            )
    return found


def _flat(body: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in body.items() if key != "config"}
    flat.update({f"config.{key}": value for key, value in body.get("config", {}).items()})
    return flat
