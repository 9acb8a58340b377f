"""The exporter as Prometheus sees it: HTTP over a sampler, on the host and, in band, inside of the nodes.

Collection happens at scrape time. Owns the declared period: a collection that takes more than half of it, and a scrape
that comes later than 1.5 of it, are counted and said in the log, so that a gap in the series is never silent.
"""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from functools import partial
from types import TracebackType

from monitoring.exporter import namespaces
from monitoring.exporter.listening import Answer, Handle, Listeners, listen
from monitoring.exporter.sampler import Part, Sampler
from monitoring.exporter.samples import CONTENT_TYPE
from monitoring.inventory import Inventory

NODE_PORT, TCP_PORT, TESTBED_PORT, CONTROLLER_PORT = 9100, 9200, 9101, 9102
"""In band: a node's own series and its TCP flows (in every node), the testbed's and the controller's (in the node that
runs Prometheus).
"""
_WARNING_EVERY_S = 60.0
_RELAY_TIMEOUT_S = 5.0
_MOST_RELAYED_BYTES = 64 * 2**20
_LOG = logging.getLogger(__name__)


class ExporterServer:
    """Serves `/metrics` (everything, or `?node=NAME`) and `/healthz` at `host:port`, from `start` to `close`.

    `period_s` is the sampling period that was declared; None: the inventory's.
    """

    def __init__(self, sampler: Sampler, host: str, port: int, period_s: float | None = None) -> None:
        self._sampler = sampler
        self._wanted = (host, port)
        self._period_s = sampler.period_s = period_s
        self._listeners: Listeners | None = None
        self._address = (host, port)
        self._watch = Punctuality(sampler)
        self._in_nodes = False
        self._inside: dict[tuple[str, tuple[int, int]], list[socket.socket]] = {}
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="exporter", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens on the host (port 0 has become a real one)."""
        return self._address

    @property
    def period_s(self) -> float:
        """The declared sampling period."""
        return self._period_s if self._period_s is not None else self._sampler.inventory.period_s

    def start(self) -> ExporterServer:
        """Listen and serve. Raises OSError where the address is taken."""
        listening = listen(*self._wanted)
        self._address = listening.getsockname()
        self._listeners = Listeners()
        self._listeners.add(listening, self._answer)
        self._thread.start()
        return self

    def close(self) -> None:
        """End all listening; the sampler stays open, it is its owner's."""
        self._stop.set()
        if self._listeners is not None:
            self._thread.join(10.0)
            self._listeners.close()
            self._listeners = None

    def __enter__(self) -> ExporterServer:
        return self.start() if self._listeners is None else self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def listen_in_nodes(self) -> None:
        """Serve in band too, from now on: in every node that runs, and in every one that will."""
        self._in_nodes = True
        self._sampler.refresh()
        self._sync()

    # Answers

    def _answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path == "/healthz":
            return Answer(200, b"ok\n")
        if path != "/metrics":
            return Answer(404, b"there are /metrics, /metrics?node=NAME and /healthz\n")
        unknown = sorted(set(query) - {"node"})
        if unknown:
            return Answer(400, f"unknown parameter {unknown[0]!r}; allowed is node=NAME\n".encode())
        if "node" not in query:
            with self._watch.scrape(self.period_s):
                return Answer(200, self._sampler.text(), CONTENT_TYPE)
        name = query["node"][-1]
        try:
            return Answer(200, self._sampler.text(node=name), CONTENT_TYPE)
        except KeyError:
            return Answer(404, f"{self._sampler.inventory.testbed!r} has no node {name!r}\n".encode())

    def _answer_part(self, node: str | None, part: Part, path: str, query: dict[str, list[str]]) -> Answer:
        if path == "/healthz":
            return Answer(200, b"ok\n")
        if path != "/metrics" or query:
            return Answer(404, b"there are /metrics and /healthz\n")
        watch = self._watch.scrape(self.period_s) if node is None else self._watch.share()
        with watch:
            try:
                return Answer(200, self._sampler.text(node=node, parts=(part,)), CONTENT_TYPE)
            except KeyError:
                return Answer(404, b"this node is no longer part of the testbed\n")

    def _relay(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path != "/metrics" or query:
            return Answer(404, b"there is /metrics\n")
        place = self._sampler.inventory.controller_rest
        if place is None:
            return Answer(404, b"this testbed has no controller of its own\n")
        connection = http.client.HTTPConnection(*place, timeout=_RELAY_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            body = answer.read(_MOST_RELAYED_BYTES)
            return Answer(answer.status, body, answer.getheader("Content-Type", CONTENT_TYPE))
        except (OSError, http.client.HTTPException) as error:
            self._sampler.count_error("relay")
            return Answer(502, f"the controller at {place[0]}:{place[1]} does not answer: {error}\n".encode())
        finally:
            connection.close()

    # Nodes that come and go

    def _follow(self) -> None:
        # Also without scrapes the sockets of a node that is gone have to be closed: they keep its namespace in being.
        while not self._stop.wait(min(self.period_s, 2.0)):
            try:
                self._sampler.refresh()
                self._sync()
            except Exception:
                _LOG.exception("following the testbed's nodes failed; it is tried again")

    def _sync(self) -> None:
        with self._lock:
            listeners = self._listeners
            if not self._in_nodes or listeners is None:
                return
            lives = self._sampler.lives
            for key in [key for key in self._inside if lives.get(key[0]) != key[1]]:
                for listening in self._inside.pop(key):
                    listeners.remove(listening)
            inventory = self._sampler.inventory
            for name, life in lives.items():
                if (name, life) not in self._inside:
                    self._inside[name, life] = self._open(listeners, inventory, name, life[0])

    def _open(self, listeners: Listeners, inventory: Inventory, name: str, pid: int) -> list[socket.socket]:
        node = inventory.by_name[name]
        wanted: list[tuple[str, int, Handle]]
        wanted = [("0.0.0.0", NODE_PORT, partial(self._answer_part, name, Part.NODES)),
                  ("0.0.0.0", TCP_PORT, partial(self._answer_part, name, Part.TCP))]  # fmt: skip
        if node.role == "prometheus":
            wanted += [("127.0.0.1", TESTBED_PORT, partial(self._answer_part, None, Part.TESTBED)),
                       ("127.0.0.1", CONTROLLER_PORT, self._relay)]  # fmt: skip
        opened = []
        for host, port, handle in wanted:
            try:
                listening = namespaces.inside(f"/proc/{pid}/ns/net", partial(listen, host, port))
            except OSError as error:
                self._sampler.count_error("listen")
                if f"{name}:{port}" not in self._refused:
                    self._refused.add(f"{name}:{port}")
                    _LOG.warning("%s: port %d cannot be listened at: %s; it has no series in band", name, port, error)
                continue
            listeners.add(listening, handle)
            opened.append(listening)
        return opened


class Punctuality:
    """Counts what the declared period does not allow, and says so at most once a minute a kind."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._lock = threading.Lock()
        self._last: float | None = None
        self._busy_s = 0.0
        self._said: dict[str, float] = {}

    def scrape(self, period_s: float) -> _Timed:
        """Around a scrape of the whole testbed (in band: of what is the testbed's)."""
        return _Timed(self, period_s)

    def share(self) -> _Timed:
        """Around a scrape of one node, whose time counts to the next one of the whole testbed."""
        return _Timed(self, None)

    def done(self, start: float, end: float, period_s: float | None) -> None:
        """A scrape was answered (times of a monotonic clock in seconds)."""
        with self._lock:
            self._busy_s += end - start
            if period_s is None:
                return
            busy_s, self._busy_s = self._busy_s, 0.0
            before, self._last = self._last, start
        if busy_s > period_s / 2:
            self._say("slow", end, f"collecting took {busy_s:.2f} s of a period of {period_s:g} s; write a longer "
                                   "`monitoring: {period: ...}`")  # fmt: skip
        if before is not None and start - before > 1.5 * period_s:
            self._say("late", end, f"a scrape came {start - before:.2f} s after the one before, the period is "
                                   f"{period_s:g} s; series have a gap there")  # fmt: skip

    def _say(self, reason: str, now: float, text: str) -> None:
        self._sampler.count_overrun(reason)
        with self._lock:
            if now - self._said.get(reason, -_WARNING_EVERY_S) < _WARNING_EVERY_S:
                return
            self._said[reason] = now
        _LOG.warning("%s", text)


class _Timed:
    def __init__(self, owner: Punctuality, period_s: float | None) -> None:
        self._owner, self._period_s, self._start = owner, period_s, 0.0

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._owner.done(self._start, time.monotonic(), self._period_s)
