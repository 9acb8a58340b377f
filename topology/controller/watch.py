"""The inventory file, read again whenever it was replaced. A file that cannot be used is reported once, and
the last good one stays."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from topology.controller.graph import Graph, GraphError, read_graph
from topology.errors import TopologyError
from topology.inventory import read_inventory

LOG = logging.getLogger("controller.inventory")

POLL_S = 0.1
"""One look at the file's time; whoever changes a testbed that is up waits for this."""


def load_graph(path: Path, *, wait_s: float = 0.0) -> Graph:
    """The graph of the inventory at `path`; waits up to `wait_s` seconds for the file.

    Raises:
        TopologyError: where it is missing, no inventory, or contradicts itself.
    """
    try:
        return read_graph(read_inventory(path, wait_s=wait_s))
    except (OSError, ValueError, KeyError) as error:
        raise GraphError(f"{path} cannot be read as an inventory: {error}") from error


class InventoryWatch:
    """Calls `on_graph` after each change of the file that can be used, `on_problem` after each that
    cannot."""

    def __init__(
        self, path: Path, on_graph: Callable[[Graph], None], on_problem: Callable[[str], None]
    ) -> None:
        self._path, self._on_graph, self._on_problem = path, on_graph, on_problem
        self.problem: str | None = None
        """Why the file as it is now is not in use; None where it is."""
        self.read_at = time.time()
        self._stopped = threading.Event()
        self._seen = self._stamp()
        self.looked_ns = self._seen[0] if self._seen else 0
        """Time (of its file system) of the file that was looked at last, whether it can be used or not."""
        self._thread = threading.Thread(target=self._run, name="inventory", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _run(self) -> None:
        while not self._stopped.wait(POLL_S):
            stamp = self._stamp()
            if stamp is None or stamp == self._seen:
                continue  # a file that was taken away says nothing new: the testbed may just be going down
            self._seen = stamp
            try:
                graph = load_graph(self._path)
            except TopologyError as error:
                self.problem = str(error)
                self._on_problem(f"{error}; the inventory read before stays in use")
                self.looked_ns = stamp[0]
                continue
            self.problem, self.read_at = None, time.time()
            self._on_graph(graph)
            self.looked_ns = stamp[0]  # last: whoever waits for it finds the switches woken
