"""The JSON Schema (draft 2020-12) of a testbed file, made from the model: for editors, and for programs that write such
files.

It accepts every file that the parser accepts. It refuses what can be seen in one place (unknown keys, wrong types,
quantities without unit); names that do not exist, sums and ranges of quantities are the parser's and the planner's.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from topology import model, units
from topology.schema_words import WORDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = r"^\s*[0-9]+(\.[0-9]+)?\s*"


def _any_case(words: list[str]) -> str:
    """A pattern of these words in any case: schemas have no flag for it."""
    return "|".join("".join(f"[{c.upper()}{c}]" if "a" <= c <= "z" else c for c in word)
                    for word in sorted(words, key=len, reverse=True))  # fmt: skip


def _quantity(words: list[str], *examples: str) -> JsonSchemaValue:
    return {"type": "string", "pattern": f"{_NUMBER}({_any_case(words)})\\s*$", "examples": list(examples)}


_RATE = _quantity(list(units.RATES), "20 Mbit/s")
_TIME = _quantity(list(units.TIMES), "12 ms")
_FORMS: dict[object, JsonSchemaValue] = {
    units.parse_rate: _RATE,
    units.parse_time: _TIME,
    units.parse_size: _quantity(list(units.SIZES), "512 MiB"),
    units.parse_fraction: {"type": "string", "pattern": f"{_NUMBER}%\\s*$", "examples": ["1 %"]},
    units.parse_meter_rate: _quantity([*units.RATES, *units.PACKET_RATES], "20 Mbit/s", "500 packet/s"),
    units.parse_burst: _quantity([unit for unit in units.RATES if not unit.endswith("/s")] + ["packet", "packets"],
                                 "20 Mbit", "500 packets"),
    model.parse_controller: {"type": "string", "pattern": r"^(\[.*\]|[^:]*):[0-9]+$", "examples": ["192.0.2.7:6653"]},
    model.name_of_cohort: {"type": ["string", "integer"]},
    model.parse_period: _TIME,
    model.parse_retention: _TIME,
    model.distance_or_time: {"anyOf": [{"const": "distance"}, _TIME]},
}  # fmt: skip
"""What a file holds where the model has already turned it into a number: by the function that turns it."""

_ADDRESS = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}"
_PATTERNS = {"ipv4": f"{_ADDRESS}$", "ipv4network": f"{_ADDRESS}(/[0-9.]+)?$"}


class _Generator(GenerateJsonSchema):
    def function_before_schema(self, schema: Any) -> JsonSchemaValue:
        function = schema["function"]["function"]
        if function in _FORMS:
            return dict(_FORMS[function])
        inner = super().function_before_schema(schema)
        return {"anyOf": [inner, {"type": "boolean"}]} if function is model.switched else inner


def testbed_schema() -> dict[str, Any]:
    """The schema of a testbed file, as plain data."""
    schema = model.Testbed.model_json_schema(schema_generator=_Generator)
    for name, part in [("Testbed", schema), *schema["$defs"].items()]:
        part["title"] = name
        for key, value in part.get("properties", {}).items():
            value["title"] = key
            words = WORDS.get(f"{name}.{key}") or WORDS.get(key)
            if words is not None:
                value["description"] = words
    _tidy(schema)
    return {"$schema": DIALECT, **schema, "title": "Cohortnet testbed",
            "description": "A testbed file: nodes, switches, links and cohorts of an emulated network."}  # fmt: skip


def _tidy(part: Any) -> None:
    """Takes out what only OpenAPI knows, and gives addresses a pattern (few readers look at formats)."""
    if isinstance(part, dict):
        if isinstance(part.get("discriminator"), dict):
            del part["discriminator"]
        written = part.get("format")
        if isinstance(written, str) and written in _PATTERNS:
            part["pattern"] = _PATTERNS[written]
            del part["format"]
        for value in part.values():
            _tidy(value)
    elif isinstance(part, list):
        for value in part:
            _tidy(value)
