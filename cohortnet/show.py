"""Plans, testbeds, inventories and findings as tables for people. Pure: data in, Rich tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from cohortnet.show_traffic import flow_table
from topology.plan import Plan, Shape
from topology.units import format_rate, format_size, format_time


def describe_shape(shape: Shape | Mapping[str, Any]) -> str:
    """One direction of a link in words: "500 Mbit/s, 12 ms"."""
    values = shape.__dict__ if isinstance(shape, Shape) else shape
    parts = [format_rate(values["rate_bps"])]
    for name in ("delay", "jitter"):
        if values[f"{name}_s"]:
            parts.append(("" if name == "delay" else f"{name} ") + format_time(values[f"{name}_s"]))
    if values.get("distribution"):
        parts[-1] += f" ({values['distribution']})"
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        if values[name]:
            parts.append(f"{name} {values[name] * 100:g} %")
    if values["queue_packets"]:
        parts.append(f"queue {values['queue_packets']}")
    return ", ".join(parts)


def _both(link: Mapping[str, Any]) -> str:
    up, down = describe_shape(link["a_to_b"]), describe_shape(link["b_to_a"])
    return up if up == down else f"{up} / {down}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def node_table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    """Nodes of a plan or an inventory (as plain data)."""
    more = [key for key in ("cpuset", "speed", "state") if any(node.get(key) for node in nodes)]
    what = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    table = _table(what, ("node", "role", "cohort", "address", "switch", "port", "cpu", "memory", *more))
    for node in nodes:
        table.add_row(
            node["name"], node["role"], node["cohort"] or "", node["address"], node["switch"], str(node["switch_port"]),
            "" if node["cpu"] is None else f"{node['cpu']:g}",
            "" if node["memory_bytes"] is None else format_size(node["memory_bytes"]),
            *(str(node.get(key) or "") for key in more),
        )  # fmt: skip
    return table


def switch_table(switches: Sequence[Mapping[str, Any]]) -> Table:
    """Switches with their ports in order."""
    table = _table(f"{len(switches)} switches", ("switch", "datapath id", "ports (number:peer)"))
    for switch in switches:
        ports = " ".join(f"{port['number']}:{port['peer']}" for port in switch["ports"])
        table.add_row(switch["name"], f"0x{switch['datapath_id']:016x}", ports)
    return table


def link_table(links: Sequence[Mapping[str, Any]]) -> Table:
    """Links with what each direction does."""
    table = _table(f"{len(links)} links", ("a", "b", "a to b / b to a"))
    for link in links:
        ends = [f"{link[e]}:{link[f'{e}_port']}" if link[f"{e}_port"] else link[e] for e in ("a", "b")]
        table.add_row(*ends, _both(link))
    return table


def changed_link_table(links: Sequence[Mapping[str, Any]]) -> Table:
    """Links with what each direction does now, what was declared where that is another, and whether they are up."""
    states = any("state" in link for link in links)
    what = "1 link" if len(links) == 1 else f"{len(links)} links"
    table = _table(what, ("a", "b", "a to b", "b to a", "declared", *(["state"] if states else [])))
    for link in links:
        declared = _both(link["declared"]) if link.get("declared") else ""
        shapes = [describe_shape(link[way]) for way in ("a_to_b", "b_to_a")]
        table.add_row(link["a"], link["b"], *shapes, declared, *([str(link["state"])] if states else []))
    return table


def cohort_table(cohorts: Sequence[Mapping[str, Any]]) -> Table:
    """Cohorts with their server and clients."""
    table = _table(f"{len(cohorts)} cohorts", ("cohort", "server", "size", "clients"))
    for cohort in cohorts:
        names = list(cohort["clients"])
        shown = ", ".join(names) if len(names) <= 6 else f"{names[0]} ... {names[-1]}"
        table.add_row(cohort["name"], cohort["server"], str(len(names)), shown)
    return table


def plan_tables(plan: Plan) -> list[Table]:
    """Everything that would be built."""
    data = plan.as_dict()
    return [
        node_table(data["nodes"]),
        switch_table(data["switches"]),
        link_table(data["links"]),
        cohort_table(data["cohorts"]),
        *([flow_table(data["traffic"])] if data["traffic"] else []),
    ]


def intent_table(intents: Sequence[Mapping[str, Any]]) -> Table:
    """Intents as the MLFO lists them."""
    table = _table(f"{len(intents)} intents", ("id", "intent", "state", "cohort", "server", "clients", "reason"))
    for item in intents:
        clients = item.get("clients") or []
        table.add_row(
            str(item["id"]), str(item.get("intentID") or ""), str(item["state"]), str(item.get("cohort") or ""),
            str(item.get("server") or ""), str(len(clients)), str(item.get("reason") or ""),
        )  # fmt: skip
    return table


def finding_table(findings: Sequence[Mapping[str, Any]]) -> Table:
    """The doctor's findings: what was looked at, how it stands, what a lack costs and what mends it."""
    table = _table("doctor", ("what", "status", "found", "costs", "remedy"))
    colours = {"ok": "green", "warning": "yellow", "missing": "red"}
    for item in findings:
        status = str(item["status"])
        table.add_row(str(item["name"]), Text(status, colours.get(status, "white")), str(item["detail"]),
                      str(item.get("cost") or ""), str(item.get("remedy") or ""))  # fmt: skip
    return table
