"""A UDP stream of numbered packets between two nodes: which of them did not arrive."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from topology.engine import namespaces

PORT = 7007
_SO_RCVBUFFORCE = 33


class Stream:
    """Sends from entering until leaving it; `per_second` 0 sends bursts only. The receiver then waits for the rest."""

    def __init__(self, inventory: dict[str, Any], source: str, target: str, *, per_second: int, size: int) -> None:
        nodes = {node["name"]: node for node in inventory["nodes"]}
        self._address = (nodes[target]["address"], PORT)
        self._in = namespaces.inside(namespaces.of_process(nodes[target]["pid"]), self._receiver)
        self._out = namespaces.inside(
            namespaces.of_process(nodes[source]["pid"]), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        )
        self._gap_s = 1 / per_second if per_second else None
        self._size, self._lock = size, threading.Lock()
        self._going = self._listening = True
        self.sent = 0
        self._got: set[int] = set()
        self._threads = [threading.Thread(target=self._receive), threading.Thread(target=self._send)]

    def _receiver(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        made.bind(self._address)
        made.settimeout(0.2)
        return made

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        self._threads[1].join()
        deadline = time.monotonic() + 3
        while len(self._got) < self.sent and time.monotonic() < deadline:
            time.sleep(0.02)
        self._listening = False
        self._threads[0].join()
        self._in.close()
        self._out.close()

    def burst(self, packets: int) -> None:
        """That many packets at once."""
        for _ in range(packets):
            with self._lock:
                self._out.sendto(self.sent.to_bytes(4, "big").ljust(self._size, b"x"), self._address)
                self.sent += 1

    def _send(self) -> None:
        due = time.monotonic()
        while self._going:
            if self._gap_s is None:
                time.sleep(0.01)
                continue
            self.burst(1)
            due += self._gap_s
            time.sleep(max(0.0, due - time.monotonic()))

    def _receive(self) -> None:
        while self._listening:
            try:
                self._got.add(int.from_bytes(self._in.recv(2048)[:4], "big"))
            except TimeoutError:
                continue

    @property
    def lost(self) -> list[int]:
        """Numbers of those that did not arrive."""
        return [number for number in range(self.sent) if number not in self._got]

    def __str__(self) -> str:
        return f"{self.sent} sent, lost: {self.lost[:20]}"
