"""A small HTTP server for many listening sockets at once, also such as live in other network namespaces.

One thread accepts at all of them, a few answer. Answers one GET a connection (HTTP/1.0), so that a few hundred nodes'
listeners never hold a few hundred threads. Knows nothing of metrics.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

WORKERS = 4
BACKLOG = 64
_MOST_WAITING = 256
_TIMEOUT_S = 10.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a GET is answered with."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Handle = Callable[[str, dict[str, list[str]]], Answer]
"""(path, query) to the answer."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket in the calling thread's network namespace. Raises OSError where the address is taken."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class Listeners:
    """Serves listening sockets until it is closed; sockets can be added and removed while it does."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="scrape")
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._lock = threading.Lock()
        self._changes: list[tuple[socket.socket, Handle | None]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="listeners", daemon=True)
        self._thread.start()

    def add(self, listening: socket.socket, handle: Handle) -> None:
        """Serve a socket from `listen`; it belongs to this object from now on."""
        self._change(listening, handle)

    def remove(self, listening: socket.socket) -> None:
        """Serve it no longer, and close it (which lets go of its network namespace)."""
        self._change(listening, None)

    def close(self) -> None:
        """Close all sockets, wait for the answers that are being given."""
        self._stopping = True
        self._wake()
        self._thread.join(_TIMEOUT_S)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _change(self, listening: socket.socket, handle: Handle | None) -> None:
        with self._lock:
            self._changes.append((listening, handle))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_write.send(b"x")

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, _ in self._selector.select(timeout=5.0):
                    if key.data is None:
                        with contextlib.suppress(BlockingIOError):
                            self._wake_read.recv(4096)
                    else:
                        self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
                self._apply()
        finally:
            self._apply()
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
            self._wake_write.close()

    def _apply(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, []
        for listening, handle in changes:
            if handle is not None:
                self._selector.register(listening, selectors.EVENT_READ, handle)
            else:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(listening)
                listening.close()

    def _accept(self, listening: socket.socket, handle: Handle) -> None:
        try:
            connection, address = listening.accept()
        except OSError:  # whoever came has left again, or there are no file descriptors; the next one may do better
            return
        if not self._waiting.acquire(blocking=False):
            connection.close()
            return
        try:
            self._pool.submit(self._serve, connection, address, handle)
        except RuntimeError:  # being closed
            self._waiting.release()
            connection.close()

    def _serve(self, connection: socket.socket, address: Any, handle: Handle) -> None:
        try:
            with connection:
                connection.settimeout(_TIMEOUT_S)
                _Request(connection, address, handle)
        except OSError as error:
            _LOG.debug("%s: %s", address, error)
        finally:
            self._waiting.release()


class _Request(BaseHTTPRequestHandler):
    """One request. The base class reads it and calls `do_GET`."""

    server_version = "cohortnet-exporter"
    sys_version = ""

    def __init__(self, connection: socket.socket, address: Any, handle: Handle) -> None:
        self._handle = handle
        super().__init__(connection, address, None)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # noqa: N802  (the base class looks for this name)
        target = urlsplit(self.path)
        try:
            answer = self._handle(target.path, parse_qs(target.query, keep_blank_values=True))
        except Exception:
            _LOG.exception("%s failed", self.path)
            answer = Answer(500, b"the exporter failed; its log says why\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        _LOG.debug(format, *args)
