"""Where a node is: its init's pid and its cgroups, read from inventory.json. Only reads; the engine writes
it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UnknownNode(Exception):
    """The inventory is complete and does not know the node (or knows it without a pid)."""


class NotYet(Exception):
    """The testbed is still being raised: ask again later."""


@dataclass(frozen=True)
class Place:
    """A node as the spawner needs it. `pid` is the node's init in the spawner's PID namespace."""

    node: str
    pid: int
    cgroups: tuple[str, ...]


class Inventory:
    """inventory.json, read again whenever it has been replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._state = "absent"
        self._nodes: dict[str, dict[str, Any]] = {}

    def place(self, node: str) -> Place:
        """Raises NotYet while the testbed is being raised, UnknownNode where waiting would not help."""
        self._refresh()
        raising = self._state != "up"
        entry = self._nodes.get(node)
        if entry is None:
            if raising:
                raise NotYet(f"node {node!r} is not in {self.path} (state {self._state!r})")
            known = ", ".join(sorted(self._nodes)[:8]) or "none"
            raise UnknownNode(
                f"node {node!r} is not in {self.path}; it has {len(self._nodes)} nodes: {known}, ..."
            )
        pid = entry.get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
            if raising:
                raise NotYet(f"node {node!r} has no pid yet in {self.path} (state {self._state!r})")
            raise UnknownNode(
                f"node {node!r} has pid {pid!r} in {self.path}: it is not running in this runtime"
            )
        return Place(node, pid, tuple(str(item) for item in entry.get("cgroups") or ()))

    def _refresh(self) -> None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._state, self._nodes, self._stamp = "absent", {}, None
            return
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._stamp:
            return
        try:
            body = json.loads(self.path.read_text())
            nodes = {str(entry["name"]): entry for entry in body["nodes"]}
            state = str(body["state"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnknownNode(
                f"{self.path} cannot be read as an inventory: {type(error).__name__}: {error}"
            ) from error
        self._nodes, self._state, self._stamp = nodes, state, stamp
