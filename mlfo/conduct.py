"""One intent's life: allocate a server, start the clients, follow the run, end it. Everything it does can be
done twice.

``Conduct.run`` is called in a worker thread of ``edge`` and never raises. Where the process is killed at any
point, a new Conduct for the same intent takes up again: starts are idempotent by run id, events are kept once
by their number at the server's node.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from mlfo.agents import ENDED as PROCESS_ENDED
from mlfo.agents import Agents
from mlfo.errors import AgentError, IntentFailed
from mlfo.follow import Follower
from mlfo.inventory import InventoryFile, Node
from mlfo.metrics import Metrics
from mlfo.momo import CentralClient, Refused, deploy_request
from mlfo.participants import Participants, last_words
from mlfo.pipeline import Pipeline
from mlfo.progress import Progress
from mlfo.store import Store
from mlfo.times import Times

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """The user has asked for the end."""


class Stopping(Exception):
    """The orchestrator is being shut down: the intent stays as it is and is resumed at the next start."""


class Conduct:
    """Carries one intent from its kept state to its end."""

    def __init__(
        self,
        run: str,
        node: str,
        store: Store,
        inventory: InventoryFile,
        agents: Agents,
        central: CentralClient,
        metrics: Metrics,
        times: Times,
        stopping: threading.Event,
    ) -> None:
        self.run_id = run
        self._node = node
        self._store = store
        self._inventory = inventory
        self._agents = agents
        self._central = central
        self._metrics = metrics
        self._times = times
        self._stopping = stopping
        record = store.intent(run)
        assert record is not None, run
        self._record = record
        self._pipeline = Pipeline.from_json(record["pipeline"])
        if record.get("server_allocated"):
            self._pipeline = self._pipeline.on_server(record["server_allocated"])
        self._follower: Follower | None = None
        self._progress = Progress(self._pipeline)
        self._made: Participants | None = None
        self._told: set[str] = set()  # nodes whose end is among the kept events already

    # The life ----------

    def run(self) -> None:
        try:
            state = self._record["state"]
            self._check()
            if state == "running" and self._record.get("server_address"):
                self._emit("intent.resumed", state=state)
                self._begin_to_follow()
            else:
                if state != "accepted":
                    self._emit("intent.resumed", state=state)
                self._resolve()
                address = self._allocate()
                self._start(address)
            self._follow_to_the_end()
            self._end_well()
        except Stopping:
            log.info("intent %s left as it is", self.run_id)
        except Cancelled:
            self._end("cancelled", "cancelled by request")
        except IntentFailed as failure:
            self._metrics.errors.labels(failure.code).inc()
            self._end("failed", failure.reason, failure.nodes, failure.code)
        except Exception as error:  # one bad intent never ends the orchestrator
            log.exception("intent %s", self.run_id)
            self._metrics.errors.labels("internal").inc()
            self._end("failed", f"internal error: {type(error).__name__}: {error}", code="internal")
        finally:
            if self._follower is not None:
                self._follower.stop()

    def _resolve(self) -> None:
        self._move("resolving")
        end = time.monotonic() + self._times.raising_s
        while self._inventory.get().state == "raising":
            if time.monotonic() > end:
                raise IntentFailed(
                    f"the testbed was not up within {self._times.raising_s:g} s", code="raising"
                )
            self._sleep(0.5)
        self._emit("intent.resolved", pipeline=self._pipeline.to_json())

    def _allocate(self) -> str:
        self._move("allocating")
        end = time.monotonic() + self._times.allocation_s
        request = deploy_request(
            self.run_id,
            self._pipeline,
            self._times.join(len(self._pipeline.participants)),
            self._times.message_s,
            self._times.grace_s,
        )
        said = ""
        while True:
            try:
                status = self._central.deploy(request, self._check)
                break
            except Refused as refused:
                if str(refused) != said:
                    said = str(refused)
                    self._emit("intent.waiting", reason=said)
                if time.monotonic() >= end:
                    raise IntentFailed(
                        f"no server within {self._times.allocation_s:g} s: {refused}", code="no_server"
                    ) from refused
                self._sleep(1.0)
        address = str(status.status)
        node = self._inventory.get().nodes.get(status.server) or self._inventory.get().at(
            address.rsplit(":", 1)[0]
        )
        if node is None:
            raise IntentFailed(
                f"the central MLFO answered with server {address!r}, which is no node of the testbed",
                code="momo",
            )
        self._pipeline = self._pipeline.on_server(node.name)
        notes = list(dict.fromkeys([*self._record.get("notes", []), *status.notes]))
        changes = {
            "server": node.name,
            "server_allocated": node.name,
            "server_address": address,
            "notes": notes,
            "pipeline": self._pipeline.to_json(),
        }
        self._store.change(self.run_id, changes)
        self._record.update(changes)
        self._emit(
            "intent.allocated",
            server=node.name,
            address=address,
            reason=status.reason,
            notes=list(status.notes),
        )
        return address

    def _start(self, address: str) -> None:
        self._move("starting")
        self._begin_to_follow()
        errors = self._participants.start(address)
        self._check()
        if errors:
            raise IntentFailed(
                f"{len(errors)} client(s) could not be started: {_join(map(str, errors))}",
                [e.node for e in errors],
                "client_start",
            )

    def _follow_to_the_end(self) -> None:
        """Until the run has finished or failed: takes events, watches joining clients, the server, the
        deadline, the goal."""
        size = len(self._pipeline.participants)
        joined_by = time.monotonic() + self._times.join(size) + 5.0
        watched = probed = time.monotonic()
        while self._progress.finished is None:
            self._check()
            took = self._take(0.25)
            if self._progress.failed is not None:
                clients = [str(c) for c in self._progress.failed.get("clients") or []]
                why = self._progress.failed.get("error") or "no reason given"
                who = f"; clients: {_join(clients)}" if clients else ""
                raise IntentFailed(
                    f"the run failed at {self._pipeline.server}: {why}{who}",
                    clients,
                    "run_failed",
                )
            if self._progress.goal["met"]:
                return
            now = time.monotonic()
            if self._progress.complete and self._state() != "running":
                self._move("running")
            if not self._progress.complete and now - watched >= self._times.watch(size):
                self._watch_joining()
                watched = time.monotonic()
            if not self._progress.complete and now > joined_by:
                missing = [c for c in self._pipeline.participants if c not in self._progress.joined]
                raise IntentFailed(
                    f"not joined within {self._times.join(size):g} s: {_join(missing)}",
                    missing,
                    "join_timeout",
                )
            if took:
                probed = now
            elif now - probed >= 5.0:
                self._probe_server()
                probed = time.monotonic()

    def _watch_joining(self) -> None:
        """Fails early, by name, where a client that has not joined is lost."""
        lost = self._participants.lost(self._progress.joined)
        if lost:
            self._take(0)
            if not self._progress.complete and self._progress.finished is None:
                raise IntentFailed(
                    f"client(s) lost while joining: {_join(lost.values())}", lost, "client_lost"
                )

    def _probe_server(self) -> None:
        """No event came for a while: is the server still there, or has it ended without a word?"""
        assert self._follower is not None
        server = self._at(self._pipeline.server)
        try:
            status = self._agents.status(server, "server", self.run_id, timeout_s=5.0)
        except AgentError as error:
            if error.status == 404:
                raise IntentFailed(
                    f"{server.name}: its agent no longer knows the run (it was restarted)",
                    [server.name],
                    "server_lost",
                ) from error
            silent_s = time.monotonic() - self._follower.last_contact
            if silent_s > self._times.lost_s:
                raise IntentFailed(
                    f"server lost for {silent_s:.0f} s: {error}", [server.name], "server_lost"
                ) from error
            return
        if status.get("state") not in PROCESS_ENDED:
            return
        self._follower.stop()
        self._follower.join(5.0)
        while self._take(0):
            pass
        last = Follower(server, self.run_id, self._follower.since)
        try:
            last.drain()
        except OSError as error:
            log.warning("intent %s: last events not read: %s", self.run_id, error)
        self._follower = last
        while self._take(0):
            pass
        code = status.get("exit_code")
        why = status.get("error") or f"the FL server {status['state']}, exit code {code}"
        self._progress.server_ended(0 if status["state"] == "succeeded" else None, why)

    def _end_well(self) -> None:
        if self._progress.goal["met"] and self._progress.finished is None:
            self._finish_early()
        self._collect()
        wanted = self._pipeline.goal_accuracy
        reached = self._progress.reached()
        if wanted is not None and not self._progress.goal["met"]:
            self._progress.goal["met"] = False
            raise IntentFailed(
                f"goal not met: {reached}, wanted {wanted:g}, after all rounds", code="goal_unmet"
            )
        if self._pipeline.deadline_s is not None:
            self._progress.goal["met"] = True
        self._end("succeeded", f"goal met: {reached}" if wanted is not None else "all rounds done")

    def _finish_early(self) -> None:
        """The goal is met with rounds left: the server ends its run well, or, where it does not in time, is
        stopped."""
        server = self._at(self._pipeline.server)
        end = time.monotonic() + self._times.finish_s
        deaf = self._quietly(lambda: self._agents.finish(server, self.run_id))
        while not deaf and self._progress.finished is None and self._progress.failed is None:
            self._check(deadline=False)
            if time.monotonic() > end:
                deaf = f"the FL server did not end its run within {self._times.finish_s:g} s"
            self._take(0.25)
        if deaf:
            log.info("intent %s: stopped at its goal: %s", self.run_id, deaf)
            self._quietly(lambda: self._agents.stop(server, "server", self.run_id))

    # Events ----------

    def _begin_to_follow(self) -> None:
        """Learns what the kept events say (after a restart), then follows on where they end."""
        since = 0
        while events := self._store.events(self.run_id, since):
            since = events[-1]["seq"]
            for event in events:
                if "origin" in event:
                    self._progress.learn(event)
                elif event["kind"] in ("client.finished", "server.finished"):
                    self._told.add(event.get("client") or event["server"])
        server = self._at(self._pipeline.server)
        self._follower = Follower(server, self.run_id, self._store.last_origin(self.run_id, server.name))
        self._follower.start()

    def _take(self, wait_s: float) -> bool:
        """Takes what the follower has, keeps it, learns from it. True where something came."""
        assert self._follower is not None
        items: list[tuple[int, dict[str, Any]]] = []
        try:
            items.append(
                self._follower.queue.get(timeout=wait_s) if wait_s else self._follower.queue.get_nowait()
            )
            while len(items) < 200:
                items.append(self._follower.queue.get_nowait())
        except queue.Empty:
            pass
        if not items:
            return False
        new = self._store.append(
            self.run_id, [e for _, e in items], self._pipeline.server, [n for n, _ in items]
        )
        for (_, event), fresh in zip(items, new, strict=True):
            if fresh:
                self._progress.learn(event)
        return True

    # Ends ----------

    def _collect(self) -> None:
        """The interface counters of all nodes; clients that do not end by themselves are stopped (at once
        where the server was stopped: then nobody tells them)."""
        patience_s = self._times.collect_s if self._progress.finished is not None else 0.0

        self._check(deadline=False)
        left = [name for name in self._pipeline.participants if name not in self._told]
        for words in self._participants.last_words(left, patience_s, self._stopping):
            self._emit("client.finished", client=words.pop("node"), **words)
        if self._pipeline.server not in self._told or self._pipeline.privacylevel == "low":
            words = last_words(
                self._participants, self._pipeline.server, "server", patience_s, self._stopping
            )
            self._emit("server.finished", server=words.pop("node"), **words)
        while self._follower is not None and self._take(0):
            pass

    def _end(self, state: str, reason: str, nodes: Iterable[str] = (), code: str = "") -> None:
        """Stops what still runs, frees the server, then writes the last state. Clients are free for others
        only from here on."""
        notes: list[str] = []
        try:
            if state != "succeeded":
                if self._state() in ("starting", "running"):
                    self._participants.stop(set(nodes))
                if self._follower is not None:
                    self._take(0)
            if self._state() not in ("accepted", "resolving"):
                note = self._quietly(lambda: self._central.release(self.run_id))
                if note:
                    notes.append(f"server not released, the central frees it when its run has ended: {note}")
                    self._quietly(
                        lambda: self._agents.stop(self._at(self._pipeline.server), "server", self.run_id)
                    )
        except Exception as error:  # the end is written whatever happens before it
            log.exception("intent %s: clean-up", self.run_id)
            notes.append(f"clean-up failed: {type(error).__name__}: {error}")
        changes: dict[str, Any] = {
            "reason": reason,
            "goal": self._progress.goal,
            "nodes_at_fault": list(nodes),
        }
        if self._progress.goal["accuracy"] is not None and self._progress.goal["met"] is None:
            self._progress.goal["met"] = False
        if notes:
            changes["notes"] = [*self._record.get("notes", []), *notes]
        if self._progress.accuracy is not None:
            changes["accuracy"] = self._progress.accuracy
        extra: dict[str, Any] = {"nodes": list(nodes), "goal": self._progress.goal}
        if code:
            extra["code"] = code
        try:
            self._move(state, reason, changes, **extra)
        except Exception:  # the store is gone (disk full): nothing more can be done for this intent
            log.exception("intent %s: the state %s could not be written", self.run_id, state)

    def _quietly(self, call: Callable[[], object]) -> str | None:
        try:
            call()
            return None
        except (AgentError, IntentFailed, Refused) as error:
            log.info("intent %s: %s", self.run_id, error)
            return str(error)

    # Small things ----------

    @property
    def _participants(self) -> Participants:
        """Made anew where the server (which takes part itself in centralised learning) has changed."""
        if self._made is None or self._made.names != self._pipeline.participants:
            self._made = Participants(self.run_id, self._pipeline, self._agents, self._inventory, self._over)
        return self._made

    def _at(self, name: str) -> Node:
        return self._participants.node(name)

    def _state(self) -> str:
        return str(self._record["state"])

    def _over(self) -> bool:
        try:
            self._check()
            return False
        except (Stopping, Cancelled, IntentFailed):
            return True

    def _check(self, deadline: bool = True) -> None:
        """Raises where the orchestrator stops, the user has cancelled, or the intent's deadline has
        passed."""
        if self._stopping.is_set():
            raise Stopping
        state = self._store.state(self.run_id)
        if state is not None and state[1]:
            raise Cancelled
        limit = self._pipeline.deadline_s
        if deadline and limit is not None and time.time() - self._record["created"] > limit:
            self._progress.goal["met"] = False
            raise IntentFailed(
                f"goal not met: the deadline of {limit:g} s has passed while {self._state()}", code="deadline"
            )

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check()
            time.sleep(0.1)

    def _move(
        self, state: str, reason: str = "", changes: dict[str, Any] | None = None, **extra: Any
    ) -> None:
        now = time.monotonic()
        before = self._state()
        spent = max(0.0, now - float(self._record.get("phase_began", now)))
        phases = dict(self._record.get("phases", {}))
        phases[before] = phases.get(before, 0.0) + spent
        changes = {**(changes or {}), "phase_began": now, "phases": phases}
        event = self._event(
            f"intent.{state}", reason=reason, previous=before, phase_seconds=round(spent, 6), **extra
        )
        self._store.transition(self.run_id, state, changes, event)
        self._record.update(changes, state=state)
        self._metrics.phase_seconds.labels(before).observe(spent)
        if state == "running":
            self._metrics.processing_seconds.observe(max(0.0, time.time() - self._record["created"]))
        log.info("intent %s: %s%s", self.run_id, state, f" ({reason})" if reason else "")

    def _emit(self, kind: str, **fields: Any) -> None:
        self._store.append(self.run_id, [self._event(kind, **fields)])

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        return event(self._node, self.run_id, kind, intent=self._pipeline.intent_id, **fields)


def event(node: str, run: str, kind: str, **fields: Any) -> dict[str, Any]:
    """An event of this orchestrator; the store gives it its sequence number."""
    return {
        "time": time.time(),
        "monotonic": time.monotonic(),
        "node": node,
        "run": run,
        "kind": kind,
        **fields,
    }


def _join(words: Iterable[str], limit: int = 20) -> str:
    words = list(words)
    return ", ".join(words[:limit]) + (f" and {len(words) - limit} more" if len(words) > limit else "")
