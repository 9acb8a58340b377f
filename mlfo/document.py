"""YAML text from strangers: read with bounds on size, depth, nodes, and without aliases. Gives plain Python
values."""

from __future__ import annotations

from typing import Any

import yaml

from mlfo.errors import IntentRefused, Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NODES = 20_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(text: bytes) -> dict[str, Any]:
    """The mapping in a YAML document.

    Raises IntentRefused for anything else: not UTF-8, no YAML, aliases (a few of them make a bomb), nesting
    deeper than 16, more than 20,000 nodes, more than one document, keys given twice, or a document that is
    not a mapping.
    """
    if len(text) > MAX_BYTES:
        raise _refused(
            "too_large", f"the document has {len(text)} bytes; at most {MAX_BYTES} are read", status=413
        )
    try:
        source = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused("encoding", f"the document is not UTF-8: {error}", "save the file as UTF-8") from error
    try:
        _check_shape(source)
        loader = _Loader(source)
        try:
            node = loader.get_single_node()
            if node is None:
                raise _refused(
                    "empty", "the document is empty", "send an intent in YAML, see intents/drilling.yaml"
                )
            duplicates = list(_duplicates(node, ""))
            if duplicates:
                raise IntentRefused(duplicates)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _refused(
            "yaml", f"not YAML: {_one_line(error)}", "check indentation, colons and quotes there"
        ) from error
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise _refused(
            "yaml", f"a value in the YAML cannot be read: {_one_line(error)}", "put it in quotes"
        ) from error
    if not isinstance(value, dict):
        raise _refused(
            "type", f"the document is a {type(value).__name__}, not a mapping", "begin with 'intentID: ...'"
        )
    return value


def _check_shape(source: str) -> None:
    """Walks the event stream only: a bomb is refused before anything is built from it."""
    depth = nodes = documents = 0
    for event in yaml.parse(source, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _refused("alias", "YAML aliases (*name) are not accepted", "write the value out")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refused("documents", "more than one YAML document", "send one intent a request")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused("depth", f"nested deeper than {MAX_DEPTH}", "an intent needs five levels")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if nodes > MAX_NODES:
                raise _refused("too_large", f"more than {MAX_NODES} values", "list clients as {first, count}")


def _duplicates(node: Any, path: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            here = f"{path}.{name}" if path else name
            if name in seen:
                yield Problem(
                    here,
                    "duplicate",
                    f"the key '{name}' is given twice (line {key.start_mark.line + 1})",
                    "keep one",
                )
            seen.add(name)
            yield from _duplicates(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _duplicates(value, f"{path}[{index}]")


def _refused(code: str, message: str, hint: str = "", status: int = 400) -> IntentRefused:
    return IntentRefused([Problem("", code, message, hint)], status)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
