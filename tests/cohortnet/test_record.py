"""The record's tables say what the events said, and survive a cut-off last line."""

import csv
import json
from pathlib import Path
from typing import Any

from cohortnet.record import RunRecord, client_rows, round_rows, summarise


def reply(number: int, phase: str, client: str) -> dict[str, Any]:
    return {
        "kind": "client.reply",
        "round": number,
        "phase": phase,
        "client": client,
        "seconds": 1.5,
        "bytes_down": 100,
        "bytes_up": 90,
        "num_examples": 10,
        "metrics": {"train_loss": 0.5, "num-examples": 10},
        "error": None,
    }


EVENTS: list[dict[str, Any]] = [
    {"seq": 1, "kind": "run.started"},
    {"seq": 2, "kind": "round.metrics", "round": 0, "source": "server", "metrics": {"loss": 2.3, "accuracy": 0.1}},
    reply(1, "train", "fc.10"),
    {
        "seq": 4,
        "kind": "phase.finished",
        "round": 1,
        "phase": "train",
        "seconds": 3.0,
        "replies": 2,
        "errors": 0,
        "bytes_down": 200,
        "bytes_up": 180,
    },
    {
        "seq": 5,
        "kind": "phase.finished",
        "round": 1,
        "phase": "evaluate",
        "seconds": 1.0,
        "replies": 2,
        "errors": 1,
        "bytes_down": 200,
        "bytes_up": 10,
    },
    {
        "seq": 6,
        "kind": "round.metrics",
        "round": 1,
        "source": "distributed",
        "metrics": {"eval_loss": 1.0, "eval_acc": 0.2, "accuracy": 0.4},
    },
    {"seq": 7, "kind": "round.metrics", "round": 1, "source": "server", "metrics": {"loss": 0.9, "accuracy": 0.7}},
    {"seq": 8, "kind": "run.finished", "rounds": 1, "seconds": 4.5},
    {
        "seq": 9,
        "kind": "client.finished",
        "client": "fc.10",
        "interface_start": {"rx_bytes": 50, "tx_bytes": 10},
        "interface_end": {"rx_bytes": 480, "tx_bytes": 220},
    },
]


def test_rounds_and_clients_have_a_row_each() -> None:
    rows = round_rows(EVENTS)
    assert [row["round"] for row in rows] == [0, 1]
    assert rows[1]["server_accuracy"] == 0.7 and rows[1]["distributed_accuracy"] == 0.4
    assert (rows[1]["bytes_down"], rows[1]["bytes_up"], rows[1]["errors"]) == (400, 190, 1)
    assert client_rows(EVENTS)[0]["loss"] == 0.5


def test_the_summary_counts_rounds_bytes_and_interfaces() -> None:
    summary = summarise(
        {"run": "r", "state": "succeeded", "intent": {"cohort": "1", "server": "fed.1", "clients": ["a"]}}, EVENTS
    )
    assert (summary.rounds, summary.accuracies, summary.seconds) == (1, [0.7], 4.5)
    assert (summary.bytes_down, summary.interface_bytes_down, summary.interface_bytes_up) == (400, 430, 210)


def test_a_record_is_written_and_read_back(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path / "runs", "r1")
    with record.append_events() as file:
        file.writelines(json.dumps(event) + "\n" for event in EVENTS)
        file.write('{"kind": "cut o')
    record.write_tables()
    record.write("manifest.json", json.dumps({"run": "r1", "state": "succeeded", "intent": {}}))
    assert record.summary().rounds == 1
    with open(record.folder / "rounds.csv", newline="") as table:
        assert [row["server_accuracy"] for row in csv.DictReader(table)] == ["0.1", "0.7"]
