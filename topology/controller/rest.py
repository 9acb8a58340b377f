"""The REST face: Flask routes over the fleet, served by waitress with few threads; asks switches with a
deadline. The routes here only read; meters and the faces of Ryu and ONOS have files of their own.

Errors have one form everywhere: {"errors": [{"path", "code", "message", "hint"}]}.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from waitress.server import create_server
from werkzeug.exceptions import HTTPException

from topology.controller import auth, meters_rest, ofctl_rest, onos_rest, wire
from topology.controller.fleet import Fleet
from topology.controller.flows import COOKIE_OURS, COOKIE_OURS_MASK, TO_CONTROLLER
from topology.controller.meter_scrape import MeterCollector
from topology.controller.refused import BODY_BYTES
from topology.controller.refused import Refused as _Refused
from topology.controller.scrape import FleetCollector
from topology.controller.session import SwitchSilent
from topology.controller.view import status, topology
from topology.controller.watch import InventoryWatch
from topology.errors import Problem

THREADS = 8
"""A call that changes meters waits for switches; those that only read must not wait for it."""
CONNECTIONS = 100
CALLS = ("/v1/topology", "/v1/flows", "/v1/ports", "/v1/status", "/v1/meters", "/metrics") + (
    "/stats/...",
    "/onos/v1/...",
)


def _answer(problem: Problem, http_status: int) -> tuple[Response, int]:
    answer: dict[str, Any] = {"errors": [problem.as_dict()]}
    if request.path.startswith(onos_rest.PREFIX):
        answer = {"code": http_status, "message": problem.message, **answer}
    return jsonify(answer), http_status


def _only(*names: str) -> None:
    for name in request.args:
        if name not in names:
            allowed = ", ".join(f"`{n}`" for n in names) or "no parameter"
            raise _Refused(
                400,
                Problem(
                    name,
                    "unknown-key",
                    f"the parameter {name!r} is not known here",
                    f"this call takes {allowed}",
                ),
            )
        if len(request.args.getlist(name)) > 1:
            raise _Refused(
                400, Problem(name, "bad-value", f"{name!r} is given more than once", "give it once")
            )


def _chosen(fleet: Fleet) -> list[int]:
    """Datapath ids that `?switch=` (a name, or a datapath id in decimal or 0x form) selects; all where it is
    missing."""
    switches = fleet.network.graph.switches
    text = request.args.get("switch")
    if text is None:
        return list(switches)
    named = fleet.network.graph.switch_named(text)
    if named is not None:
        return [named.datapath_id]
    try:
        datapath_id = int(text, 0)
    except ValueError:
        datapath_id = -1
    if datapath_id in switches:
        return [datapath_id]
    names = ", ".join(switch.name for switch in list(switches.values())[:20])
    raise _Refused(
        404, Problem("switch", "unknown-switch", f"no switch is called {text[:60]!r}", f"one of: {names}")
    )


def _silent(name: str, silence: SwitchSilent) -> Problem:
    problem = Problem(name, "silent-switch", str(silence), "`/v1/topology` shows who is connected")
    if "switch" in request.args:
        raise _Refused(503, problem)
    return problem


def _flow(entry: Any, fleet: Fleet) -> dict[str, Any]:
    flow = wire.from_statistics(entry)
    return {
        "table": flow.table,
        "priority": flow.priority,
        "match": wire.match_fields(dict(flow.match.fields)),
        "outputs": ["controller" if port == TO_CONTROLLER else port for port in flow.outputs],
        "goto": flow.goto,
        "meter": flow.meter,
        "other": flow.other or None,
        "cookie": f"{flow.cookie:#x}",
        "ours": flow.cookie & COOKIE_OURS_MASK == COOKIE_OURS,
        "packets": entry.packet_count,
        "bytes": entry.byte_count,
        "seconds": entry.duration_sec + entry.duration_nsec / 1e9,
    }


def create_app(fleet: Fleet, watch: InventoryWatch, inventory: Path, token: str | None = None) -> Flask:
    """The WSGI application; with a token every call has to know it."""
    app = Flask("topology.controller")
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    auth.protect(app, token)
    fleet.metrics.registry.register(FleetCollector(fleet))  # type: ignore[arg-type]
    meters = MeterCollector(fleet.meter_view, lambda: fleet.network.graph)
    fleet.metrics.registry.register(meters)  # type: ignore[arg-type]

    @app.errorhandler(_Refused)
    def refused(error: _Refused) -> tuple[Response, int]:
        return _answer(error.problem, error.http_status)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        hint = f"calls: {', '.join(CALLS)}" if error.code == 404 else ""
        code = (error.name or "error").lower().replace(" ", "-")
        return _answer(Problem(request.path[:200], code, error.description or code, hint), error.code or 500)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        fleet.trouble(f"REST {request.method} {request.path[:200]}: {error!r}")
        return _answer(
            Problem(request.path[:200], "internal-error", repr(error), "see the controller's log"), 500
        )

    @app.get("/v1/topology")
    def get_topology() -> Response:
        _only()
        return jsonify(topology(fleet))

    @app.get("/v1/status")
    def get_status() -> Response:
        _only()
        return jsonify(status(fleet, watch, inventory, time.time()))

    @app.get("/v1/flows")
    def get_flows() -> Response:
        _only("switch")
        answer, errors = [], []
        for datapath_id in _chosen(fleet):
            name = fleet.name_of(datapath_id)
            try:
                flows = [_flow(entry, fleet) for entry in fleet.raw_flow_statistics(datapath_id)]
            except SwitchSilent as silence:
                errors.append(_silent(name, silence))
                continue
            answer.append({"switch": name, "datapath_id": datapath_id, "flows": flows})
        return jsonify({"switches": answer, "errors": [problem.as_dict() for problem in errors]})

    @app.get("/v1/ports")
    def get_ports() -> Response:
        _only("switch")
        answer, errors = [], []
        described = {entry["datapath_id"]: entry["ports"] for entry in topology(fleet)["switches"]}
        for datapath_id in _chosen(fleet):
            name = fleet.name_of(datapath_id)
            try:
                counters = fleet.port_statistics(datapath_id)
            except SwitchSilent as silence:
                errors.append(_silent(name, silence))
                continue
            ports = [
                {**port, "counters": counters.get(port["number"])} for port in described.get(datapath_id, [])
            ]
            answer.append({"switch": name, "datapath_id": datapath_id, "ports": ports})
        return jsonify({"switches": answer, "errors": [problem.as_dict() for problem in errors]})

    @app.get("/metrics")
    def get_metrics() -> Response:
        return Response(generate_latest(fleet.metrics.registry), content_type=CONTENT_TYPE_LATEST)

    app.register_blueprint(
        meters_rest.create_blueprint(fleet.metering, fleet.meter_view, fleet.has_port, fleet.trouble)
    )
    app.register_blueprint(ofctl_rest.blueprint(fleet))
    app.register_blueprint(onos_rest.blueprint(fleet))
    return app


def create_rest_server(app: Flask, address: tuple[str, int]) -> Any:
    """A waitress server bound to `address`; `run()` serves until `close()`. Raises OSError where the address
    cannot be bound."""
    return create_server(
        app,
        host=address[0],
        port=address[1],
        threads=THREADS,
        connection_limit=CONNECTIONS,
        max_request_body_size=BODY_BYTES,
        channel_timeout=30,
        ident="cohortnet",
    )
