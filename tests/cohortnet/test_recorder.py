"""A record is of the testbed as it was when its run began and ended, not when its recorder was started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from cohortnet.recorder import Recorder


def node(name: str, role: str, number: int) -> dict[str, Any]:
    return {"name": name, "role": role, "management_address": f"127.77.0.{number}", "switch": "s1", "image": "i"}


SERVER, FIRST, LATER = node("fed.1", "server", 2), node("fc.10", "client", 3), node("fc.11", "client", 4)


class Bed:
    """An inventory file that changes, and an MLFO and agents that know one run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "inventory.json"
        self.intent_state = "running"
        self.asked: list[str] = []
        self.write(SERVER, FIRST)

    def write(self, *nodes: dict[str, Any], rate_bps: int = 1) -> None:
        """The testbed from now on: these nodes, and a link of that rate."""
        data = {
            "version": 1, "testbed": "t", "state": "up", "runtime": "namespace", "seed": 1, "unsupported": [],
            "core": {"datapath": "netdev", "controller": {"kind": "none"}},
            "nodes": [node("mo.1", "mlfo-edge", 1), *nodes],
            "links": [{"name": "l", "a_to_b": {"rate_bps": rate_bps}}],
            "monitoring": None, "paths": {"state": str(self.folder)},
        }  # fmt: skip
        self.path.write_text(json.dumps(data))
        (self.folder / "plan.json").write_text(json.dumps({"rate_bps": rate_bps}))

    def recorder(self) -> Recorder:
        recorder = Recorder(self.path, self.folder / "runs")
        recorder.mlfo = self  # type: ignore[assignment]
        return recorder

    def intent(self, identity: str) -> dict[str, Any]:
        """What the MLFO says of the run."""
        return {"id": identity, "state": self.intent_state, "server": "fed.1", "clients": ["fc.10", "fc.11"]}

    def get(self, url: str, **_: Any) -> requests.Response:
        """What an agent says."""
        self.asked.append(url)
        answer = requests.Response()
        answer.status_code, answer._content = 200, f"log of {url.split('/')[2]}".encode()
        return answer

    def tell(self, recorder: Recorder, number: int, state: str) -> None:
        self.intent_state = state
        recorder.take({"seq": number, "time": float(number), "run": "r1", "kind": f"intent.{state}"})

    def recorded(self, name: str) -> Any:
        return json.loads((self.folder / "runs" / "r1" / name).read_text())

    def log(self, name: str) -> str:
        return (self.folder / "runs" / "r1" / "logs" / name).read_text()


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    bed = Bed(tmp_path)
    monkeypatch.setattr(requests.Session, "get", lambda _, url, **options: bed.get(url, **options))
    return bed


def test_a_node_that_was_added_later_is_in_the_record_with_its_log(bed: Bed) -> None:
    recorder = bed.recorder()
    bed.write(SERVER, FIRST, LATER, rate_bps=2)
    bed.tell(recorder, 1, "running")
    bed.write(SERVER, FIRST, LATER, rate_bps=3)
    bed.tell(recorder, 2, "succeeded")
    inventory = bed.recorded("inventory.json")
    assert [entry["name"] for entry in inventory["nodes"]] == ["mo.1", "fed.1", "fc.10", "fc.11"]
    assert inventory["links"][0]["a_to_b"]["rate_bps"] == 2, "as declared when the run began"
    assert bed.recorded("plan.json") == {"rate_bps": 2}
    assert bed.log("fc.11.client.log") == "log of 127.77.0.4:5000"


def test_logs_are_asked_for_where_the_nodes_are_when_the_run_ends(bed: Bed) -> None:
    recorder = bed.recorder()
    bed.tell(recorder, 1, "running")
    bed.write(SERVER, {**LATER, "management_address": "127.77.0.9"})
    bed.tell(recorder, 2, "succeeded")
    assert bed.log("fc.11.client.log") == "log of 127.77.0.9:5000"
    assert "removed" in bed.log("fc.10.client.log")
    assert not any("127.77.0.3" in url for url in bed.asked)


def test_a_recorder_that_is_started_again_keeps_what_the_run_began_with(bed: Bed) -> None:
    bed.tell(bed.recorder(), 1, "running")
    bed.write(SERVER, FIRST, LATER, rate_bps=2)
    bed.tell(bed.recorder(), 2, "running")
    assert bed.recorded("inventory.json")["links"][0]["a_to_b"]["rate_bps"] == 1
    assert bed.recorded("plan.json") == {"rate_bps": 1}


def test_a_testbed_that_is_being_removed_is_recorded_as_last_seen(bed: Bed) -> None:
    recorder = bed.recorder()
    bed.tell(recorder, 1, "running")
    bed.path.unlink()
    bed.tell(recorder, 2, "failed")
    assert bed.recorded("manifest.json")["complete"] is True and bed.log("fed.1.server.log").startswith("log of")
