"""The spawner's socket: who may connect, what they may ask, and who is told when a process ends.

Takes requests of docs/architecture.md as JSON lines, checks them, and hands them to the base template's brood
or to an application's template. Owns leases. Forks nothing itself. Only shipped applications have a template: it
imports their code on the host, as root; the code of any other folder is first imported inside a node.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_node import applications
from fl_node.spawner.birth import Midwife, Order
from fl_node.spawner.brood import STOP_SECONDS, Brood, next_zombie
from fl_node.spawner.inventory import Inventory, NotYet, UnknownNode
from fl_node.spawner.loop import Loop
from fl_node.spawner.template import Template
from fl_node.spawner.wire import Wire

RAISING_SECONDS = 60.0  # how long a start waits for a testbed that is being raised
RETRY_SECONDS = 0.1
WARM_SECONDS = 300.0
MAX_CONNECTIONS = 4096
MAX_TEMPLATES = 16  # each holds its application and its data, some 300 MB


class RequestError(Exception):
    """The request is not one of the protocol; the text says what is allowed."""


@dataclass
class Ward:
    """A process that somebody asked for, from the request to its end."""

    key: int
    node: str
    argv: tuple[str, ...]
    application: str | None
    lease: bool
    wire: Wire
    asked: float = field(default_factory=time.time)
    pid: int = 0
    node_pid: int = 0
    stop: Callable[[], None] | None = None
    log: str = ""
    env: dict[str, str] = field(default_factory=dict)
    unwanted: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "node": self.node,
            "argv": list(self.argv),
            "application": self.application,
            "lease": self.lease,
            "pid": self.pid,
            "node_pid": self.node_pid,
            "asked": self.asked,
        }


class Service:
    """One spawner. `run()` returns after SIGTERM or SIGINT, when every process that it started has ended."""

    def __init__(
        self,
        inventory: Inventory,
        path: Path,
        note: Callable[[str], None],
        keep: set[int],
        nofile_soft: int | None,
    ) -> None:
        self._inventory = inventory
        self._path = path
        self._note = note
        self._keep = keep
        self._nofile_soft = nofile_soft
        self._loop = Loop()
        self._brood = Brood(self._loop, Midwife(nofile_soft), self._started, self._ended, keep)
        self._keys = itertools.count(1)
        self._wards: dict[int, Ward] = {}
        self._templates: dict[str, Template] = {}
        self._connections: set[Wire] = set()
        self._ending = False
        self._listener = _listen(path)
        self._loop.watch(self._listener, selectors.EVENT_READ, self._accept)
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        self._loop.on_signal(signal.SIGTERM, self._end)
        self._loop.on_signal(signal.SIGINT, self._end)

    def run(self) -> None:
        self._loop.run()

    def warm_at_start(self, application: str) -> None:
        self._template(application).warm({})

    # connections

    def _accept(self, _ready: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != 0 or len(self._connections) >= MAX_CONNECTIONS:
            sock.close()
            return
        holder: list[Wire] = []
        wire = Wire(
            self._loop,
            sock,
            lambda message: self._request(holder[0], message),
            lambda: self._hung_up(holder[0]),
            lambda text: holder[0].send({"ok": False, "error": text}),
        )
        holder.append(wire)
        self._connections.add(wire)

    def _hung_up(self, wire: Wire) -> None:
        self._connections.discard(wire)
        for ward in [ward for ward in self._wards.values() if ward.wire is wire and ward.lease]:
            ward.unwanted = True
            if ward.stop is not None:
                ward.stop()

    def _request(self, wire: Wire, message: dict[str, Any]) -> None:
        try:
            operation = message.get("op")
            if self._ending:
                raise RequestError("the spawner is ending")
            if operation == "start":
                self._start(wire, message)
            elif operation == "stop":
                self._stop(wire)
            elif operation == "warm":
                self._warm(wire, message)
            elif operation == "status":
                wire.send(self._status())
            else:
                raise RequestError(f"op is {operation!r}; allowed are start, stop, warm, status")
        except RequestError as error:
            wire.send({"ok": False, "error": str(error)})

    # operations

    def _start(self, wire: Wire, message: dict[str, Any]) -> None:
        known = {"op", "node", "argv", "env", "log", "lease", "application"}
        unknown = sorted(set(message) - known)
        if unknown:
            raise RequestError(
                f"start: unknown keys {', '.join(map(repr, unknown))}; allowed are {sorted(known)}"
            )
        node, log, lease = message.get("node"), message.get("log"), message.get("lease", False)
        argv, env, application = message.get("argv"), message.get("env", {}), message.get("application")
        if not isinstance(node, str) or not node:
            raise RequestError(f"start: node must be a node's name, found {node!r}")
        if not isinstance(argv, list) or not argv or not all(_clean(item) for item in argv) or not argv[0]:
            raise RequestError(f"start: argv must be a list of one or more strings, found {argv!r:.200}")
        if not isinstance(env, dict) or not all(
            _clean(k) and _clean(v) and k and "=" not in k for k, v in env.items()
        ):
            raise RequestError(f"start: env must map names to strings, found {env!r:.200}")
        if not _clean(log) or not os.path.isabs(str(log)):
            raise RequestError(f"start: log must be an absolute path, found {log!r}")
        if not isinstance(lease, bool):
            raise RequestError(f"start: lease must be true or false, found {lease!r}")
        if application is not None and not _is_folder(application):
            raise RequestError(
                f"start: application must be null or the absolute path of a folder, found {application!r}"
            )
        ward = Ward(next(self._keys), node, tuple(argv), application, lease, wire, log=str(log), env=env)
        self._wards[ward.key] = ward
        wire.pause()  # one answer after the other
        self._place(ward, time.monotonic() + RAISING_SECONDS)

    def _place(self, ward: Ward, deadline: float) -> None:
        """Find the node, waiting while the testbed is being raised, and fork."""
        if ward.unwanted or self._ending:
            self._started(ward.key, {"ok": False, "error": f"node {ward.node!r}: no longer wanted"})
            return
        try:
            place = self._inventory.place(ward.node)
        except NotYet as reason:
            if time.monotonic() < deadline:
                self._loop.after(RETRY_SECONDS, lambda: self._place(ward, deadline))
            else:
                text = f"{reason}; waited {RAISING_SECONDS:g} s for the testbed to be raised"
                self._started(ward.key, {"ok": False, "error": text})
            return
        except UnknownNode as reason:
            self._started(ward.key, {"ok": False, "error": str(reason)})
            return
        order = Order(ward.key, place, ward.argv, ward.env, ward.log)
        shipped = None if ward.application is None else applications.shipped_folder(ward.application)
        if shipped is None:
            ward.stop = lambda: self._brood.stop(ward.key)
            self._brood.start(order)
            return
        try:
            template = self._template(str(shipped))
        except (RequestError, OSError) as error:
            self._started(ward.key, {"ok": False, "error": f"node {ward.node!r}: {error}"})
            return
        if template.config is None:
            template.warm({})
        ward.stop = lambda: template.stop(ward.key)
        template.start(order)

    def _stop(self, wire: Wire) -> None:
        mine = [ward for ward in self._wards.values() if ward.wire is wire]
        for ward in mine:
            ward.unwanted = True
            if ward.stop is not None:
                ward.stop()
        wire.send({"ok": True, "stopping": len(mine)})

    def _warm(self, wire: Wire, message: dict[str, Any]) -> None:
        application, config = message.get("application"), message.get("config", {})
        if not _is_folder(application):
            raise RequestError(
                f"warm: application must be the absolute path of a folder, found {application!r}"
            )
        if not isinstance(config, dict):
            raise RequestError(f"warm: config must be an object, found {type(config).__name__}")
        shipped = applications.shipped_folder(str(application))
        if shipped is None:
            raise RequestError(
                f"warm: {application} does not lie below {applications.SHIPPED}: only shipped applications are "
                "imported on the host. Start it without warming: its code is then loaded inside the node"
            )
        template = self._template(str(shipped))
        if template.config == config and template.seconds is not None and template.error is None:
            wire.send({"ok": True, "seconds": 0.0, "threads": template.threads, "already": True})
            return
        wire.pause()
        if template.config != config or template.seconds is not None:
            template.warm(config)
            self._loop.after(WARM_SECONDS, lambda: self._too_cold(template))
        template.waiting[-1].append(wire)

    def _status(self) -> dict[str, Any]:
        base = {"pid": os.getpid(), "forks": self._brood.forks, "fork_seconds": self._brood.fork_seconds}
        return {
            "ok": True,
            "base": base,
            "templates": [template.to_json() for template in self._templates.values()],
            "children": [ward.to_json() for ward in self._wards.values()],
        }

    # templates

    def _template(self, application: str) -> Template:
        found = self._templates.get(application)
        if found is not None:
            return found
        if len(self._templates) >= MAX_TEMPLATES:
            idle = [item for item in self._templates.values() if not item.keys and item.seconds is not None]
            if not idle:
                raise RequestError(
                    f"{MAX_TEMPLATES} applications are in use at once; stop a run before starting another"
                )
            min(idle, key=lambda item: item.last_used).close()
        template = Template(
            self._loop,
            application,
            self._keep,
            self._warmed,
            self._started,
            self._ended,
            self._gone,
            self._nofile_soft,
        )
        self._templates[application] = template
        self._note(f"template of {application}: pid {template.pid}")
        return template

    def _warmed(self, template: Template) -> None:
        state = f"failed: {template.error}" if template.error else "warm"
        self._note(
            f"template of {template.application}: {state} after {template.seconds:.2f} s, "
            f"{template.threads} threads"
        )
        self._answer_warming(template)

    def _answer_warming(self, template: Template) -> None:
        """Answer those who waited for the oldest warming."""
        for wire in template.waiting.popleft() if template.waiting else []:
            if template.error is None:
                wire.send(
                    {"ok": True, "seconds": template.seconds, "threads": template.threads, "already": False}
                )
            else:
                wire.send({"ok": False, "error": f"application {template.application}: {template.error}"})
            wire.resume()

    def _too_cold(self, template: Template) -> None:
        if self._templates.get(template.application) is template and template.seconds is None:
            template.error = f"not warm after {WARM_SECONDS:g} s"
            _kill(template.pid)

    def _gone(self, template: Template) -> None:
        """The template's process has ended, and with it all that it had forked."""
        if self._templates.get(template.application) is template:
            del self._templates[template.application]
        _kill(template.pid)
        text = template.error or "its template has ended"
        template.error = text
        self._note(f"template of {template.application} (pid {template.pid}) has ended")
        while template.waiting:
            self._answer_warming(template)
        for key in sorted(template.keys):
            ward = self._wards.get(key)
            if ward is not None and not ward.pid:
                message = f"node {ward.node!r}: application {template.application}: {text}"
                self._started(key, {"ok": False, "error": message})
            else:
                self._ended(key, -int(signal.SIGKILL))
        template.keys.clear()

    # what broods and templates report

    def _started(self, key: int, answer: dict[str, Any]) -> None:
        ward = self._wards[key]
        if answer["ok"]:
            ward.pid, ward.node_pid = answer["pid"], answer["node_pid"]
            ward.env = {}
        else:
            del self._wards[key]
            self._note(f"start of {' '.join(ward.argv)[:120]}: {answer['error']}")
        ward.wire.send(answer)
        ward.wire.resume()
        if answer["ok"] and ward.unwanted and ward.stop is not None:
            ward.stop()

    def _ended(self, key: int, code: int) -> None:
        ward = self._wards.pop(key, None)
        if ward is not None:
            ward.wire.send({"exit": code, "pid": ward.pid})

    def _reap(self) -> None:
        while (pid := next_zombie()) is not None:
            if self._brood.owns(pid):
                self._brood.reap(pid)
            else:
                os.waitpid(pid, 0)

    # the end

    def _end(self) -> None:
        if self._ending:
            return
        self._ending = True
        self._note(f"ending {len(self._wards)} processes")
        self._loop.forget(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for ward in list(self._wards.values()):
            ward.unwanted = True
            if ward.stop is not None:
                ward.stop()
        self._wait_for_end(time.monotonic() + STOP_SECONDS + 2.0)

    def _wait_for_end(self, deadline: float) -> None:
        if self._wards and time.monotonic() < deadline:
            self._loop.after(0.05, lambda: self._wait_for_end(deadline))
            return
        for template in list(self._templates.values()):
            template.close()
        self._loop.stop()


def _clean(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_folder(value: object) -> bool:
    return isinstance(value, str) and _clean(value) and os.path.isabs(value) and os.path.isdir(value)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path` that only its owner may use. Raises OSError where another spawner has
    it."""
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
            else:
                raise OSError(f"{path}: another spawner listens there; end it first (its pid: op status)")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(512)
    listener.setblocking(False)
    return listener
