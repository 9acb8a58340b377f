"""What all dashboards have in common: variables, annotations, links to one another, time range; and the selectors that
put the variables into queries.

A dashboard is a list of rows, a row a title and its panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from monitoring.grafana.boards.pieces import SOURCE

TAG = "cohortnet"
RATE = "[$__rate_interval]"

TESTBED = 'testbed="$testbed"'
COHORT = f'{TESTBED},cohort=~"$cohort"'
ONE_COHORT = f'{COHORT},cohort!=""'
"""Only nodes that belong to a cohort, for whatever is shown by cohort."""
NODE = f'{COHORT},node=~"$node"'
RUN = f'{COHORT},run=~"$run"'
SERVER_RUN = f'{RUN},role="server"'
"""What an FL server says of its run; clients say some of the same of themselves."""


@dataclass(frozen=True)
class Variable:
    """One choice at the top of a dashboard. `series` and `label` make its query."""

    name: str
    label: str
    series: str
    of: str
    several: bool = True
    text: str = ""


VARIABLES = (
    Variable("testbed", "Testbed", "cohortnet_testbed_info", "testbed", several=False),
    Variable("run", "Run", f"fl_run_running{{{TESTBED}}}", "run",
             text="An FL run: the id of the intent that began it."),
    Variable("cohort", "Cohort", f'cohortnet_node_info{{{TESTBED},cohort!=""}}', "cohort"),
    Variable("node", "Node", f"cohortnet_node_info{{{COHORT}}}", "node"),
)


@dataclass(frozen=True)
class Annotation:
    """Marks in the graphs. `expr` gives Unix times in ms as its values; titles may name its labels as {{label}}."""

    name: str
    colour: str
    expr: str
    title: str
    text: str
    shown: bool = True


ROUNDS = (
    f"max by (cohort, run, round) (1000 * fl_round_timestamp_seconds{{{SERVER_RUN}}} * on (testbed, node, run) "
    f"group_right () "
    f'count_values without (job, instance) ("round", fl_round{{{SERVER_RUN}}}))'
)
"""The number of the round becomes a label, so that each round is a mark of its own. `without`, because Prometheus 2.42
loses labels of `count_values by` over a time range."""

ANNOTATIONS = (
    Annotation("Rounds", "blue", ROUNDS, "round {{round}}", "cohort {{cohort}}, run {{run}}", shown=False),
    Annotation("Intents", "purple",
               f'1000 * max by (intent, run, state) (mlfo_intent_state_timestamp_seconds{{{TESTBED},run=~"$run"}})',
               "intent {{state}}", "{{intent}}, run {{run}}"),
    Annotation("Meters", "orange", f"1000 * cohortnet_meter_changed_timestamp_seconds{{{TESTBED}}}",
               "meter {{meter}}", "set or changed"),
    Annotation("Links", "yellow", f"1000 * cohortnet_link_changed_timestamp_seconds{{{TESTBED}}}", "link {{link}}",
               "went up or down, or was set"),
    Annotation("Failures", "red", f"1000 * fl_client_failed_timestamp_seconds{{{RUN}}}", "client {{client}} failed",
               "cohort {{cohort}}, run {{run}}"),
)  # fmt: skip

PROMETHEUS_ANNOTATION_KEYS = ("expr", "step", "titleFormat", "textFormat", "tagKeys", "useValueForTime")
"""What Grafana's Prometheus data source reads from an annotation beside the general model of one."""


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Any]
    closed: bool = False


def board(
    uid: str, title: str, description: str, rows: Sequence[Row], *, uses: Sequence[str], more: Sequence[Variable] = (),
    marks: Sequence[str] = (),
) -> dashboard.Dashboard:  # fmt: skip
    """A dashboard.

    Args:
        uses: names of the variables that its queries contain; the others are hidden, and kept for the links.
        more: variables of this dashboard alone.
        marks: names of annotations that are shown from the start, beside those that always are.
    """
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .editable()
        .time("now-30m", "now")
        .refresh("5s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .timepicker(dashboard.TimePicker().refresh_intervals(["1s", "5s", "10s", "30s", "1m", "5m", "15m"]))
        .link(
            dashboard.DashboardLink("Cohortnet")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
            .icon("external link")
            .tooltip("Another side of the same testbed, with the same time range")
        )
    )
    for variable in (*VARIABLES, *more):
        built.with_variable(_variable(variable, hidden=variable.name not in uses and variable not in more))
    for annotation in ANNOTATIONS:
        built.annotation(_annotation(annotation, shown=annotation.shown or annotation.name in marks))
    for row in rows:
        head = dashboard.Row(row.title)
        if row.closed:
            head.collapsed(True)
            for panel in row.panels:
                head.with_panel(panel)
            built.with_row(head)
            continue
        built.with_row(head)
        for panel in row.panels:
            built.with_panel(panel)
    return built


_LABEL_VALUES = 1
"""The data source's own number of the kind of query that `label_values(...)` is."""


def _variable(variable: Variable, *, hidden: bool) -> dashboard.QueryVariable:
    query = f"label_values({variable.series}, {variable.of})"
    built = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(SOURCE)
        .query({"query": query, "refId": f"variable-{variable.name}", "qryType": _LABEL_VALUES})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(variable.several)
        .include_all(variable.several)
    )
    if variable.text:
        built.description(variable.text)
    if variable.several:
        built.all_value(".*").current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    if hidden:
        built.hide(model.VariableHide.HIDE_VARIABLE)
    return built


def _annotation(annotation: Annotation, *, shown: bool) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(annotation.name)
        .datasource(SOURCE)
        .enable(shown)
        .hide(False)
        .icon_color(annotation.colour)
    )


def annotation_extras(annotation: Annotation) -> dict[str, Any]:
    """The part of an annotation that belongs to the Prometheus data source. One second as step: marks nearer to one
    another than the step become one."""
    return {
        "expr": annotation.expr,
        "step": "1s",
        "titleFormat": annotation.title,
        "textFormat": annotation.text,
        "tagKeys": "",
        "useValueForTime": True,
    }
