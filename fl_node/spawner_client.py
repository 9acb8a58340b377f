"""Speaks to a spawner: start a program in a node, warm an application, ask what runs. For the agent and the
command line.

Takes the socket's path. Every call has a time-out; errors are SpawnerError with what to do next. Forks
nothing.
"""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

_MAX_LINE_BYTES = 16 << 20


class SpawnerError(Exception):
    """The spawner did not answer, or refused; the text says which."""


class Spawned:
    """A process that a spawner has started, and the connection that it is held by.

    `pid` is its number on the host, `node_pid` in the node. With a lease, closing the connection ends the
    process.
    """

    def __init__(self, line: _Line, pid: int, node_pid: int, node: str) -> None:
        self.pid = pid
        self.node_pid = node_pid
        self.node = node
        self._line = line
        self._exit: int | None = None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code (negative: signal), or None when `timeout_s` has passed. Only one thread may wait.

        Raises SpawnerError where the spawner has ended (and all its processes with it).
        """
        while self._exit is None:
            message = self._line.receive(timeout_s)
            if message is None:
                return None
            if "exit" in message:
                self._exit = int(message["exit"])
        return self._exit

    def stop(self) -> None:
        """Have the spawner end the process: SIGTERM, after 5 s SIGKILL. Returns at once; wait() tells the
        end."""
        self._line.send({"op": "stop"})

    def close(self) -> None:
        """Hang up: ends a leased process, lets another live on."""
        self._line.close()


class Spawner:
    """A spawner's socket. Cheap to make; connects for each call."""

    def __init__(self, path: str | Path, timeout_s: float = 10.0) -> None:
        self.path = str(path)
        self.timeout_s = timeout_s

    def start(
        self,
        node: str,
        argv: list[str],
        env: dict[str, str],
        log: str | Path,
        *,
        lease: bool = False,
        application: str | Path | None = None,
        timeout_s: float = 120.0,
    ) -> Spawned:
        """Start `argv` in `node`. `timeout_s` covers a testbed being raised and an application that has to be
        warmed."""
        line = _Line(self.path, self.timeout_s)
        try:
            answer = line.ask(
                {
                    "op": "start",
                    "node": node,
                    "argv": argv,
                    "env": env,
                    "log": str(log),
                    "lease": lease,
                    "application": None if application is None else str(application),
                },
                timeout_s,
            )
        except BaseException:
            line.close()
            raise
        return Spawned(line, int(answer["pid"]), int(answer["node_pid"]), node)

    def warm(
        self, application: str | Path, config: dict[str, Any] | None = None, timeout_s: float = 300.0
    ) -> float:
        """Warm the template of an application's folder. Returns the seconds that it took (0: it was warm)."""
        with _Line(self.path, self.timeout_s) as line:
            answer = line.ask(
                {"op": "warm", "application": str(application), "config": config or {}}, timeout_s
            )
        return float(answer["seconds"])

    def status(self) -> dict[str, Any]:
        """`{"base": ..., "templates": [...], "children": [...]}`."""
        with _Line(self.path, self.timeout_s) as line:
            return line.ask({"op": "status"}, self.timeout_s)


class _Line:
    """One connection, JSON lines both ways."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = path
        self._buffer = bytearray()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout_s)
        try:
            self._sock.connect(path)
        except OSError as error:
            self._sock.close()
            raise SpawnerError(f"spawner at {path} does not answer: {error}; is the testbed up?") from error

    def ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        self.send(message)
        answer = self.receive(timeout_s)
        if answer is None:
            raise SpawnerError(
                f"spawner at {self._path}: no answer to {message['op']} within {timeout_s:g} s"
            )
        if not answer.get("ok"):
            raise SpawnerError(f"spawner at {self._path}: {answer.get('error', 'refused without a reason')}")
        return answer

    def send(self, message: dict[str, Any]) -> None:
        try:
            self._sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise SpawnerError(f"spawner at {self._path} has gone: {error}") from error

    def receive(self, timeout_s: float | None) -> dict[str, Any] | None:
        self._sock.settimeout(timeout_s)
        while b"\n" not in self._buffer:
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError as error:
                raise SpawnerError(f"spawner at {self._path} has gone: {error}") from error
            if not data:
                raise SpawnerError(f"spawner at {self._path} has ended the connection")
            self._buffer += data
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise SpawnerError(f"spawner at {self._path}: an answer of more than {_MAX_LINE_BYTES} bytes")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        message = json.loads(line)
        if not isinstance(message, dict):
            raise SpawnerError(f"spawner at {self._path}: an answer that is no object: {line[:80]!r}")
        return message

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in receive()
        self._sock.close()

    def __enter__(self) -> _Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
