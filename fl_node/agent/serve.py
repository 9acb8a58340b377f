"""The agent as a program: builds its parts, serves until SIGTERM, and stops its processes before it ends."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import types

from waitress.server import create_server

from fl_node.agent.identity import Identity, IdentityError
from fl_node.agent.launcher import Launcher, SpawnerLauncher, SubprocessLauncher
from fl_node.agent.rest import MAX_BODY_BYTES, MAX_WATCHERS, METRICS_PORT, PORT, create_app
from fl_node.agent.supervisor import Commands, Resolve, Supervisor, default_commands, default_resolve
from fl_node.spawner_client import Spawner

_THREADS_FOR_CALLS = 6


def main(
    argv: list[str] | None = None, commands: Commands = default_commands, resolve: Resolve = default_resolve
) -> int:
    """Serve until SIGTERM or SIGINT. `commands` and `resolve` say what is executed for a request."""
    parser = argparse.ArgumentParser(
        prog="fl_node.agent", description="Starts and watches a node's FL processes."
    )
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on (default %(default)s)")
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=METRICS_PORT,
        help="second port, which answers GET /metrics and nothing else (default %(default)s)",
    )
    arguments = parser.parse_args(argv)
    ended = threading.Event()

    def on_signal(_number: int, _frame: types.FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        identity = Identity.from_environment(os.environ)
    except IdentityError as error:
        print(f"fl_node.agent: {error}", file=sys.stderr)
        return 2
    launcher: Launcher
    launcher = SpawnerLauncher(Spawner(identity.spawner), identity.node) if identity.spawner else SubprocessLauncher()
    try:
        sockets = [
            _listen(arguments.host, port, option)
            for port, option in ((arguments.port, "--port"), (arguments.metrics_port, "--metrics-port"))
        ]
        supervisor = Supervisor(identity, launcher, commands, resolve)
        # One server for both: the second port costs a socket, no thread.
        server = create_server(
            create_app(supervisor, arguments.metrics_port),
            sockets=sockets,
            threads=MAX_WATCHERS + _THREADS_FOR_CALLS,
            connection_limit=256,
            channel_timeout=60,
            max_request_body_size=MAX_BODY_BYTES
            + 65536,  # a little more, so that our own answer is given first
            max_request_header_size=65536,
            outbuf_high_watermark=1 << 20,
            ident=None,
        )
    except OSError as error:
        print(f"fl_node.agent: node {identity.node}: {error}", file=sys.stderr)
        return 1
    threading.Thread(target=server.run, name="http", daemon=True).start()
    where = f"{arguments.host}:{arguments.port}, metrics also on port {arguments.metrics_port}"
    print(f"agent of {identity.node}: listening on {where}", flush=True)
    ended.wait()
    print(f"agent of {identity.node}: stopping", flush=True)
    supervisor.close()
    sys.stdout.flush()
    # Watchers may still hold threads of the pool; what they follow has ended.
    os._exit(0)


def _listen(host: str, port: int, option: str) -> socket.socket:
    """A listening socket whose connections notice a peer that is gone: a dead watcher must not hold a
    thread. Raises OSError that names the option."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    try:
        listener.bind((host, port))
    except OverflowError as error:
        listener.close()
        raise OSError(f"{option} {port} is no port: {error}") from error
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error}; choose another port with {option}") from error
    return listener


__all__ = ["PORT", "main"]
