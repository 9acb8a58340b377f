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

from cohortnet.logs import end_of
from topology.engine import launch
from topology.errors import TopologyError
from topology.plan import Plan

READY_S = 60.0
LOG = "monitoring.log"


def begin(plan: Plan) -> subprocess.Popen[bytes]:
    """Start it. Prometheus takes five seconds from its start to its first look at a target: they pass while the nodes'
    programs start.
    """
    argv = [sys.executable, "-m", "monitoring", "--inventory", str(plan.inventory)]
    return launch.start_daemon(plan.testbed, argv, plan.logs / LOG)


def wait(plan: Plan, process: subprocess.Popen[bytes], progress: Callable[[str, int, int], None]) -> None:
    """Wait until the exporter answers and Prometheus has its targets: what runs from here on is measured. What will be
    tight is said on stderr.

    Raises:
        TopologyError: where it ends or does not answer, with the end of its log.
    """
    assert plan.monitoring is not None
    log = plan.logs / LOG
    wanted: dict[str, tuple[str, Callable[[requests.Response], bool]]] = {
        "the exporter": (f"http://{plan.monitoring.exporter}/healthz", lambda _: True)
    }
    if plan.monitoring.prometheus_address:
        url = f"http://{plan.monitoring.prometheus_address}"
        wanted["prometheus"] = (f"{url}/-/ready", lambda _: True)
        wanted["prometheus with its targets"] = (
            f"{url}/api/v1/targets?state=active", lambda answer: bool(answer.json()["data"]["activeTargets"])
        )  # fmt: skip
    deadline = time.monotonic() + READY_S
    progress("monitoring", 0, len(wanted))
    with requests.Session() as session:
        session.trust_env = False
        for done, (name, (url, holds)) in enumerate(wanted.items(), start=1):
            while not _holds(session, url, holds):
                # On a port that is taken somebody else answers: the daemon has ended then.
                if process.poll() is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            else:
                progress("monitoring", done, len(wanted))
            if process.poll() is not None:
                raise TopologyError(
                    f"monitoring has ended with status {process.returncode}; the end of {log}:\n{end_of(log)}"
                )
            if time.monotonic() > deadline:
                raise TopologyError(f"monitoring: {name} does not answer at {url}; the end of {log}:\n{end_of(log)}")
    for warning in warnings(log):
        print(f"cohortnet: monitoring: {warning}", file=sys.stderr)


def _holds(session: requests.Session, url: str, holds: Callable[[requests.Response], bool]) -> bool:
    try:
        answer = session.get(url, timeout=(1.0, 5.0))
        return answer.status_code == 200 and holds(answer)
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return False


def warnings(log: Path) -> list[str]:
    """What the daemon warned of while it started: a period that its first collections do not fit into."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"{log} cannot be read: {error.strerror}"]
    return [line.partition(" WARNING ")[2] for line in lines if " WARNING " in line]
