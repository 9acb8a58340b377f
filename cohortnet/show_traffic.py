"""Background traffic as tables for people. Pure: data in, Rich tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from topology.units import format_rate, format_time


def describe_pattern(flow: Mapping[str, Any]) -> str:
    """A flow's pattern in words, from a plan's, an inventory's or the daemon's entry: "on-off, 2 s of 10 s"."""
    kind = str(flow["pattern"])
    if kind == "on-off":
        return f"on-off, {format_time(flow['on_s'])} of {format_time(flow['period_s'])}"
    if kind == "sine":
        return f"sine of {format_time(flow['period_s'])}, from {format_rate(flow['low_bps'])}"
    return f"poisson, {flow['size_bytes'] / 1e6:g} MB each" if kind == "poisson" else kind


def _table(flows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    table = Table(title=f"{len(flows)} flow{'' if len(flows) == 1 else 's'} of background traffic",
                  title_justify="left")  # fmt: skip
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def traffic_table(flows: Sequence[Mapping[str, Any]]) -> Table:
    """Flows as the daemon tells them."""
    table = _table(flows, ("flow", "from", "to", "rate", "pattern", "state", "now"))
    for flow in flows:
        words = " ".join(filter(None, (flow["state"], flow["reason"] and f"({flow['reason']})")))
        now = format_rate(round(float(f"{flow['now_bps']:.3g}"))) if flow["now_bps"] else ""
        table.add_row(
            flow["name"], flow["source"], flow["destination"], f"{format_rate(flow['rate_bps'])} {flow['protocol']}",
            describe_pattern(flow), words, now,
        )  # fmt: skip
    return table


def flow_table(flows: Sequence[Mapping[str, Any]]) -> Table:
    """Flows of a plan or an inventory (as plain data)."""
    table = _table(flows, ("flow", "from", "to", "rate", "pattern", "starts"))
    for flow in flows:
        table.add_row(
            flow["name"], flow["source"], flow["destination"], f"{format_rate(flow['rate_bps'])} {flow['protocol']}",
            describe_pattern(flow), "with the testbed" if flow["start"] else "by hand",
        )  # fmt: skip
    return table
