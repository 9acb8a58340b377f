"""What a strict model finds wrong, as Problems in a user's words: path in the file, short code, what to type instead.

Pure: takes pydantic's errors, the data that they are about and the model. Which keys are known is asked of the model
itself, so nothing here lists them.
"""

from __future__ import annotations

import difflib
import reprlib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from topology.document import Location, Part, path_text
from topology.errors import Problem

_CODES = {"extra_forbidden": "unknown-key", "missing": "missing-key", "value_error": "bad-value",
          "invalid_key": "unknown-key", "union_tag_invalid": "bad-value"}  # fmt: skip
_SYNONYMS = {
    "bw": "rate", "bandwidth": "rate", "throughput": "rate", "latency": "delay", "rtt": "delay", "mem": "memory",
    "mem_limit": "memory", "ram": "memory", "cpus": "cpu", "cores": "cpu", "cpuset_cpus": "cpuset", "ip": "address",
    "hosts": "nodes", "containers": "nodes", "topology": "preset", "dpid": "datapath_id", "dcmd": "command",
    "cmd": "command", "env": "environment", "dimage": "image", "max_queue_size": "queue_packets", "src": "from",
    "source": "from", "dst": "to", "destination": "to", "ports": "publish", "kind": "kind", "type": "kind",
}  # fmt: skip
"""What other emulators call it."""
_HINTS = {
    "list_type": "write a list: `- ...` lines, or `[...]`; or leave the key out",
    "model_type": "write a mapping: `key: value` lines, or `{key: value}`",
    "model_attributes_type": "write a mapping: `key: value` lines, or `{key: value}`",
    "dict_type": "write a mapping: `key: value` lines, or `{key: value}`",
    "bool_type": "write `true` or `false`",
}
_NAME_HINT = "a letter or digit first, then letters, digits, `.`, `_`, `-`; no spaces, at most 31 in all"

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
_repr.maxdict = _repr.maxlist = 3
_repr.maxlevel = 2


def shown(value: object) -> str:
    """A value as it may stand in a message: short, however large it is (aliases make it so without end)."""
    return _repr.repr(value)


def near(word: object, known: Sequence[str]) -> str | None:
    """The known word that was probably meant."""
    text = str(word)
    synonym = _SYNONYMS.get(text.lower().replace("-", "_"))
    if synonym in known:
        return synonym
    lowered = {other.lower().replace("-", "_"): other for other in known}
    found = difflib.get_close_matches(text.lower().replace("-", "_"), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def problems_of(error: ValidationError, data: Any, model: type[BaseModel]) -> list[Problem]:
    """Every problem once, in the order of the file's keys where the model has it."""
    merged: dict[str, Problem] = {}
    for item in error.errors():
        problem = _problem(item, data, model)
        first = merged.get(problem.path)
        if first is None:
            merged[problem.path] = problem
        elif problem.message not in first.message:  # the members of a union: each says what it would take
            again = problem.message.removeprefix(f"{shown(item['input'])}: ")
            merged[problem.path] = replace(first, message=f"{first.message}; or: {again}")
    return list(merged.values())


def location_in(error: Mapping[str, Any], data: Any) -> Location:
    """Where pydantic's error stands in the data: without what it adds for members of unions and for keys."""
    parts: list[Part] = []
    here = data
    given = list(error["loc"])
    if len(given) > 1 and given[0] == "preset" and error["type"] not in ("union_tag_invalid", "union_tag_not_found"):
        del given[1]  # the preset's kind, which stands in no file at this place
    for index, part in enumerate(given):
        last = index == len(given) - 1
        if isinstance(here, Mapping):
            key = next((key for key in here if key == part), part)
            if key in here or (part == "on" and True in here):
                parts.append(str(part))
                here = here[key if key in here else True]
            elif last and error["type"] in ("missing", "invalid_key"):
                parts.append(str(part))
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            parts.append(part)
            here = here[part]
    return tuple(parts)


def _problem(error: Mapping[str, Any], data: Any, model: type[BaseModel]) -> Problem:
    location = location_in(error, data)
    kind, value = error["type"], error["input"]
    code = _CODES.get(kind, "wrong-type" if kind.endswith("_type") else "bad-value")
    message = str(error["msg"]).removeprefix("Value error, ")
    hint = _HINTS.get(kind, "")
    if kind == "union_tag_invalid":
        location = (*location, "kind")
        allowed = [word.strip(" '") for word in str(error["ctx"]["expected_tags"]).split(",")]
        message = f"{shown(error['ctx']['tag'])} is no {path_text(location[:-1])}; allowed are {', '.join(allowed)}"
        hint = _meant(error["ctx"]["tag"], allowed)
    elif code == "unknown-key":
        key = location[-1] if location else "?"
        known = known_keys(model, location[:-1], data)
        message = f"the key {str(key)!r} is not known here"
        hint = _meant(key, known) or f"allowed are {', '.join(known)}"
    elif code == "missing-key":
        message, hint = f"the key {str(location[-1])!r} is missing", f"add `{location[-1]}:`"
    elif kind == "literal_error":
        allowed = [word.strip(" '") for word in str(error["ctx"]["expected"]).replace(" or ", ", ").split(",")]
        message = f"{shown(value)}: allowed are {', '.join(map(repr, allowed))}"
        hint = _meant(value, allowed)
    elif kind != "value_error":
        message = f"{shown(value)}: {message[0].lower()}{message[1:]}"
        if kind == "string_type" and isinstance(value, bool | int | float):
            hint = f'quote it: "{value}"'
        elif kind in ("int_type", "float_type") and isinstance(value, str) and value.strip().isdecimal():
            hint = f"leave the quotes out: {value.strip()}"
        elif kind == "string_pattern_mismatch" and "A-Za-z" in str(error["ctx"]["pattern"]):
            hint = _NAME_HINT
        elif kind == "string_pattern_mismatch":
            hint = f"such as {shown(_example(value))}" if _example(value) != value else ""
    return Problem(path_text(location), code, message, hint)


def _example(value: object) -> object:
    # Upper case and other letters are the usual slip in names that are lower case.
    text = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "-" for c in str(value).lower()).strip("-")
    return text[:30] if text[:1].isalpha() else value


def _meant(word: object, known: Sequence[str]) -> str:
    found = near(word, known)
    return f"did you mean `{found}`?" if found is not None else ""


def known_keys(model: type[BaseModel], location: Sequence[Part], data: Any) -> list[str]:
    """The keys that a mapping at this place may have."""
    models: list[type[BaseModel]] = [model]
    here = data
    for part in location:
        fields = [field for owner in models for name, field in owner.model_fields.items()
                  if str(part) in (name, field.alias)]  # fmt: skip
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            here = None
        if fields:
            models = [member for field in fields for member in _models(field.annotation)]
        if isinstance(here, Mapping):
            models = [owner for owner in models if _fits(owner, here)] or models
    keys = [field.alias or name for owner in models for name, field in owner.model_fields.items()]
    return list(dict.fromkeys(keys))


def _fits(owner: type[BaseModel], data: Mapping[Any, Any]) -> bool:
    kind = owner.model_fields.get("kind")
    if kind is None or get_origin(kind.annotation) is not Literal:
        return True
    return data.get("kind", kind.default) in get_args(kind.annotation)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models inside lists, mappings, unions and annotations."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    inside = get_args(annotation)
    if get_origin(annotation) is Annotated:
        inside = inside[:1]
    elif get_origin(annotation) not in (list, dict, tuple, Union, types.UnionType):
        return
    for member in inside:
        yield from _models(member)
