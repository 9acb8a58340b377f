"""The recorder: one process a testbed, which follows the edge MLFO and writes the record of every run.

    python -m cohortnet.recorder --inventory PATH --runs DIR

It follows one stream of all intents' events and sorts them by run. When an intent has ended, the logs of server and
clients are collected from their agents over the management network and the record is completed; what fails is tried
again. Where the testbed is monitored, the run's time series follow (`cohortnet.series_keeper`). A record that is open
when the recorder is ended is closed as interrupted. Started again it goes on where the records end.

A testbed may change while it is up. So its inventory is read when a run begins, which is the one that the record keeps
and that the run is judged by, and again when it has ended, which says where the logs are.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import requests

from cohortnet.manifest import build_manifest, describe_images, describe_machine
from cohortnet.orchestrator import TERMINAL_STATES, Orchestrator, OrchestratorError, edge_url
from cohortnet.record import RunRecord
from cohortnet.series_keeper import SeriesKeeper
from topology.errors import TopologyError
from topology.inventory import read_inventory

log = logging.getLogger("recorder")

RETRY_S = 1.0
ATTEMPTS = 20
"""How often a record is tried to be completed before its failure is only logged."""
LOG_TIMEOUT_S = 10.0
LOGS_S = 60.0
"""All logs of a run together take no longer than this."""
INVENTORY_WAIT_S = 60.0


class Stopped(BaseException):
    """SIGTERM or SIGINT: leaves the read of the stream at once."""


class OpenRun:
    """A run whose events are still coming."""

    def __init__(self, record: RunRecord, intent: dict[str, Any]) -> None:
        self.record = record
        self.intent = intent
        self.since = max((int(event.get("seq", 0)) for event in record.events()), default=0)
        self.file: TextIO = record.append_events()
        self.attempts = 0

    def span(self) -> tuple[float, float]:
        """When its first and its last event happened (Unix seconds)."""
        times = [float(event["time"]) for event in self.record.events() if "time" in event]
        return (min(times), max(times)) if times else (time.time(), time.time())


class Recorder:
    """Follows one MLFO.

    Raises TopologyError where there is no inventory within a minute, OrchestratorError where it has no edge MLFO.
    """

    def __init__(self, path: Path, runs: Path) -> None:
        self.path = path
        self.inventory = inventory = read_inventory(path, wait_s=INVENTORY_WAIT_S)
        """As last read."""
        self.runs = runs
        self.mlfo = Orchestrator(edge_url(inventory))
        self.machine = describe_machine()
        self.images = describe_images(inventory)
        self.open: dict[str, OpenRun] = {}
        self.done: set[str] = set()
        self.since = 0
        self.series = SeriesKeeper(inventory)

    def follow(self) -> None:
        """Record until `Stopped` is raised. An MLFO that is away is waited for: its intents come back with it."""
        quiet = False
        while True:
            try:
                for event in self.mlfo.all_events(self.since):
                    self.take(event)
                    self.since = max(self.since, int(event["seq"]))
                    quiet = False
            except OrchestratorError as error:
                if not quiet:
                    log.warning("%s", error)
                quiet = True
            time.sleep(RETRY_S)

    def take(self, event: Mapping[str, Any]) -> None:
        """Write one event to its run's record. Raises OrchestratorError where the MLFO cannot be asked about it."""
        identity = str(event["run"])
        if identity in self.done:
            return
        if identity not in self.open:
            record = RunRecord.create(self.runs, identity)
            if record.manifest.get("complete") and record.manifest.get("state") in TERMINAL_STATES:
                self.done.add(identity)
                self.series.submit(record)  # where its recorder was ended before it could
                return
            self.open[identity] = run = OpenRun(record, self.mlfo.intent(identity))
            self._read_inventory()
            self._write_inputs(run)
            self._write_manifest(run, complete=False)
        run = self.open[identity]
        if int(event["seq"]) > run.since:
            run.file.write(json.dumps(event) + "\n")
            run.since = int(event["seq"])
        state = str(event["kind"]).removeprefix("intent.")
        if state in TERMINAL_STATES:
            self._complete(identity)
        elif str(event["kind"]).startswith("intent."):
            run.intent = self.mlfo.intent(identity)
            self._write_manifest(run, complete=False)

    def _complete(self, identity: str) -> None:
        run = self.open[identity]
        while True:
            run.attempts += 1
            try:
                run.intent = self.mlfo.intent(identity)
                self._read_inventory()
                self._collect_logs(run)
                run.record.write_tables()
                self._write_verification(run)
                self._write_manifest(run, complete=True)
                self.series.submit(run.record)
                break
            except (OrchestratorError, OSError) as error:
                log.warning("run %s: %s", identity, error)
                if run.attempts >= ATTEMPTS:
                    log.error("run %s: given up after %d attempts", identity, run.attempts)
                    break
                time.sleep(RETRY_S)
        run.file.close()
        del self.open[identity]
        self.done.add(identity)
        log.info("run %s: %s, recorded in %s", identity, run.intent["state"], run.record.folder)

    def interrupt(self) -> None:
        """Close the open records with what is known: tables, and a manifest that says that the testbed went."""
        self.series.close()
        for identity, run in self.open.items():
            run.file.close()
            run.record.write_tables()
            run.intent = {**run.intent, "state": "interrupted", "reason": "the testbed was removed during the run"}
            self._write_manifest(run, complete=True)
            self.series.give_up(run.record)
            log.info("run %s: interrupted", identity)

    def _read_inventory(self) -> None:
        """Take the inventory as it is now; where it cannot be read (the testbed is being removed), the last one stays.
        """
        try:
            self.inventory = read_inventory(self.path)
        except (TopologyError, OSError, ValueError) as error:
            log.warning("%s: the inventory as last read is used", error)
            return
        self.series.inventory = self.inventory
        names = {node["image"] for node in self.inventory["nodes"]} if self.inventory["runtime"] == "docker" else set()
        if names - set(self.images):
            self.images = describe_images(self.inventory)

    def _write_inputs(self, run: OpenRun) -> None:
        if (run.record.folder / "inventory.json").exists():
            return  # a recorder before this one wrote them when the run began
        state = Path(self.inventory["paths"]["state"])
        for name in ("testbed.yaml", "plan.json"):
            if (state / name).exists():
                run.record.write(name, (state / name).read_text(encoding="utf-8"))
        if run.intent.get("document"):
            run.record.write("intent.yaml", str(run.intent["document"]))
        run.record.write("inventory.json", json.dumps(self.inventory, indent=1) + "\n")

    def _write_verification(self, run: OpenRun) -> None:
        # The last one before the run ended: what `cohortnet verify` says of the network that it ran over.
        found = Path(self.inventory["paths"]["state"]) / "verification.json"
        if found.exists():
            run.record.write(found.name, found.read_text(encoding="utf-8"))

    def _write_manifest(self, run: OpenRun, *, complete: bool) -> None:
        manifest = build_manifest(self.inventory, run.intent, self.machine, self.images)
        timings = Path(self.inventory["paths"]["state"]) / "timings.json"
        manifest["raised_in_seconds"] = json.loads(timings.read_text()) if timings.exists() else None
        # A table is read as soon as the state is terminal: only then is everything else in the folder complete.
        manifest["complete"] = complete
        manifest["series"] = self.series.first_word(*run.span()) if complete else None
        run.record.write("manifest.json", json.dumps(manifest, indent=1) + "\n")

    def _collect_logs(self, run: OpenRun) -> None:
        addresses = {node["name"]: node["management_address"] for node in self.inventory["nodes"]}
        wanted = [(name, "client") for name in run.intent.get("clients") or []]
        if run.intent.get("server"):
            wanted.append((str(run.intent["server"]), "server"))
        deadline = time.monotonic() + LOGS_S
        with requests.Session() as session:
            session.trust_env = False
            for node, kind in wanted:
                if time.monotonic() > deadline:
                    continue
                if node not in addresses:
                    run.record.write(f"logs/{node}.{kind}.log", "(not collected: the node was removed)\n")
                    continue
                url = f"http://{addresses[node]}:5000/v1/logs/{run.intent['id']}"
                try:
                    answer = session.get(url, params={"kind": kind, "tail": "5000"}, timeout=(2.0, LOG_TIMEOUT_S))
                except requests.RequestException as error:
                    run.record.write(f"logs/{node}.{kind}.log", f"(not collected: {error})\n")
                    continue
                if answer.status_code == 200:
                    run.record.write(f"logs/{node}.{kind}.log", answer.text)


def _stop(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m cohortnet.recorder", description=__doc__)
    parser.add_argument("--inventory", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stdout)
    if shutil.disk_usage(arguments.runs.parent if arguments.runs.parent.exists() else "/").free < 50 * 2**20:
        log.warning("less than 50 MiB free where runs are recorded")
    recorder = Recorder(arguments.inventory, arguments.runs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        recorder.follow()
    except Stopped:
        recorder.interrupt()
    return 0


if __name__ == "__main__":
    sys.exit(main())
