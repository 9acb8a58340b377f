"""The nodes that run an FL client of one run: started, watched while they join, asked for their last words,
stopped.

Calls agents in parallel with a bounded pool. Keeps no state but how often a node did not answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlfo.agents import ENDED, Agents
from mlfo.errors import AgentError, IntentFailed, SetupError
from mlfo.inventory import InventoryFile, Node
from mlfo.pipeline import Pipeline

POOL = 16
SILENCES = 3  # so many looks without an answer, one after another, and a joining client is lost
_WORDS = ("state", "exit_code", "started", "ended", "interface_start", "interface_end")


class Participants:
    """Of one run. ``over`` says that the run is to end, so that nothing more is started."""

    def __init__(
        self, run: str, pipeline: Pipeline, agents: Agents, inventory: InventoryFile, over: Callable[[], bool]
    ) -> None:
        self.names = pipeline.participants
        self._run = run
        self._pipeline = pipeline
        self._agents = agents
        self._inventory = inventory
        self._over = over
        self._silent: dict[str, int] = {}

    def node(self, name: str) -> Node:
        """The node of a name, as the inventory has it now; raises IntentFailed where it has gone."""
        try:
            return self._inventory.get().nodes[name]
        except (KeyError, SetupError) as error:
            raise IntentFailed(f"node {name} is no longer in the testbed", [name], "node_gone") from error

    def start(self, server_address: str) -> list[AgentError]:
        """Starts all; partition ids follow the order of the names. Returns the failures."""

        def start(index: int) -> AgentError | None:
            if self._over():
                return None
            request = {
                "run_id": self._run,
                "application": self._pipeline.application,
                "config": self._pipeline.config,
                "server": server_address,
                "partition_id": index,
                "num_partitions": len(self.names),
                "seed": self._pipeline.seed,
            }
            try:
                self._agents.start(self.node(self.names[index]), "client", request, stop=self._over)
                return None
            except AgentError as error:
                return error

        return [e for e in self._parallel(start, range(len(self.names))) if e is not None]

    def lost(self, joined: set[str]) -> dict[str, str]:
        """Those not joined that have failed or do not answer any more, each with what is known of it."""

        def look(name: str) -> tuple[str, str | None, bool]:
            try:
                status = self._agents.status(self.node(name), "client", self._run, timeout_s=3.0)
            except AgentError as error:
                return name, str(error), error.status is None
            if status.get("state") in ("failed", "stopped"):
                why = status.get("error") or f"{status['state']}, exit code {status.get('exit_code')}"
                return name, f"{name}: ended before its cohort was complete ({why})", False
            return name, None, False

        found = {}
        for name, fault, silent in self._parallel(look, [n for n in self.names if n not in joined]):
            self._silent[name] = self._silent.get(name, 0) + 1 if silent else 0
            if fault is not None and (not silent or self._silent[name] >= SILENCES):
                found[name] = fault
        return found

    def last_words(
        self, names: Iterable[str], patience_s: float, stopping: threading.Event
    ) -> list[dict[str, Any]]:
        """State and interface counters of each at its end; who has not ended within ``patience_s`` is
        stopped."""
        return list(
            self._parallel(lambda name: last_words(self, name, "client", patience_s, stopping), list(names))
        )

    def stop(self, at_fault: set[str]) -> None:
        """Stops all; those at fault last, for they may be the ones that do not answer."""

        def stop(name: str) -> None:
            try:
                self._agents.stop(self.node(name), "client", self._run)
            except (AgentError, IntentFailed):
                return  # nothing more can be done for a node that does not answer; its run has ended here

        self._parallel(stop, sorted(self.names, key=lambda name: name in at_fault))

    def ask(self, name: str, kind: str, patience_s: float, stopping: threading.Event) -> dict[str, Any]:
        """The status of a process when it has ended, or was stopped after ``patience_s``."""
        node = self.node(name)
        end = time.monotonic() + patience_s
        status = self._agents.status(node, kind, self._run, timeout_s=5.0)
        while status.get("state") not in ENDED and time.monotonic() < end and not stopping.is_set():
            time.sleep(0.2)
            status = self._agents.status(node, kind, self._run, timeout_s=5.0)
        if status.get("state") not in ENDED:
            status = self._agents.stop(node, kind, self._run) or status
        return status

    def _parallel(self, call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        items = list(items)
        if not items:
            return []
        with ThreadPoolExecutor(min(POOL, len(items)), f"call-{self._run[-8:]}") as pool:
            return list(pool.map(call, items))


def last_words(
    participants: Participants, name: str, kind: str, patience_s: float, stopping: threading.Event
) -> dict[str, Any]:
    """What an event says of a process at its end; an ``error`` in place of what could not be learnt."""
    words: dict[str, Any] = {"node": name, "interface_start": None, "interface_end": None}
    try:
        status = participants.ask(name, kind, patience_s, stopping)
        words.update({key: status.get(key) for key in _WORDS})
        if status.get("error"):
            words["error"] = status["error"]
    except (AgentError, IntentFailed) as error:
        words["error"] = str(error)
    return words
