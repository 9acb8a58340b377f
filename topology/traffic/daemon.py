"""All flows of one testbed, and the socket that takes commands for them.

One JSON object a line, one answer a line, over a unix socket that only root may open:

- `{"op": "list"}` -> `{"ok": true, "flows": [...]}`
- `{"op": "start", "flows": ["background"]}`, `{"op": "stop", "flows": null}` (null: all) -> the same, of these flows;
  `start` answers when each of them runs, or has failed once (`state`, `reason`)
- `{"op": "set", "flow": "background", "rate_bps": 10000000}` -> the same, of this flow; answers when it is sent so
- a refusal: `{"ok": false, "code": "unknown-flow", "error": "...", "hint": "..."}`
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from topology.engine import launch
from topology.errors import TopologyError
from topology.inventory import read_inventory
from topology.traffic import paths, state
from topology.traffic.flow import Flow
from topology.traffic.program import Trouble
from topology.traffic.schedule import wrong_numbers

MOST_CONNECTIONS = 16
MOST_LINE = 65536
IDLE_S = 60.0
SETTLE_S = 12.0
MOST_RATE_BPS = 10**12


class Refused(Exception):
    """A command that cannot be done, with its answer."""

    def __init__(self, code: str, error: str, hint: str = "") -> None:
        super().__init__(error)
        self.answer = {"ok": False, "code": code, "error": error, "hint": hint}


class Nodes:
    """Where a node is now, from the inventory; read again when that file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = -1
        self._data: dict[str, Any] = {}

    def inventory(self) -> dict[str, Any]:
        """The inventory as it is now. Raises OSError or TopologyError."""
        stamp = self._path.stat().st_mtime_ns
        if stamp != self._stamp:
            self._data = read_inventory(self._path)
            self._stamp = stamp
        return self._data

    def find(self, name: str) -> Mapping[str, Any]:
        """A running node. Raises Trouble."""
        try:
            return launch.find_node(self.inventory(), name)
        except TopologyError as error:
            raise Trouble(f"{name}: {error}") from None
        except (OSError, ValueError) as error:
            raise Trouble(f"{name}: the inventory cannot be read: {error}") from None


