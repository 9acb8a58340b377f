"""`cohortnet runs ...`: read the records of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cohortnet.terminal import DEFAULT_RUNS, JsonOption, RunsOption, fail

runs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Read the records of runs.")


def print_summaries(runs: Path, identities: list[str], as_json: bool) -> None:
    """The table of these runs, or the same as JSON."""
    from dataclasses import asdict

    from cohortnet.follow import console_for, summary_table
    from cohortnet.record import RunRecord

    summaries = [RunRecord(runs / identity).summary() for identity in identities]
    if as_json:
        print(json.dumps([asdict(item) for item in summaries], indent=1))
        return
    console_for().print(summary_table(summaries))
    for item in summaries:
        if item.reason and item.state != "succeeded":
            print(f"{item.run}: {item.reason}")


@runs_app.command("list", epilog="Example: cohortnet runs list")
def runs_list(runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """List the recorded runs, oldest first."""
    runs = runs or DEFAULT_RUNS
    found = sorted(runs.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    print_summaries(runs, [path.parent.name for path in found], as_json)


@runs_app.command("table", epilog="Example: cohortnet runs table ID1 ID2")
def runs_table(
    identities: Annotated[list[str], typer.Argument(help="Ids of runs.")],
    runs: RunsOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Print the table of these runs: cohort, server, rounds, accuracy per round, bytes, seconds."""
    runs = runs or DEFAULT_RUNS
    unknown = [identity for identity in identities if not (runs / identity / "manifest.json").exists()]
    if unknown:
        fail(
            f"no record of {', '.join(unknown)} in {runs}; `cohortnet runs list` lists those that are there",
            2,
        )
    print_summaries(runs, identities, as_json)
