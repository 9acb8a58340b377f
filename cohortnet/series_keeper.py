"""Keeps the time series of ended runs with their records: one thread beside the recorder, one run after the other.

A run's last samples are scraped up to a period after its end: so its series are kept a little later than the rest of
its record, whose manifest says `"series": {"state": "pending"}` meanwhile. What became of them stands there in the end,
also where Prometheus was away.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cohortnet.record import RunRecord, own
from monitoring.series import SeriesError, keep

log = logging.getLogger("recorder")

PENDING = "pending"
LEAD_PERIODS = 2.0
"""How long before a run its series begin, so that rates have a first value."""
AFTER_PERIODS = 1.5
AFTER_S = 1.0
MOST_WAITING = 1000
REMOVAL_WAIT_S = 30.0
RECENT_S = 300.0
"""A record that has been pending for longer has lost its recorder."""


def wanted(inventory: Mapping[str, Any]) -> str | None:
    """Where the testbed's Prometheus answers; None where it has none."""
    address = (inventory.get("monitoring") or {}).get("prometheus_address")
    return f"http://{address}" if address else None


class SeriesKeeper:
    """Takes ended runs and keeps their series. Every manifest that it marked as pending gets its final word."""

    def __init__(self, inventory: Mapping[str, Any]) -> None:
        self.inventory = inventory
        self.url = wanted(inventory)
        self._queue: queue.Queue[tuple[RunRecord, float, float]] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._pending: dict[Path, RunRecord] = {}
        self._closed = False
        if self.url is not None:
            threading.Thread(target=self._work, name="series", daemon=True).start()

    def first_word(self, start: float, end: float) -> dict[str, Any] | None:
        """What a manifest says of the series of a run that has just ended (Unix seconds); None: nobody measured."""
        monitoring = self.inventory.get("monitoring")
        if not monitoring:
            return None
        if self.url is None:
            return {"state": "off", "reason": "the testbed has `monitoring: {prometheus: none}`"}
        return {"state": PENDING, "start": start, "end": end}

    def submit(self, record: RunRecord) -> None:
        """Keep the series of a run whose manifest says that they are pending; at once, by the thread."""
        word = record.manifest.get("series") or {}
        if word.get("state") != PENDING or self.url is None:
            return
        with self._lock:
            self._pending[record.folder] = record
        try:
            self._queue.put_nowait((record, float(word["start"]), float(word["end"])))
        except queue.Full:
            self._finish(record, {"state": "lost", "reason": f"{MOST_WAITING} other runs were waiting"})

    def close(self) -> None:
        """The testbed goes: whatever is still pending is said to be lost."""
        with self._lock:
            waiting, self._closed = list(self._pending.values()), True
        for record in waiting:
            self.give_up(record)

    def give_up(self, record: RunRecord) -> None:
        """Say of a record whose series are pending that they are lost with the testbed."""
        if (record.manifest.get("series") or {}).get("state") == PENDING:
            self._write(record, {"state": "lost", "reason": "the testbed was removed before its series were kept"})

    def _work(self) -> None:
        while True:
            record, start, end = self._queue.get()
            period_s = float(self.inventory["monitoring"]["period_s"])
            time.sleep(max(0.0, end + AFTER_PERIODS * period_s + AFTER_S - time.time()))
            self._finish(record, self._keep(record, start - LEAD_PERIODS * period_s, end + period_s))

    def _keep(self, record: RunRecord, start: float, end: float) -> dict[str, Any]:
        assert self.url is not None
        try:
            summary = keep(self.url, self.inventory, start, end, record.folder)
        except SeriesError as error:
            log.warning("run %s: no series: %s", record.folder.name, error)
            return {"state": "away", "reason": str(error), "start": start, "end": end}
        except Exception as error:  # noqa: BLE001 - said in the manifest: the other runs must still get theirs
            log.exception("run %s: no series", record.folder.name)
            return {"state": "failed", "reason": f"{type(error).__name__}: {error}", "start": start, "end": end}
        for name in summary.files:
            own(record.folder / name)
        log.info("run %s: %d samples of %d series kept in %.1f s", record.folder.name, summary.samples, summary.series,
                 summary.seconds)  # fmt: skip
        return summary.as_dict()

    def _finish(self, record: RunRecord, word: Mapping[str, Any]) -> None:
        with self._lock:
            if self._closed:
                return
            self._pending.pop(record.folder, None)
            self._write(record, word)

    @staticmethod
    def _write(record: RunRecord, word: Mapping[str, Any]) -> None:
        manifest = record.manifest
        if manifest:
            manifest["series"] = dict(word)
            record.write("manifest.json", json.dumps(manifest, indent=1) + "\n")


def wait_kept(
    runs: Path, testbed: str, progress: Callable[[str, int, int], None], timeout_s: float = REMOVAL_WAIT_S
) -> None:
    """Wait until no run of that testbed that has just ended is without its series, as far as they can still come."""
    deadline = time.monotonic() + timeout_s
    waited = False
    while time.monotonic() < deadline and _pending(runs, testbed):
        if not waited:
            progress("series kept", 0, 1)
        waited = True
        time.sleep(0.2)
    if waited:
        progress("series kept", 1, 1)


def _pending(runs: Path, testbed: str) -> bool:
    now = time.time()
    for path in runs.glob("*/manifest.json"):
        try:
            if now - path.stat().st_mtime > RECENT_S:
                continue
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if manifest.get("testbed") == testbed and (manifest.get("series") or {}).get("state") == PENDING:
            return True
    return False
