"""What a user writes: the family's intent in YAML with this project's additions, and the form fields beside
it.

Validation is strict and complete: every fault is collected, with path, code, message and hint. Names
(operands, models, strategies, clients, ...) are checked against the catalogue and the inventory, which are
handed in as context. Nothing is decided here; ``pipeline`` does that.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from mlfo.catalogue import Catalogue
from mlfo.errors import Problem
from mlfo.inventory import Inventory

_NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,3})?", re.ASCII)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|min|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
PRIVACY = {"high": "federated", "low": "centralised"}


@dataclass(frozen=True)
class Known:
    """What names are valid, for validation."""

    catalogue: Catalogue
    inventory: Inventory


def _number(value: Any) -> Any:
    """Numbers may be written as text, as forms and the family's messages do."""
    if not isinstance(value, str):
        return value
    if not _NUMBER.fullmatch(value.strip()):
        raise PydanticCustomError(
            "type",
            "must be a number, found {found}",
            {"found": repr(value[:40]), "hint": "write digits, e.g. 4 or 0.5"},
        )
    try:
        return int(value.strip())
    except ValueError:
        return float(value.strip())


def _text(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticCustomError(
            "type",
            "must be text, found the number {found}",
            {"found": repr(value)[:40], "hint": "put it in quotes"},
        )
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise PydanticCustomError("encoding", "holds characters that are not Unicode text", {}) from None
        if any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise PydanticCustomError(
                "control_characters", "holds control characters", {"hint": "write it on one line"}
            )
    return value


def _name_or_number(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
        return str(value)
    return _text(value)


def _yes_or_no(value: Any) -> Any:
    """YAML reads ``no`` and ``yes`` as booleans."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else _text(value)


def _duration(value: Any) -> Any:
    """Seconds from '600 s', '10 min', '1.5 h', '500 ms' or a number of seconds."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if found is None:
            raise PydanticCustomError(
                "type",
                "must be a duration, found {found}",
                {"found": repr(value[:40]), "hint": "write e.g. '600 s' or '10 min'"},
            )
        return float(found[1]) * _SECONDS[found[2] or "s"]
    return value


def _known(kind: str) -> BeforeValidator:
    """A name that the catalogue or the inventory must hold."""

    def check(value: Any, info: ValidationInfo) -> Any:
        value = _name_or_number(value)
        if not isinstance(value, str) or info.context is None:
            return value
        known: Known = info.context
        table: dict[str, Any] = {
            "operand": known.catalogue.operands,
            "source": known.catalogue.sources,
            "model": known.catalogue.models,
            "strategy": known.catalogue.strategies,
            "application": known.catalogue.applications,
            "cohort": known.inventory.cohorts,
            "client": {n.name: n for n in known.inventory.with_role("client")},
        }
        if value not in table[kind]:
            names = list(table[kind])
            close = difflib.get_close_matches(value, names, 1)
            shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
            raise PydanticCustomError(
                f"unknown_{kind}",
                "unknown {kind} {found}; known: {names}",
                {
                    "kind": kind,
                    "found": repr(value[:60]),
                    "names": shown or "none",
                    "hint": f"did you mean '{close[0]}'?" if close else "choose one of these",
                },
            )
        return value

    return BeforeValidator(check)


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=200)]
Fraction = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1, le=100_000)]
Rounds = Annotated[int, BeforeValidator(_number), Field(ge=1, le=10_000)]
Reuse = Annotated[str, BeforeValidator(_yes_or_no), Field(min_length=1, max_length=20)]
Seconds = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
OperandName = Annotated[str, _known("operand")]
SourceName = Annotated[str, _known("source")]
ModelName = Annotated[str, _known("model")]
StrategyName = Annotated[str, _known("strategy")]
ApplicationName = Annotated[str, _known("application")]
CohortName = Annotated[str, _known("cohort")]
ClientName = Annotated[str, _known("client")]


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise PydanticCustomError(
        "type",
        "must be a number, text or true/false, found {found}",
        {"found": repr(value)[:60], "hint": "write one value"},
    )


