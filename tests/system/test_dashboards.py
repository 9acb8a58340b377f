"""The Grafana dashboards over a real testbed with a real FL run: every query of every panel, variable and annotation
gets data.

What panels show is made to happen: background traffic, a meter that drops and one that queues, a link that goes down
and comes back, two runs of which one has a client that dies, an intent that is refused.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from monitoring.grafana import DASHBOARDS
from monitoring.grafana.check import Outcome, check_folder, failures
from tests.links import set_link
from tests.monitoring.prometheus.prom_lab import free_port, need
from tests.system.conftest import Raise, run

pytestmark = pytest.mark.live

MAY_WAIT = {
    "mlfo_errors_total": "the MLFO made none",
    "cohortnet_exporter_errors_total": "nothing went wrong",
    "cohortnet_exporter_overruns_total": "the machine kept up",
    "ALERTS": "nothing was amiss for long enough",
}
"""Metrics that a sound testbed need not have; every other query has to give data."""


def clients_process(inventory: dict[str, Any], node: str, identity: str) -> int:
    address = next(entry["management_address"] for entry in inventory["nodes"] if entry["name"] == node)
    status = requests.get(f"http://{address}:5000/v1/client/{identity}", timeout=5).json()
    return int(status["host_pid"])


def test_every_query_of_every_dashboard_has_data_over_a_real_run(testbed: Raise, tmp_path: Path) -> None:
    need("prometheus")
    name, prometheus, rest = "t-boards", free_port(), free_port()
    file = tmp_path / "boards.yaml"
    file.write_text(json.dumps({
        "name": name, "runtime": "namespace", "preset": {"cohorts": 2, "clients": 6, "campuses": 2},
        "publish": [{"node": "mo.1", "port": 8000, "host_port": rest}], "controller": {"rest_host_port": free_port()},
        "limits": {"client": {"cpu": 0.9, "memory": "2 GiB"}, "server": {"cpu": 1.5, "memory": "4 GiB"}},
        "monitoring": {"period": "1 s", "port": prometheus, "exporter_port": free_port()},
        "traffic": [{"name": "background", "from": "app.1", "to": "appserv.0", "rate": "10 Mbit/s", "start": True}],
        "meters": [{"name": "narrow", "cohort": "1", "direction": "down", "rate": "4 Mbit/s"},
                   {"name": "shared", "cohort": "2", "direction": "up", "rate": "6 Mbit/s", "enforce": "queue"}],
    }))  # fmt: skip
    inventory = testbed(name, str(file))
    begun = time.time()
    chosen = ("--testbed", name)
    run("meter", "set", "later", "--client", "fc.10", "--rate", "8mbit", *chosen)
    refused = requests.post(f"http://127.0.0.1:{rest}/v1/intents", data="nonsense: true", timeout=10)
    assert refused.status_code == 400

    def post(first: int, size: int) -> str:
        answer = requests.post(
            f"http://127.0.0.1:{rest}/receive", timeout=20,
            files={"file": Path("intents/drilling.yaml").read_bytes()},
            data={"ipstart": str(first), "cohortsize": str(size), "numround": "4", "minfit": "2", "minav": "2"},
        )  # fmt: skip
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    runs = [post(10, 3), post(13, 3)]
    for identity in runs:
        while requests.get(f"http://127.0.0.1:{rest}/v1/intents/{identity}", timeout=10).json()["state"] != "running":
            assert time.time() < begun + 120
            time.sleep(0.2)
    time.sleep(6)
    during = time.time()
    os.kill(clients_process(inventory, "fc.15", runs[1]), signal.SIGKILL)
    for state in (False, True):
        set_link(inventory, "swCampus1", "swEdge12", state)
        time.sleep(2)
    for identity in runs:
        run("intent", "wait", identity, *chosen, "--runs", str(tmp_path / "runs"))
    time.sleep(2.5)

    def outcomes(end: float) -> list[Outcome]:
        return check_folder(DASHBOARDS, f"http://127.0.0.1:{prometheus}", {"testbed": name}, period_s=1.0,
                            range_s=end - begun, end=end)  # fmt: skip

    after = outcomes(time.time())
    print({state: sum(outcome.state == state for outcome in after) for state in {o.state for o in after}})
    # What a panel shows of this moment only (TCP flows of the run) is gone with the run: it had data while it ran.
    meanwhile = {str(o.query) + o.query.expr for o in outcomes(during) if o.state == "data" and o.query.instant}
    bad = [outcome for outcome in failures(after, strict=True)
           if outcome.state == "error" or not any(metric in outcome.query.expr for metric in MAY_WAIT)
           and str(outcome.query) + outcome.query.expr not in meanwhile]  # fmt: skip
    assert bad == [], "\n".join(str(outcome) for outcome in bad)


