"""`/v1/meters`: the place of metering in the REST face. Table 0 of every switch is free for it."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from topology.errors import Problem

blueprint = Blueprint("meters", __name__, url_prefix="/v1/meters")


@blueprint.route("", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
@blueprint.route("/<path:name>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def meters(name: str = "") -> tuple[Response, int]:
    """Say that this version has no meters."""
    problem = Problem(
        f"/v1/meters/{name[:60]}".rstrip("/"),
        "not-implemented",
        "metering is not part of this version",
        "limit a link instead: `rate:` in the testbed file",
    )
    return jsonify({"errors": [problem.as_dict()]}), 501
