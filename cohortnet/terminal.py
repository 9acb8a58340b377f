"""What all commands share on the terminal: common options, errors as messages and exit statuses, which testbed and
which node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from topology.errors import Problem, TestbedProblems, TopologyError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
RunsOption = Annotated[Path | None, typer.Option("--runs", envvar="COHORTNET_RUNS",
                       help="Folder of the records of runs (default: runs, or the testbed's).")]  # fmt: skip
TestbedOption = Annotated[str | None, typer.Option("--testbed", help="Which testbed, where several are up.")]
DEFAULT_RUNS = Path("runs")
NEEDS_ROOT = "this needs root: put `sudo` in front"
SHOWN = 12
"""So many names are listed where the typed one is not among them."""


class NeedsRoot(TopologyError):
    """Only root may read what was asked for."""

    def __init__(self) -> None:
        super().__init__(NEEDS_ROOT)


def fail(message: str, status: int = 1) -> None:
    """Print an error and end with that status."""
    print(f"cohortnet: {message}", file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def reported(as_json: bool = False) -> Iterator[None]:
    """Turn our errors, and those of the system, into messages and exit statuses."""
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
        fail(full_text(error), 2 if isinstance(error, NeedsRoot) else 1)
    except BrokenPipeError:
        raise  # whoever read our output has gone (`| head`): the command line ends without a word
    except (OSError, subprocess.SubprocessError) as error:
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


def typed_as() -> str:
    """How this program is typed from this folder: by its name where that is found, else by its path."""
    script = Path(sys.prefix) / "bin" / "cohortnet"
    if shutil.which("cohortnet") or not script.exists():
        return "cohortnet"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def need_root() -> None:
    """Leave with a clear message where root is needed."""
    if os.geteuid() != 0:
        fail(NEEDS_ROOT, 2)


def pick_testbed(name: str | None) -> dict[str, Any]:
    """The inventory of the named testbed, or of the only one that is up.

    Raises:
        TestbedProblems: where no testbed has that name.
        NeedsRoot: where this user may not read it.
        TopologyError: where no name was given and not exactly one testbed exists, or it is not yet up.
    """
    from topology.engine import state
    from topology.engine.engine import list_testbeds
    from topology.inventory import inventory_path, read_inventory

    if name is None:
        names = [summary.name for summary in list_testbeds()]
        if len(names) != 1:
            found = f"several testbeds exist ({', '.join(names)})" if names else "no testbed is up"
            raise TopologyError(
                f"{found}; " + ("name one with --testbed" if names else "raise one with `sudo cohortnet up`")
            )
        name = names[0]
    elif name not in state.names():
        raise TestbedProblems([Problem("--testbed", "unknown-testbed", f"no testbed is called {name!r}",
                                       "`cohortnet ls` lists them")])  # fmt: skip
    try:
        return read_inventory(inventory_path(name))
    except PermissionError:
        raise NeedsRoot from None


def check_testbed_name(name: str) -> None:
    """Raises TestbedProblems for what cannot be a testbed's name."""
    from topology.engine import state

    try:
        state.check_name(name)
    except TopologyError:
        raise TestbedProblems([Problem("name", "bad-value", f"{name!r} is no testbed's name",
                                       "`cohortnet ls` lists the testbeds")]) from None  # fmt: skip


def known_node(inventory: Mapping[str, Any], name: str, others: Sequence[str] = ()) -> dict[str, Any] | None:
    """The entry of the node of that name; None where it is one of the `others` (daemons) that may stand there too.

    Raises:
        TestbedProblems: where there is neither, with those that there are.
    """
    nodes = {str(node["name"]): dict(node) for node in inventory["nodes"]}
    if name in nodes or name in others:
        return nodes.get(name)
    shown = ", ".join([*list(nodes)[:SHOWN], *(["..."] if len(nodes) > SHOWN else [])])
    hint = f"nodes: {shown}" + (f"; daemons: {', '.join(others)}" if others else "")
    what = "node or daemon" if others else "node"
    raise TestbedProblems([Problem("node", "unknown-node", f"no {what} of {inventory['testbed']!r} is called {name!r}",
                                   hint)])  # fmt: skip
