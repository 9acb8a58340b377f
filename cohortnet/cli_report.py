"""`cohortnet report RUN`: the record of a run as one HTML file. Finds the record and says where the page is; draws
nothing."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cohortnet.record import own
from cohortnet.terminal import DEFAULT_RUNS, JsonOption, RunsOption, fail

SHOWN = 12
"""So many runs are named where the typed one is not there."""


def find_run(runs: Path, typed: str) -> Path:
    """The folder of a run that was typed by its id or as the path of its folder; ends with status 2 where it is not
    there."""
    for folder in (runs / typed, Path(typed)):
        if (folder / "manifest.json").is_file():
            return folder
    found = sorted(runs.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    names = [path.parent.name for path in found]
    if not names:
        fail(f"no record of {typed!r}: {runs} holds no runs; --runs names another folder", 2)
    near = difflib.get_close_matches(typed, names, 1)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    meant = f"\n    -> did you mean {near[0]}?" if near else ""
    fail(f"no record of {typed!r} in {runs}; there are (newest first): {shown}{meant}", 2)
    raise AssertionError  # fail never returns


def show(path: Path) -> bool:
    """Open the file in the user's browser (of the user who called sudo); whether that could be tried."""
    command = ["xdg-open", str(path)]
    user = os.environ.get("SUDO_USER")
    if os.geteuid() == 0 and user:
        command = ["sudo", "-u", user, *command]
    try:
        done = subprocess.run(command, capture_output=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def report(
    run: Annotated[str, typer.Argument(help="The run's id, or the folder of its record.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write (default: report.html in the run's folder).")
    ] = None,
    runs: RunsOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make one self-contained HTML file of a run: learning, durations, traffic against limits, RTT, CPU, memory,
    events."""
    from monitoring.report import RecordUnreadable, write_report

    folder = find_run(runs or DEFAULT_RUNS, run)
    target = out or folder / "report.html"
    if target.is_dir():
        target = target / f"{folder.name}.html"
    try:
        write_report(folder, target)
    except RecordUnreadable as error:
        fail(str(error), 2)
    except OSError as error:
        fail(f"{target}: cannot be written: {error.strerror}; name another file with --out", 2)
    own(target)
    if as_json:
        print(json.dumps({"run": folder.name, "report": str(target.resolve()), "bytes": target.stat().st_size}))
    else:
        print(f"{target} ({target.stat().st_size / 1000:.0f} kB): open it in any browser; it loads nothing.")
    if open_ and not show(target.resolve()):
        print(f"cohortnet: no browser could be opened here; the file is {target.resolve()}", file=sys.stderr)
