"""The record of one run: `runs/<id>/`. Turns a run's events into tables; owns the folder's files, asks no one for
anything.

rounds.csv has a row a round, clients.csv a row a reply of a client. Bytes are serialised message bytes of the
transport, down is server
to client; seconds are wall-clock seconds.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

ROUND_COLUMNS = (
    "round", "server_loss", "server_accuracy", "distributed_loss", "distributed_accuracy", "train_loss",
    "train_seconds", "evaluate_seconds", "bytes_down", "bytes_up", "replies", "errors",
)  # fmt: skip
CLIENT_COLUMNS = (
    "round", "phase", "client", "seconds", "bytes_down", "bytes_up", "num_examples", "loss", "accuracy", "error",
)  # fmt: skip


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a record; a last line that was cut off by a crash is left out."""
    events = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
    return events


def _metric(metrics: Mapping[str, Any], *names: str) -> float | None:
    for wanted in names:
        for name, value in metrics.items():
            if name.replace("_", "-").lower() in (wanted, f"eval-{wanted}", f"train-{wanted}"):
                return float(value)
    return None


def round_rows(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a round (round 0 is the evaluation before any training), with the columns of ROUND_COLUMNS; None where
    nothing is known."""
    rows: dict[int, dict[str, Any]] = {}
    for event in events:
        if "round" not in event:
            continue
        row = rows.setdefault(int(event["round"]), dict.fromkeys(ROUND_COLUMNS))
        row["round"] = int(event["round"])
        if event["kind"] == "round.metrics":
            metrics, source = event.get("metrics") or {}, event["source"]
            for name in ("loss", "accuracy"):
                if f"{source}_{name}" in row:
                    row[f"{source}_{name}"] = _metric(metrics, name)
        elif event["kind"] == "phase.finished":
            if f"{event['phase']}_seconds" in row:
                row[f"{event['phase']}_seconds"] = event.get("seconds")
            for name in ("bytes_down", "bytes_up", "replies", "errors"):
                row[name] = (row[name] or 0) + int(event.get(name) or 0)
    return [rows[number] for number in sorted(rows)]


def client_rows(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a reply of a client, with the columns of CLIENT_COLUMNS."""
    rows = []
    for event in events:
        if event["kind"] == "client.reply":
            row = {name: event.get(name) for name in CLIENT_COLUMNS}
            metrics = event.get("metrics") or {}
            row["loss"], row["accuracy"] = _metric(metrics, "loss"), _metric(metrics, "accuracy")
            rows.append(row)
    return rows


@dataclass
class Summary:
    """What the closing table says of a run. Accuracies are the server's own where it evaluates, else the distributed
    ones."""

    run: str
    intent: str
    cohort: str
    server: str
    clients: int
    state: str
    rounds: int
    accuracies: list[float] = field(default_factory=list)
    bytes_up: int = 0
    bytes_down: int = 0
    interface_bytes_up: int | None = None
    """What the clients' interfaces sent between the start and the end of their processes."""
    interface_bytes_down: int | None = None
    seconds: float | None = None
    reason: str = ""


def summarise(manifest: Mapping[str, Any], events: list[dict[str, Any]]) -> Summary:
    """The summary of a run from its manifest and events."""
    rows = [row for row in round_rows(events) if row["round"] > 0]
    accuracies = [row["server_accuracy"] if row["server_accuracy"] is not None else row["distributed_accuracy"]
                  for row in rows]  # fmt: skip
    sent = received = None
    for event in events:
        start, end = event.get("interface_start"), event.get("interface_end")
        if event["kind"] == "client.finished" and start and end:
            sent = (sent or 0) + int(end["tx_bytes"]) - int(start["tx_bytes"])
            received = (received or 0) + int(end["rx_bytes"]) - int(start["rx_bytes"])
    finished = next((event for event in events if event["kind"] == "run.finished"), {})
    intent = manifest.get("intent") or {}
    return Summary(
        run=str(manifest.get("run", "")),
        intent=str(intent.get("intentID") or ""),
        cohort=str(intent.get("cohort") or ""),
        server=str(intent.get("server") or ""),
        clients=len(intent.get("clients") or []),
        state=str(manifest.get("state", "")),
        rounds=len([row for row in rows if row["replies"]]),
        accuracies=[value for value in accuracies if value is not None],
        bytes_up=sum(row["bytes_up"] or 0 for row in rows),
        bytes_down=sum(row["bytes_down"] or 0 for row in rows),
        interface_bytes_up=sent,
        interface_bytes_down=received,
        seconds=finished.get("seconds"),
        reason=str(intent.get("reason") or ""),
    )


class RunRecord:
    """The folder of one run. Files are the sudo user's where there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events_file = folder / "events.jsonl"

    @classmethod
    def create(cls, runs: Path, run: str) -> RunRecord:
        """Make (or go on with) the record of a run."""
        record = cls(runs / run)
        record.folder.mkdir(parents=True, exist_ok=True)
        for folder in (runs, record.folder):
            own(folder)
        return record

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as written; empty where there is none yet."""
        try:
            data: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data

    def write(self, name: str, text: str) -> None:
        """Replace a file of the record in one step."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        own(path.parent)
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(text, encoding="utf-8")
        own(temporary)
        os.replace(temporary, path)

    def append_events(self) -> TextIO:
        """The file of events, open for appending, a line at a time."""
        file = open(self.events_file, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - the caller closes it
        own(self.events_file)
        return file

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return read_events(self.events_file)

    def write_tables(self) -> None:
        """rounds.csv and clients.csv from the events so far."""
        events = self.events()
        for name, columns, rows in (
            ("rounds.csv", ROUND_COLUMNS, round_rows(events)),
            ("clients.csv", CLIENT_COLUMNS, client_rows(events)),
        ):
            with open(self.folder / name, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
            own(self.folder / name)

    def summary(self) -> Summary:
        """The summary of the run as recorded so far."""
        return summarise(self.manifest, self.events())


def own(path: Path) -> None:
    """Hand a file of the record to the user who called sudo, so that he can read and remove it without."""
    user, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if os.geteuid() == 0 and user and group:
        os.chown(path, int(user), int(group))
