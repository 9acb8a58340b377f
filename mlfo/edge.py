"""The edge orchestrator: accepts intents, gives each to a worker, resumes what a former process left, ends
what users cancel."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlfo import document
from mlfo.agents import Agents
from mlfo.catalogue import Catalogue
from mlfo.conduct import Conduct, event
from mlfo.errors import IntentFailed, IntentRefused, Problem
from mlfo.intent import Form, Known, check_form, check_intent
from mlfo.inventory import InventoryFile
from mlfo.metrics import Metrics
from mlfo.momo import CentralClient
from mlfo.pipeline import Pipeline, resolve
from mlfo.store import ENDED, Store
from mlfo.times import Times

log = logging.getLogger(__name__)

MAX_LIVE = 200  # intents carried out at once, one worker each (most of them wait); more are refused with 429


class Edge:
    """Owns the workers. All its methods may be called from many threads."""

    def __init__(
        self,
        node: str,
        store: Store,
        inventory: InventoryFile,
        catalogue: Catalogue,
        agents: Agents,
        central: CentralClient,
        metrics: Metrics,
        times: Times,
    ) -> None:
        self.node = node
        self.store = store
        self.central = central
        self._inventory = inventory
        self._catalogue = catalogue
        self._agents = agents
        self._metrics = metrics
        self._times = times
        self._stopping = threading.Event()
        self._workers = ThreadPoolExecutor(max_workers=MAX_LIVE, thread_name_prefix="intent")

    def resume(self) -> int:
        """Takes up the live intents of a former process; how many there were."""
        live = self.store.intents(live=True)
        for record in live:
            log.info("intent %s resumed in state %s", record["id"], record["state"])
            self._workers.submit(self._carry_out, record["id"])
        return len(live)

    def stop(self) -> None:
        """Ends the workers; intents stay as they are, to be resumed."""
        self._stopping.set()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self.central.close()

    def accept(self, text: bytes, fields: dict[str, str]) -> dict[str, Any]:
        """Checks an intent completely, keeps it, and begins it; the answer to its sender. Raises
        IntentRefused."""
        try:
            answer = self._accept(text, fields)
        except IntentRefused as refused:
            self._metrics.refuse(refused.problems)
            raise
        self._metrics.accepted.inc()
        return answer

    def _accept(self, text: bytes, fields: dict[str, str]) -> dict[str, Any]:
        intent_pipeline, intent_id = self._checked(text, fields)
        run = f"{_slug(intent_id)}-{secrets.token_hex(4)}"
        holder = next(
            (
                r["id"]
                for r in self.store.intents(live=True)
                if r.get("server") == intent_pipeline.server and r["id"] != run
            ),
            None,
        )
        notes = list(intent_pipeline.notes)
        if holder is not None:
            notes.append(
                f"server {intent_pipeline.server} is wanted or held by the live intent {holder}: "
                "another may be taken"
            )
        body = {
            "intentID": intent_id,
            "document": text.decode("utf-8"),
            "form": fields,
            "pipeline": intent_pipeline.to_json(),
            "server": intent_pipeline.server,
            "server_allocated": None,
            "server_address": None,
            "notes": notes,
            "reason": "",
            "goal": {
                "accuracy": intent_pipeline.goal_accuracy,
                "deadline_s": intent_pipeline.deadline_s,
                "met": None,
            },
            "phase_began": time.monotonic(),
            "phases": {},
        }
        claimed = intent_pipeline.clients if intent_pipeline.privacylevel == "high" else ()
        first = event(
            self.node, run, "intent.accepted", intent=intent_id, reason="", phase_seconds=0.0, notes=notes
        )
        self.store.accept(run, body, claimed, first, MAX_LIVE)
        self._workers.submit(self._carry_out, run)
        answer = self.show(run)
        assert answer is not None
        return answer

    def _checked(self, text: bytes, fields: dict[str, str]) -> tuple[Pipeline, str]:
        inventory = self._inventory.get()
        known = Known(self._catalogue, inventory)
        problems: list[Problem] = []
        content: dict[str, Any] | None = None
        try:
            content = document.read(text)
        except IntentRefused as refused:
            problems += refused.problems
            status = refused.status
        else:
            status = 400
        form, found = check_form(fields, known)
        intent = None
        if content is not None:
            intent, wrong = check_intent(content, known)
            problems += wrong
        problems += found
        if intent is not None:
            try:
                pipeline = resolve(intent, form or Form(), self._catalogue, inventory, self.node)
                if not problems:
                    return pipeline, intent.intentID
            except IntentRefused as refused:
                problems += refused.problems
        raise IntentRefused(problems, status)

    def _carry_out(self, run: str) -> None:
        try:
            Conduct(
                run,
                self.node,
                self.store,
                self._inventory,
                self._agents,
                self.central,
                self._metrics,
                self._times,
                self._stopping,
            ).run()
        except Exception as error:  # not even a record that cannot be read ends the orchestrator
            log.exception("intent %s cannot be carried out", run)
            reason = f"internal error: {type(error).__name__}: {error}"
            try:
                self.store.transition(
                    run,
                    "failed",
                    {"reason": reason},
                    event(self.node, run, "intent.failed", reason=reason, phase_seconds=0.0),
                )
            except Exception:
                log.exception("intent %s: its failure could not be written", run)

    def show(self, run: str, full: bool = True) -> dict[str, Any] | None:
        """An intent as users see it; ``full`` adds what was sent and the whole pipeline."""
        record = self.store.intent(run)
        return _view(record, full) if record else None

    def recent(self, limit: int) -> list[dict[str, Any]]:
        return [_view(record, False) for record in self.store.intents(limit=limit)]

    def cancel(self, run: str) -> dict[str, Any] | None:
        """Asks a live intent to end; an ended one stays as it is. None where there is no such intent."""
        self.store.cancel(run)
        return self.show(run, full=False)

    def reset(self, timeout_s: float = 30.0) -> dict[str, Any]:
        """Cancels every live intent, waits for their ends, then has the central free all servers."""
        live = [r["id"] for r in self.store.intents(live=True)]
        for run in live:
            self.store.cancel(run)
        end = time.monotonic() + timeout_s
        left = live
        while left and time.monotonic() < end:
            time.sleep(0.1)
            left = [run for run in left if (self.store.state(run) or ("failed", False))[0] not in ENDED]
        reply = self.central.reset()
        notes = [f"still ending: {run}" for run in left] + list(reply.notes)
        return {"cancelled": live, "freed": list(reply.freed), "notes": notes}

    def servers(self) -> list[dict[str, Any]]:
        return self.central.servers()

    def servers_or_reason(self) -> tuple[list[dict[str, Any]], str]:
        try:
            return self.servers(), ""
        except IntentFailed as failure:
            return [], failure.reason


def _view(record: dict[str, Any], full: bool) -> dict[str, Any]:
    pipeline = record["pipeline"]
    view = {
        "id": record["id"],
        "intentID": record["intentID"],
        "state": record["state"],
        "reason": record["reason"],
        "created": record["created"],
        "server": record["server"],
        "server_address": record["server_address"],
        "cohort": pipeline["cohort"],
        "clients": pipeline["clients"],
        "privacylevel": pipeline["privacylevel"],
        "application": pipeline["application"],
        "strategy": pipeline["strategy"],
        "source": pipeline["source"],
        "model": pipeline["model"],
        "config": pipeline["config"],
        "seed": pipeline["seed"],
        "goal": record["goal"],
        "notes": record["notes"],
        "phases": {name: round(spent, 6) for name, spent in record["phases"].items()},
        "cancel_requested": record["cancel_requested"],
        "accuracy": record.get("accuracy"),
        "nodes_at_fault": record.get("nodes_at_fault", []),
    }
    if full:
        view |= {"document": record["document"], "form": record["form"], "pipeline": pipeline}
    return view


def _slug(text: str) -> str:
    kept = "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789" else "-" for c in text.lower()[:200])
    return "-".join(part for part in kept.split("-") if part)[:32].strip("-") or "intent"
