"""What a report is made from: the folder of one run, read once. Notes what is not there; computes nothing.

Files of a record are described in docs/architecture.md; series are those of `monitoring.series`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitoring.report.samples import Samples, load_samples


class RecordUnreadable(Exception):
    """The folder holds no record of a run; the text is meant for the user."""


@dataclass
class Record:
    """The files of a run as values. Times are unix seconds."""

    folder: Path
    manifest: dict[str, Any]
    events: list[dict[str, Any]]
    """In the order of time."""
    inventory: dict[str, Any]
    samples: Samples | None
    texts: dict[str, str] = field(default_factory=dict)
    """intent.yaml and testbed.yaml where they are there."""
    files: list[tuple[str, int]] = field(default_factory=list)
    """Name and size in bytes of every file of the record."""
    absent: list[str] = field(default_factory=list)
    """Sentences: what was not recorded, and so is not shown."""
    verification: dict[str, Any] = field(default_factory=dict)
    """What `cohortnet verify` measured; empty where it was not run."""

    @property
    def run(self) -> str:
        """The run's id."""
        return str(self.manifest.get("run") or self.folder.name)

    @property
    def intent(self) -> dict[str, Any]:
        """What the MLFO said of the intent."""
        return dict(self.manifest.get("intent") or {})

    @property
    def cohort(self) -> str:
        """Of the run, "" where it was not resolved that far."""
        return str(self.intent.get("cohort") or "")

    @property
    def server(self) -> str:
        """The FL server's node, "" where none was allocated."""
        return str(self.intent.get("server") or "")

    @property
    def clients(self) -> list[str]:
        """Names of the clients' nodes."""
        return [str(name) for name in self.intent.get("clients") or []]

    @property
    def state(self) -> str:
        """succeeded, failed, cancelled, interrupted, or where it was when the record was written."""
        return str(self.manifest.get("state") or "unknown")

    @property
    def start(self) -> float:
        """Second 0 of the report: when the FL run started, or else the first event."""
        started = next((event["time"] for event in self.events if event["kind"] == "run.started"), None)
        first = self.events[0]["time"] if self.events else self.intent.get("created") or 0.0
        return float(started if started is not None else first)

    @property
    def end(self) -> float:
        """The last event."""
        return float(self.events[-1]["time"]) if self.events else self.start

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The inventory's nodes by name."""
        return {str(node["name"]): node for node in self.inventory.get("nodes") or []}


def read_record(folder: Path) -> Record:
    """Everything that is in the folder of a run.

    Raises:
        RecordUnreadable: there is no manifest, or it is not one.
    """
    manifest = _json(folder / "manifest.json")
    if not manifest or not isinstance(manifest.get("intent", {}), dict):
        raise RecordUnreadable(
            f"{folder} holds no record of a run: manifest.json is "
            + ("not readable as one" if (folder / "manifest.json").exists() else "not there")
        )
    absent: list[str] = []
    events, broken = _events(folder / "events.jsonl")
    if not events:
        absent.append("No events (events.jsonl): no rounds, durations, traffic by round or timeline can be shown.")
    if broken:
        absent.append(f"{broken} line(s) of events.jsonl were cut off or damaged and are left out.")
    inventory = _json(folder / "inventory.json")
    if not inventory:
        absent.append("No inventory.json: declared rates, limits and the other cohorts of the testbed are not known.")
    texts = {}
    for name in ("intent.yaml", "testbed.yaml"):
        path = folder / name
        if path.exists():
            texts[name] = path.read_text(encoding="utf-8", errors="replace")
        else:
            absent.append(f"No {name}.")
    verification = _json(folder / "verification.json")
    if not verification:
        absent.append("No verification.json: `cohortnet verify` had not been run on this testbed.")
    samples, problem = load_samples(folder)
    if problem:
        absent.append(problem)
    if not manifest.get("complete"):
        absent.append("The record is not complete: the run was still going on, or the recorder ended before it.")
    files = sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    return Record(folder, manifest, events, inventory, samples, texts, files, absent, verification)


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _events(path: Path) -> tuple[list[dict[str, Any]], int]:
    events: list[dict[str, Any]] = []
    broken = 0
    if not path.exists():
        return events, 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(event, Mapping) and "kind" in event and isinstance(event.get("time"), int | float):
            events.append(dict(event))
        else:
            broken += 1
    return sorted(events, key=lambda event: float(event["time"])), broken
