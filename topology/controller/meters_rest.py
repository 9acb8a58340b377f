"""`/v1/meters`: sets, shows and removes meters by name.

Errors have the form of the whole REST face: {"errors": [{"path", "code", "message", "hint"}]}.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request

from topology.controller.meter_body import read_spec
from topology.controller.meter_view import MeterView
from topology.controller.metering import Metering, MeterRefused, refuse
from topology.controller.meters import Fault, MeterSpec
from topology.errors import Problem

_EXAMPLE = '{"target": {"kind": "cohort", "name": "1"}, "direction": "up", "rate": "20 Mbit/s"}'


def _invalid(path: str, code: str, message: str, hint: str = "") -> MeterRefused:
    return MeterRefused(400, [Problem(path, code, message, hint)])


def _body() -> Any:
    try:
        return json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise _invalid("", "bad-json", f"the body is no JSON: {str(error)[:120]}", f"send {_EXAMPLE}") from None


def _flag(name: str) -> bool:
    """A query parameter that is true or false; others are refused."""
    for key in request.args:
        if key != name:
            hint = f"this call takes `{name}`" if name else "this call takes no parameter"
            raise _invalid(key[:80], "unknown-key", f"the parameter {key[:80]!r} is not known here", hint)
    text = request.args.get(name, "false") if name else "false"
    if text not in ("true", "false"):
        raise _invalid(name, "bad-value", f"{text[:40]!r} is not allowed", "true or false")
    return text == "true"


def create_blueprint(
    metering: Metering, view: MeterView, has_port: Callable[[int, int], bool], trouble: Callable[[str], None]
) -> Blueprint:
    """The routes over a testbed's metering.

    Args:
        has_port: whether a switch (datapath id) has a port that the inventory does not list.
        trouble: told what is to be seen in `/v1/status`.
    """
    routes = Blueprint("meters", __name__, url_prefix="/v1/meters")

    @routes.errorhandler(MeterRefused)
    def refused(error: MeterRefused) -> tuple[Response, int]:
        if error.http_status == 500:
            trouble(str(error))
        return jsonify({"errors": [problem.as_dict() for problem in error.problems]}), error.http_status

    def read(body: Any, name: str | None, path: str) -> tuple[MeterSpec | None, list[Fault]]:
        return read_spec(body, metering.plan.scene().graph, has_port, name, path)

    @routes.get("")
    def show_all() -> Response:
        _flag("")
        return jsonify({"meters": view.all()})

    @routes.put("")
    def set_all() -> Response:
        replace = _flag("replace")
        body = _body()
        bodies = body.get("meters") if isinstance(body, dict) else None
        if not isinstance(bodies, list) or set(body) != {"meters"}:
            hint = f'send {{"meters": [{{"name": "m1", ...}}]}}, each as in {_EXAMPLE}'
            raise _invalid("meters", "bad-value", "the body has no list of meters, or more than that", hint)
        specs: dict[str, MeterSpec] = {}
        faults: list[Fault] = []
        names: dict[str, str] = {}
        for index, item in enumerate(bodies):
            path = f"meters[{index}]"
            spec, found = read(item, None, path)
            faults += found
            if spec is None:
                continue
            if spec.name in names:
                message = f"{spec.name!r} is the name of {names[spec.name]} too"
                faults.append(Fault("invalid", Problem(f"{path}.name", "duplicate-name", message)))
            names[spec.name] = path
            specs[path] = spec
        refuse(faults)
        results = metering.put(specs, replace=replace)
        counts = {word: list(results.values()).count(word) for word in ("created", "changed", "same")}
        return jsonify({**counts, "meters": view.plain(results)})

    @routes.delete("")
    def remove_all() -> tuple[str, int]:
        _flag("")
        metering.remove()
        return "", 204

    @routes.get("/<name>")
    def show(name: str) -> Response:
        _flag("")
        return jsonify(view.one(name))

    @routes.put("/<name>")
    def set_one(name: str) -> tuple[Response, int]:
        _flag("")
        spec, faults = read(_body(), name, "")
        refuse(faults)
        assert spec is not None
        results = metering.put({"": spec})
        return jsonify(view.one(name)), 201 if results[name] == "created" else 200

    @routes.delete("/<name>")
    def remove(name: str) -> tuple[str, int]:
        _flag("")
        metering.remove([name])
        return "", 204

    return routes
