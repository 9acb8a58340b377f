"""TCP connections of switches: the listener, and os-ken's `Datapath` made to end when its switch goes.

With native threads os-ken 4 can stop no thread: its sender waits for ever on an empty queue and its listener
for ever in accept, so a switch that left is never noticed. Here both end.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time

from os_ken.base.app_manager import OSKenApp
from os_ken.controller.controller import Datapath
from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER
from os_ken.controller.ofp_handler import OFPHandler
from os_ken.lib import hub

LOG = logging.getLogger("controller.connection")

MAXIMUM_CONNECTIONS = 1024
HANDSHAKE_S = 10.0
"""A connection that has not said which switch it is by then is closed."""


class OpenFlowHandler(OFPHandler):
    """os-ken's handshake (hello, features, ports, echo) without its listener: `Listener` has that part."""

    def start(self) -> None:
        """Start handling events."""
        OSKenApp.start(self)


class Connection(Datapath):
    """One switch's connection. `serve` returns once the connection is over, with both of its threads
    ended."""

    def __init__(self, sock: socket.socket, address: tuple[str, int]) -> None:
        super().__init__(sock, address)
        self.opened = time.monotonic()

    def serve(self) -> None:
        """Receive until the connection ends."""
        sender = hub.spawn(self._send_loop)
        self.send_msg(self.ofproto_parser.OFPHello(self))
        try:
            self._recv_loop()
        finally:
            self.is_active = False
            self.set_state(DEAD_DISPATCHER)
            with contextlib.suppress(OSError):
                self.socket.close()
            # Wakes the sender where it waits on an empty queue; it finds the socket closed and ends.
            self.send(b"", close_socket=True)
            sender.join(2 * self.socket.timeout if self.socket.timeout else 10.0)

    def disconnect(self) -> None:
        """End the connection from our side; any thread may call it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Listener:
    """Accepts switches on a listening socket, each with a thread of its own, until `close`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.settimeout(0.5)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._thread = threading.Thread(target=self._accept_loop, name="accept", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Accept no more and end all connections."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._socket.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.disconnect()

    def _accept_loop(self) -> None:
        while not self._stopped.is_set():
            self._close_silent_ones()
            try:
                sock, address = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if self._stopped.is_set():
                    return
                LOG.error("cannot accept a switch: %s", error)
                self._stopped.wait(0.5)
                continue
            with self._lock:
                room = len(self._connections) < MAXIMUM_CONNECTIONS
            if not room:
                LOG.error(
                    "refused %s:%s: %d connections are open", address[0], address[1], MAXIMUM_CONNECTIONS
                )
                sock.close()
                continue
            threading.Thread(target=self._serve, args=(sock, address), name="switch", daemon=True).start()

    def _close_silent_ones(self) -> None:
        now = time.monotonic()
        with self._lock:
            silent = [
                c for c in self._connections if c.state != MAIN_DISPATCHER and now - c.opened > HANDSHAKE_S
            ]
        for connection in silent:
            LOG.warning("%s:%s said nothing useful in %g s: closed", *connection.address[:2], HANDSHAKE_S)
            connection.disconnect()

    def _serve(self, sock: socket.socket, address: tuple[str, int]) -> None:
        # A peer that vanishes without a word is noticed after about 15 s.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 3)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        connection = Connection(sock, address)
        with self._lock:
            self._connections.add(connection)
        try:
            connection.serve()
        except (
            Exception
        ) as error:  # os-ken's parser raises anything at all on malformed bytes; only this switch is ended
            LOG.error("connection of %s:%s ended by a malformed message: %r", address[0], address[1], error)
        finally:
            with self._lock:
                self._connections.discard(connection)
