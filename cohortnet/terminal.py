"""What all commands share on the terminal: common options, errors as messages and exit statuses, which testbed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from topology.errors import TestbedProblems, TopologyError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
RunsOption = Annotated[Path | None, typer.Option("--runs", envvar="COHORTNET_RUNS",
                       help="Folder of the records of runs (default: runs, or the testbed's).")]  # fmt: skip
TestbedOption = Annotated[str | None, typer.Option("--testbed", help="Which testbed, where several are up.")]
DEFAULT_RUNS = Path("runs")


def fail(message: str, status: int = 1) -> None:
    """Print an error and end with that status."""
    print(f"cohortnet: {message}", file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def reported(as_json: bool = False) -> Iterator[None]:
    """Turn our errors into messages and exit statuses."""
    from cohortnet.controller_client import ControllerError
    from cohortnet.orchestrator import OrchestratorError

    try:
        yield
    except TestbedProblems as error:
        report_problems(error, as_json)
        raise typer.Exit(2) from None
    except (OrchestratorError, ControllerError) as error:
        if as_json:
            print(json.dumps({"errors": error.errors or [{"message": str(error)}]}))
        fail(str(error), 2 if error.status is not None and 400 <= error.status < 500 else 1)
    except TopologyError as error:
        if as_json:
            print(json.dumps({"errors": [{"message": str(error)}]}))
        fail(full_text(error))


def full_text(error: BaseException) -> str:
    """An error's text with what was added to it on its way (such as what could not be removed)."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def report_problems(error: TestbedProblems, as_json: bool) -> None:
    """Every problem, once, on stderr (or as JSON on stdout), and what they keep from being judged."""
    problems = error.problems
    if as_json:
        found = [problem.as_dict() for problem in problems]
        print(json.dumps({"valid": False, "errors": found, "unchecked": list(error.unchecked)}, indent=1))
        return
    count = len(problems)
    print(f"cohortnet: {count} problem{'s' if count > 1 else ''}, nothing was done", file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    if error.unchecked:
        print(f"  not looked at before these are mended: {', '.join(error.unchecked)}", file=sys.stderr)


def need_root() -> None:
    """Leave with a clear message where root is needed."""
    if os.geteuid() != 0:
        fail("this needs root: put `sudo` in front", 2)


def pick_testbed(name: str | None) -> dict[str, Any]:
    """The inventory of the named testbed, or of the only one that is up."""
    from topology.engine.engine import list_testbeds
    from topology.inventory import inventory_path, read_inventory

    if name is None:
        names = [summary.name for summary in list_testbeds()]
        if len(names) != 1:
            found = f"several testbeds exist ({', '.join(names)})" if names else "no testbed is up"
            raise TopologyError(
                f"{found}; " + ("name one with --testbed" if names else "raise one with `cohortnet up`")
            )
        name = names[0]
    return read_inventory(inventory_path(name))
