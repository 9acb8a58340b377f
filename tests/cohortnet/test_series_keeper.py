"""Every record gets its final word about its series, whatever happens to the testbed."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cohortnet.follow import wait_recorded
from cohortnet.record import RunRecord
from cohortnet.series_keeper import SeriesKeeper, wait_kept


def inventory(**monitoring: Any) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return {"testbed": "t", "monitoring": {"prometheus": "host", "period_s": 0.1, "prometheus_address": address,
                                           **monitoring}}  # fmt: skip


def ended(runs: Path, keeper: SeriesKeeper, end: float, name: str = "r1") -> RunRecord:
    record = RunRecord.create(runs, name)
    manifest = {"testbed": "t", "state": "succeeded", "complete": True, "series": keeper.first_word(end - 1, end)}
    record.write("manifest.json", json.dumps(manifest))
    keeper.submit(record)
    return record


def test_without_prometheus_the_record_says_away_and_is_then_complete(tmp_path: Path) -> None:
    keeper = SeriesKeeper(inventory())
    record = ended(tmp_path, keeper, time.time())
    assert record.manifest["series"]["state"] == "pending"
    assert wait_recorded(tmp_path, ["r1"], timeout_s=0.1) == ["r1"], "it is not complete before its series are"
    wait_kept(tmp_path, "t", lambda *_: None, timeout_s=20)
    assert wait_recorded(tmp_path, ["r1"], timeout_s=5) == []
    assert record.manifest["series"]["state"] == "away" and "does not answer" in record.manifest["series"]["reason"]
    assert record.manifest["state"] == "succeeded"


def test_a_testbed_that_goes_first_loses_them_and_says_so(tmp_path: Path) -> None:
    keeper = SeriesKeeper(inventory())
    record = ended(tmp_path, keeper, time.time() + 600)
    other = ended(tmp_path, keeper, time.time() + 600, "r2")
    keeper.close()
    assert [r.manifest["series"]["state"] for r in (record, other)] == ["lost", "lost"]
    assert "removed" in record.manifest["series"]["reason"]
    again = SeriesKeeper(inventory())
    again.submit(record)  # as a recorder that is started again does: a final word stays
    assert not again._pending


def test_one_that_was_pending_when_its_recorder_ended_is_taken_up_again(tmp_path: Path) -> None:
    record = ended(tmp_path, SeriesKeeper(inventory()), time.time() + 600)
    manifest = {**record.manifest, "series": {"state": "pending", "start": time.time() - 10, "end": time.time() - 5}}
    record.write("manifest.json", json.dumps(manifest))
    SeriesKeeper(inventory()).submit(record)
    wait_kept(tmp_path, "t", lambda *_: None, timeout_s=20)
    assert record.manifest["series"]["state"] == "away"


WITHOUT = [({"monitoring": None}, None), (inventory(prometheus_address=None), "off")]


@pytest.mark.parametrize(("found", "expected"), WITHOUT)
def test_who_does_not_measure_has_no_series_and_starts_no_thread(found: dict[str, Any], expected: str | None) -> None:
    before = threading.active_count()
    word = SeriesKeeper(found).first_word(1.0, 2.0)
    assert (word and word["state"]) == expected
    assert threading.active_count() == before


def test_down_waits_only_for_its_own_recent_runs(tmp_path: Path) -> None:
    keeper = SeriesKeeper(inventory())
    ended(tmp_path, keeper, time.time() + 600)
    start = time.monotonic()
    wait_kept(tmp_path, "another", lambda *_: None, timeout_s=20)
    assert time.monotonic() - start < 5
    wait_kept(tmp_path, "t", lambda *_: None, timeout_s=0.5)
    assert time.monotonic() - start >= 0.5
