"""Fake agents and real orchestrators.

``Agents`` speaks the agent's REST contract for every node of a testbed on 127.0.x.y, in this process: one
listener, the node is told by the address that was called. A fake run joins clients, runs rounds and ends by
itself; ``behave`` makes nodes misbehave. ``Testbed`` writes an inventory and starts real edge and central
processes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

ROOT = Path(__file__).resolve().parents[2]
SEED_INTENT = (ROOT / "intents" / "drilling.yaml").read_text()
ENDED = ("succeeded", "failed", "cancelled")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def inventory(cohorts: int, clients: int, agent_port: int = 5000) -> dict[str, Any]:
    """``cohorts`` cohorts of ``clients`` clients each, on 127.0.0.0/16; the first client is 127.0.1.10."""
    nodes: list[dict[str, Any]] = [
        {"name": "mo.1", "role": "mlfo-edge", "address": "127.0.0.3"},
        {"name": "cloud.0", "role": "mlfo-central", "address": "127.0.0.2"},
    ]
    plan = []
    for c in range(1, cohorts + 1):
        nodes.append(
            {"name": f"fed.{c}", "role": "server", "cohort": str(c), "address": f"127.0.0.{100 + c}"}
        )
        names = []
        for i in range(clients):
            n = 10 + (c - 1) * clients + i
            names.append(f"fc.{n}")
            address = f"127.0.{1 + n // 256}.{n % 256}"
            nodes.append({"name": f"fc.{n}", "role": "client", "cohort": str(c), "address": address})
        plan.append({"name": str(c), "server": f"fed.{c}", "clients": names})
    for node in nodes:
        node["agent_port"] = agent_port
    return {
        "version": 1,
        "testbed": "t-mlfo",
        "state": "up",
        "seed": 1,
        "network": {"address_pool": "127.0.0.0/16"},
        "nodes": nodes,
        "cohorts": plan,
    }


def values(metrics: str) -> dict[str, float]:
    """What an orchestrator's /metrics says, by name and labels as they are written there."""
    lines = (line for line in metrics.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


class Agents:
    """All agents of a testbed, faked. ``round_s`` is how long a round takes (seconds)."""

    def __init__(self, round_s: float = 0.03) -> None:
        self.round_s = round_s
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.names: dict[str, str] = {}
        self.processes: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.requests: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.joined: dict[str, set[str]] = {}
        self.held: dict[
            str, set[str]
        ] = {}  # server -> runs that were live on it at the same time; more than one is a fault
        self.behave: dict[str, str] = {}  # node -> dies | silent | never_listens | refuses | fails | deaf
        self.gone = False
        self.posts: list[tuple[str, str, str]] = []
        self.deletes: list[tuple[str, str, str, str]] = []  # node, kind, run, query
        agents = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # noqa: N802
                agents.get(self)

            def do_POST(self) -> None:  # noqa: N802
                agents.post(self)

            def do_DELETE(self) -> None:  # noqa: N802
                agents.delete(self)

            def log_message(self, *args: object) -> None:
                pass

            def node(self) -> str:
                return agents.names[self.connection.getsockname()[0]]

            def answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: object) -> None:
                pass

        self.http = Server(("0.0.0.0", 0), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def vanish(self) -> None:
        """Nobody listens any more, and open streams break off."""
        self.close()
        with self.news:
            self.gone = True
            self.news.notify_all()

    def emit(self, node: str, run: str, kind: str, **fields: Any) -> None:
        with self.news:
            log = self.events.setdefault(node, [])
            log.append(
                {
                    "seq": len(log) + 1,
                    "time": time.time(),
                    "monotonic": time.monotonic(),
                    "node": node,
                    "run": run,
                    "kind": kind,
                    **fields,
                }
            )
            self.news.notify_all()

    def get(self, h: Any) -> None:
        url = urlsplit(h.path)
        if url.path == "/v1/events":
            return self.stream(h, {k: v[0] for k, v in parse_qs(url.query).items()})
        _, _, kind, run = url.path.split("/")
        with self.lock:
            found = self.processes.get((h.node(), kind, run))
            return (
                h.answer(200, dict(found))
                if found
                else h.answer(404, {"errors": [{"message": "unknown run"}]})
            )

    def stream(self, h: Any, query: dict[str, str]) -> None:
        h.send_response(200)
        h.send_header("Content-Type", "text/event-stream")
        h.send_header("Connection", "close")
        h.end_headers()
        since, node = int(query.get("since", 0)), h.node()
        while True:
            with self.news:
                fresh = [e for e in self.events.get(node, [])[since:] if e["run"] == query["run"]]
                top = len(self.events.get(node, []))
            for e in fresh:
                h.wfile.write(f"id: {e['seq']}\ndata: {json.dumps(e)}\n\n".encode())
            since = top
            if query.get("follow") != "true" or self.gone:
                return
            with self.news:
                if len(self.events.get(node, [])) == top:
                    self.news.wait(2.0)
            h.wfile.write(b": beat\n\n")

    def post(self, h: Any) -> None:
        data = h.rfile.read(int(h.headers["Content-Length"]))
        request: dict[str, Any]
        if h.path == "/serv":
            kind, form = "server", {k: v[0] for k, v in parse_qs(data.decode()).items()}
            config = {"num-server-rounds": int(form["numround"])}
            request = {"run_id": "legacy", "form": form, "clients": ["part-0"], "config": config}
        else:
            kind, request = h.path.split("/")[2], json.loads(data)
        node, run = h.node(), request["run_id"]
        how = self.behave.get(node)
        key = (node, kind, run)
        with self.lock:
            self.posts.append(key)
            if how == "refuses":
                return h.answer(
                    409,
                    {
                        "errors": [
                            {
                                "path": "port",
                                "code": "busy",
                                "message": "another run holds the port",
                                "hint": "",
                            }
                        ]
                    },
                )
            if key in self.processes:
                return h.answer(200 if self.requests[key] == request else 409, dict(self.processes[key]))
            self.requests[key] = request
            counters = {"name": "eth0", "rx_bytes": 100, "tx_bytes": 200}
            self.processes[key] = {
                "run_id": run,
                "kind": kind,
                "state": "starting",
                "pid": 1,
                "address": None,
                "exit_code": None,
                "error": None,
                "started": time.time(),
                "ended": None,
                "interface_start": counters,
                "interface_end": None,
            }
            if kind == "server":
                live = {
                    r
                    for (n, k, r), p in self.processes.items()
                    if n == node and k == "server" and p["state"] in ("starting", "listening", "running")
                }
                self.held[node] = max(self.held.get(node, set()), live, key=len)
        target = self.serve if kind == "server" else self.learn
        threading.Thread(target=target, args=(node, run, request, how), daemon=True).start()
        h.answer(201, dict(self.processes[key]))

    def delete(self, h: Any) -> None:
        url = urlsplit(h.path)
        _, _, kind, run = url.path.split("/")
        with self.lock:
            process = self.processes.get((h.node(), kind, run))
            if process is None:
                return h.answer(404, {"errors": [{"message": "unknown run"}]})
            self.deletes.append((h.node(), kind, run, url.query))
            if url.query == "reason=goal" and process["state"] == "running":
                if self.behave.get(h.node()) != "deaf":
                    process["state"] = "finishing"  # serve() ends it
                return h.answer(200, {**process, "state": "running"})
            self.end(h.node(), kind, run, "stopped")
            h.answer(200, dict(process))

    def end(self, node: str, kind: str, run: str, state: str, error: str | None = None) -> None:
        with self.lock:
            process = self.processes[(node, kind, run)]
            if process["state"] in ("succeeded", "failed", "stopped"):
                return
            code = {"succeeded": 0, "failed": 1, "stopped": -15}[state]
            end = {"name": "eth0", "rx_bytes": 1100, "tx_bytes": 2200}
            process.update(state=state, error=error, exit_code=code, ended=time.time(), interface_end=end)
            self.emit(node, run, "process.ended", process=kind, pid=1, exit_code=code, interface=end)

    def serve(self, node: str, run: str, request: dict[str, Any], how: str | None) -> None:
        process = self.processes[(node, "server", run)]
        if how == "never_listens":
            return
        time.sleep(0.02)
        if how == "fails":
            return self.end(node, "server", run, "failed", "the application cannot be imported")
        with self.lock:
            if process["state"] != "starting":
                return
            process["state"] = "listening"
        self.emit(node, run, "server.listening", address="x")
        self.wait(
            lambda: (
                process["state"] != "listening"
                or (self.joined.get(run, set()) and self.joined[run] >= set(request["clients"]))
            )
        )
        if process["state"] != "listening":
            return
        process["state"] = "running"
        self.emit(node, run, "cohort.complete", clients=request["clients"])
        more: dict[str, str] = {}
        for number in range(1, request["config"]["num-server-rounds"] + 1):
            self.wait(lambda: process["state"] != "running", self.round_s)
            if process["state"] == "finishing":
                more = {"stopped": "goal"}
                number -= 1
                break
            if process["state"] != "running":
                return
            accuracy = min(0.99, 0.4 + 0.1 * number)
            self.emit(
                node,
                run,
                "round.metrics",
                round=number,
                source="distributed",
                metrics={"accuracy": accuracy - 0.2},
            )
            self.emit(
                node,
                run,
                "round.metrics",
                round=number,
                source="server",
                metrics={"accuracy": accuracy, "loss": 1.0},
            )
        self.emit(
            node,
            run,
            "run.finished",
            rounds=number,
            seconds=1.0,
            weights_sha256="00",
            bytes_down=1,
            bytes_up=1,
            **more,
        )
        for n, kind, r in list(self.processes):
            if r == run:
                self.end(n, kind, r, "succeeded")

    def learn(self, node: str, run: str, request: dict[str, Any], how: str | None) -> None:
        self.processes[(node, "client", run)]["state"] = "running"
        if how == "dies":
            time.sleep(0.1)
            return self.end(node, "client", run, "failed", "killed by signal 9")
        if how == "silent":
            return
        server = self.names[request["server"].split(":")[0]]
        with self.news:
            self.joined.setdefault(run, set()).add(node)
            self.emit(
                server,
                run,
                "client.joined",
                client=node,
                joined=len(self.joined[run]),
                expected=request["num_partitions"],
                reason="",
            )

    def wait(self, until: Callable[[], Any], timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        with self.news:
            while not until() and time.monotonic() < end:
                self.news.wait(min(0.1, max(0.001, end - time.monotonic())))


class Testbed:
    """An inventory, fake agents, and real orchestrator processes that end with the test."""

    __test__ = False

    def __init__(self, folder: Path, cohorts: int, clients: int, round_s: float = 0.03) -> None:
        self.folder = folder
        self.agents = Agents(round_s)
        self.content = inventory(cohorts, clients, self.agents.port)
        self.agents.names = {n["address"]: n["name"] for n in self.content["nodes"]}
        self.inventory = folder / "inventory.json"
        self.write()
        self.rest_port, self.central_rest, self.grpc_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.rest_port}"
        self.central_url = f"http://127.0.0.1:{self.central_rest}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def write(self) -> None:
        temporary = self.inventory.with_suffix(".new")
        temporary.write_text(json.dumps(self.content))
        temporary.rename(self.inventory)

    def start(self, role: str, *arguments: str) -> None:
        node, rest = ("mo.1", self.rest_port) if role == "edge" else ("cloud.0", self.central_rest)
        argv = [
            sys.executable,
            "-m",
            "mlfo",
            "--role",
            role,
            "--node",
            node,
            "--inventory",
            str(self.inventory),
        ]
        argv += ["--state", str(self.folder / role), "--rest", f"127.0.0.1:{rest}"]
        argv += (
            ["--central", f"127.0.0.1:{self.grpc_port}"]
            if role == "edge"
            else ["--grpc", f"127.0.0.1:{self.grpc_port}"]
        )
        log = open(self.folder / f"{role}.log", "ab")  # noqa: SIM115 (handed to the process)
        self.processes[role] = subprocess.Popen([*argv, *arguments], cwd=ROOT, stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            assert self.processes[role].poll() is None, self.log(role)
            try:
                requests.get(f"http://127.0.0.1:{rest}/v1/status", timeout=2)
                return
            except requests.ConnectionError:
                time.sleep(0.05)
        raise AssertionError(f"{role} did not start: {self.log(role)}")

    def kill(self, role: str, number: int = signal.SIGKILL) -> None:
        process = self.processes.pop(role)
        os.kill(process.pid, number)
        process.wait(15)

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text()[-4000:]

    def post(
        self, text: str | bytes = SEED_INTENT, expect: int | None = 202, **fields: Any
    ) -> dict[str, Any]:
        answer = requests.post(
            f"{self.url}/receive", files={"file": ("intent.yaml", text)}, data=fields, timeout=20
        )
        assert expect is None or answer.status_code == expect, answer.text
        return {**answer.json(), "status_code": answer.status_code}

    def get(self, run: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/v1/intents/{run}", timeout=10)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait(self, run: str, states: tuple[str, ...] = ENDED, timeout_s: float = 30.0) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while (record := self.get(run))["state"] not in states:
            assert record["state"] not in ENDED, record
            assert time.monotonic() < end, f"still {record['state']} after {timeout_s} s: {self.log('edge')}"
            time.sleep(0.05)
        return record

    def events(self, run: str) -> list[dict[str, Any]]:
        text = requests.get(f"{self.url}/v1/intents/{run}/events?follow=false", timeout=10).text
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    def close(self) -> None:
        for role in list(self.processes):
            self.kill(role)
        self.agents.close()
