"""Panels as these dashboards use them: one function a kind, so that units, legends and tooltips are alike everywhere.

Takes titles, descriptions, units and queries; gives the SDK's builders, to which a dashboard can add what is its own.
Units are Grafana's ids (`bps`, `decbytes`, `ms`, `percentunit`, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as dashboard_model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model
from grafana_foundation_sdk.models import xychart as xychart_model

from monitoring.grafana import DATASOURCE_UID

SOURCE = dashboard_model.DataSourceRef(type_val="prometheus", uid=DATASOURCE_UID)

BITS, BYTES, MEMORY = "bps", "decbytes", "bytes"
"""Rates and amounts on the network in powers of 1000, memory in powers of 1024, as both fields write them."""
SECONDS, MILLISECONDS, SHARE, PACKETS = "s", "ms", "percentunit", "pps"
COUNT, PLAIN, CORES, SEGMENTS = "short", "none", "suffix: cores", "suffix: segments"

GREEN, YELLOW, RED = "green", "yellow", "red"
Limits = Sequence[tuple[float, str]]
"""(from this value on, colour), after green from the start."""

Query = prometheus.Dataquery


def query(expr: str, legend: str = "") -> Query:
    """A query over the dashboard's time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").range().datasource(SOURCE)


def now(expr: str, legend: str = "") -> Query:
    """A query of the end of the time range alone."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").instant().datasource(SOURCE)


def rows_of(expr: str) -> Query:
    """A query of the end of the time range, one table row a series."""
    return now(expr).format(prometheus_model.PromQueryFormat.TABLE)


def _filled(panel: Any, title: str, description: str, queries: Sequence[Query], width: int, height: int) -> Any:
    panel.title(title).description(description).datasource(SOURCE).span(width).height(height)
    for letter, target in zip("ABCDEFGHIJ", queries, strict=False):
        panel.with_target(target.ref_id(letter))
    if len(queries) > 10:
        raise ValueError(f"{title}: {len(queries)} queries, at most 10")
    return panel


def thresholds(limits: Limits) -> dashboard.ThresholdsConfig:
    """Green, then each colour from its value on."""
    steps = [dashboard_model.Threshold(value=None, color=GREEN)]
    steps += [dashboard_model.Threshold(value=value, color=color) for value, color in limits]
    return dashboard.ThresholdsConfig().mode(dashboard_model.ThresholdsMode.ABSOLUTE).steps(steps)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    height: int = 8,
    most: float | None = None,
    limits: Limits = (),
    many: bool = False,
    stacked: bool = False,
    least: float | None = 0.0,
    dashed: str | None = None,
    points: bool = False,
) -> timeseries.Panel:
    """Lines over time.

    Args:
        most: the axis's end, where there is a natural one (1 of a share).
        least: the axis's start; None where values say it.
        limits: drawn as dashed lines.
        many: a legend as a table, sorted by the largest, for as many series as nodes or links.
        dashed: regular expression of the series that are limits or declared values, drawn dashed.
        points: show each sample, for values that change once a round.
    """
    calcs = ["lastNotNull", "max", "mean"] if many else ["lastNotNull"]
    legend = common.VizLegendOptions().show_legend(True).calcs(calcs)
    legend = legend.display_mode(common_model.LegendDisplayMode.TABLE if many else common_model.LegendDisplayMode.LIST)
    legend = legend.placement(common_model.LegendPlacement.RIGHT if many else common_model.LegendPlacement.BOTTOM)
    if many:
        legend = legend.sort_by("Max").sort_desc(True)
    sort, shape = common_model.SortOrder.DESCENDING, common_model.LineInterpolation
    panel = (
        _filled(timeseries.Panel(), title, description, queries, width, height)
        .unit(unit)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(sort))
        .color_scheme(dashboard.FieldColor().mode(dashboard_model.FieldColorModeId.PALETTE_CLASSIC))
        .draw_style(common_model.GraphDrawStyle.LINE)
        .line_interpolation(shape.STEP_AFTER if points else shape.LINEAR)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(common_model.VisibilityMode.AUTO)
        .span_nulls(False)
        .stacking(
            common.StackingConfig()
            .mode(common_model.StackingMode.NORMAL if stacked else common_model.StackingMode.NONE)
            .group("A")
        )
    )
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if limits:
        panel.thresholds(thresholds(limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED)
        )
    if dashed:
        panel.override_by_regexp(
            dashed,
            [
                dashboard_model.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 6]}),
                dashboard_model.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
            ],
        )
    return panel


def figure(
    title: str, description: str, unit: str, *queries: Query, width: int = 4, height: int = 4, limits: Limits = (),
    empty: str = "none", decimals: int | None = None,
) -> stat.Panel:  # fmt: skip
    """One large figure a series, coloured by its limits. `empty` is shown where there is nothing (yet)."""
    text = common_model.BigValueTextMode
    panel = (
        _filled(stat.Panel(), title, description, queries, width, height)
        .unit(unit)
        .no_value(empty)
        .thresholds(thresholds(limits))
        .color_scheme(dashboard.FieldColor().mode(dashboard_model.FieldColorModeId.THRESHOLDS))
        .color_mode(common_model.BigValueColorMode.VALUE)
        .graph_mode(common_model.BigValueGraphMode.NONE)
        .text_mode(text.VALUE_AND_NAME if len(queries) > 1 else text.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def bars(
    title: str, description: str, unit: str, *queries: Query, width: int = 6, height: int = 8, limits: Limits = (),
    most: float | None = None, decimals: int | None = None,
) -> bargauge.Panel:  # fmt: skip
    """One horizontal bar a series, for comparing cohorts, clients or nodes."""
    panel = (
        _filled(bargauge.Panel(), title, description, queries, width, height)
        .unit(unit)
        .no_value("nothing yet")
        .min(0)
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .display_mode(common_model.BarGaugeDisplayMode.BASIC)
        .value_mode(common_model.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        .thresholds(thresholds(limits))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )
    mode = dashboard_model.FieldColorModeId.THRESHOLDS if limits else dashboard_model.FieldColorModeId.PALETTE_CLASSIC
    panel.color_scheme(dashboard.FieldColor().mode(mode))
    if most is not None:
        panel.max(most)
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def heat(title: str, description: str, unit: str, buckets: Query, *, width: int = 12, height: int = 8) -> heatmap.Panel:
    """A histogram over time. `buckets` gives a series a bucket, labelled `le`."""
    buckets.format(prometheus_model.PromQueryFormat.HEATMAP).legend_format("{{le}}")
    panel = _filled(heatmap.Panel(), title, description, [buckets], width, height)
    return (  # type: ignore[no-any-return]
        panel.calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .exponent(0.5)
            .fill("dark-orange")
            .steps(64)
            .reverse(False)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_gap(1)
        .show_value(common_model.VisibilityMode.NEVER)
        .show_legend()
        .mode(common_model.TooltipDisplayMode.SINGLE)
    )


def transformation(kind: str, options: Mapping[str, Any]) -> dashboard_model.DataTransformerConfig:
    """A step between the query's answer and the panel; `kind` is Grafana's id of it."""
    return dashboard_model.DataTransformerConfig(id_val=kind, options=dict(options))


def listing(
    title: str, description: str, key: Sequence[str], columns: Sequence[tuple[str, str, str]], *, width: int = 24,
    height: int = 10, sort: str | None = None,
) -> table.Panel:  # fmt: skip
    """A table: one row a combination of the labels in `key`, one column a query.

    Args:
        columns: (heading, unit, expression), which has to be aggregated by exactly the labels in `key`.
        sort: heading of the column that it is sorted by, largest first.
    """
    letters = "ABCDEFGHIJ"[: len(columns)]
    panel = _filled(table.Panel(), title, description, [rows_of(expr) for _, _, expr in columns], width, height)
    single = len(columns) == 1
    names = {("Value" if single else f"Value #{letter}"): heading
             for letter, (heading, _, _) in zip(letters, columns, strict=True)}  # fmt: skip
    order = {name: index for index, name in enumerate([*key, *names])}
    if not single:
        panel.with_transformation(transformation("merge", {}))
    panel.with_transformation(
        transformation("organize", {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names})
    )
    for heading, unit, _ in columns:
        panel.override_by_name(heading, [dashboard_model.DynamicConfigValue(id_val="unit", value=unit)])
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    panel.no_value("nothing yet").show_header(True)
    return panel  # type: ignore[no-any-return]


def by_round(title: str, description: str, unit: str, expr: str, series: Sequence[str], *, width: int = 12,
             height: int = 9, most: float | None = None) -> xychart.Panel:  # fmt: skip
    """A line a series over rounds instead of time. `expr` gives one sample for each `round` (a label) and `series`."""
    name = " ".join(("cohort " if label == "cohort" else "") + f"${{__field.labels.{label}}}" for label in series)
    panel = (
        _filled(xychart.Panel(), title, description, [rows_of(expr)], width, height)
        .unit(unit)
        .with_transformation(
            transformation("convertFieldType", {"conversions": [{"targetField": "round", "destinationType": "number"}]})
        )
        .with_transformation(transformation("organize", {"excludeByName": {"Time": True}}))
        .with_transformation(transformation("sortBy", {"sort": [{"field": "round", "desc": False}]}))
        .with_transformation(
            transformation(
                "partitionByValues", {"fields": list(series), "keepFields": False, "naming": {"asLabels": True}}
            )
        )
        .display_name(name)
        .override_by_name(
            "round",
            [
                dashboard_model.DynamicConfigValue(id_val="displayName", value="round"),
                dashboard_model.DynamicConfigValue(id_val="unit", value=PLAIN),
                dashboard_model.DynamicConfigValue(id_val="decimals", value=0),
                dashboard_model.DynamicConfigValue(id_val="custom.axisLabel", value="round"),
            ],
        )
        .color_scheme(dashboard.FieldColor().mode(dashboard_model.FieldColorModeId.PALETTE_CLASSIC))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
            .calcs([])
        )
        .tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.SINGLE)
                 .sort(common_model.SortOrder.NONE))  # fmt: skip
    )
    _lines_and_points(panel)
    if most is not None:
        panel.min(0).max(most)
    return panel  # type: ignore[no-any-return]


def _lines_and_points(panel: Any) -> None:
    panel.mapping(xychart_model.SeriesMapping.AUTO).series([])
    panel.show(xychart_model.XYShowMode.POINTS_AND_LINES)
    panel.line_width(1)
