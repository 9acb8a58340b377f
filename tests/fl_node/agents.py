"""A running agent, to be asked over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.fl_node.harness import free_port
from tests.fl_node.nodes import wait_until

ROOT = Path(__file__).resolve().parents[2]


class Agent:
    """A running agent on two free ports of the loopback."""

    def __init__(
        self,
        state: Path,
        *before: str,
        module: str = "tests.fl_node.fakes.agent",
        metrics_port: int | None = None,
        **environment: str,
    ) -> None:
        self.port, self.metrics_port = free_port(), metrics_port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = state
        identity = {
            "COHORTNET_NODE": "fed.1",
            "COHORTNET_ROLE": "server",
            "COHORTNET_TESTBED": "t-agent",
            "COHORTNET_COHORT": "1",
            "COHORTNET_ADDRESS": "127.0.0.1",
            "COHORTNET_STATE": str(state),
        }
        self.process = subprocess.Popen(
            [
                *before,
                sys.executable,
                "-m",
                module,
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--metrics-port",
                str(self.metrics_port),
            ],
            env={**os.environ, **identity, **environment},
            cwd=ROOT,
        )
        try:
            wait_until(self._answers, 15, "the agent")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the agent has ended"
        try:
            return requests.get(f"{self.url}/v1/status", timeout=2).ok
        except requests.ConnectionError:
            return False

    def server(self, run_id: str, behave: str | None = "run", **body: Any) -> requests.Response:
        """Start a server; `behave` is for the fake process, None for a real one."""
        config = {**({} if behave is None else {"behave": behave}), **body.pop("config", {})}
        whole = {
            "run_id": run_id,
            "application": "image_classification",
            "config": config,
            "clients": ["fc.1", "fc.2"],
            **body,
        }
        return requests.post(f"{self.url}/v1/server", json=whole, timeout=15)

    def client(self, run_id: str, behave: str = "run", **body: Any) -> requests.Response:
        whole = {
            "run_id": run_id,
            "application": "image_classification",
            "config": {"behave": behave},
            "server": "127.0.0.1:6000",
            "partition_id": 0,
            "num_partitions": 2,
            **body,
        }
        return requests.post(f"{self.url}/v1/client", json=whole, timeout=15)

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=15, **options)

    def metrics(self) -> str:
        """What the second port says."""
        answer = requests.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=15)
        assert answer.status_code == 200, answer.text
        return answer.text

    def status(self, kind: str, run_id: str) -> dict[str, Any]:
        answer = self.get(f"/v1/{kind}/{run_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, kind: str, run_id: str, *states: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status(kind, run_id)
            return status if status["state"] in states else None

        return wait_until(reached, 10, f"{kind} of {run_id} to be {' or '.join(states)}")

    def stop(self, kind: str, run_id: str) -> dict[str, Any]:
        answer = requests.delete(f"{self.url}/v1/{kind}/{run_id}", timeout=15)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, run_id: str, **query: Any) -> list[dict[str, Any]]:
        text = self.get("/v1/events", params={"run": run_id, **query}).text
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(12)
