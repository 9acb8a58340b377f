"""Speaks OVSDB (RFC 7047) with a database server, or plain JSON-RPC with vswitchd's control, over a unix socket."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from topology.errors import TopologyError


def mutation(table: str, where: list[list[str]], mutations: list[list[Any]]) -> dict[str, Any]:
    """The operation that changes rows of a table by mutations (RFC 7047, section 5.1). Pure."""
    return {"op": "mutate", "table": table, "where": where, "mutations": mutations}


class Database:
    """A connection to the unix socket of an OVSDB server, or of vswitchd's control; one request at a time. Closed by
    `with`.
    """

    def __init__(self, path: Path, timeout_s: float = 20.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._buffer = ""
        self._next = 0
        self._path = path
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise TopologyError(f"Open vSwitch ({path}) does not answer: {error}") from error

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def transact(self, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Carry out the operations as one; gives back their results. Raises TopologyError with the database's words."""
        answer = self.call("transact", ["Open_vSwitch", *operations])
        results: list[dict[str, Any]] = answer.get("result") or []
        failed = [item for item in results if item and item.get("error")]
        if answer.get("error") or failed:
            raise TopologyError(f"the Open vSwitch database refused: {answer.get('error') or failed[0]}")
        return results

    def call(self, method: str, params: list[Any]) -> dict[str, Any]:
        """One call of JSON-RPC (RFC 7047, section 4.1); its answer. Raises TopologyError where none comes."""
        self._next += 1
        request = {"method": method, "params": params, "id": self._next}
        try:
            self._socket.sendall(json.dumps(request).encode())
            answer = self._receive()
            while answer.get("id") != self._next:
                if answer.get("method") == "echo":
                    reply = {"id": answer["id"], "result": answer["params"], "error": None}
                    self._socket.sendall(json.dumps(reply).encode())
                answer = self._receive()
        except OSError as error:
            raise TopologyError(f"Open vSwitch ({self._path}) does not answer: {error}") from error
        return answer

    def carry_out(self, operations: list[dict[str, Any]], *, timeout_s: float = 60.0) -> None:
        """Carry the operations out as one, and wait until vswitchd has taken them up. Raises TopologyError."""
        number = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg", "cur_cfg"]}
        changes = [*operations, mutation("Open_vSwitch", [], [["next_cfg", "+=", 1]]), number]
        wanted = self.transact(changes)[-1]["rows"][0]["next_cfg"]
        deadline = time.monotonic() + timeout_s
        while self.transact([number])[0]["rows"][0]["cur_cfg"] < wanted:
            if time.monotonic() > deadline:
                raise TopologyError(f"Open vSwitch ({self._path}) did not take up its configuration in {timeout_s:g} s;"
                                    " `cohortnet logs ovs-vswitchd` says why")  # fmt: skip
            time.sleep(0.005)

    def _receive(self) -> dict[str, Any]:
        decoder = json.JSONDecoder()
        while True:
            try:
                answer, end = decoder.raw_decode(self._buffer)
                self._buffer = self._buffer[end:].lstrip()
                return dict(answer)
            except ValueError:
                data = self._socket.recv(1 << 18)
                if not data:
                    raise ConnectionError("it closed the connection") from None
                self._buffer += data.decode()
