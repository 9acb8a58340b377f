"""Holds a dashboard against Grafana's own schema, and against what Grafana expects without saying it in a schema.

The schema is that of the Grafana Foundation SDK: its classes are generated from Grafana's definitions of dashboards,
queries and of each panel's options. Its own decoder takes anything; here every decoded value is compared with the type
that the schema declares for it, and what the decoder did not know is found by encoding again. Needs the SDK, as
build.py does.
"""

from __future__ import annotations

import enum
import json
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from grafana_foundation_sdk.cog import runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

from monitoring.grafana import DATASOURCE_UID
from monitoring.grafana.queries import QueryProblem, find_queries, panels, variables

WIDTH = 24
"""Columns of Grafana's grid."""
UNITS = {getattr(units, name) for name in dir(units) if name[0].isupper()}
CUSTOM_UNIT = re.compile(r"(prefix|suffix|time|si|count|currency|bool):.+", re.DOTALL)
ANNOTATION_KEYS: Mapping[str, type] = {"expr": str, "step": str, "titleFormat": str, "textFormat": str, "tagKeys": str,
                                       "useValueForTime": bool}  # fmt: skip
"""What the Prometheus data source adds to the general model of an annotation (its schema leaves room for it)."""
TRANSFORMATIONS = {"merge", "organize", "convertFieldType", "sortBy", "partitionByValues"}
"""Ids that these dashboards use, each looked up; Grafana's schema knows them as any text."""


def problems(data: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a dashboard's JSON, as `path: what`. Empty: nothing."""
    found = [*_against_schema(data)]
    return found or [*_layout(data), *_references(data)]


def _against_schema(data: Mapping[str, Any]) -> Iterator[str]:
    register_default_plugins()
    plain = json.loads(json.dumps(data))
    if plain.pop("id", None) is not None:
        yield "id: has to be null: a number belongs to one Grafana's database"
    for index, annotation in enumerate((plain.get("annotations") or {}).get("list") or ()):
        for key, kind in ANNOTATION_KEYS.items():
            if key in annotation and not isinstance(annotation.pop(key), kind):
                yield f"annotations.list[{index}].{key}: is not of type {kind.__name__}"
    try:
        decoded = model.Dashboard.from_json(plain)
        again = json.loads(JSONEncoder().encode(decoded))
    except Exception as error:  # noqa: BLE001 - the decoder is generated code, which fails in any way on a wrong shape
        yield f"cannot be decoded: {type(error).__name__}: {error}"
        return
    yield from _typed(decoded, model.Dashboard, "")
    yield from _differences(plain, again, "")
    for panel in _all_panels(plain):
        where = f"panel {panel.get('title')!r}"
        if panel.get("type") != "row" and runtime.panelcfg_config(str(panel.get("type"))) is None:
            yield f"{where}: type: Grafana has no panel {panel.get('type')!r}"
        for unit in _units(panel):
            if unit not in UNITS and not CUSTOM_UNIT.fullmatch(unit):
                yield f"{where}: Grafana has no unit {unit!r}"
        yield from _overrides(panel, where)
        for step in panel.get("transformations") or ():
            if step.get("id") not in TRANSFORMATIONS:
                yield f"{where}: transformation {step.get('id')!r} is not one of {', '.join(sorted(TRANSFORMATIONS))}"


def _typed(value: Any, wanted: Any, path: str) -> Iterator[str]:
    """Where a decoded value is not of the type that the schema declares."""
    origin = typing.get_origin(wanted)
    if wanted in (Any, object) or isinstance(wanted, typing.TypeVar):
        if hasattr(value, "to_json"):  # options and fields of a panel: any for a dashboard, typed by the panel's kind
            yield from _typed(value, type(value), path)
    elif origin in (typing.Union, types.UnionType):
        attempts = {choice: list(_typed(value, choice, path)) for choice in typing.get_args(wanted)}
        if all(attempts.values()):
            # Of several choices the one that was meant says what is wrong.
            meant = next((choice for choice in attempts if choice is type(value)), None)
            others = [found for choice, found in attempts.items() if choice is not type(None)]
            yield from attempts[meant] if meant else min(others, key=len)
    elif origin is typing.Literal:
        if value not in typing.get_args(wanted):
            yield f"{path}: {value!r} is not one of {', '.join(map(repr, typing.get_args(wanted)))}"
    elif origin in (list, dict):
        if not isinstance(value, origin):
            yield f"{path}: {value!r} is no {origin.__name__}"
            return
        items = enumerate(value) if origin is list else value.items()
        inner = (typing.get_args(wanted) or (Any,))[-1]
        for key, item in items:
            yield from _typed(item, inner, f"{path}[{key!r}]")
    elif isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        if value not in [member.value for member in wanted]:
            yield f"{path}: {value!r} is not one of {', '.join(repr(member.value) for member in wanted)}"
    elif wanted in (str, bool, int, float, type(None)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = {int: number and float(value).is_integer(), float: number} if number else {}
        if not fits.get(wanted, isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))):
            yield f"{path}: {value!r} is not of type {wanted.__name__}"
    elif isinstance(wanted, type):
        if isinstance(value, dict) and hasattr(wanted, "from_json"):
            # Some parts are left as they came by the decoder.
            decoded = wanted.from_json(value)
            yield from _differences(value, json.loads(JSONEncoder().encode(decoded)), path)
            value = decoded
        if not isinstance(value, wanted):
            yield f"{path}: {value!r} is no {wanted.__name__}"
            return
        hints = typing.get_type_hints(type(value), vars(sys.modules[type(value).__module__]))
        for name, hint in hints.items():
            yield from _typed(getattr(value, name), hint, f"{path}.{name}".lstrip("."))
    else:
        raise TypeError(f"{path}: the schema's type {wanted!r} is of a kind that is not compared here")


