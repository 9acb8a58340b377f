"""What the tests of Prometheus share: pages that it scrapes, an inventory on loopback, the real server over it."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from monitoring.prometheus.process import Prometheus

TESTBED = "t-prom-lab"


def need(program: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is missing: sudo apt-get install prometheus"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Page:
    """A metrics page; its text is asked for at each scrape."""

    def __init__(self, text: Callable[[], str], host: str = "127.0.0.1", port: int = 0) -> None:
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                page.asked += 1
                body = text().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.asked = 0
        self.server = http.server.ThreadingHTTPServer((host, port), Handler)
        self.address = f"{host}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def node(name: str, role: str, cohort: str | None, number: int, pid: int | None = 1, program: str = "fl_node.agent"
         ) -> dict[str, Any]:  # fmt: skip
    return {"name": name, "role": role, "cohort": cohort, "address": f"10.0.1.{number}",
            "management_address": f"127.18.2.{number}", "pid": pid, "cgroups": [],
            "program": ["python", "-m", program]}  # fmt: skip


def inventory(folder: Path, *, period_s: float = 0.2, **changes: Any) -> dict[str, Any]:
    """One client, one server, one MLFO; the exporter at a free port."""
    folder.mkdir(parents=True, exist_ok=True)
    monitoring = {"prometheus": "host", "period_s": period_s, "retention_s": 3600.0,
                  "exporter": f"127.0.0.1:{free_port()}", "prometheus_address": f"127.0.0.1:{free_port()}",
                  "folder": str(folder / "prometheus"), "node": None, **changes.pop("monitoring", {})}  # fmt: skip
    return {
        "version": 1, "testbed": TESTBED, "state": "up",
        "core": {"controller": {"kind": "none"}},
        "nodes": [node("fed.1", "server", "1", 101), node("fc.10", "client", "1", 10),
                  node("mo.1", "mlfo-edge", None, 1, program="mlfo")],
        "published": [], "monitoring": monitoring, "paths": {"logs": str(folder), "state": str(folder)}, **changes,
    }  # fmt: skip


@contextlib.contextmanager
def running(data: dict[str, Any], log: Path) -> Iterator[Prometheus]:
    """The real server over that inventory."""
    need("prometheus")
    server = Prometheus(data, log)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.stop()


def query(url: str, text: str) -> dict[str, float]:
    """Result of an instant query: labels (sorted) -> value."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": text}, timeout=5).json()
    assert answer["status"] == "success", answer
    return {",".join(f"{k}={v}" for k, v in sorted(item["metric"].items())): float(item["value"][1])
            for item in answer["data"]["result"]}  # fmt: skip


def wait_for(what: Callable[[], Any], timeout_s: float = 10.0, said: str = "") -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"not in {timeout_s:g} s: {said or what}"
        time.sleep(0.05)
    return found


def promtool(*arguments: str) -> str:
    done = subprocess.run([need("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
