"""Following the events of a run at its server's agent: server-sent events, reconnected by sequence number
until told to stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import queue
import socket
import threading
import time
from typing import Any
from urllib.parse import quote

from mlfo.inventory import Node

log = logging.getLogger(__name__)
READ_S = 20.0  # silence for this long means a new connection; nothing is lost by it
MAX_LINE = 1 << 20


class Follower(threading.Thread):
    """Reads ``/v1/events?run=...&since=...`` into a bounded queue of (sequence number, event).

    ``last_contact`` is the monotonic time of the last byte or successful connection, for whoever decides that
    a server is lost.
    """

    def __init__(self, node: Node, run: str, since: int) -> None:
        super().__init__(name=f"follow-{run}", daemon=True)
        self.node = node
        self.run_id = run
        self.since = since
        self.queue: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue(maxsize=2000)
        self.last_contact = time.monotonic()
        self.last_error = ""
        self._stop_asked = threading.Event()
        self._socket: socket.socket | None = None

    def stop(self) -> None:
        """Asks the thread to end, and wakes it where it waits for a line."""
        self._stop_asked.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        wait_s = 0.1
        while not self._stop_asked.is_set():
            before = self.since
            try:
                self._read(follow=True)
                self.last_error = ""
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.last_error = f"{type(error).__name__}: {error}"
            wait_s = 0.1 if self.since > before else min(wait_s * 2, 2.0)
            self._stop_asked.wait(wait_s)

    def drain(self) -> None:
        """Reads what there is now, in the caller's thread; for after ``stop`` and ``join``. Raises OSError
        where nobody answers."""
        try:
            self._read(follow=False)
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error

    def _read(self, follow: bool) -> None:
        connection = http.client.HTTPConnection(self.node.address, self.node.agent_port, timeout=5.0)
        try:
            which = "true" if follow else "false"
            path = f"/v1/events?run={quote(self.run_id)}&since={self.since}&follow={which}"
            connection.connect()
            self._socket = (
                connection.sock
            )  # kept: the connection gives it away when the answer ends with the stream
            connection.request("GET", path, headers={"Accept": "text/event-stream"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"{self.node.name}: GET {path} was answered {answer.status}")
            if self._socket is not None:
                self._socket.settimeout(READ_S)
            seq: int | None = None
            while follow is False or not self._stop_asked.is_set():
                line = answer.readline(MAX_LINE)
                if not line:
                    return
                self.last_contact = time.monotonic()
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                if text.startswith("id:"):
                    seq = int(text[3:].strip())
                elif text.startswith("data:"):
                    event = json.loads(text[5:])
                    if isinstance(event, dict):
                        number = seq if seq is not None else int(event.get("seq", self.since + 1))
                        if number > self.since and self._put(number, event, follow):
                            self.since = number
                    seq = None
        finally:
            self._socket = None
            connection.close()

    def _put(self, number: int, event: dict[str, Any], follow: bool) -> bool:
        """False where the reader is gone: then the event has not been taken."""
        while True:
            try:
                self.queue.put((number, event), timeout=0.5)
                return True
            except queue.Full:
                if not follow or self._stop_asked.is_set():
                    return False
