"""The monitoring daemon of a testbed: started, waited for, its first warnings shown. Knows it by its command, its HTTP
answers and its log only.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests

from topology.engine import launch
from topology.errors import TopologyError
from topology.plan import Plan

READY_S = 60.0


def start(plan: Plan, progress: Callable[[str, int, int], None]) -> None:
    """Start it and wait until exporter and Prometheus answer. What will be tight is said on stderr.

    Raises:
        TopologyError: where it ends or does not answer, with the end of its log.
    """
    assert plan.monitoring is not None
    log = plan.logs / "monitoring.log"
    argv = [sys.executable, "-m", "monitoring", "--inventory", str(plan.inventory)]
    process = launch.start_daemon(plan.testbed, argv, log)
    wanted = {"exporter": f"http://{plan.monitoring.exporter}/healthz"}
    if plan.monitoring.prometheus_address:
        wanted["prometheus"] = f"http://{plan.monitoring.prometheus_address}/-/ready"
    deadline = time.monotonic() + READY_S
    with requests.Session() as session:
        session.trust_env = False
        for done, (name, url) in enumerate(wanted.items(), start=1):
            _wait(session, process, name, url, deadline, log)
            progress("monitoring", done, len(wanted))
    for warning in warnings(log):
        print(f"cohortnet: monitoring: {warning}", file=sys.stderr)


def _wait(
    session: requests.Session, process: subprocess.Popen[bytes], name: str, url: str, deadline: float, log: Path
) -> None:
    while True:
        # Looked at first: on a port that is taken somebody else answers.
        if process.poll() is not None:
            raise TopologyError(
                f"monitoring has ended with status {process.returncode}; the end of {log}:\n{_tail(log)}"
            )
        try:
            if session.get(url, timeout=(1.0, 5.0)).status_code == 200:
                return
        except requests.RequestException:
            pass
        if time.monotonic() > deadline:
            raise TopologyError(f"monitoring: the {name} does not answer at {url}; the end of {log}:\n{_tail(log)}")
        time.sleep(0.05)


def _tail(log: Path, lines: int = 8) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def warnings(log: Path) -> list[str]:
    """What the daemon warned of while it started: a period that its first collections do not fit into."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"{log} cannot be read: {error.strerror}"]
    return [line.partition(" WARNING ")[2] for line in lines if " WARNING " in line]
