"""Events of a run: one JSON object a line, appended to a file that others follow.

Owns the line format (`seq`, `time`, `monotonic`, `node`, `run`, `kind`, then the kind's own fields). Takes
fields from the server or the client process. Never reads events of others, and never rewrites a line. One
process writes one file; a process started again goes on with the next sequence number.
"""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

_TAIL_BYTES = 1 << 20  # the last line is looked for in this much of an existing file


class EventWriter:
    """Appends events of one node and one run to a file; safe to call from several threads."""

    def __init__(self, path: str | Path, node: str, run: str) -> None:
        self.path = Path(path)
        self._node = node
        self._run = run
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._seq, torn = _last_sequence(self.path)
        self._file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (kept open)
        if torn:  # a process that was killed while writing left half a line
            self._file.write("\n")

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Write one event and return it. Numbers that JSON does not know (NaN, infinity) become null."""
        with self._lock:
            self._seq += 1
            event: dict[str, Any] = {
                "seq": self._seq,
                "time": round(time.time(), 6),
                "monotonic": round(time.monotonic(), 6),
                "node": self._node,
                "run": self._run,
                "kind": kind,
            }
            event.update(fields)
            if not self._file.closed:
                self._file.write(json.dumps(_finite(event), separators=(", ", ": "), allow_nan=False) + "\n")
            return event

    def close(self) -> None:
        """Close the file; later events are dropped."""
        with self._lock:
            self._file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def _last_sequence(path: Path) -> tuple[int, bool]:
    """The highest sequence number in an existing file, and whether its last line is torn."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0, False
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    torn = bool(tail) and not tail.endswith(b"\n")
    for line in reversed(tail.splitlines()):
        try:
            return int(json.loads(line)["seq"]), torn
        except (ValueError, KeyError, TypeError):
            continue
    return 0, torn
