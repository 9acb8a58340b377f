"""A frame drawn with Rich, for terminals from 80 columns on; or in plain lines. Knows values and widths, asks nobody.

What does not fit is said ("and 38 more"), never silently cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from monitoring.top.frame import CohortView, Frame, LinkView, MeterView, NodeView, TrafficView

BAR = 10
COLOURS = {"running": "green", "succeeded": "cyan", "failed": "bold red", "cancelled": "yellow", "idle": "dim"}
NARROW, WIDE = 100, 122
"""Below so many columns what is said elsewhere is left out of a table."""


def amount(value: float | None, unit: str = "bit/s") -> str:
    """12.3M (bit/s) or 480 (packet/s), in at most six letters."""
    if value is None:
        return "–"
    if unit != "bit/s":
        return f"{value:.0f}"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.9995:
            shown = value / factor
            return f"{shown:.0f}{letter}" if shown >= 100 else f"{shown:.3g}{letter}"
    return f"{value:.0f}"


def memory(value: float | None) -> str:
    """123M in binary megabytes, 1.2G above."""
    if value is None:
        return "–"
    return f"{value / 2**30:.1f}G" if value >= 2**30 else f"{value / 2**20:.0f}M"


def bar(share: float | None, width: int = BAR) -> Text:
    """A bar with its share; red where it is nearly full."""
    if share is None:
        return Text("")
    filled = round(min(max(share, 0.0), 1.0) * width)
    colour = "red" if share >= 0.9 else "yellow" if share >= 0.7 else "green"
    return Text.assemble(("█" * filled, colour), ("░" * (width - filled), "dim"), f"{share * 100:4.0f}%")


def share(value: float | None, limit: float | None) -> float | None:
    """None where either is not known."""
    return value / limit if value is not None and limit else None


def draw(frame: Frame, width: int, height: int | None = None, *, by_memory: bool = False, live: bool = False) -> Group:
    """The whole picture. With a `height` the lists of links and nodes are as long as fit."""
    shown = _rows(frame, height)
    nodes = sorted(frame.nodes, key=lambda node: (node.up, -(node.memory_bytes or 0))) if by_memory else frame.nodes
    parts: list[RenderableType] = [_head(frame, live)]
    parts += [Text(f"! {problem}", style="bold red") for problem in frame.problems]
    parts += _part(
        "Cohorts (bit/s arrived / limit; m: a meter's)",
        _cohorts(frame.cohorts[: shown["cohorts"]], width),
        frame.cohorts,
        shown["cohorts"],
        "no cohorts in this testbed",
    )
    if frame.meters:
        parts += _part("Meters", _meters(frame.meters[: shown["meters"]], width), frame.meters, shown["meters"], "")
    if frame.traffic:
        parts += _part(
            "Background traffic", _traffic(frame.traffic[: shown["traffic"]]), frame.traffic, shown["traffic"], ""
        )
    full = sum(link.saturated for link in frame.links)
    title = f"Links, fullest first ({full} saturated)" if full else "Links, fullest first (none saturated)"
    parts += _part(
        title, _links(frame.links[: shown["links"]], width), frame.links, shown["links"], "no link carries anything"
    )
    parts += _part(
        f"Nodes by {'memory' if by_memory else 'CPU'}",
        _nodes(nodes[: shown["nodes"]], width),
        nodes,
        shown["nodes"],
        "no nodes",
    )
    parts.append(_foot(frame, live))
    return Group(*parts)


def _rows(frame: Frame, height: int | None) -> dict[str, int]:
    wanted = {
        "cohorts": len(frame.cohorts),
        "meters": len(frame.meters),
        "traffic": len(frame.traffic),
        "links": min(len(frame.links), 6),
        "nodes": min(len(frame.nodes), 10),
    }
    if height is None:
        return wanted
    # A title and a heading a table, perhaps a line "and n more", head and foot: what is left is shared out in turns.
    tables = [name for name, count in wanted.items() if count]
    left = max(height - 3 * len(tables) - 3 - len(frame.problems), len(tables))
    given = dict.fromkeys(wanted, 0)
    while left > 0:
        open_ = [name for name in tables if given[name] < wanted[name]]
        if not open_:
            break
        for name in open_[:left]:
            given[name] += 1
        left -= len(open_)
    return given


def _part(title: str, table: Table, every: Sequence[object], shown: int, nothing: str) -> list[RenderableType]:
    parts: list[RenderableType] = [Rule(Text(title, style="bold"), align="left", style="dim")]
    parts.append(table if every else Text(f"  {nothing}", style="dim"))
    if len(every) > shown:
        parts.append(Text(f"  and {len(every) - shown} more", style="dim"))
    return parts


def _table(*columns: str | tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", expand=False)
    for column in columns:
        name, justify = column if isinstance(column, tuple) else (column, "left")
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True, overflow="ellipsis")
    return table


def _head(frame: Frame, live: bool) -> Text:
    clock = datetime.fromtimestamp(frame.time).strftime("%H:%M:%S")
    down = frame.nodes_all - frame.nodes_up
    text = Text.assemble((frame.testbed, "bold"), f"  {clock}  {frame.nodes_up}/{frame.nodes_all} nodes up")
    if down:
        text.append(f", {down} DOWN", style="bold red")
    running = sum(cohort.state == "running" for cohort in frame.cohorts)
    text.append(f"  {running} of {len(frame.cohorts)} cohorts running")
    if live:
        text.append("   q quit, s sort", style="dim")
    return text


def _foot(frame: Frame, live: bool) -> Text:
    cost = frame.exporter
    collect, cpu = cost.get("collect_seconds"), cost.get("cpu_share")
    said = "" if collect is None else f"a look takes {collect * 1000:.0f} ms"
    said += "" if cpu is None else f", this program uses {cpu * 100:.1f} % of a core"
    said += f", {memory(cost.get('resident_bytes'))}iB" if cost.get("resident_bytes") else ""
    said += f", {cost['series']:.0f} series" if cost.get("series") else ""
    return Text(said, style="dim")


def _pair(value: float | None, limit: float | None, kind: str) -> Text:
    text = Text(f"{amount(value):>5}")
    used = share(value, limit)
    style = "red" if used is not None and used >= 0.9 else "dim"
    text.append(f"/{amount(limit)}{'m' if kind == 'meter' else ''}" if limit else "/–", style=style)
    return text


def _cohorts(cohorts: Sequence[CohortView], width: int) -> Table:
    wide = width >= NARROW
    columns: list[str | tuple[str, str]] = [
        "cohort",
        "server",
        "state",
        ("round", "right"),
        ("accuracy", "right"),
        ("loss", "right"),
        ("up", "right"),
        ("down", "right"),
    ]
    if wide:
        columns += ["up share", "down share"]
    if width >= WIDE:
        columns.append("run")
    table = _table(*columns, ("failed", "right"))
    for view in cohorts:
        state = view.phase if view.state == "running" and view.phase else view.state
        if view.state == "starting" or view.phase == "joining":
            state = f"joined {view.joined}/{view.clients}"
        rounds = "–" if view.round is None else f"{view.round}/{view.rounds if view.rounds is not None else '?'}"
        cells: list[RenderableType] = [
            Text(view.name, style="bold"),
            Text(view.server),
            Text(state, style=COLOURS.get(view.state, "yellow")),
            rounds,
            "–" if view.accuracy is None else f"{view.accuracy * 100:.1f}%",
            "–" if view.loss is None else f"{view.loss:.3f}",
            _pair(view.up_bps, view.up_limit_bps, view.up_limit_kind),
            _pair(view.down_bps, view.down_limit_bps, view.down_limit_kind),
        ]
        if wide:
            cells += [bar(share(view.up_bps, view.up_limit_bps), 8), bar(share(view.down_bps, view.down_limit_bps), 8)]
        if width >= WIDE:
            cells.append(Text(view.run or "–", style="dim"))
        table.add_row(*cells, Text(str(view.failures), style="bold red" if view.failures else "dim"))
    return table


def _meters(meters: Sequence[MeterView], width: int) -> Table:
    table = _table(
        "meter",
        "limits",
        "way",
        ("offered", "right"),
        ("limit", "right"),
        "offered of limit",
        ("drops/s", "right"),
        "in force",
    )
    for view in meters:
        force = Text(view.in_force + (", pending" if view.pending else ""), style="yellow" if view.pending else "")
        if view.problem and width >= NARROW:
            force.append(f": {view.problem}", style="red")
        unit = " p/s" if view.unit != "bit/s" else ""
        drops = "–" if view.drops_per_s is None else f"{view.drops_per_s:.0f}"
        table.add_row(
            Text(view.name, style="bold"),
            Text(view.target),
            view.direction,
            amount(view.rate, view.unit),
            amount(view.limit, view.unit) + unit,
            bar(share(view.rate, view.limit)),
            Text(drops, style="bold red" if view.drops_per_s else ""),
            force,
        )
    return table


def _links(links: Sequence[LinkView], width: int) -> Table:
    table = _table("link", ("rate", "right"), ("declared", "right"), "share", ("drops/s", "right"), "state")
    for view in links:
        name = f"{view.sender} → {view.receiver}"
        state = (
            Text("DOWN", style="bold red") if not view.up else Text("saturated" if view.saturated else "", style="red")
        )
        table.add_row(
            Text(name),
            amount(view.rate_bps),
            amount(view.limit_bps),
            bar(view.share),
            Text(f"{view.drops_per_s:.0f}", style="red" if view.drops_per_s else "dim"),
            state,
        )
    return table


def _nodes(nodes: Sequence[NodeView], width: int) -> Table:
    columns: list[str | tuple[str, str]] = ["node", "role", "cohort", ("CPU, cores", "right"), ("memory", "right")]
    wide = width >= NARROW
    table = _table(*columns, *(["CPU of limit", "memory of limit"] if wide else []), ("throttled", "right"))
    for view in nodes:
        cells: list[RenderableType] = [
            Text(view.name, style="bold" if view.up else "bold red"),
            Text(view.role),
            Text(view.cohort or "–"),
            "DOWN" if not view.up else "–" if view.cpu_cores is None else f"{view.cpu_cores:.2f}",
            memory(view.memory_bytes),
        ]
        if wide:
            cells += [
                bar(share(view.cpu_cores, view.cpu_limit_cores)) if view.cpu_limit_cores else Text("no limit", "dim"),
                bar(share(view.memory_bytes, view.memory_limit_bytes))
                if view.memory_limit_bytes
                else Text("no limit", "dim"),
            ]
        table.add_row(*cells, "–" if view.throttled is None else f"{view.throttled * 100:.0f}%")
    return table


def _traffic(flows: Sequence[TrafficView]) -> Table:
    table = _table("flow", "from → to", "pattern", "state", ("target", "right"), ("source sends", "right"))
    for view in flows:
        state = Text("running", style="green") if view.running else Text("stopped", style="dim")
        table.add_row(
            Text(view.name, style="bold"),
            Text(f"{view.source} → {view.destination}"),
            Text(view.pattern),
            state,
            amount(view.target_bps),
            amount(view.source_bps),
        )
    return table


def lines(frame: Frame) -> list[str]:
    """The frame in plain lines, for logs and pipes: one a cohort, one a meter that drops, one a saturated link."""
    clock = datetime.fromtimestamp(frame.time).strftime("%H:%M:%S")
    busiest = max(frame.nodes, key=lambda node: node.cpu_cores or 0.0, default=None)
    busy = f", most CPU {busiest.name} {busiest.cpu_cores:.2f}" if busiest and busiest.cpu_cores is not None else ""
    found = [f"{clock} {frame.testbed}: {frame.nodes_up}/{frame.nodes_all} nodes up{busy}"]
    found += [f"{clock} ! {problem}" for problem in frame.problems]
    for view in frame.cohorts:
        rounds = "" if view.round is None else f" round {view.round}/{view.rounds if view.rounds is not None else '?'}"
        accuracy = "" if view.accuracy is None else f" accuracy {view.accuracy * 100:.1f}%"
        loss = "" if view.loss is None else f" loss {view.loss:.3f}"
        found.append(
            f"{clock} cohort {view.name} ({view.server}): {view.state}{rounds}{accuracy}{loss} "
            f"up {amount(view.up_bps)}/{amount(view.up_limit_bps)} "
            f"down {amount(view.down_bps)}/{amount(view.down_limit_bps)} bit/s"
        )
    found += [
        f"{clock} meter {view.name} {view.direction}: offered {amount(view.rate, view.unit)} of "
        f"{amount(view.limit, view.unit)} {view.unit}, {view.drops_per_s:.0f} drops/s"
        for view in frame.meters
        if view.drops_per_s
    ]
    found += [
        f"{clock} link {view.sender} → {view.receiver}: {amount(view.rate_bps)} of {amount(view.limit_bps)} bit/s"
        for view in frame.links
        if view.saturated
    ]
    return found
