"""The monitoring daemon of a testbed: started, waited for, and its first collection looked at. Knows it by its command,
its HTTP answers and its log only.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from topology.engine import launch
from topology.errors import TopologyError
from topology.plan import Plan, PlannedMonitoring

READY_S = 60.0
MOST_OF_PERIOD = 0.5
"""A collection that takes longer than this share of the period leaves no room for anything else on the machine."""


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
        for warning in warnings(session, plan.monitoring):
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


def warnings(session: requests.Session, monitoring: PlannedMonitoring) -> list[str]:
    """What one collection says of the period: it is measured, not guessed."""
    url = f"http://{monitoring.exporter}/metrics"
    try:
        session.get(url, timeout=(2.0, 60.0)).raise_for_status()  # the first one opens what later ones keep
        began = time.monotonic()
        text = session.get(url, timeout=(2.0, 60.0)).text
        took_s = time.monotonic() - began
    except requests.RequestException as error:
        return [f"the exporter at {url} gave no collection: {error}"]
    for family in text_string_to_metric_families(text):
        if family.name == "cohortnet_exporter_collect_seconds":
            took_s = max([took_s, *(sample.value for sample in family.samples if sample.name == family.name)])
    if took_s <= MOST_OF_PERIOD * monitoring.period_s:
        return []
    return [f"one collection takes {took_s:.2f} s of the period of {monitoring.period_s:g} s: samples will be late or "
            "missing; write a longer `monitoring: {period: ...}`"]  # fmt: skip