def _differences(given: Any, again: Any, path: str) -> Iterator[str]:
    """What is lost when the schema's classes have read and written it: keys that the schema does not have."""
    if isinstance(given, dict) and isinstance(again, dict):
        for key in given:
            inner = f"{path}.{key}".lstrip(".")
            if key not in again:
                if given[key] is not None:
                    yield f"{inner}: Grafana's schema has no such key there"
            else:
                yield from _differences(given[key], again[key], inner)
    elif isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for index, (one, other) in enumerate(zip(given, again, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif given != again:
        yield f"{path}: {given!r} is read as {again!r}"


def _all_panels(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in data.get("panels") or ():
        yield panel
        yield from panel.get("panels") or ()


def _units(panel: Mapping[str, Any]) -> Iterator[str]:
    config = panel.get("fieldConfig") or {}
    unit = (config.get("defaults") or {}).get("unit")
    if unit is not None:
        yield unit
    for override in config.get("overrides") or ():
        yield from (item["value"] for item in override["properties"] if item["id"] == "unit")
    axis = (panel.get("options") or {}).get("yAxis") or {}
    if "unit" in axis:
        yield axis["unit"]


def _overrides(panel: Mapping[str, Any], where: str) -> Iterator[str]:
    """Ids of overridden properties: those of every field, and `custom.` with what the kind of panel has."""
    config = runtime.panelcfg_config(str(panel.get("type")))
    for override in (panel.get("fieldConfig") or {}).get("overrides") or ():
        for item in override["properties"]:
            name = item["id"]
            if name.startswith("custom."):
                key = name.removeprefix("custom.")
                hook = config.field_config_from_json_hook if config else None
                if hook is None or key not in json.loads(JSONEncoder().encode(hook({key: item["value"]}))):
                    yield f"{where}: a {panel.get('type')} has no field option {name!r}"
            elif name not in json.loads(JSONEncoder().encode(model.FieldConfig.from_json({name: item["value"]}))):
                yield f"{where}: no field has an option {name!r}"


def _layout(data: Mapping[str, Any]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    numbers: set[int] = set()
    for panel in _all_panels(data):
        place, name = panel["gridPos"], str(panel.get("title"))
        if panel["id"] in numbers:
            yield f"panel {name!r}: the id {panel['id']} is taken"
        numbers.add(panel["id"])
        if place["x"] < 0 or place["x"] + place["w"] > WIDTH:
            yield f"panel {name!r}: reaches beyond {WIDTH} columns"
    for panel in data["panels"]:
        place, name = panel["gridPos"], str(panel.get("title"))
        cells = [(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])]  # fmt: skip
        other = next((taken[cell] for cell in cells if cell in taken), None)
        if other is not None:
            yield f"panel {name!r}: lies on {other!r}"
        taken.update(dict.fromkeys(cells, name))


def _references(data: Mapping[str, Any]) -> Iterator[str]:
    """Data sources, letters of queries, variables that are used."""
    sources = [("panel " + repr(p.get("title")), p.get("datasource")) for p in panels(data)]
    sources += [("a query of panel " + repr(p.get("title")), t.get("datasource"))
                for p in panels(data) for t in p.get("targets") or ()]  # fmt: skip
    sources += [("annotation " + repr(a.get("name")), a.get("datasource")) for a in data["annotations"]["list"]]
    sources += [("variable " + repr(v.get("name")), v.get("datasource")) for v in variables(data)]
    for where, source in sources:
        if source != {"type": "prometheus", "uid": DATASOURCE_UID}:
            yield f"{where}: its data source is {source!r}, not {DATASOURCE_UID!r}"
    for panel in panels(data):
        letters = [target.get("refId") for target in panel.get("targets") or ()]
        if len(set(letters)) != len(letters) or not all(letters):
            yield f"panel {panel.get('title')!r}: refIds {letters} are not one letter a query"
    declared = {str(variable["name"]) for variable in variables(data)}
    try:
        for query in find_queries(data):
            for name in re.findall(r"\$\{?(\w+)", query.expr):
                if name not in declared and not name.startswith("__"):
                    yield f"{query}: no variable is called ${name}"
    except QueryProblem as error:
        yield str(error)
