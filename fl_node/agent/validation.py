"""What may be asked of an agent: the bodies of /v1/server and /v1/client, strict, with every error collected.

Pure. Takes decoded JSON, gives requests or raises InvalidRequest; starts nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, ClassVar, TypedDict

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

RUN_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
SERVER_ADDRESS = r"[A-Za-z0-9.-]{1,253}:[0-9]{1,5}"
FL_PORT = 6000

_HINTS = {
    "run_id": "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit, as in drilling-1",
    "application": "a name in fl_node/apps, as in image_classification, or the path of a folder",
    "config": 'an object of scalars, as in {"num-server-rounds": 3}',
    "clients": 'the names of the clients to wait for, as in ["fc.10", "fc.11"]',
    "name": "the name under which the server waits for this client; left out, the node's",
    "seed": "a whole number from 0 to 4294967295",
    "port": f"a port from 1 to 65535; FL servers use {FL_PORT}",
    "join_timeout_s": "seconds above 0, at most 86400",
    "message_timeout_s": "seconds above 0, at most 86400",
    "grace_s": "seconds above 0, at most 86400",
    "server": "IP:port, as in 10.0.0.101:6000",
    "partition_id": "a whole number from 0, below num_partitions",
    "num_partitions": "a whole number from 1",
}

Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Scalar = bool | int | float | str
RunId = Annotated[str, StringConstraints(pattern=f"^{RUN_ID}$")]
ClientName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class RequestProblem(TypedDict):
    """One entry of `{"errors": [...]}`."""

    path: str
    code: str
    message: str
    hint: str


class InvalidRequest(Exception):
    """`problems` has one entry for everything that is wrong with a request."""

    def __init__(self, problems: list[RequestProblem]) -> None:
        super().__init__("; ".join(f"{item['path']}: {item['message']}" for item in problems))
        self.problems = problems


def problem(path: str, code: str, message: str, hint: str = "") -> RequestProblem:
    return {"path": path, "code": code, "message": message, "hint": hint}


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    kind: ClassVar[str]

    run_id: RunId
    application: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    config: dict[Annotated[str, StringConstraints(min_length=1, max_length=256)], Scalar] = Field(
        default_factory=dict
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None

    @field_validator("config")
    @classmethod
    def _finite(cls, value: dict[str, Scalar]) -> dict[str, Scalar]:
        for key, item in value.items():
            if isinstance(item, float) and item - item != 0:
                raise ValueError(f"{key} is {item}, a finite number is needed")
            if isinstance(item, str) and len(item) > 65536:
                raise ValueError(f"{key} is a text of {len(item)} characters, at most 65536 are allowed")
        return value

    @field_validator("application")
    @classmethod
    def _no_nul(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("holds a NUL character")
        return value

    def body(self) -> dict[str, Any]:
        """As sent: keys that were left out stay out, so that the FL process's own defaults hold."""
        return self.model_dump(exclude_unset=True)


class ServerRequest(_Request):
    """Start the FL server of a run on this node."""

    kind: ClassVar[str] = "server"
    clients: Annotated[list[ClientName], Field(min_length=1, max_length=100_000)]
    port: Annotated[int, Field(ge=1, le=65535)] = FL_PORT
    join_timeout_s: Seconds | None = None
    message_timeout_s: Seconds | None = None
    grace_s: Seconds | None = None

    @field_validator("clients")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        twice = sorted(name for name, count in Counter(value).items() if count > 1)
        if twice:
            raise ValueError(f"names {', '.join(twice[:5])} more than once")
        return value

    def body(self) -> dict[str, Any]:
        return {**super().body(), "port": self.port}


class ClientRequest(_Request):
    """Start an FL client on this node."""

    kind: ClassVar[str] = "client"
    server: Annotated[str, StringConstraints(pattern=f"^{SERVER_ADDRESS}$")]
    partition_id: Annotated[int, Field(ge=0)]
    num_partitions: Annotated[int, Field(ge=1, le=1_000_000)]
    name: ClientName | None = None

    @field_validator("server")
    @classmethod
    def _port(cls, value: str) -> str:
        port = int(value.rpartition(":")[2])
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port} is not from 1 to 65535")
        return value

    @model_validator(mode="after")
    def _inside(self) -> ClientRequest:
        if self.partition_id >= self.num_partitions:
            raise ValueError(
                f"partition_id is {self.partition_id}, allowed are 0 to {self.num_partitions - 1}"
            )
        return self


REQUESTS: dict[str, type[ServerRequest] | type[ClientRequest]] = {
    "server": ServerRequest,
    "client": ClientRequest,
}


def parse(kind: str, body: object) -> ServerRequest | ClientRequest:
    """`body` as a request of `kind` (server, client). Raises InvalidRequest with all that is wrong."""
    if not isinstance(body, dict):
        found = "nothing" if body is None else type(body).__name__
        raise InvalidRequest(
            [
                problem(
                    "",
                    "body.type",
                    f"a JSON object is needed, found {found}",
                    "send one JSON object, as in -d '{\"run_id\": ...}'",
                )
            ]
        )
    model = REQUESTS[kind]
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise InvalidRequest(_problems(error, model)) from error


def valid_run_id(run_id: str) -> bool:
    return re.fullmatch(RUN_ID, run_id) is not None


def _problems(error: ValidationError, model: type[BaseModel]) -> list[RequestProblem]:
    found: dict[tuple[str, str], RequestProblem] = {}
    for item in error.errors(include_url=False, include_context=False):
        names = _path(item["loc"])
        field = names[0] if names else ""
        path = ".".join(names)
        shown = _shown(item["input"])
        if item["type"] == "extra_forbidden":
            hint = f"allowed here: {', '.join(model.model_fields)}"
            found[(path, "key.unknown")] = problem(
                path, "key.unknown", f"{field} is not a key of this request", hint
            )
        elif item["type"] == "missing":
            found[(path, "key.missing")] = problem(
                path, "key.missing", f"{field} is missing", _HINTS.get(field, "")
            )
        else:
            code = (
                "value.invalid"
                if item["type"] in ("value_error", "string_pattern_mismatch")
                else "value." + item["type"]
            )
            message = f"{item['msg']}, found {shown}" if names else item["msg"]
            key = (path, "") if field == "config" else (path, code)
            if key not in found:
                found[key] = problem(path, code, message, _HINTS.get(field, _HINTS["partition_id"]))
    return list(found.values())


def _path(location: tuple[int | str, ...]) -> list[str]:
    """The path that the sender knows: without the names of the branches of unions."""
    if location[:1] == ("config",):
        return [str(part) for part in location[:2]]
    return [str(part) for part in location]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
