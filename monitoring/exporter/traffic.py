"""Background traffic as the testbed's traffic program says it: `traffic.json` in the state folder.

Reads that file only; a testbed without background traffic has none, and then there are no series.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrafficFlow:
    """A background flow: what it is asked to send in bit/s (None: as much as it can), and whether it runs."""

    name: str
    source: str
    destination: str
    pattern: str
    rate_bps: float | None
    running: bool


def read(path: Path) -> list[TrafficFlow]:
    """The flows of that file, none where it is not there. Raises ValueError where it is no such file, OSError where it
    cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        return [
            TrafficFlow(entry["name"], entry["source"], entry["destination"], entry["pattern"],
                        None if entry["rate_bps"] is None else float(entry["rate_bps"]), bool(entry["running"]))
            for entry in json.loads(text)["flows"]
        ]  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: {type(error).__name__} at {error}") from None