class Traffic:
    """The flows, their state file, and what is asked of them."""

    def __init__(self, inventory_path: Path) -> None:
        self._nodes = Nodes(inventory_path)
        inventory = self._nodes.inventory()
        self.folder = state.folder(inventory)
        self.flows: dict[str, Flow] = {}
        self._connections = 0
        for planned in inventory["traffic"]:
            ceiling = paths.payload_bps(self._narrowest(planned), planned["protocol"])
            self.flows[planned["name"]] = Flow(planned, self._nodes.find, self._changed, ceiling)

    def _narrowest(self, planned: Mapping[str, Any]) -> int | None:
        return paths.narrowest_bps(self._nodes.inventory()["links"], planned["source"], planned["destination"])

    def resume(self) -> list[str]:
        """Go on where a daemon before this one was ended by force: its rates, and the flows that ran; their names."""
        before = state.read(self.folder / state.FILE)
        names = []
        for name, flow in self.flows.items():
            known = before.get(name)
            if known is not None:
                with suppress(Refused):  # a hand-written rate: the planned one then
                    self._set_rate(flow, known["rate_bps"])
                if known["state"] not in ("stopped", "failed"):
                    flow.start()
                    names.append(name)
        self.save()
        return names

    def save(self) -> None:
        """Write the state file."""
        try:
            state.write(self.folder / state.FILE, [flow.view() for flow in self.flows.values()])
        except OSError as error:  # the folder is going: so is the testbed
            _log(f"{state.FILE} cannot be written: {error}")

    def _changed(self, flow: Flow) -> None:
        what = f"{flow.state}, {flow.pattern.rate_bps} bit/s" + (f": {flow.reason}" if flow.reason else "")
        _log(f"{flow.name}: {what}")
        self.save()

    async def close(self) -> None:
        """End every flow."""
        await asyncio.gather(*(flow.stop() for flow in self.flows.values()))
        self.save()

    # -- commands ---------------------------------------------------------------------------------------------------

    async def answer(self, request: Any) -> dict[str, Any]:
        """What is said to a request; never raises for what is in it."""
        try:
            if not isinstance(request, dict):
                raise Refused("not-an-object", "a command is one JSON object")
            chosen = await self._do(request)
            return {"ok": True, "flows": [flow.view() for flow in chosen]}
        except Refused as refused:
            return refused.answer

    async def _do(self, request: dict[str, Any]) -> list[Flow]:
        words = {"list": {"op"}, "start": {"op", "flows"}, "stop": {"op", "flows"}, "set": {"op", "flow", "rate_bps"}}
        op = request.get("op")
        if not isinstance(op, str) or op not in words:
            raise Refused("unknown-op", f"{op!r} is no command", f"one of: {', '.join(words)}")
        if unknown := sorted(set(request) - words[op]):
            raise Refused("unknown-key", f"{unknown[0]!r} is no key of {op}", f"its keys: {', '.join(words[op])}")
        if op == "list":
            return list(self.flows.values())
        if op == "set":
            flow = self._named([request.get("flow")])[0]
            self._set_rate(flow, request.get("rate_bps"))
            with suppress(TimeoutError):
                await asyncio.wait_for(flow.in_force.wait(), SETTLE_S)
            return [flow]
        names = request.get("flows")
        if names is not None and not isinstance(names, list):
            raise Refused("wrong-type", "`flows` is a list of names, or null for all")
        chosen = list(self.flows.values()) if names is None else self._named(names)
        if op == "stop":
            await asyncio.gather(*(flow.stop() for flow in chosen))
            return chosen
        for flow in chosen:
            flow.start()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(flow.settled.wait() for flow in chosen)), SETTLE_S)
        return chosen

    def _named(self, names: list[Any]) -> list[Flow]:
        for name in names:
            if not isinstance(name, str) or name not in self.flows:
                listed = f"one of: {', '.join(self.flows)}" if self.flows else "this testbed declares no `traffic:`"
                raise Refused("unknown-flow", f"no flow is called {name!r}", listed)
        return [self.flows[name] for name in dict.fromkeys(names)]

    def _set_rate(self, flow: Flow, rate_bps: Any) -> None:
        if not isinstance(rate_bps, int) or isinstance(rate_bps, bool) or not 0 < rate_bps <= MOST_RATE_BPS:
            raise Refused("bad-value", f"{rate_bps!r} is no rate in bit/s", "a whole number above 0")
        pattern = replace(flow.pattern, rate_bps=rate_bps)
        for wrong in wrong_numbers(pattern):
            raise Refused(wrong.code, f"{flow.name}: {wrong.message}", wrong.hint)
        protocol = flow.planned["protocol"]
        beyond = paths.beyond_path(pattern, protocol, self._narrowest(flow.planned))
        if beyond is not None and protocol == "tcp":
            raise Refused(beyond.code, f"{flow.name}: {beyond.message}", beyond.hint)
        flow.set_rate(rate_bps)

    # -- the socket -------------------------------------------------------------------------------------------------

    async def serve(self) -> asyncio.Server:
        """Listen on the socket. Raises OSError."""
        path = self.folder / state.SOCKET
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(self._talk, path, limit=MOST_LINE)
        finally:
            os.umask(before)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > MOST_CONNECTIONS:
                busy = Refused("busy", f"{MOST_CONNECTIONS} connections are open already", "try again")
                writer.write(_line(busy.answer))
                return
            while line := await asyncio.wait_for(reader.readline(), IDLE_S):
                try:
                    request = json.loads(line)
                except (ValueError, RecursionError):
                    request = None
                writer.write(_line(await self.answer(request)))
                await asyncio.wait_for(writer.drain(), IDLE_S)
        except (TimeoutError, ValueError, OSError):
            pass  # silent for too long, a line without end, or gone
        finally:
            self._connections -= 1
            writer.close()


def _log(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)


def _line(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"
