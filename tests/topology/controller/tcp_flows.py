"""TCP flows between namespaces, all from this process, counted over one common window: what each receiver got."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from topology.engine import namespaces

GOODPUT_SHARE = 1448 / 1514
"""TCP payload in a full Ethernet frame, with time stamps."""
_ABORT = struct.pack("=ii", 1, 0)


class Flow:
    """One connection that always has something to send, with a named congestion control."""

    def __init__(self, source: Path, sink: Path, address: str, congestion: str = "cubic") -> None:
        self.bytes = 0
        self._stop = False
        listening = namespaces.inside(sink, socket.socket)
        self._out = namespaces.inside(source, socket.socket)
        with listening:
            listening.bind((address, 0))
            listening.listen(1)
            listening.settimeout(20)
            self._out.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
            self._out.settimeout(20)
            self._out.connect(listening.getsockname())
            self._in, _ = listening.accept()
        self._in.settimeout(0.2)
        self._threads = [threading.Thread(target=body, daemon=True) for body in (self._send, self._receive)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        data = bytes(1 << 16)
        with contextlib.suppress(OSError):
            while not self._stop:
                self._out.send(data)

    def _receive(self) -> None:
        buffer = bytearray(1 << 18)
        while not self._stop:
            try:
                self.bytes += self._in.recv_into(buffer)
            except TimeoutError:
                continue
            except OSError:
                return

    def close(self) -> None:
        self._stop = True
        for end in (self._out, self._in):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5)
        self._out.close()
        self._in.close()


@contextlib.contextmanager
def flows(ends: Sequence[tuple[Path, Path, str]], congestion: str = "cubic") -> Iterator[list[Flow]]:
    """Flows from each first namespace to an address in each second."""
    running: list[Flow] = []
    try:
        for source, sink, address in ends:
            running.append(Flow(source, sink, address, congestion))
        for flow in running:  # not before: a connection that is made through a full queue takes seconds
            flow.start()
        yield running
    finally:
        for flow in running:
            flow.close()


def rates(running: Sequence[Flow], seconds: float, after: float = 0.0) -> list[float]:
    """Goodput of each flow in bit/s over one window, which begins when `after` seconds have passed."""
    time.sleep(after)
    start, before = time.monotonic(), [flow.bytes for flow in running]
    time.sleep(seconds)
    passed, now = time.monotonic() - start, [flow.bytes for flow in running]
    return [(end - begin) * 8 / passed for begin, end in zip(before, now, strict=True)]


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1/n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0
