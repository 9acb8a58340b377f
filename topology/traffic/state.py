"""`traffic.json` in a testbed's state folder: how its flows stand, for whoever shows or exports them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KEPT = ("name", "source", "destination", "protocol", "pattern", "rate_bps", "running", "started", "changed", "state",
        "reason")  # fmt: skip
FILE = "traffic.json"
SOCKET = "traffic.sock"


def folder(inventory: Mapping[str, Any]) -> Path:
    """The testbed's state folder."""
    return Path(inventory["paths"]["state"])


def idle(planned: Mapping[str, Any], changed: float) -> dict[str, Any]:
    """A flow that nobody has started yet, as `Flow.view` has it."""
    more = ("period_s", "on_s", "low_bps", "size_bytes", "seed", "ports")
    return {
        **{key: planned[key] for key in ("name", "source", "destination", "protocol", "pattern", "rate_bps")},
        "running": False, "started": None, "changed": changed, "state": "stopped", "reason": "", "tries": 0,
        "now_bps": 0, "sent_bps": None, **{key: planned[key] for key in more},
    }  # fmt: skip


def write(path: Path, flows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file in one step. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    kept = [{key: flow[key] for key in KEPT} for flow in flows]
    temporary.write_text(json.dumps({"flows": kept}, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The flows of the file by name; empty where there is none that can be read."""
    try:
        flows = json.loads(path.read_text(encoding="utf-8"))["flows"]
        return {flow["name"]: flow for flow in flows if all(key in flow for key in KEPT)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
