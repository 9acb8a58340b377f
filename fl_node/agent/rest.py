"""The REST face of the agent (docs/architecture.md, Agent): decodes, asks the supervisor, encodes.

Every error is `{"errors": [{path, code, message, hint}]}`. Holds no state but the number of open event
streams.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from fl_node.agent import forms
from fl_node.agent.eventlog import EventLog
from fl_node.agent.identity import Network
from fl_node.agent.metrics import AgentMetrics
from fl_node.agent.supervisor import Busy, Conflict, NotStarted, Supervisor, UnknownRun
from fl_node.agent.validation import (
    ClientRequest,
    InvalidRequest,
    RequestProblem,
    ServerRequest,
    parse,
    problem,
    valid_run_id,
)

PORT = 5000
METRICS_PORT = 9300
MAX_BODY_BYTES = 1 << 20
MAX_WATCHERS = 16  # each holds one of the server's threads
MAX_TAIL_LINES = 10_000
KEEPALIVE_SECONDS = 10.0
_KINDS = ("server", "client")


def create_app(supervisor: Supervisor, metrics_port: int | None = None) -> Flask:
    """The WSGI application. Serve it with more than MAX_WATCHERS threads.

    What comes in at `metrics_port`, a second socket of the same server, may ask for /metrics and nothing else.
    """
    app = Flask("fl_node.agent")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY_BYTES
    slots = threading.BoundedSemaphore(MAX_WATCHERS)
    open_streams = _Count()
    metrics = AgentMetrics(supervisor, lambda: open_streams.value)

    @app.before_request
    def only_metrics_there() -> Response | None:
        # The port of the socket that took the connection, whatever the Host header says.
        if metrics_port is None or request.environ.get("SERVER_PORT") != str(metrics_port):
            return None
        if request.path == "/metrics" and request.method in ("GET", "HEAD"):
            return None
        text = f"{request.method} {request.path[:200]}: port {metrics_port} answers GET /metrics only"
        hint = f"the agent's calls are at its own port, {PORT} where --port says nothing else"
        return _errors(404, [problem(request.path[:200], "metrics-only", text, hint)])

    @app.before_request
    def may_only_look() -> Response | None:
        network = supervisor.identity.management
        if request.method in ("GET", "HEAD") or network is None or not _inside(request.remote_addr, network):
            return None
        text = (
            f"{request.method} {request.path[:200]} from {request.remote_addr}: the management network "
            f"{network} may only GET and HEAD on node {supervisor.identity.node}"
        )
        hint = "the MLFO starts and stops runs over the emulated network: hand it an intent"
        return _errors(403, [problem("", "management-read-only", text, hint)])

    def start(wanted: ServerRequest | ClientRequest, notes: list[str] | None = None) -> Response:
        started = supervisor.start(wanted)
        body = started.status if notes is None else {**started.status, "notes": notes}
        answer = jsonify(body)
        answer.status_code = 201 if started.created else 200
        return answer

    def post(kind: str) -> Response:
        return start(parse(kind, _json_body()))

    def one(kind: str, run_id: str) -> Response:
        _check_run_id(run_id)
        if request.method == "DELETE":
            reason = request.args.get("reason")
            if reason is not None and (reason, kind) != ("goal", "server"):
                _reject("reason", "value.invalid", f"reason is {reason[:80]!r}", "allowed: goal, of a server")
            return jsonify(supervisor.stop(kind, run_id, well=reason is not None))
        return jsonify(supervisor.status(kind, run_id))

    for kind in _KINDS:
        app.add_url_rule(f"/v1/{kind}", f"post_{kind}", post, methods=["POST"], defaults={"kind": kind})
        app.add_url_rule(
            f"/v1/{kind}/<run_id>", f"one_{kind}", one, methods=["GET", "DELETE"], defaults={"kind": kind}
        )

    @app.post("/serv")
    def serv() -> Response:
        body, notes = forms.server_body(request.form)
        return start(parse("server", body), notes)

    @app.post("/cli")
    def cli() -> Response:
        body, notes = forms.client_body(request.form)
        return start(parse("client", body), notes)

    @app.get("/v1/status")
    def status() -> Response:
        who = supervisor.identity
        processes = [process.status() for process in supervisor.all()]
        return jsonify(
            {
                "testbed": who.testbed,
                "node": who.node,
                "role": who.role,
                "cohort": who.cohort,
                "address": who.address,
                "processes": processes,
            }
        )

    @app.get("/v1/events")
    def events() -> Response:
        run_id = request.args.get("run", "")
        _check_run_id(run_id, "run")
        last_seen = request.headers.get("Last-Event-ID", "0")
        since = _whole("since", request.args.get("since", last_seen), 0, 1 << 53)
        follow = _truth("follow", request.args.get("follow", "true"))
        log = supervisor.events(run_id)
        if follow and not slots.acquire(blocking=False):
            text = f"{MAX_WATCHERS} event streams are open on node {supervisor.identity.node}"
            answer = _errors(
                503, [problem("follow", "watchers.limit", text, "use follow=false, or ask again later")]
            )
            answer.headers["Retry-After"] = "5"
            return answer
        stream: Iterator[str] = (
            _Stream(log, since, follow, slots, open_streams) if follow else _stream(log, since, False)
        )
        return Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.get("/v1/logs/<run_id>")
    def logs(run_id: str) -> Response:
        _check_run_id(run_id)
        kind = request.args.get("kind")
        if kind is not None and kind not in _KINDS:
            _reject("kind", "value.invalid", f"kind is {kind[:80]!r}", "allowed: server, client")
        tail = _whole("tail", request.args.get("tail", "200"), 1, MAX_TAIL_LINES)
        return Response(supervisor.log_tail(kind, run_id, tail), mimetype="text/plain")

    @app.get("/metrics")
    def metrics_text() -> Response:
        return Response(metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    _handle_errors(app)
    return app


def _handle_errors(app: Flask) -> None:
    @app.errorhandler(InvalidRequest)
    def invalid(error: InvalidRequest) -> Response:
        return _errors(400, error.problems)

    @app.errorhandler(Conflict)
    def conflict(error: Conflict) -> Response:
        return _errors(409, error.problems)

    @app.errorhandler(UnknownRun)
    def unknown(error: UnknownRun) -> Response:
        return _errors(
            404, [problem("run_id", "run.unknown", str(error), "GET /v1/status lists what is known")]
        )

    @app.errorhandler(Busy)
    def busy(error: Busy) -> Response:
        return _errors(503, [problem("", "node.busy", str(error), "GET /v1/status lists the processes")])

    @app.errorhandler(NotStarted)
    def not_started(error: NotStarted) -> Response:
        return _errors(503, [problem("", "process.start", str(error), "ask again with the same run_id")])

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        code = (error.name or "error").lower().replace(" ", ".")
        hint = (
            f"a body may have {MAX_BODY_BYTES} bytes"
            if error.code == 413
            else "docs/architecture.md lists the calls"
        )
        return _errors(
            error.code or 500, [problem(request.path[:200], f"http.{code}", error.description or "", hint)]
        )


class _Count:
    """How many streams are open. Thread-safe."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.value += number


