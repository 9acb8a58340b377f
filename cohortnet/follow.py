"""Progress of runs as people want to read it, and the closing table. Reads the MLFO's events and the run record;
writes to the terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cohortnet.orchestrator import TERMINAL_STATES, Orchestrator
from cohortnet.record import RunRecord, Summary
from topology.units import format_size


def describe_event(event: Mapping[str, Any]) -> str | None:
    """One line for the events that people follow, None for the others."""
    kind = str(event["kind"])
    if kind.startswith("intent."):
        reason = event.get("reason")
        return kind.removeprefix("intent.") + (f": {reason}" if reason else "")
    if kind == "cohort.complete":
        return f"all {len(event.get('clients') or [])} clients have joined"
    if kind == "client.left":
        return f"client {event.get('client')} left: {event.get('reason', 'no reason given')}"
    if kind == "phase.finished" and event.get("phase") == "train":
        seconds = float(event.get("seconds") or 0.0)
        failures = f", {event['errors']} failed" if event.get("errors") else ""
        return f"round {event['round']}: trained by {event.get('replies')} clients in {seconds:.1f} s{failures}"
    if kind == "round.metrics" and event.get("source") in ("server", "distributed"):
        metrics = event.get("metrics") or {}
        shown = ", ".join(
            f"{name} {value:.4f}"
            for name, value in metrics.items()
            if isinstance(value, float) and name != "num-examples"
        )
        return f"round {event['round']}: {event['source']} evaluation: {shown}" if shown else None
    if kind == "run.failed":
        return f"run failed: {event.get('error')}"
    return None


def follow_intents(mlfo_url: str, identities: Sequence[str], console: Console) -> dict[str, str]:
    """Print the progress of all these intents until each has ended; gives their final states.

    Raises:
        OrchestratorError: where the MLFO is lost or does not know one of them.
    """
    lock = threading.Lock()

    def follow(identity: str) -> str:
        mlfo = Orchestrator(mlfo_url)
        for event in mlfo.follow(identity):
            text = describe_event(event)
            if text:
                with lock:
                    console.print(Text.assemble((identity, "bold"), f"  {text}"))
        return str(mlfo.intent(identity)["state"])

    with ThreadPoolExecutor(max(1, min(len(identities), 64))) as pool:
        return dict(zip(identities, pool.map(follow, identities), strict=True))


def wait_recorded(runs: Path, identities: Sequence[str], timeout_s: float = 90.0) -> list[str]:
    """Wait until the records of these runs are complete, time series included; gives the ids of those not in time."""
    deadline = time.monotonic() + timeout_s
    missing = list(identities)
    while missing and time.monotonic() < deadline:
        missing = [i for i in missing if not _complete(RunRecord(runs / i))]
        if missing:
            time.sleep(0.3)
    return missing


def _complete(record: RunRecord) -> bool:
    manifest = record.manifest
    waiting = (manifest.get("series") or {}).get("state") == "pending"
    return bool(manifest.get("complete")) and manifest.get("state") in TERMINAL_STATES and not waiting


def summary_table(summaries: Sequence[Summary]) -> Table:
    """The closing table: a row a run."""
    table = Table(title="Runs (bytes are message bytes on the wire; in brackets what the clients' interfaces counted)")
    for name in ("run", "cohort", "server", "clients", "state", "rounds", "accuracy per round"):
        table.add_column(name, overflow="fold")
    for name in ("up", "down", "seconds"):
        table.add_column(name, justify="right")
    for item in summaries:
        table.add_row(
            item.run, item.cohort, item.server, str(item.clients), item.state, str(item.rounds),
            " ".join(f"{value:.3f}" for value in item.accuracies),
            _bytes(item.bytes_up, item.interface_bytes_up), _bytes(item.bytes_down, item.interface_bytes_down),
            "" if item.seconds is None else f"{item.seconds:.1f}",
        )  # fmt: skip
    return table


def _bytes(counted: int, interface: int | None) -> str:
    return format_size(counted) + ("" if interface is None else f" ({format_size(interface)})")


def console_for(*, stderr: bool = False) -> Console:
    """A console that does not cut lines at 80 columns where nobody's terminal sets a width, and shows text as it is:
    what looks like Rich's markup or an emoji's name (`[fc.10]`, `:cloud:`) is a node's or a user's word. What is to
    have a colour is a `Text`.
    """
    file = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() else 160
    return Console(file=file, width=width, soft_wrap=not file.isatty(), markup=False, emoji=False)
