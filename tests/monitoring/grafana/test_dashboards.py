"""The shipped dashboards: up to date, of Grafana's own schema, laid out and linked as a user expects; and the
validation that says so refuses what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitoring.grafana import DASHBOARDS
from monitoring.grafana.build import BOARDS, contents, main
from monitoring.grafana.queries import find_queries, metric_names, panels, variables
from monitoring.grafana.schema import problems

NAMES = ("overview", "fl-run", "network", "nodes", "mlfo")


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return data


def test_the_shipped_files_are_what_the_code_makes(tmp_path: Path) -> None:
    assert sorted(BOARDS) == sorted(NAMES) == sorted(path.stem for path in DASHBOARDS.glob("*.json"))
    for name, content in contents().items():
        assert (DASHBOARDS / name).read_text() == content, f"{name}: python -m monitoring.grafana.build writes it anew"
    assert main(["--check"]) == 0
    assert main(["--out", str(tmp_path)]) == 0 and main(["--check", "--out", str(tmp_path)]) == 0
    (tmp_path / "mlfo.json").write_text("{}")
    assert main(["--check", "--out", str(tmp_path)]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_valid_for_grafana(name: str) -> None:
    assert problems(load(name)) == []


def _panel(data: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in panels(data) if panel["type"] == kind)


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        at: Any = data
        for step in path[:-1]:
            at = step(at) if callable(step) else at[step]
        at[path[-1]] = to

    return change


def graph(data: dict[str, Any]) -> dict[str, Any]:
    return _panel(data, "timeseries")


def table(data: dict[str, Any]) -> dict[str, Any]:
    return _panel(data, "table")


def xychart(data: dict[str, Any]) -> dict[str, Any]:
    return _panel(data, "xychart")


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown key of the dashboard": (_set("titel", to="x"), "titel: Grafana's schema has no such key"),
    "unknown key of a panel": (_set(graph, "titles", to="x"), "titles: Grafana's schema has no such key"),
    "wrong type": (_set(graph, "title", to=3), "title: 3 is not of type str"),
    "unknown panel": (_set(graph, "type", to="timeserie"), "Grafana has no panel 'timeserie'"),
    "unknown option": (_set(graph, "options", "legends", to={}), "options.legends: Grafana's schema has no such key"),
    "wrong word": (_set(graph, "options", "legend", "displayMode", to="tabel"), "'tabel' is not one of"),
    "unknown field option": (_set(graph, "fieldConfig", "defaults", "custom", "lineWith", to=2), "lineWith: Grafana's"),
    "wrong field option": (_set(graph, "fieldConfig", "defaults", "custom", "lineWidth", to="2"), "'2' is not of type"),
    "number for truth": (_set(graph, "transparent", to=1), "1 is not of type bool"),
    "unknown key of a query": (_set(graph, "targets", 0, "legend", to="x"), "legend: Grafana's schema has no such key"),
    "query format": (_set(graph, "targets", 0, "format", to="tables"), "'tables' is not one of"),
    "no expression": (_set(graph, "targets", 0, "expr", to=""), "has no expr"),
    "unknown unit": (_set(graph, "fieldConfig", "defaults", "unit", to="bit/s"), "Grafana has no unit 'bit/s'"),
    "unit of an override":
        (_set(table, "fieldConfig", "overrides", 0, "properties", 0, "value", to="sec"), "unit 'sec'"),
    "unknown override":
        (_set(xychart, "fieldConfig", "overrides", 0, "properties", 0, "id", to="name"), "option 'name'"),
    "unknown custom override": (_set(xychart, "fieldConfig", "overrides", 0, "properties", 3, "id", to="custom.label2"),
                                "a xychart has no field option 'custom.label2'"),
    "unknown transformation": (_set(table, "transformations", 0, "id", to="merged"), "transformation 'merged'"),
    "wrong crosshair": (_set("graphTooltip", to=7), "7 is not one of 0, 1, 2"),
    "data source": (_set(graph, "datasource", "uid", to="prometheus"), "its data source is"),
    "two panels in a place": (_set(graph, "gridPos", "y", to=1), "lies on"),
    "beyond the grid": (_set(graph, "gridPos", "w", to=25), "reaches beyond 24 columns"),
    "one id twice": (_set(graph, "id", to=1), "the id 1 is taken"),
    "letters": (_set(table, "targets", 1, "refId", to="A"), "are not one letter a query"),
    "unknown variable":
        (_set(graph, "targets", 0, "expr", to='up{testbed="$testbeds"}'), "no variable is called $testbeds"),
    "annotation": (_set("annotations", "list", 0, "useValueForTime", to="yes"), "useValueForTime: is not of type bool"),
    "unknown key of an annotation": (_set("annotations", "list", 0, "query", to="x"), "query: Grafana's schema has no"),
    "database id": (_set("id", to=4), "id: has to be null"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_dashboard_is_refused(what: str) -> None:
    change, says = BROKEN[what]
    data = load("fl-run")
    change(data)
    found = problems(data)
    assert found and any(says in problem for problem in found), found


def test_no_dashboard_at_all_is_refused() -> None:
    assert problems({"panels": [{"type": "timeseries", "targets": "none"}]})


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_has_what_a_user_expects(name: str) -> None:
    data = load(name)
    assert data["uid"] == f"cohortnet-{name}"
    assert (data["graphTooltip"], data["refresh"], data["time"]) == (1, "5s", {"from": "now-30m", "to": "now"})
    (link,) = data["links"]
    assert link["includeVars"] and link["keepTime"] and set(link["tags"]) <= set(data["tags"])
    assert {"testbed", "run", "cohort", "node"} <= {variable["name"] for variable in variables(data)}
    marks = {annotation["name"] for annotation in data["annotations"]["list"]}
    assert marks == {"Rounds", "Intents", "Meters", "Links", "Failures"}
    assert all(annotation["useValueForTime"] for annotation in data["annotations"]["list"])
    assert all(len(panel["description"]) > 10 for panel in panels(data))
    rows = [panel["title"] for panel in data["panels"] if panel["type"] == "row"]
    assert data["panels"][0]["type"] == "row" and rows[0] == "Now" and len(rows) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_that_is_offered_does_something(name: str) -> None:
    data = load(name)
    used = " ".join(query.expr for query in find_queries(data) if query.kind == "panel")
    for variable in variables(data):
        assert (variable.get("hide") == 2) != (f"${variable['name']}" in used), variable["name"]


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_has_a_rates_unit_and_bytes_have_bytes(name: str) -> None:
    """Totals in bits shown as bytes, or the reverse, are this field's classical mistake."""
    for panel in panels(load(name)):
        unit = ((panel.get("fieldConfig") or {}).get("defaults") or {}).get("unit")
        for target in panel.get("targets") or ():
            expr = target["expr"]
            rates = any(f"rate({metric}" in expr for metric in metric_names(expr) if "_bytes_total" in metric)
            if rates and unit is not None and " / " not in expr:
                assert unit == "bps" and "8 * rate(" in expr, (panel["title"], expr)
            if unit == "bps":
                bits = ("8 * rate(", "_bits_per_second", "delivery_rate", "meter_rate")
                assert any(word in expr for word in bits), expr
            if unit == "ms":
                assert "tcp_rtt" in expr or "tcprtt" in expr, expr
            if unit == "decbytes":
                assert "bytes" in expr and "8 *" not in expr, expr


def test_the_overview_has_the_twelve_panels_of_this_field() -> None:
    titles = {panel["title"] for panel in panels(load("overview"))}
    assert titles >= {
        "FL data in total", "FL data rate", "Rate sent by servers", "Rate received by servers",
        "TCP congestion window by cohort", "TCP latency by cohort", "Background application latency",
        "Background traffic rate", "Loss", "Accuracy", "Central MLFO bandwidth", "Mean RTT over 15 min",
    }  # fmt: skip


def test_metric_names_are_found_wherever_promql_hides_them() -> None:
    expr = ('sum by (le, cohort) (rate(tcprtt_bucket{cohort!="", run=~"a|b"}[5s])) / on (cohort) group_left (x) '
            'cohort:up:ratio offset 5m > bool 0.5 '
            'or label_replace(up{a="b(c)"}, "n", "$1", "m", "(.*)") unless absent(down)')
    assert metric_names(expr) == ["tcprtt_bucket", "cohort:up:ratio", "up", "down"]
