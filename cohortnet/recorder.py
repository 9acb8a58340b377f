"""The recorder: one process a testbed, which follows the edge MLFO and writes the record of every run.

    python -m cohortnet.recorder --inventory PATH --runs DIR

It asks for new intents once a second, follows each until its end (one thread each, at most 64 at once, the others
wait), and collects the
logs of server and clients from their agents over the management network. Started again it goes on where the record
ends.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from cohortnet.manifest import build_manifest, describe_images, describe_machine
from cohortnet.orchestrator import TERMINAL_STATES, Orchestrator, OrchestratorError, edge_url
from cohortnet.record import RunRecord
from topology.inventory import read_inventory

log = logging.getLogger("recorder")

POLL_S = 1.0
MAX_FOLLOWED = 64
LOG_TIMEOUT_S = 10.0


class Recorder:
    """Follows one MLFO. `stop` ends it within a poll."""

    def __init__(self, inventory: Mapping[str, Any], runs: Path) -> None:
        self.inventory = inventory
        self.runs = runs
        self.mlfo_url = edge_url(inventory)
        self.machine = describe_machine()
        self.images = describe_images(inventory)
        self.stopping = threading.Event()
        self._seen: set[str] = set()
        self._pool = ThreadPoolExecutor(MAX_FOLLOWED, thread_name_prefix="run")

    def stop(self) -> None:
        """End soon; what was recorded stays."""
        self.stopping.set()

    def run(self) -> None:
        """Poll until stopped. An MLFO that is away for a while is waited for: its intents come back with it."""
        mlfo = Orchestrator(self.mlfo_url)
        quiet = False
        while not self.stopping.wait(POLL_S):
            try:
                for intent in mlfo.intents():
                    if intent["id"] not in self._seen:
                        self._seen.add(intent["id"])
                        self._pool.submit(self._guarded, intent["id"])
                quiet = False
            except OrchestratorError as error:
                if not quiet:
                    log.warning("%s", error)
                quiet = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, identity: str) -> None:
        try:
            self.record(identity)
        except Exception:  # a run that cannot be recorded must not end the recorder; the log says which
            log.exception("run %s", identity)

    def record(self, identity: str) -> None:
        """Follow one intent to its end and complete its record."""
        mlfo = Orchestrator(self.mlfo_url)
        record = RunRecord.create(self.runs, identity)
        if record.manifest.get("state") in TERMINAL_STATES and record.manifest.get("complete"):
            return
        intent = mlfo.intent(identity)
        self._write_inputs(record, intent)
        self._write_manifest(record, intent, complete=False)
        since = max((int(event.get("seq", 0)) for event in record.events()), default=0)
        with record.append_events() as file:
            for event in mlfo.follow(identity, since, patience_s=600.0):
                file.write(json.dumps(event) + "\n")
                if self.stopping.is_set():
                    return
        intent = mlfo.intent(identity)
        self._collect_logs(record, intent)
        record.write_tables()
        self._write_manifest(record, intent, complete=True)
        log.info("run %s: %s, recorded in %s", identity, intent["state"], record.folder)

    def _write_inputs(self, record: RunRecord, intent: Mapping[str, Any]) -> None:
        state = Path(self.inventory["paths"]["state"])
        for name in ("testbed.yaml", "plan.json"):
            if (state / name).exists():
                record.write(name, (state / name).read_text(encoding="utf-8"))
        if intent.get("document"):
            record.write("intent.yaml", str(intent["document"]))
        record.write("inventory.json", json.dumps(self.inventory, indent=1) + "\n")

    def _write_manifest(self, record: RunRecord, intent: Mapping[str, Any], *, complete: bool) -> None:
        manifest = build_manifest(self.inventory, intent, self.machine, self.images)
        timings = Path(self.inventory["paths"]["state"]) / "timings.json"
        manifest["raised_in_seconds"] = json.loads(timings.read_text()) if timings.exists() else None
        # A table is read as soon as the state is terminal: only then is everything else in the folder complete.
        manifest["complete"] = complete
        record.write("manifest.json", json.dumps(manifest, indent=1) + "\n")

    def _collect_logs(self, record: RunRecord, intent: Mapping[str, Any]) -> None:
        addresses = {node["name"]: node["management_address"] for node in self.inventory["nodes"]}
        wanted = [(name, "client") for name in intent.get("clients") or []]
        if intent.get("server"):
            wanted.append((str(intent["server"]), "server"))
        deadline = time.monotonic() + 60.0
        with requests.Session() as session:
            session.trust_env = False
            for node, kind in wanted:
                if node not in addresses or time.monotonic() > deadline:
                    continue
                url = f"http://{addresses[node]}:5000/v1/logs/{intent['id']}"
                try:
                    answer = session.get(url, params={"kind": kind, "tail": "5000"}, timeout=(2.0, LOG_TIMEOUT_S))
                except requests.RequestException as error:
                    record.write(f"logs/{node}.{kind}.log", f"(not collected: {error})\n")
                    continue
                if answer.status_code == 200:
                    record.write(f"logs/{node}.{kind}.log", answer.text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m cohortnet.recorder", description=__doc__)
    parser.add_argument("--inventory", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stdout)
    inventory = read_inventory(arguments.inventory, wait_s=60.0)
    if shutil.disk_usage(arguments.runs.parent if arguments.runs.parent.exists() else "/").free < 50 * 2**20:
        log.warning("less than 50 MiB free where runs are recorded")
    recorder = Recorder(inventory, arguments.runs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: recorder.stop())
    recorder.run()
    # Followers sit in reads of up to half a minute; what they have written is complete to the line.
    logging.shutdown()
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    import os

    code = main()
    os._exit(code)
