"""The thread that keeps the socket buffers of vswitchd large: it does so again whenever a switch has connected, since a
vswitchd that was started anew has small ones, and every `audit_s` seconds, since ports come and go.

Decides nothing about sizes: they are the engine's (`packet_sockets`, `send_buffer`). Does nothing for a datapath in the
kernel.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LOG = logging.getLogger("controller.buffers")

GATHER_S = 0.2
"""How long it waits for other switches of the same vswitchd, which connect at the same time."""
TRIES = 5
PAUSE_S = 1.0
"""A switch is there before all of its ports may be."""


class BufferKeeper:
    """Woken by connections.

    Args:
        inventory: gives the inventory as it is now.
        on_error: called with what stays wrong after several tries, once.
    """

    def __init__(
        self, inventory: Callable[[], Mapping[str, Any]], on_error: Callable[[str], None], audit_s: float
    ) -> None:
        self._inventory, self._on_error, self._audit_s = inventory, on_error, audit_s
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._known: int | None = None
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="buffers", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; buffers stay as they are."""
        self._stopped.set()
        self._woken.set()

    def wake(self) -> None:
        """A switch has connected."""
        self._woken.set()

    def _run(self) -> None:
        self._woken.wait()
        while not self._stopped.wait(GATHER_S):
            self._woken.clear()
            problem = self._apply()
            for _ in range(TRIES - 1):
                if problem is None or self._stopped.wait(PAUSE_S):
                    break
                problem = self._apply()
            if problem is not None and problem != self._problem:
                self._on_error(problem)
            self._problem = problem
            self._woken.wait(self._audit_s)

    def _apply(self) -> str | None:
        """Enlarge what is small; what went wrong as a text."""
        from topology.engine import packet_sockets, send_buffer

        core = self._inventory()["core"]
        if core["datapath"] != "netdev":
            return None
        rundir = Path(core["ovs_rundir"])
        pid = packet_sockets.vswitchd_pid(rundir)
        if pid is None:
            return f"Open vSwitch ({rundir}) names no process: its socket buffers stay small, high rates lose packets"
        try:
            count = packet_sockets.enlarge_receive(pid)
        except OSError as error:
            return f"the receive buffers of Open vSwitch ({rundir}) stay small, high rates lose packets: {error}"
        problem = send_buffer.enlarge(self._inventory())
        if problem is None and pid != self._known:
            LOG.info("vswitchd %d: buffers of %d packet sockets are large", pid, count)
            self._known = pid
        return problem
