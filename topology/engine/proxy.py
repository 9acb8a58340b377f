"""Published ports, the process: relays TCP from 127.0.0.1 of the host into the namespaces of nodes, and from the core
namespace to an external controller.

Executed as a script with the standard library only. Reads one JSON object from stdin: `{"inventory": path, "ports":
[{"fd", "node", "port", "host_port"}], "forwards": [{"fd", "host", "port"}]}`. `fd` is a listening socket that it
inherited, a node of null is the core namespace. For `ports` only the outgoing socket is made within the namespace (a
socket stays where it was made); the `fd` of `forwards` listens in the core namespace, and the outgoing socket is made
here. Bytes are handed on as they come, each direction ends by itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

MOST_CONNECTIONS = 512
CONNECT_TIMEOUT_S = 10.0
_CHUNK = 1 << 16
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


Connect = Callable[[], Awaitable[socket.socket]]


class Targets:
    """Where a node is now: its namespace and addresses, from the inventory, read again when that file has changed."""

    def __init__(self, inventory: Path) -> None:
        self._path = inventory
        self._stamp = -1
        self._data: dict[str, Any] = {}

    def find(self, node: str | None) -> tuple[str, list[str]]:
        """The namespace's file and the addresses to try. Raises OSError where the node has no process (yet)."""
        stamp = self._path.stat().st_mtime_ns
        if stamp != self._stamp:
            self._data = json.loads(self._path.read_text(encoding="utf-8"))
            self._stamp = stamp
        if node is None:
            return f"/run/netns/{self._data['core']['namespace']}", ["127.0.0.1"]
        for entry in self._data["nodes"]:
            if entry["name"] == node and entry["pid"]:
                return f"/proc/{entry['pid']}/ns/net", ["127.0.0.1", entry["address"], entry["management_address"]]
        raise OSError(f"{node} is not running yet")


def _socket_in(namespace: str) -> socket.socket:
    # Only ever called in the one thread that exists for this: it stays in whatever namespace it was in last.
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
    finally:
        os.close(fd)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Proxy:
    """All published ports of one testbed."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace")
        self._connections = 0

    async def serve(self, listening: socket.socket, node: str | None, port: int) -> None:
        """Accept for ever."""

        async def connect() -> socket.socket:
            return await self._connect(node, port)

        await self._accept(listening, connect, f"{node or 'core'}:{port}")

    async def forward(self, listening: socket.socket, host: str, port: int) -> None:
        """Accept for ever, and carry on to an address that this process's own namespace reaches."""

        async def connect() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await asyncio.wait_for(
                    asyncio.get_running_loop().sock_connect(made, (host, port)), CONNECT_TIMEOUT_S
                )
            except (TimeoutError, OSError) as error:
                made.close()
                raise OSError(error.args[1] if len(error.args) > 1 else "no answer") from error
            return made

        await self._accept(listening, connect, f"controller {host}:{port}")

    async def _accept(self, listening: socket.socket, connect: Connect, what: str) -> None:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._connections >= MOST_CONNECTIONS:
                writer.transport.abort()
                return
            self._connections += 1
            try:
                await self._relay(reader, writer, connect)
            except OSError as error:
                print(f"{what}: {error}", flush=True)
                writer.transport.abort()
            finally:
                self._connections -= 1

        server = await asyncio.start_server(relay, sock=listening, limit=_CHUNK)
        await server.serve_forever()

    async def _connect(self, node: str | None, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        namespace, addresses = self._targets.find(node)
        failure: OSError = OSError("no address")
        for address in addresses:
            made = await loop.run_in_executor(self._thread, _socket_in, namespace)
            try:
                await asyncio.wait_for(loop.sock_connect(made, (address, port)), CONNECT_TIMEOUT_S)
                return made
            except ConnectionRefusedError as error:  # it may listen on another of its addresses
                made.close()
                failure = error
            except (TimeoutError, OSError) as error:
                made.close()
                raise OSError(f"{address}: {error or 'no answer'}") from error
        raise failure

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connect: Connect
    ) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(sock=await connect(), limit=_CHUNK)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        both = [asyncio.ensure_future(_copy(reader, inner_writer)), asyncio.ensure_future(_copy(inner_reader, writer))]
        try:
            await asyncio.gather(*both)
        except OSError:  # one side is gone: so is the conversation
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            writer.transport.abort()
            inner_writer.transport.abort()
        finally:
            writer.close()
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _main() -> None:
    request = json.load(sys.stdin)
    proxy = Proxy(Targets(Path(request["inventory"])))
    serving = [
        proxy.serve(socket.socket(fileno=port["fd"]), port["node"], port["port"]) for port in request["ports"]
    ]
    serving += [
        proxy.forward(socket.socket(fileno=item["fd"]), item["host"], item["port"])
        for item in request.get("forwards", ())
    ]
    await asyncio.gather(*serving)


if __name__ == "__main__":
    asyncio.run(_main())
