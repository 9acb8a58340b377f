"""The queries of a dashboard: found in its JSON, with variables put in, and the metrics that they name.

Pure: takes parsed JSON and strings, asks nobody. What Prometheus says to them is check.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, str | Sequence[str]]
"""Variable's name -> its value, or several, or `.*` for all."""


class QueryProblem(ValueError):
    """A query that cannot even be asked: a variable in it that no dashboard declares, or one without a value."""


@dataclass(frozen=True)
class Query:
    """One query as it stands in a dashboard. `kind` is panel, annotation or variable; `place` is its title or name."""

    dashboard: str
    kind: str
    place: str
    expr: str
    instant: bool = False

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.kind} {self.place!r}"


def find_queries(dashboard: Mapping[str, Any]) -> list[Query]:
    """Every Prometheus query of a dashboard: of all panels (those within collapsed rows too), annotations, variables.

    Raises:
        QueryProblem: where a panel's target holds no expression.
    """
    title = str(dashboard.get("title", "?"))
    found = []
    for panel in panels(dashboard):
        for target in panel.get("targets") or ():
            expr = target.get("expr")
            if not expr:
                raise QueryProblem(f"{title}: panel {panel.get('title')!r}: target {target.get('refId')!r} has no expr")
            found.append(Query(title, "panel", str(panel.get("title")), expr, bool(target.get("instant"))))
    for annotation in (dashboard.get("annotations") or {}).get("list") or ():
        if annotation.get("builtIn"):
            continue  # Grafana's own store of comments, no query
        expr = annotation.get("expr") or (annotation.get("target") or {}).get("expr")
        if not expr:
            raise QueryProblem(f"{title}: annotation {annotation.get('name')!r} has no expr")
        found.append(Query(title, "annotation", str(annotation.get("name")), expr))
    for variable in variables(dashboard):
        if variable.get("type") == "query":
            found.append(Query(title, "variable", str(variable["name"]), variable_query(variable), True))
    return found


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels that show something: rows are opened."""
    for panel in dashboard.get("panels") or ():
        if panel.get("type") == "row":
            yield from panel.get("panels") or ()
        else:
            yield panel


def variables(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dashboard's variables, in the order in which they depend on one another."""
    return list((dashboard.get("templating") or {}).get("list") or ())


def variable_query(variable: Mapping[str, Any]) -> str:
    """The query of a variable, which Grafana keeps as a string or as an object."""
    query = variable.get("query")
    return str(query.get("query", "")) if isinstance(query, Mapping) else str(query or "")


_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]|\$(\w+)")


def substitute(expr: str, values: Values, *, period_s: float, range_s: float) -> str:
    """The expression with variables and Grafana's own ($__rate_interval, $__interval, $__range, ...) put in.

    $__rate_interval is what Grafana takes where a panel shows each sample: four scrapes. Several values become a
    regular expression, as Grafana's Prometheus data source writes them.

    Raises:
        QueryProblem: for a variable without a value.
    """
    own = {
        "__rate_interval": _seconds(4 * period_s),
        "__interval": _seconds(period_s),
        "__interval_ms": str(round(period_s * 1000)),
        "__range": _seconds(range_s),
        "__range_s": str(round(range_s)),
        "__range_ms": str(round(range_s * 1000)),
    }

    def value(match: re.Match[str]) -> str:
        name = next(group for group in match.groups() if group)
        if name in own:
            return own[name]
        if name not in values:
            raise QueryProblem(f"variable ${name} has no value in {expr!r}")
        given = values[name]
        if isinstance(given, str):
            return given
        escaped = [re.escape(item).replace("\\", "\\\\") for item in given]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    return _VARIABLE.sub(value, expr)


def _seconds(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"


_LABEL_VALUES = re.compile(r"\s*label_values\(\s*(?:(?P<match>.+?)\s*,\s*)?(?P<label>[a-zA-Z_]\w*)\s*\)\s*", re.DOTALL)


def label_values(query: str) -> tuple[str | None, str]:
    """(series selector or None, label) of a variable's `label_values(...)`.

    Raises:
        QueryProblem: for any other form; the dashboards here use none.
    """
    found = _LABEL_VALUES.fullmatch(query)
    if found is None:
        raise QueryProblem(f"{query!r} is not of the form label_values(series, label)")
    return found["match"], found["label"]


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAMES = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()")
_WORDS = frozenset(
    ("and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right", "start",
     "end", "inf", "nan", "atan2", "sum", "avg", "min", "max", "count", "topk", "bottomk", "quantile", "stddev",
     "stdvar",
     "group", "count_values")
)  # fmt: skip


def metric_names(expr: str) -> list[str]:
    """The metrics that an expression names, each once. Works on a substituted expression."""
    text = _STRINGS.sub('""', expr)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = _LISTS.sub(" ", text)
    found = (match[1] for match in _NAMES.finditer(text))
    return list(dict.fromkeys(name for name in found if name.lower() not in _WORDS))
