"""The one thread of a forking process: file descriptors, timers and signals in one loop. Knows nothing of
nodes."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any


class Loop:
    """Calls back when a descriptor is ready, a time has come, or a signal arrived. Never makes a thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._running = True
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        self.watch(self._wake_in, selectors.EVENT_READ, self._on_signal)

    def on_signal(self, signum: int, callback: Callable[[], None]) -> None:
        """Call `callback` from the loop (not from the handler) after `signum`."""
        self._signals[signum] = callback
        signal.signal(signum, lambda *_: None)

    def watch(self, item: Any, events: int, callback: Callable[[int], None]) -> None:
        """Watch a descriptor or socket, or change what it is watched for. `callback` is given the ready
        events."""
        try:
            self._selector.modify(item, events, callback)
        except KeyError:
            self._selector.register(item, events, callback)

    def forget(self, item: Any) -> None:
        """Stop watching; to be called before the descriptor is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(item)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, `seconds` from now. What is no longer wanted finds out by itself."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Until stop()."""
        while self._running:
            wait = None
            if self._timers:
                wait = max(0.0, self._timers[0][0] - time.monotonic())
            for key, ready in self._selector.select(wait):
                key.data(ready)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _on_signal(self, _ready: int) -> None:
        try:
            numbers = set(self._wake_in.recv(4096))
        except BlockingIOError:
            return
        for number in sorted(numbers):
            callback = self._signals.get(number)
            if callback is not None:
                callback()
