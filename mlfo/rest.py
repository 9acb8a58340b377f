"""The REST face: Flask for routes, waitress for sockets. Turns requests into calls of ``edge`` or
``central``; decides nothing."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from mlfo.central import Central
from mlfo.edge import Edge
from mlfo.errors import IntentFailed, IntentRefused, Problem
from mlfo.metrics import Metrics
from mlfo.momo import server_json
from mlfo.store import ENDED, Store

log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
THREADS = 160
THREADS_WITHOUT_STREAMS = 16  # the central's: it has none
MAX_FOLLOWERS = 128  # below THREADS, so that followers never take the last thread
HEARTBEAT_S = 5.0
LOOK_S = 1.0  # how often a quiet stream looks whether its follower is still there


def build(
    about: dict[str, Any], store: Store, metrics: Metrics, edge: Edge | None, central: Central | None
) -> Flask:
    """The application of a role: with ``edge`` intents are taken, with ``central`` servers are shown and
    reset."""
    app = Flask("mlfo")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    started = time.time()

    @app.before_request
    def _small_enough() -> Any:
        if (request.content_length or 0) > MAX_BODY:
            return _errors(
                413,
                "too_large",
                f"the body has {request.content_length} bytes",
                f"at most {MAX_BODY} bytes are read",
            )
        return None

    @app.errorhandler(IntentRefused)
    def _refused(error: IntentRefused) -> Any:
        return jsonify({"errors": [p.to_json() for p in error.problems]}), error.status

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Any:
        status = error.code or 500
        code = {404: "not_found", 405: "method", 413: "too_large"}.get(status, "request")
        hint = (
            f"at most {MAX_BODY} bytes are read"
            if status == 413
            else "see docs/architecture.md for the paths"
        )
        answer, _ = _errors(status, code, f"{request.method} {request.path}: {error.description}", hint)
        if status == 405:
            answer.headers["Allow"] = ", ".join(getattr(error, "valid_methods", None) or [])
        return answer, status

    @app.errorhandler(Exception)
    def _internal(error: Exception) -> Any:
        log.exception("%s %s", request.method, request.path)
        metrics.errors.labels("internal").inc()
        return _errors(500, "internal", f"{type(error).__name__}: {error}", "the log of this node says more")

    @app.get("/v1/status")
    def _status() -> Any:
        return jsonify({**about, "started": started, "intents": store.states(), "last_seq": store.last_seq})

    @app.get("/metrics")
    def _metrics() -> Any:
        return Response(metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/servers")
    def _servers() -> Any:
        if central is not None:
            return jsonify({"servers": [server_json(s) for s in central.servers().servers]})
        assert edge is not None
        servers, reason = edge.servers_or_reason()
        return (
            _errors(503, "central", reason, "is the central MLFO up?")
            if reason
            else jsonify({"servers": servers})
        )

    @app.post("/v1/reset")
    def _reset() -> Any:
        if central is not None:
            reply = central.reset()
            return jsonify({"cancelled": [], "freed": list(reply.freed), "notes": list(reply.notes)})
        assert edge is not None
        try:
            return jsonify(edge.reset())
        except IntentFailed as failure:
            return _errors(
                503,
                "central",
                failure.reason,
                "intents are cancelled; servers are freed when the central is back",
            )

    if edge is not None:
        _intent_routes(app, edge, store, metrics)
    return app


def _intent_routes(app: Flask, edge: Edge, store: Store, metrics: Metrics) -> None:
    followers = threading.BoundedSemaphore(MAX_FOLLOWERS)

    @app.post("/receive")
    @app.post("/v1/intents")
    @app.post("/intents")
    def _receive() -> Any:
        try:
            text, fields = _sent()
        except IntentRefused as refused:
            metrics.refuse(refused.problems)
            raise
        answer = edge.accept(text, fields)
        response = jsonify(answer)
        response.headers["Location"] = f"/v1/intents/{answer['id']}"
        return response, 202

    @app.get("/v1/intents")
    @app.get("/intents")
    def _list() -> Any:
        return jsonify({"intents": edge.recent(_whole("limit", 1000, 1, 10_000))})

    @app.get("/v1/intents/<run>")
    @app.get("/intents/<run>")
    def _show(run: str) -> Any:
        found = edge.show(run)
        return jsonify(found) if found else _unknown(run)

    @app.delete("/v1/intents/<run>")
    @app.delete("/intents/<run>")
    def _cancel(run: str) -> Any:
        found = edge.cancel(run)
        if found is None:
            return _unknown(run)
        return jsonify(found), 200 if found["state"] in ENDED else 202

    @app.get("/v1/intents/<run>/events")
    @app.get("/intents/<run>/events")
    def _events(run: str) -> Any:
        if store.intent(run) is None:
            return _unknown(run)

        def ended() -> bool:
            return (store.state(run) or ("failed", False))[0] in ENDED

        return _stream(store, run, ended, followers)

    @app.get("/v1/events")
    def _all_events() -> Any:
        run = request.args.get("run")
        return _stream(store, run, lambda: False, followers)


def _sent() -> tuple[bytes, dict[str, str]]:
    """The YAML and the form fields of a request; raises IntentRefused where it holds neither one file nor a
    body."""
    if request.mimetype != "multipart/form-data":
        text = request.get_data(cache=False, parse_form_data=False)
        return text, {}
    problems = []
    files = [(name, file) for name, file in request.files.items(multi=True)]
    fields: dict[str, str] = {}
    text = b""
    for name, values in request.form.lists():
        if len(values) > 1:
            problems.append(
                Problem(
                    f"form.{name[:60]}",
                    "duplicate",
                    f"the field '{name[:60]}' is given {len(values)} times",
                    "give it once",
                )
            )
        if name == "file" and not files:
            text = values[0].encode("utf-8", "surrogatepass")
        else:
            fields[name] = values[0]
    if len(files) == 1 and files[0][0] == "file":
        text = files[0][1].read()
    elif files:
        names = ", ".join(name[:60] for name, _ in files)
        problems.append(
            Problem(
                "form.file",
                "files",
                f"{len(files)} file(s) in the fields {names}; one in the field 'file' is read",
                "curl -F file=@intent.yaml",
            )
        )
    elif not text:
        problems.append(
            Problem(
                "form.file", "missing", "the intent's file is missing", "add -F file=@intents/drilling.yaml"
            )
        )
    if problems:
        raise IntentRefused(problems)
    return text, fields


def _stream(
    store: Store, run: str | None, ended: Callable[[], bool], followers: threading.BoundedSemaphore
) -> Any:
    since = _whole("since", 0, 0, 2**62)
    last = request.headers.get("Last-Event-ID", "")
    if last.isascii() and last.isdigit() and "since" not in request.args:
        since = int(last[:18])
    follow = request.args.get("follow", "true").lower() not in ("false", "0", "no")
    if not followers.acquire(blocking=False):
        answer, status = _errors(
            503,
            "busy",
            f"{MAX_FOLLOWERS} streams are open, which is the limit",
            "ask again later, or follow all intents in one stream: /v1/events?since=N",
        )
        answer.headers["Retry-After"] = "5"
        return answer, status
    gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", bool)
    return Response(
        _Stream(_lines(store, run, since, follow, ended, gone), followers), content_type="text/event-stream"
    )


class _Stream:
    """An iterator that gives its place back when it is closed, also where it was never begun."""

    def __init__(self, lines: Iterator[bytes], followers: threading.BoundedSemaphore) -> None:
        self._lines = lines
        self._followers: threading.BoundedSemaphore | None = followers

    def __iter__(self) -> Iterator[bytes]:
        return self._lines

    def close(self) -> None:
        followers, self._followers = self._followers, None
        if followers is not None:
            followers.release()


def _lines(
    store: Store,
    run: str | None,
    since: int,
    follow: bool,
    ended: Callable[[], bool],
    gone: Callable[[], bool],
) -> Iterator[bytes]:
    yield b": events\n\n"
    beat = time.monotonic()
    while True:
        over = ended()  # asked before reading: what was written before the end is then read for certain
        top = store.last_seq
        events = store.events(run, since)
        for event in events:
            since = event["seq"]
            yield f"id: {since}\ndata: {json.dumps(event)}\n\n".encode()
        if events:
            beat = time.monotonic()
            continue
        if over or not follow or gone():
            return
        if time.monotonic() - beat >= HEARTBEAT_S:
            beat = time.monotonic()
            yield b": still here\n\n"
        store.wait_for_events(max(since, top), LOOK_S)
        time.sleep(0.02)  # what comes close together goes out together: every follower wakes at every event


def _whole(name: str, default: int, low: int, high: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and low <= int(text[:20]) <= high):
        raise IntentRefused(
            [
                Problem(
                    f"query.{name}", "range", f"found {text[:40]!r}", f"a whole number from {low} to {high}"
                )
            ]
        )
    return int(text)


def _unknown(run: str) -> Any:
    return _errors(404, "unknown_intent", f"no intent '{run[:120]}'", "GET /v1/intents lists them")


def _errors(status: int, code: str, message: str, hint: str = "") -> tuple[Response, int]:
    return jsonify({"errors": [Problem("", code, message, hint).to_json()]}), status
