"""A YAML file as plain data that remembers where everything stands. Takes a file or text, gives a `Document`; judges
nothing but that it is YAML and that no key stands twice in one mapping.

The safe loader makes the data, so no object but plain ones comes out of it; the node tree that it was made from is kept
for its marks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from topology.errors import Problem, TestbedProblems

MOST_BYTES = 8 * 2**20
Part = int | str
Location = tuple[Part, ...]


@dataclass(frozen=True)
class Place:
    """A line and a column of a file, both counted from 1 as editors do."""

    line: int
    column: int


def path_text(location: Sequence[Part]) -> str:
    """("links", 3, "rate") -> "links[3].rate"."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def location_of(path: str) -> Location:
    """The opposite of `path_text`; text that is no path is one part, which is nowhere."""
    parts: list[Part] = []
    for piece in path.split("."):
        name, _, rest = piece.partition("[")
        if name:
            parts.append(name)
        for number in rest.rstrip("]").split("][") if rest else ():
            parts.append(int(number) if number.isdecimal() else number)
    return tuple(parts)


class Document:
    """Data of one file. `name` is how the file was called, `problems` are keys that stand twice."""

    def __init__(self, name: str, data: Any, root: yaml.Node | None, problems: Sequence[Problem]) -> None:
        self.name = name
        self.data = data
        self.problems = tuple(problems)
        self._root = root

    def place(self, path: str) -> Place:
        """Where the value of this path stands; where there is none (a missing key), the nearest thing around it."""
        node: yaml.Node | None = self._root
        found: Place | None = None
        for part in location_of(path):
            step = _step(node, part) if node is not None else None
            if step is None:
                break
            node, found = step
        if found is None:
            found = _mark(self._root) if self._root is not None else Place(1, 1)
        return found

    def placed(self, problem: Problem) -> Problem:
        """The problem with the file's name and its line and column."""
        place = self.place(problem.path) if problem.line is None else Place(problem.line, problem.column or 1)
        return replace(problem, file=self.name, line=place.line, column=place.column)


def _mark(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _step(node: yaml.Node, part: Part) -> tuple[yaml.Node, Place] | None:
    if isinstance(node, yaml.SequenceNode):
        if not isinstance(part, int) or part >= len(node.value):
            return None
        child = node.value[part]
        # An alias is the anchor's own node: then the list is nearer to where it was written.
        inside = node.start_mark.index <= child.start_mark.index < node.end_mark.index
        return child, _mark(child if inside else node)
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # of merged keys the later one holds
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return value, _mark(key)
    return None


def _twice(root: yaml.Node) -> Iterator[Problem]:
    """Keys that stand twice in one mapping. Each node is visited once, however many aliases lead to it."""
    seen: set[int] = set()
    todo: list[tuple[yaml.Node, Location]] = [(root, ())]
    while todo:
        node, location = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += [(child, (*location, index)) for index, child in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                todo.append((value, (*location, str(key.value))))
                name = (key.tag, key.value)
                if name in lines:
                    yield _duplicate(location, key.value, lines[name], _mark(key))
                elif key.tag != "tag:yaml.org,2002:merge":
                    lines[name] = _mark(key).line


def _duplicate(location: Location, key: str, first: int, place: Place) -> Problem:
    where = f"in line {first} and in line {place.line}" if first != place.line else f"twice in line {first}"
    return Problem(path_text((*location, key)), "duplicate-key", f"the key {key!r} stands {where}",
                   "keep one of them: YAML would ignore the first", line=place.line, column=place.column)  # fmt: skip


def read_document(path: Path) -> Document:
    """Read a file of at most 8 MiB.

    Raises:
        TestbedProblems: where it cannot be read, or is not YAML.
    """
    name = str(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TestbedProblems([Problem(name, "too-large", "a testbed file has at most 8 MiB")])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TestbedProblems([Problem(name, "unreadable", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise TestbedProblems([Problem(name, "not-text", "is not UTF-8 text")]) from None
    return parse_document(text, name)


def parse_document(text: str, name: str = "testbed") -> Document:
    """YAML text as a document; `name` is what messages call it.

    Raises:
        TestbedProblems: where it is not YAML.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            problems = sorted(_twice(root), key=lambda problem: problem.line or 0) if root is not None else []
            data = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        # The loader lets these out of dates that are none, of values that do not fit their tag, and of thousands of
        # nested brackets.
        reason = "too deeply nested" if isinstance(error, RecursionError) else f"cannot be read: {error}"
        raise TestbedProblems([Problem("", "not-yaml", reason, "quote the value", file=name)]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "syntax error")
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        where = f" in line {line}, column {column}" if mark else ""
        hint = "indent with spaces" if "\\t" in reason else ""
        raise TestbedProblems(
            [Problem("", "not-yaml", f"is not YAML{where}: {reason}", hint, file=name, line=line, column=column)]
        ) from None
    return Document(name, data, root, problems)