Scalar = Annotated[Any, BeforeValidator(_scalar)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Constraints(_Strict):
    """The family's constraints of a target; the numbers may be text."""

    privacylevel: Annotated[Literal["high", "low"], BeforeValidator(_text)] = "high"
    sourcekind: SourceName | None = None
    modelkind: ModelName | None = None
    fracfit: Fraction | None = None
    minfit: Count | None = None
    minav: Count | None = None
    numround: Rounds | None = None
    sameserver: Reuse | None = None
    sameserv: Reuse | None = None
    avgalgo: StrategyName | None = None


class Target(_Strict):
    id: Text
    operation: Text
    operand: OperandName
    constraints: Constraints = Constraints()


class ClientRange(_Strict):
    """``count`` consecutive clients by address; ``first`` is a client's name."""

    first: ClientName
    count: Count


def _clients_form(value: Any) -> str:
    return "<range>" if isinstance(value, (dict, ClientRange)) else "<list>"


Clients = Annotated[
    Annotated[list[ClientName], Field(min_length=1, max_length=100_000), Tag("<list>")]
    | Annotated[ClientRange, Tag("<range>")],
    Discriminator(_clients_form),
]


class StrategyChoice(_Strict):
    name: StrategyName = "FedAvg"
    parameters: dict[Text, Scalar] = Field(default_factory=dict)


class Partitioner(_Strict):
    kind: Text = "iid"
    alpha: Annotated[float, BeforeValidator(_number), Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None


class Data(_Strict):
    dataset: SourceName | None = None
    partitioner: Partitioner = Partitioner()
    samples_per_client: Annotated[int, BeforeValidator(_number), Field(ge=1, le=10_000_000)] | None = None


class Goal(_Strict):
    """``accuracy`` ends the run when it is reached; ``deadline`` (seconds from acceptance) fails it when it
    is not."""

    accuracy: Fraction | None = None
    deadline: Seconds | None = None


class Intent(_Strict):
    """An intent as written. One target an intent."""

    intentID: Text
    targets: list[Target] = Field(min_length=1, max_length=1)
    cohort: CohortName | None = None
    clients: Clients | None = None
    strategy: StrategyChoice | None = None
    rounds: Rounds | None = None
    data: Data = Data()
    model: ModelName | None = None
    application: ApplicationName | None = None
    seed: Annotated[int, BeforeValidator(_number), Field(ge=0, lt=2**31)] | None = None
    config: dict[Text, Scalar] = Field(default_factory=dict)
    goal: Goal = Goal()


class Form(_Strict):
    """The form fields beside an intent; they override what is in the YAML."""

    ipstart: Annotated[int, BeforeValidator(_number), Field(ge=0, le=65_000)] | None = None
    cohortsize: Count | None = None
    sameserver: Reuse | None = None
    avgalgo: StrategyName | None = None
    fracfit: Fraction | None = None
    minfit: Count | None = None
    minav: Count | None = None
    numround: Rounds | None = None
    cohort: CohortName | None = None


# Keys that DESIGN names for later; refused by name so that nobody believes them to be obeyed.
UNSUPPORTED = {"network", "bounds", "bandwidth", "latency", "compute"}
_LAYER: dict[str, type[BaseModel]] = {
    "constraints": Constraints,
    "partitioner": Partitioner,
    "strategy": StrategyChoice,
    "data": Data,
    "goal": Goal,
    "clients": ClientRange,
}


def check_intent(content: dict[str, Any], known: Known) -> tuple[Intent | None, list[Problem]]:
    """The intent, or None, and every problem in it."""
    try:
        return Intent.model_validate(content, context=known), []
    except ValidationError as error:
        return None, problems_of(error, Intent)


def check_form(fields: dict[str, str], known: Known) -> tuple[Form | None, list[Problem]]:
    """The form, or None, and every problem in it (paths begin with ``form.``)."""
    try:
        return Form.model_validate(fields, context=known), []
    except ValidationError as error:
        return None, problems_of(error, Form, "form.")


def check_constraints(fields: dict[str, str], known: Known) -> tuple[Constraints | None, list[Problem]]:
    """The same for a peer's constraints that came over Mo-Mo."""
    try:
        return Constraints.model_validate(fields, context=known), []
    except ValidationError as error:
        return None, problems_of(error, Constraints, "Constraints.")


def problems_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[Problem]:
    return [_problem(detail, model, prefix) for detail in error.errors(include_url=False)]


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith("<"):
            text += ("." if text else "") + part
    return text.removesuffix(".[key]")  # Pydantic's word for "the key itself"


def _problem(detail: ErrorDetails, model: type[BaseModel], prefix: str) -> Problem:
    kind, loc, found = detail["type"], detail["loc"], detail.get("input")
    context = detail.get("ctx", {})
    path = prefix + _path(loc)
    shown = _show(found)
    name = str(loc[-1]) if loc else ""
    if kind == "missing":
        return Problem(path, "missing", f"'{name}' is missing", f"add '{name}: ...'")
    if kind == "extra_forbidden":
        if name in UNSUPPORTED:
            return Problem(
                path,
                "unsupported",
                f"bounds under '{name}' are not supported yet",
                "leave it out; goal.accuracy and goal.deadline work",
            )
        layer = _layer(loc, model)
        names = list(layer.model_fields)
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return Problem(
            path, "unknown_key", f"unknown key '{name[:60]}'", f"{hint}known here: {', '.join(names)}"
        )
    if kind == "too_long" and name == "targets":
        return Problem(
            path,
            "unsupported",
            f"{context.get('actual_length')} targets; one target an intent is carried out",
            "send one intent for each target",
        )
    if kind in ("literal_error",):
        valid = (
            ", ".join(f"{k} ({v})" for k, v in PRIVACY.items())
            if name == "privacylevel"
            else context.get("expected", "")
        )
        return Problem(path, "value", f"{shown} is not a valid {name}", f"valid: {valid}")
    if kind.startswith(("greater_than", "less_than")) or kind in (
        "too_short",
        "too_long",
        "string_too_short",
        "string_too_long",
        "finite_number",
    ):
        return Problem(path, "range", f"found {shown}: {detail['msg']}", "give a value within these bounds")
    if (
        kind == "invalid_key"
        or kind.endswith(("_type", "_parsing", "_attributes_type"))
        or kind == "int_from_float"
    ):
        return Problem(path, "type", f"found {shown}: {detail['msg']}", _type_hint(kind))
    return Problem(path, kind, f"{detail['msg']}", str(context.get("hint", "")))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _type_hint(kind: str) -> str:
    return {
        "string_type": "write text, in quotes where it looks like a number",
        "int_type": "write a whole number",
        "float_type": "write a number",
        "list_type": "write a list: '- ...'",
        "model_type": "write a mapping: 'key: value'",
        "dict_type": "write a mapping: 'key: value'",
    }.get(kind, "write the type named here")


def _layer(loc: tuple[int | str, ...], model: type[BaseModel]) -> type[BaseModel]:
    """The model in which the last key of ``loc`` stands."""
    for part in reversed(loc[:-1]):
        if isinstance(part, str) and part in _LAYER:
            return _LAYER[part]
        if part == "targets":
            return Target
    return model
