"""The main job on both runtimes: raise, post intents with curl's form, learn, read the record, take down."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from cohortnet.follow import console_for, follow_intents, wait_recorded
from cohortnet.orchestrator import Orchestrator, edge_url
from cohortnet.record import RunRecord
from tests.system.conftest import REPOSITORY, Raise, run
from tests.system.leftovers import leftovers, wait_for_none

pytestmark = pytest.mark.live


def post(url: str, file: str, **fields: Any) -> dict[str, Any]:
    with open(REPOSITORY / "intents" / file, "rb") as content:
        answer = requests.post(f"{url}/receive", files={"file": content}, timeout=20,
                               data={name: str(value) for name, value in fields.items()})  # fmt: skip
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


FORM = {"cohortsize": 4, "avgalgo": "FedAvg", "fracfit": 1.0, "minfit": 4, "minav": 4, "numround": 3}


@pytest.mark.parametrize("runtime", ["namespace", "docker"])
def test_two_cohorts_learn_at_the_same_time_each_on_its_own_server(
    testbed: Raise, tmp_path: Path, runtime: str
) -> None:
    name = f"t-run-{runtime}"
    inventory = testbed(name, "--cohorts", "2", "--clients", "8", "--campuses", "2", "--runtime", runtime)
    url = "http://127.0.0.1:8000"  # published, as the README's curl uses it
    answers = [post(url, "drilling.yaml", ipstart=first, **FORM) for first in (10, 14)]
    identities = [answer["id"] for answer in answers]
    states = follow_intents(edge_url(inventory), identities, console_for())
    assert set(states.values()) == {"succeeded"}, [
        requests.get(f"{url}/v1/intents/{i}", timeout=9).json() for i in identities
    ]
    runs = tmp_path / "runs"
    assert wait_recorded(runs, identities) == []
    summaries = [RunRecord(runs / identity).summary() for identity in identities]
    assert [summary.server for summary in summaries] == ["fed.1", "fed.2"]
    for summary in summaries:
        print(summary)
        assert summary.rounds == 3 and summary.clients == 4
        assert summary.accuracies[-1] > summary.accuracies[0] and summary.accuracies[-1] > 0.70
        for counted, interface in (
            (summary.bytes_up, summary.interface_bytes_up),
            (summary.bytes_down, summary.interface_bytes_down),
        ):
            assert interface is not None and counted <= interface <= 1.1 * counted
    for identity in identities:
        check_record(runs / identity)
    requests.get(f"{url}/v1/status", timeout=5).raise_for_status()


def check_record(folder: Path) -> None:
    """Every file of the record is there and says something."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["machine"]["packages"]["flwr"] and manifest["state"] == "succeeded"
    with open(folder / "rounds.csv", newline="") as table:
        assert [row["round"] for row in csv.DictReader(table)] == ["0", "1", "2", "3"]
    with open(folder / "clients.csv", newline="") as table:
        assert len(list(csv.DictReader(table))) == 3 * 2 * 4
    for name in ("testbed.yaml", "plan.json", "intent.yaml", "events.jsonl"):
        assert (folder / name).stat().st_size > 0
    assert len(list((folder / "logs").glob("*.log"))) == 5


def test_a_run_cut_short_has_a_record_that_says_so(testbed: Raise, tmp_path: Path) -> None:
    inventory = testbed("t-short", "--cohorts", "1", "--clients", "4", "--campuses", "1", "--runtime", "namespace")
    identity = post("http://127.0.0.1:8000", "drilling.yaml", ipstart=10, **{**FORM, "numround": 200})["id"]
    mlfo = Orchestrator(edge_url(inventory))
    for event in mlfo.follow(identity):
        if event["kind"] == "phase.finished" and event["round"] == 2:
            break
    run("down", "t-short")
    record = RunRecord(tmp_path / "runs" / identity)
    assert record.manifest["state"] == "interrupted" and record.manifest["complete"]
    assert record.manifest["seed"] == record.manifest["intent"]["seed"]
    with open(record.folder / "rounds.csv", newline="") as table:
        assert len(list(csv.DictReader(table))) >= 2


def test_exec_has_a_time_limit_and_gives_the_shell_s_status(testbed: Raise) -> None:
    testbed("t-exec", "--cohorts", "1", "--clients", "1", "--campuses", "1", "--runtime", "namespace")
    late = run("exec", "--testbed", "t-exec", "--timeout", "1", "fc.10", "sleep", "30", check=False)
    assert late.returncode == 124 and "Traceback" not in late.stderr
    assert run("exec", "--testbed", "t-exec", "fc.10", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    unknown = run("exec", "--testbed", "t-exec", "nobody", "true", check=False)
    assert unknown.returncode == 2 and "nodes: fed.1" in unknown.stderr


def test_nothing_is_left_after_down(testbed: Raise) -> None:
    name = "t-gone"
    testbed(name, "--cohorts", "1", "--clients", "2", "--campuses", "1", "--runtime", "namespace")
    assert leftovers(name)
    run("down", name)
    assert wait_for_none(name) == []
    run("down", name)  # twice is no error
