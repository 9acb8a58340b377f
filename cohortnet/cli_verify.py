"""`cohortnet verify`: what a raised testbed declares against what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cohortnet.terminal import JsonOption, TestbedOption, need_root, pick_testbed, reported


def _tolerance(text: str) -> float:
    from topology.units import parse_fraction

    try:
        value = parse_fraction(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not 0.001 <= value <= 0.5:
        raise typer.BadParameter(f"{text}: from 0.1 % to 50 %")
    return value


def _duration(text: str) -> float:
    from topology.units import parse_time

    try:
        value = parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not 0.5 <= value <= 60:
        raise typer.BadParameter(f"{text}: from 500 ms to 60 s")
    return value


def verify(
    testbed: TestbedOption = None,
    tolerance: Annotated[str, typer.Option("--tolerance", help="Of rates, such as '2 %'.")] = "2 %",
    duration: Annotated[str, typer.Option("--duration", help="Measured window of a link, such as '2 s'.")] = "2 s",
    pairs: Annotated[int, typer.Option("--pairs", min=1, max=200000, help="Pairs of nodes at most.")] = 4000,
    failed_only: Annotated[bool, typer.Option("--failed", help="Show only what is out of tolerance.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure rate, round trip, loss and reachability of every link and pair, and compare with what was declared.

    Loads the testbed's links: not while a run matters. Exit status 1 where something is out of tolerance. The result is
    kept with the testbed, and with every run that ends after it.
    """
    need_root()
    allowed, seconds = _tolerance(tolerance), _duration(duration)
    with reported(as_json):
        from cohortnet.controller_client import Controller, controller_url
        from cohortnet.progress import Progress
        from topology.verify import verification

        inventory = pick_testbed(testbed)
        meters = []
        if inventory["core"]["controller"]["kind"] == "builtin":
            meters = Controller(controller_url(inventory)).meters()
        with Progress(quiet=as_json) as progress:
            found = verification.verify(inventory, meters=meters, tolerance=allowed, seconds=seconds, most_pairs=pairs,
                                        progress=progress)  # fmt: skip
        verification.keep(found, Path(inventory["paths"]["state"]))
        if as_json:
            print(json.dumps(found.as_dict(), indent=1))
        else:
            _show(found, failed_only)
        if not found.ok:
            raise typer.Exit(1)


def _show(found: Any, failed_only: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from cohortnet.follow import console_for

    console = console_for()
    table = Table(title=f"{found.testbed}: declared against measured")
    for column, justify in (("what", "left"), ("where", "left"), ("declared", "right"), ("measured", "right"),
                            ("", "left"), ("how", "left")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in found.rows:
        if failed_only and row.ok:
            continue
        verdict = Text("ok", "green") if row.ok else Text("OUT", "bold red")
        table.add_row(row.kind, row.subject, _value(row.declared, row.unit), _value(row.measured, row.unit),
                      verdict, row.note)  # fmt: skip
    console.print(table)
    out = [row for row in found.rows if not row.ok]
    for line in found.unreachable[:20]:
        console.print(f"no way: {line}")
    if len(found.unreachable) > 20:
        console.print(f"... and {len(found.unreachable) - 20} pairs more")
    for name in found.not_applied:
        console.print(f"not applied, because this kernel cannot: {name}")
    for note in found.notes:
        console.print(f"note: {note}")
    scope = "all pairs" if found.all_pairs else "some pairs of every class"
    console.print(f"{len(found.rows)} comparisons over {found.pairs} pairs ({scope}) in {found.seconds:.1f} s: "
                  + ("everything within tolerance" if found.ok else
                     f"{len(out)} out of tolerance, {len(found.unreachable)} pairs without a way"))  # fmt: skip


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "bit/s":
        return f"{value / 1e6:.4g} Mbit/s"
    if unit == "s":
        return f"{value * 1e3:.3g} ms"
    return f"{value * 100:.3g} %"
