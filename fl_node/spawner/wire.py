"""JSON lines over a stream socket, never blocking, bounded in both directions. Knows nothing of what the
lines mean."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable
from typing import Any

from fl_node.spawner.loop import Loop

MAX_LINE_BYTES = 1 << 20
MAX_QUEUE_BYTES = 16 << 20


class Wire:
    """One end of a connection. `on_message` gets each decoded object, `on_error` what is not one, `on_close`
    the end."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_message: Callable[[dict[str, Any]], None],
        on_close: Callable[[], None],
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        self.sock = sock
        self.open = True
        self._loop = loop
        self._on_message = on_message
        self._on_close = on_close
        self._on_error = on_error
        self._in = bytearray()
        self._out = bytearray()
        self._paused = False
        sock.setblocking(False)
        self._rewatch()

    def send(self, message: dict[str, Any]) -> None:
        """Queue one object. A peer that does not read what it is sent is cut off."""
        if not self.open:
            return
        self._out += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._flush()
        if len(self._out) > MAX_QUEUE_BYTES:
            self.close()

    def pause(self) -> None:
        """Handle no further line until resume(); the peer's end is still noticed."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._take_lines()
        if self.open:
            self._rewatch()

    def close(self) -> None:
        if not self.open:
            return
        self.open = False
        self._loop.forget(self.sock)
        self.sock.close()
        self._on_close()

    def _rewatch(self) -> None:
        if not self.open:
            return
        events = selectors.EVENT_READ
        if self._out:
            events |= selectors.EVENT_WRITE
        self._loop.watch(self.sock, events, self._ready)

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self.sock.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._rewatch()

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if not self.open or not events & selectors.EVENT_READ:
            return
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        self._take_lines()

    def _take_lines(self) -> None:
        while self.open and not self._paused:
            end = self._in.find(b"\n")
            if end < 0:
                break
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            if line.strip():
                self._handle(line)
        if self.open and len(self._in) > MAX_LINE_BYTES:
            self._fail(f"more than {MAX_LINE_BYTES} bytes without an answered line")
            self.close()

    def _handle(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._fail(f"not a JSON line: {error}")
            return
        if not isinstance(message, dict):
            self._fail(f"a JSON object is needed, found {type(message).__name__}")
            return
        self._on_message(message)

    def _fail(self, text: str) -> None:
        if self._on_error is not None:
            self._on_error(text)
