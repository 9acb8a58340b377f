"""A REST call that is refused: status and problem as an exception, and the one way in which bodies are read.

Owns no route. Every face raises `Refused`; `rest` turns it into an answer.
"""

from __future__ import annotations

import json
from typing import Any

from flask import request

from topology.errors import Problem

BODY_BYTES = 1024 * 1024
"""Bodies longer than this are refused with 413 before they are read. A thousand meters take about 150 kB."""


class Refused(Exception):
    """The call ends with this HTTP status and problem."""

    def __init__(self, http_status: int, problem: Problem) -> None:
        super().__init__(problem.message)
        self.http_status, self.problem = http_status, problem


def bad_value(path: str, message: str, hint: str = "") -> Refused:
    """400 for a value in the body or the address."""
    return Refused(400, Problem(path, "bad-value", message, hint))


def shown(value: Any) -> str:
    """A value of the user's for a message: printable, and short whatever it is."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_object(*, empty_is_object: bool = False) -> dict[str, Any]:
    """The request's body as a JSON object, whatever its content type says (curl's `-d` calls it a form).

    Raises:
        Refused: 400 where it is no JSON object.
    """
    data = request.get_data(cache=True)
    if empty_is_object and not data.strip():
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(
            400, Problem("", "bad-json", f"the body is no JSON: {str(error)[:100]}", "send one JSON object")
        ) from None
    if not isinstance(value, dict):
        raise bad_value("", f"the body is {shown(value)}", "send one JSON object: {...}")
    return value


def only_keys(value: dict[str, Any], allowed: frozenset[str], path: str = "") -> None:
    """Refuse keys that nobody would read. Raises Refused."""
    for key in value:
        if key not in allowed:
            where = f"{path}.{key[:60]}" if path else key[:60]
            names = ", ".join(f"`{name}`" for name in sorted(allowed))
            problem = Problem(where, "unknown-key", f"{shown(key)} is not known here", f"one of {names}")
            raise Refused(400, problem)


def whole_number(value: Any, path: str, lowest: int, highest: int) -> int:
    """A whole number, given as one or as text (decimal, or hexadecimal with 0x). Raises Refused."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and len(value) <= 40:
        try:
            number = int(value, 0) if value.lower().startswith("0x") else int(value, 10)
        except ValueError:
            number = None
    if number is None or not lowest <= number <= highest:
        raise bad_value(path, f"{path} is {shown(value)}", f"a whole number from {lowest} to {highest}")
    return number


def list_of(value: Any, path: str, longest: int) -> list[Any]:
    """A list of bounded length. Raises Refused."""
    if not isinstance(value, list):
        raise bad_value(path, f"{path} is {shown(value)}", "a list: [...]")
    if len(value) > longest:
        raise bad_value(path, f"{path} has {len(value)} entries", f"at most {longest}")
    return value


def object_of(value: Any, path: str) -> dict[str, Any]:
    """A JSON object. Raises Refused."""
    if not isinstance(value, dict):
        raise bad_value(path, f"{path} is {shown(value)}", "an object: {...}")
    return value
