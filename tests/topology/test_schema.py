"""The schema that editors use: it takes every file that the parser takes, and refuses what can be seen in one place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import schema, units
from topology.errors import TestbedProblems
from topology.model import Testbed, parse_testbed

ROOT = Path(__file__).parents[2]
SCHEMA = schema.testbed_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def keyed(data: Any) -> Any:
    """Keys as JSON has them: YAML 1.1 reads an unquoted `on` as the truth value."""
    if isinstance(data, dict):
        return {("on" if key is True else key): keyed(value) for key, value in data.items()}
    return [keyed(item) for item in data] if isinstance(data, list) else data


def accepts(data: Any) -> bool:
    return not list(VALIDATOR.iter_errors(keyed(data)))


def parsed(data: Any) -> bool:
    try:
        parse_testbed(data)
    except TestbedProblems:
        return False
    return True


def documented() -> list[tuple[str, Any]]:
    """Every testbed that stands in a page of the documentation."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            data = yaml.safe_load(text)
            if isinstance(data, dict) and "name" in data:
                found.append((f"{page.name}:{data['name']}", data))
    return found


def test_it_is_a_schema_of_the_draft_that_it_names() -> None:
    assert SCHEMA["$schema"] == schema.DIALECT == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("name", "data"), documented(), ids=[name for name, _ in documented()])
def test_every_testbed_of_the_pages_is_accepted(name: str, data: Any) -> None:
    assert parsed(data)
    assert [error.message for error in VALIDATOR.iter_errors(keyed(data))] == []


def test_the_pages_have_testbeds() -> None:
    assert len(documented()) >= 5


def test_every_key_has_a_title_and_a_description() -> None:
    bare = [
        f"{name}.{key}"
        for name, part in [("Testbed", SCHEMA), *SCHEMA["$defs"].items()]
        for key, value in part.get("properties", {}).items()
        if not value.get("description") or not value.get("title")
    ]
    assert bare == [], "write a line for each into topology/schema_words.py"
    assert all(part.get("description") for part in SCHEMA["$defs"].values())


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({"colour": "red"}, False),
        ({"runtime": "podman"}, False),
        ({"links": [{"a": "x", "b": "y", "rate": 10}]}, False),
        ({"links": [{"a": "x", "b": "y", "rate": "10"}]}, False),
        ({"links": [{"a": "x", "b": "y", "rate": "10 Mbps"}]}, False),
        ({"links": [{"a": "x", "b": "y", "rate": "10 MBIT/S", "delay": "5us", "loss": " 0.5% "}]}, True),
        ({"links": [{"a": "x", "b": "y", "up": {"delay": "5 µs"}, "down": None}]}, True),
        ({"links": [{"a": "x"}]}, False),
        ({"preset": {"cohorts": 2}}, True),
        ({"preset": {"kind": "three-access", "campuses": 2}}, False),
        ({"preset": {"kind": "graph"}}, False),
        ({"preset": {"kind": "graph", "graph": "topozoo/Abilene", "delay": "distance", "place": ["Seattle"]}}, True),
        ({"preset": {"kind": "graph", "graph": "topozoo/Abilene", "delay": "far"}}, False),
        ({"preset": {"kind": "ring"}}, False),
        ({"limits": {"client": {"cpu": 0.5, "memory": "1 GiB", "cpuset": "0-1,3"}}}, True),
        ({"limits": {"clients": {"cpu": 0.5}}}, False),
        ({"limits": {"client": {"cpu": "0.5"}}}, False),
        ({"nodes": [{"name": "a", "address": "10.0.0.7", "environment": {"A": "1"}}]}, True),
        ({"nodes": [{"name": "a", "address": 167772167}]}, False),
        ({"nodes": [{"name": "a", "environment": {"A": 1}}]}, False),
        ({"nodes": [{"name": "a b"}]}, False),
        ({"address_pool": "10.0.0.0/16", "management_pool": "100.64.0.0/255.255.240.0"}, True),
        ({"address_pool": 10}, False),
        ({"controller": {"kind": "external", "address": "[2001:db8::1]:6653"}}, True),
        ({"controller": {"kind": "external", "address": "controller"}}, False),
        ({"meters": [{"name": "m", "cohort": 1, "rate": "500 packets/s", "burst": "500 Packets"}]}, True),
        ({"meters": [{"name": "m", "cohort": "1", "rate": "20 Mbit", "burst": "20 Mbit/s"}]}, False),
        ({"traffic": [{"name": "t", "from": "a", "to": "b", "rate": "1 Mbit/s", "on": "2 s"}]}, True),
        ({"traffic": [{"name": "t", "source": "a", "to": "b", "rate": "1 Mbit/s"}]}, False),
        ({"allow_unsupported": ["gravity"]}, False),
        ({"publish": None, "preset": None}, True),
        ({"seed": True}, False),
    ],
)
def test_schema_and_parser_agree_on_what_stands_in_one_place(change: dict[str, Any], accepted: bool) -> None:
    data = {"name": "x", **change}
    assert parsed(data) is accepted
    assert accepts(data) is accepted


QUANTITIES = {
    "rate": (units.parse_rate, [*units.RATES, *units.PACKET_RATES, "Mbps", "MB/s", ""]),
    "delay": (units.parse_time, [*units.TIMES, "sec", "MIN", "d", ""]),
    "loss": (units.parse_fraction, ["%", "percent", ""]),
}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(QUANTITIES)),
    st.sampled_from(["1", "20", "0.5", "007", "-1", "1e3", ".5", "1.", "", "１"]),
    st.sampled_from(["", " ", "  ", "\t"]),
    st.data(),
)
def test_what_the_parser_reads_as_a_quantity_the_schema_takes(key: str, number: str, space: str, data: Any) -> None:
    parse, words = QUANTITIES[key]
    unit = data.draw(st.sampled_from(words))
    text = number + space + data.draw(st.sampled_from([unit, unit.upper(), unit.lower(), unit.title()]))
    try:
        parse(text)
        read = True
    except ValueError:
        read = False
    taken = accepts({"name": "x", "links": [{"a": "x", "b": "y", key: text}]})
    assert taken or not read, f"the schema refuses {text!r}, the parser reads it"
    if taken and not read:  # only for its size: rates have bounds
        assert key == "rate" and not units.RATES.keys().isdisjoint({unit.lower()})


def test_a_model_that_is_written_out_is_accepted_again() -> None:
    names = {name for part in SCHEMA["$defs"].values() for name in part.get("properties", {})}
    assert {"from", "to"} <= names, "keys of the file, not names in the program"
    assert set(SCHEMA["properties"]) == set(Testbed.model_fields)
