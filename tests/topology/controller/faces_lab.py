"""What tests of the faces share: one lab with a running controller, and HTTP into its namespace."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import socket
import threading
from typing import Any

from tests.topology.controller.lab import Lab, plan_of

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def made_lab(name: str) -> Lab:
    """Two switches, three hosts at the first and one at the second, and the controller."""
    nodes = ["h1", "h2", "h3", "h4"]
    links = [("h1", "s1"), ("h2", "s1"), ("h3", "s1"), ("h4", "s2"), ("s1", "s2")]
    lab = Lab(plan_of(name, [{"name": "s1"}, {"name": "s2"}], nodes, links))
    try:
        lab.start_controller()
    except BaseException:
        lab.close()
        raise
    return lab


def port_of(lab: Lab, node: str) -> int:
    """The number of the switch port that a host hangs at."""
    for switch in lab.plan.switches:
        for port in switch.ports:
            if port.peer == node:
                return port.number
    raise AssertionError(f"{node} hangs at no switch")


class Http:
    """HTTP to a port in the core namespace, over one connection that is kept."""

    def __init__(self, lab: Lab, port: int = 8080) -> None:
        self._path = f"/run/netns/{lab.core}"
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def _connect(self) -> http.client.HTTPConnection:
        # A socket stays in the namespace that it was made in: a thread that ends right after may go there.
        made: list[socket.socket | BaseException] = []

        def connect() -> None:
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.create_connection(("127.0.0.1", self._port), timeout=15))
            except OSError as error:
                made.append(error)
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        if not isinstance(made[0], socket.socket):
            raise AssertionError(f"no connection to port {self._port}: {made[0]}")
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
        # Headers and body go out in two writes; without this each call waits 40 ms for an acknowledgement.
        made[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock = made[0]
        return connection

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or text) and headers; `body` is sent as JSON unless it is bytes already."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        for attempt in range(2):
            connection = self._connection or self._connect()
            self._connection = connection
            try:
                connection.request(method, path, data, headers or {})
                answer = connection.getresponse()
                text = answer.read()
                break
            except (http.client.HTTPException, OSError):
                # The server may have closed the kept connection; not twice, though.
                self.close()
                if attempt:
                    raise
        if answer.getheader("Connection") == "close":
            self.close()
        try:
            value = json.loads(text)
        except ValueError:
            value = text.decode(errors="replace")
        return answer.status, value, dict(answer.getheaders())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
