"""The events of one run on this node: numbered from 1, kept in a file, read by any number of watchers.

Memory holds only where each event begins in the file. Never interprets events.
"""

from __future__ import annotations

import json
import threading
import time
from array import array
from pathlib import Path
from typing import Any

MAX_EVENTS = 200_000  # some 100 clients for 1000 rounds; a process that loops must not fill the disk
ALWAYS_KEPT = frozenset({"process.ended", "run.finished", "run.failed", "events.truncated"})


class EventLog:
    """Thread-safe. Every event gets this log's own `seq`, and `node` and `run` where it has none."""

    def __init__(self, path: Path, node: str, run: str) -> None:
        self.path = path
        self._node = node
        self._run = run
        self._changed = threading.Condition()
        self._ended = False
        self._truncated = False
        self._starts = array("Q")
        self._size = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._recover()
        self._file = path.open("ab", buffering=0)

    def append(self, event: dict[str, Any]) -> None:
        """Number and keep one event, and wake the watchers. Raises OSError where the disk refuses."""
        with self._changed:
            kind = str(event.get("kind"))
            if len(self._starts) >= MAX_EVENTS and kind not in ALWAYS_KEPT:
                if self._truncated:
                    return
                self._truncated = True
                event = {"kind": "events.truncated", "limit": MAX_EVENTS}
            whole = {
                "seq": len(self._starts) + 1,
                "time": event.get("time", time.time()),
                "monotonic": event.get("monotonic", time.monotonic()),
                "node": event.get("node") or self._node,
                "run": event.get("run") or self._run,
            }
            whole.update({key: value for key, value in event.items() if key not in whole})
            line = json.dumps(whole, separators=(",", ":")).encode() + b"\n"
            self._file.write(line)
            self._starts.append(self._size)
            self._size += len(line)
            self._changed.notify_all()

    def read(self, since: int, limit: int = 500) -> list[tuple[int, str]]:
        """Up to `limit` events after number `since`, as (seq, JSON text)."""
        since = max(0, since)
        with self._changed:
            last = min(len(self._starts), since + limit)
            if since >= last:
                return []
            begin = self._starts[since]
            end = self._starts[last] if last < len(self._starts) else self._size
        with self.path.open("rb") as file:
            file.seek(begin)
            lines = file.read(end - begin).decode().splitlines()
        return list(enumerate(lines, start=since + 1))

    def wait(self, since: int, timeout_s: float) -> bool:
        """Wait for an event after `since` or for the end. True where there is something to read."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._starts) > since or self._ended, timeout_s)
            return len(self._starts) > since

    @property
    def ended(self) -> bool:
        with self._changed:
            return self._ended

    def set_ended(self, ended: bool) -> None:
        """Whether more events can come: watchers that have read all of an ended log leave."""
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._starts)

    def close(self) -> None:
        self.set_ended(True)
        self._file.close()

    def _recover(self) -> None:
        """Count what an earlier life of this agent has written; cut off a line that it did not finish."""
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._starts.append(self._size)
                self._size += len(line)
        with self.path.open("rb+") as file:
            file.truncate(self._size)


class Tail:
    """Reads the event lines that a process appends to its own file. Hold `lock` from reading to using what
    was read."""

    MAX_LINE_BYTES = 1 << 20
    CHUNK_BYTES = 1 << 20

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self._offset = 0
        self._part = b""
        self.bad_lines = 0

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Events since the last call, and whether there may be more to read at once. Lines that are no JSON
        object are counted and left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(self.CHUNK_BYTES)
        except FileNotFoundError:
            return [], False
        self._offset += len(data)
        *lines, self._part = (self._part + data).split(b"\n")
        if len(self._part) > self.MAX_LINE_BYTES:
            self._part = b""
            self.bad_lines += 1
        events = []
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict):
                events.append(event)
            else:
                self.bad_lines += 1
        return events, len(data) == self.CHUNK_BYTES
