"""What the orchestrator knows, in one SQLite file: intents, their events, claimed clients, allocations, the
reuse registry.

Every method is one transaction and safe from many threads. What is written here survives ``kill -9``.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlfo.errors import IntentRefused, Problem

STATES = ("accepted", "resolving", "allocating", "starting", "running", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (id TEXT PRIMARY KEY, state TEXT NOT NULL, created REAL NOT NULL, cancel
INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS intents_state ON intents (state);
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, intent TEXT NOT NULL, node TEXT NOT
NULL, origin INTEGER,
    body TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS events_once ON events (intent, node, origin) WHERE origin IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_intent ON events (intent, seq);
CREATE TABLE IF NOT EXISTS claims (client TEXT PRIMARY KEY, intent TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS allocations (server TEXT PRIMARY KEY, run TEXT NOT NULL UNIQUE, source TEXT NOT
NULL, model TEXT NOT NULL,
    since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS registry (source TEXT NOT NULL, model TEXT NOT NULL, server TEXT NOT NULL, PRIMARY
KEY (source, model)); CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, state TEXT NOT NULL, body TEXT
NOT NULL);
"""


class Store:
    """The one writer of its file. ``wait_for_events`` lets readers follow without polling."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "PRAGMA synchronous=NORMAL"
        )  # survives kill -9; only a power cut may take the last transactions
        self._db.executescript(_SCHEMA)
        row = self._db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()
        self._last_seq = int(row[0])

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # Intents ----------

    def accept(
        self, run: str, body: dict[str, Any], clients: Iterable[str], event: dict[str, Any], limit: int
    ) -> None:
        """Keeps a new intent and claims its clients, or raises IntentRefused: 409 where a client is in
        another live run (both are named), 429 where ``limit`` intents are live already."""
        clients = list(clients)
        with self._lock, _Transaction(self._db):
            live = self._db.execute(
                "SELECT COUNT(*) FROM intents WHERE state NOT IN (?, ?, ?)", ENDED
            ).fetchone()[0]
            if live >= limit:
                raise IntentRefused(
                    [
                        Problem(
                            "", "busy", f"{live} intents are live, which is the limit", "wait for some to end"
                        )
                    ],
                    429,
                )
            taken = [
                (client, holder)
                for client in clients
                for (holder,) in self._db.execute("SELECT intent FROM claims WHERE client = ?", (client,))
            ]
            if taken:
                raise IntentRefused(
                    [
                        Problem(
                            "clients",
                            "client_busy",
                            f"client {client} is in the live run {holder}",
                            f"wait for it, or DELETE /v1/intents/{holder}",
                        )
                        for client, holder in taken
                    ],
                    409,
                )
            self._db.executemany("INSERT INTO claims VALUES (?, ?)", [(client, run) for client in clients])
            now = time.time()
            kept = json.dumps({**body, "state_since": now})
            self._db.execute("INSERT INTO intents VALUES (?, 'accepted', ?, 0, ?)", (run, now, kept))
            self._insert_events(run, [event])

    def transition(
        self, run: str, state: str, changes: dict[str, Any], event: dict[str, Any]
    ) -> dict[str, Any]:
        """Moves an intent to ``state``, keeps ``changes`` in its body, writes the event; frees its clients
        where it has ended."""
        with self._lock, _Transaction(self._db):
            body = {**self._body(run), **changes, "state_since": time.time()}
            self._db.execute(
                "UPDATE intents SET state = ?, body = ? WHERE id = ?", (state, json.dumps(body), run)
            )
            if state in ENDED:
                self._db.execute("DELETE FROM claims WHERE intent = ?", (run,))
            self._insert_events(run, [event])
            return body

    def change(self, run: str, changes: dict[str, Any]) -> None:
        with self._lock, _Transaction(self._db):
            self._db.execute(
                "UPDATE intents SET body = ? WHERE id = ?", (json.dumps({**self._body(run), **changes}), run)
            )

    def cancel(self, run: str) -> bool:
        """Marks a live intent as to be cancelled; False where there is none or it has ended."""
        with self._lock, _Transaction(self._db):
            found = self._db.execute(
                "UPDATE intents SET cancel = 1 WHERE id = ? AND state NOT IN (?, ?, ?)", (run, *ENDED)
            )
            return found.rowcount > 0

    def intent(self, run: str) -> dict[str, Any] | None:
        with self._lock:
            row = self._db.execute(
                "SELECT id, state, created, cancel, body FROM intents WHERE id = ?", (run,)
            ).fetchone()
        return _record(row) if row else None

    def intents(self, live: bool = False, limit: int = 10_000) -> list[dict[str, Any]]:
        """Intents, the oldest first; the newest ``limit`` of them."""
        where, values = ("WHERE state NOT IN (?, ?, ?)", list(ENDED)) if live else ("", [])
        with self._lock:
            rows = self._db.execute(
                f"SELECT id, state, created, cancel, body FROM intents {where} "
                "ORDER BY created DESC, rowid DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [_record(row) for row in reversed(rows)]

    def state(self, run: str) -> tuple[str, bool] | None:
        """The state of an intent, and whether its end has been asked for; cheap, for those who look often."""
        with self._lock:
            row = self._db.execute("SELECT state, cancel FROM intents WHERE id = ?", (run,)).fetchone()
        return (row[0], bool(row[1])) if row else None

    def states(self) -> dict[str, int]:
        with self._lock:
            found = dict(self._db.execute("SELECT state, COUNT(*) FROM intents GROUP BY state").fetchall())
        return {state: int(found.get(state, 0)) for state in STATES}

    def latest(self, limit: int) -> list[tuple[str, str, str, float]]:
        """The newest intents as (intent id, run, state, wall time at which that state began), the newest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT json_extract(body, '$.intentID'), id, state, "
                "COALESCE(json_extract(body, '$.state_since'), created) "
                "FROM intents ORDER BY created DESC, rowid DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [(str(intent), run, state, float(since)) for intent, run, state, since in rows]

    def _body(self, run: str) -> dict[str, Any]:
        row = self._db.execute("SELECT body FROM intents WHERE id = ?", (run,)).fetchone()
        return dict(json.loads(row[0]))

    # Events ----------

    def append(
        self, run: str, events: list[dict[str, Any]], node: str = "", origins: list[int] | None = None
    ) -> list[bool]:
        """Keeps events; those with an origin (sequence number at ``node``) once only. Says which were new."""
        with self._lock, _Transaction(self._db):
            return self._insert_events(run, events, node, origins)

    def _insert_events(
        self, run: str, events: list[dict[str, Any]], node: str = "", origins: list[int] | None = None
    ) -> list[bool]:
        new = []
        for index, event in enumerate(events):
            origin = origins[index] if origins else None
            found = self._db.execute(
                "INSERT OR IGNORE INTO events (intent, node, origin, body) VALUES (?, ?, ?, ?)",
                (run, node or str(event.get("node", "")), origin, json.dumps(event)),
            )
            new.append(found.rowcount > 0)
            if found.rowcount > 0 and found.lastrowid is not None:
                self._last_seq = max(self._last_seq, found.lastrowid)
        self._news.notify_all()
        return new

    def last_origin(self, run: str, node: str) -> int:
        """The highest sequence number kept of the events of ``node``; 0 where there is none."""
        with self._lock:
            row = self._db.execute(
                "SELECT MAX(origin) FROM events WHERE intent = ? AND node = ?", (run, node)
            ).fetchone()
        return int(row[0] or 0)

    def events(self, run: str | None, since: int, limit: int = 500) -> list[dict[str, Any]]:
        """Events after sequence number ``since``, of one run or of all; ``origin`` is the number at the node
        they came from."""
        which, values = ("AND intent = ?", [run]) if run else ("", [])
        with self._lock:
            rows = self._db.execute(
                f"SELECT seq, origin, body FROM events WHERE seq > ? {which} ORDER BY seq LIMIT ?",
                (since, *values, limit),
            ).fetchall()
        out = []
        for seq, origin, body in rows:
            event = json.loads(body)
            event["seq"] = seq
            if origin is not None:
                event["origin"] = origin
            out.append(event)
        return out

    def wait_for_events(self, since: int, timeout_s: float) -> None:
        """Returns when an event newer than ``since`` exists, or after ``timeout_s``."""
        with self._news:
            if self._last_seq <= since:
                self._news.wait(timeout_s)

    @property
    def last_seq(self) -> int:
        return self._last_seq

    # The central's side ----------

    def transaction(self) -> _Locked:
        """Holds the store for a decision that reads and writes (allocation)."""
        return _Locked(self._lock, self._db)

    def allocations(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            rows = self._db.execute("SELECT server, run, source, model, since FROM allocations").fetchall()
        return {r[0]: {"run": r[1], "source": r[2], "model": r[3], "since": r[4]} for r in rows}

    def registered(self, source: str, model: str) -> str | None:
        with self._lock:
            row = self._db.execute(
                "SELECT server FROM registry WHERE source = ? AND model = ?", (source, model)
            ).fetchone()
        return row[0] if row else None

    def hold(self, server: str, run: str, source: str, model: str) -> None:
        with self._lock:
            self._db.execute(
                "INSERT INTO allocations VALUES (?, ?, ?, ?, ?)", (server, run, source, model, time.time())
            )
            self._db.execute("INSERT OR REPLACE INTO registry VALUES (?, ?, ?)", (source, model, server))

    def free(self, run: str) -> str | None:
        """Frees the server that ``run`` holds; its name, or None."""
        with self._lock, _Transaction(self._db):
            row = self._db.execute("SELECT server FROM allocations WHERE run = ?", (run,)).fetchone()
            self._db.execute("DELETE FROM allocations WHERE run = ?", (run,))
        return row[0] if row else None

    def forget_registry(self) -> None:
        with self._lock:
            self._db.execute("DELETE FROM registry")

    def run(self, run: str) -> tuple[str, dict[str, Any]] | None:
        with self._lock:
            row = self._db.execute("SELECT state, body FROM runs WHERE run = ?", (run,)).fetchone()
        return (row[0], json.loads(row[1])) if row else None

    def keep_run(self, run: str, state: str, body: dict[str, Any]) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (run, state, json.dumps(body)))


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, rolled back on any error; inside another one it is part of that."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._outer = False

    def __enter__(self) -> None:
        self._outer = self._db.in_transaction
        if not self._outer:
            self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *rest: object) -> None:
        if not self._outer:
            self._db.execute("COMMIT" if kind is None else "ROLLBACK")


class _Locked:
    def __init__(self, lock: threading.RLock, db: sqlite3.Connection) -> None:  # type: ignore[valid-type]
        self._lock = lock
        self._inner = _Transaction(db)

    def __enter__(self) -> None:
        self._lock.acquire()  # type: ignore[attr-defined]
        try:
            self._inner.__enter__()
        except BaseException:
            self._lock.release()  # type: ignore[attr-defined]
            raise

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            self._inner.__exit__(kind, *rest)
        finally:
            self._lock.release()  # type: ignore[attr-defined]


def _record(row: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "id": row[0],
        "state": row[1],
        "created": row[2],
        "cancel_requested": bool(row[3]),
        **json.loads(row[4]),
    }