class _Stream(Iterator[str]):
    """A followed event stream that gives its slot back once, however it ends (also when it was never
    begun)."""

    def __init__(
        self, log: EventLog, since: int, follow: bool, slots: threading.BoundedSemaphore, count: _Count
    ) -> None:
        self._events = _stream(log, since, follow)
        self._slots = slots
        self._count = count
        self._closed = False
        count.add(1)

    def __next__(self) -> str:
        return next(self._events)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._count.add(-1)
            self._slots.release()


def _stream(log: EventLog, since: int, follow: bool) -> Iterator[str]:
    """Server-sent events after `since`; a followed stream ends when the run has ended and all of it was
    sent."""
    yield ": events\n\n"
    while True:
        ended = log.ended  # looked at before reading: what came before the end is then read below
        batch = log.read(since)
        for seq, text in batch:
            since = seq
            yield f"id: {seq}\ndata: {text}\n\n"
        if batch:
            continue
        if ended or not follow:
            return
        if not log.wait(since, KEEPALIVE_SECONDS):
            yield ": keepalive\n\n"


def _inside(address: str | None, network: Network) -> bool:
    """Whether a peer is in `network`; one whose address cannot be told is taken as inside."""
    try:
        return ipaddress.ip_address(address or "") in network
    except ValueError:
        return True


def _errors(status: int, problems: list[RequestProblem]) -> Response:
    answer = jsonify({"errors": problems})
    answer.status_code = status
    return answer


def _reject(path: str, code: str, message: str, hint: str) -> NoReturn:
    raise InvalidRequest([problem(path, code, message, hint)])


def _json_body() -> Any:
    data = request.get_data(cache=False)
    hint = 'send one JSON object, UTF-8, as in {"run_id": "drilling-1", ...}'
    try:
        return json.loads(data.decode(), parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except RecursionError:
        _reject("", "body.json", "the body is nested too deep", hint)
    except ValueError as error:
        _reject("", "body.json", f"the body is no JSON: {error}", hint)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return body


def _check_run_id(run_id: str, path: str = "run_id") -> None:
    if not valid_run_id(run_id):
        hint = "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        _reject(path, "value.invalid", f"{path} is {run_id[:80]!r}", hint)


def _whole(name: str, text: str, low: int, high: int) -> int:
    try:
        value = int(text) if len(text) <= 20 else None
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        _reject(name, "value.invalid", f"{name} is {text[:80]!r}", f"a whole number from {low} to {high}")
    return value


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        _reject(name, "value.invalid", f"{name} is {text[:80]!r}", "allowed: true, false")
    return text.lower() in ("true", "1")
