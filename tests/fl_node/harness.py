"""Real server and client processes on loopback, and what they wrote. Every process ends with its `Cohort`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"dataset": "digits", "model": "mlp", "num-server-rounds": 2, "samples-per-client": 100}


class Cohort:
    """One server and its clients, each a process; use as a context manager."""

    def __init__(
        self,
        folder: Path,
        clients: int,
        *,
        application: str = "image_classification",
        config: dict[str, Any] | None = None,
        run: str = "run-1",
        server: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.run = run
        self.application = application
        self.config = SMALL if config is None else config
        self.names = [f"fc.{10 + i}" for i in range(clients)]
        self.more_server = server or {}
        self.more_client = client or {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.port = 0

    def __enter__(self) -> Cohort:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)

    def start_server(self) -> int:
        """Start the server, wait until it listens; returns its port."""
        body = {
            "run_id": self.run,
            "application": self.application,
            "config": self.config,
            "clients": self.names,
            "seed": 1,
            "port": 0,
            "host": "127.0.0.1",
            "name": "fed.1",
            "events": str(self.events_file("server")),
            "join_timeout_s": 60,
            **self.more_server,
        }
        self.spawn("server", "fl_node.server", body)
        event = self.wait_event("server.listening", timeout_s=60)
        self.port = int(event["address"].rpartition(":")[2])
        return self.port

    def start_client(self, index: int, port: int | None = None, **more: Any) -> None:
        """Start client number `index`."""
        name = self.names[index]
        body = {
            "run_id": self.run,
            "application": self.application,
            "config": self.config,
            "server": f"127.0.0.1:{port or self.port}",
            "partition_id": index,
            "num_partitions": len(self.names),
            "seed": 1,
            "name": name,
            "events": str(self.events_file(name)),
            "state": str(self.folder / f"state-{name}"),
            **self.more_client,
            **more,
        }
        self.spawn(name, "fl_node.client", body)

    def start(self) -> Cohort:
        """Start the server and all clients."""
        self.start_server()
        for index in range(len(self.names)):
            self.start_client(index)
        return self

    def spawn(self, name: str, module: str, body: dict[str, Any]) -> None:
        """Start one process from a JSON file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(body))
        environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        }
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, "--config", str(path)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
            )

    def kill(self, name: str) -> None:
        """kill -9 of one process."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(timeout=10)

    def wait(self, name: str = "server", timeout_s: float = 120) -> int:
        """Exit code of a process."""
        try:
            return self.processes[name].wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} still runs after {timeout_s} s:\n{self.log(name)}") from None

    def log(self, name: str) -> str:
        """What a process printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def events_file(self, name: str) -> Path:
        """The file of events of a process."""
        return self.folder / f"{name}.events.jsonl"

    def events(self, kind: str | None = None, name: str = "server", **match: Any) -> list[dict[str, Any]]:
        """Events of a process, of one kind, whose fields match."""
        path = self.events_file(name)
        if not path.exists():
            return []
        lines = path.read_text().split("\n")[:-1]
        found = [json.loads(line) for line in lines]
        return [
            event
            for event in found
            if (kind is None or event["kind"] == kind) and all(event.get(k) == v for k, v in match.items())
        ]

    def wait_event(
        self, kind: str, name: str = "server", timeout_s: float = 90, **match: Any
    ) -> dict[str, Any]:
        """The first such event, waited for."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = self.events(kind, name, **match)
            if found:
                return found[0]
            if self.processes[name].poll() is not None and not self.events(kind, name, **match):
                break
            time.sleep(0.05)
        raise AssertionError(f"{name}: no event {kind} {match} within {timeout_s} s:\n{self.log(name)}")

    def accuracies(self) -> list[float]:
        """Server-side accuracy after each round, the untrained model's first."""
        return [e["metrics"]["accuracy"] for e in self.events("round.metrics", source="server")]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
