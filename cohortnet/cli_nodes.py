"""`cohortnet node ...`: nodes of a running testbed added, removed, restarted, paused, and given other limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cohortnet.terminal import JsonOption, TestbedOption, need_root, pick_testbed, reported
from topology.errors import Problem, TestbedProblems

node_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Nodes: add, remove, restart, pause and resume them, and change their limits, while the testbed is up.",
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The node.")]


@node_app.command("list", epilog="Example: sudo cohortnet node list --json")
def node_list(testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """List the nodes with their limits, their class of speed, and whether they run."""
    need_root()
    with reported(as_json):
        _show(pick_testbed(testbed)["nodes"], as_json)


@node_app.command("add", epilog="Example: sudo cohortnet node add fc.60 --like fc.10 --switch swCampus1 --cohort 1")
def node_add(
    name: NameArgument,
    like: Annotated[str, typer.Option("--like", help="A node whose role, limits, program and link it gets.")],
    switch: Annotated[str, typer.Option("--switch", help="The switch that it is linked to.")],
    cohort: Annotated[str | None, typer.Option("--cohort", help="The cohort that a client joins.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Default: after the last of its role.")] = None,
    testbed: TestbedOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Add a node, start its program, and return when it answers: it can take part in the next run."""
    need_root()
    with reported(as_json):
        from cohortnet import membership
        from cohortnet.progress import Progress

        chosen = pick_testbed(testbed)["testbed"]
        with Progress(quiet=as_json) as progress:
            entry = membership.add(chosen, name, like, switch, cohort=cohort, address=address, progress=progress)
        _show([entry], as_json)


@node_app.command("remove", epilog="Example: sudo cohortnet node remove fc.60")
def node_remove(name: NameArgument, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """End a node with all that runs in it, and take its link away; a client leaves its cohort."""
    need_root()
    with reported(as_json):
        from topology.engine import change_nodes

        change_nodes.remove_node(pick_testbed(testbed)["testbed"], name)
        print(json.dumps({"removed": [name]}) if as_json else f"removed: {name}")


@node_app.command("restart", epilog="Example: sudo cohortnet node restart fc.10")
def node_restart(name: NameArgument, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """End all that runs in a node, start its program again, and return when it answers."""
    need_root()
    with reported(as_json):
        from cohortnet import membership
        from cohortnet.progress import Progress

        with Progress(quiet=as_json) as progress:
            _show([membership.restart(pick_testbed(testbed)["testbed"], name, progress)], as_json)


@node_app.command("pause", epilog="Example: sudo cohortnet node pause fc.10")
def node_pause(name: NameArgument, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """Stop all that runs in a node where it stands: to others it is a client that is very slow."""
    _breathe(name, testbed, as_json, "pause")


@node_app.command("resume", epilog="Example: sudo cohortnet node resume fc.10")
def node_resume(name: NameArgument, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """Let a paused node go on."""
    _breathe(name, testbed, as_json, "resume")


def _breathe(name: str, testbed: str | None, as_json: bool, what: str) -> None:
    need_root()
    with reported(as_json):
        from topology.engine import change_life

        call = change_life.pause if what == "pause" else change_life.resume
        inventory = call(pick_testbed(testbed)["testbed"], name)
        _show([entry for entry in inventory["nodes"] if entry["name"] == name], as_json)


@node_app.command("limit", epilog="Example: sudo cohortnet node limit fc.10 --cpus 0.5 --memory 512MiB --cpuset 0")
def node_limit(
    name: NameArgument,
    cpus: Annotated[str | None, typer.Option("--cpus", help="Processor time in cores, such as 0.5.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Such as 512MiB.")] = None,
    cpuset: Annotated[str | None, typer.Option("--cpuset", help="Processors it may use, such as 0 or 0-1,3.")] = None,
    testbed: TestbedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change limits of a running node; the others stay."""
    with reported(as_json):
        wanted = parse_limits({"cpu": cpus, "memory": memory, "cpuset": cpuset})
        need_root()
        from topology.engine import change_nodes

        inventory = change_nodes.set_limits(pick_testbed(testbed)["testbed"], name, cpu=wanted.cpu,
                                            memory_bytes=wanted.memory, cpuset=wanted.cpuset)  # fmt: skip
        _show([entry for entry in inventory["nodes"] if entry["name"] == name], as_json)


def parse_limits(typed: Mapping[str, str | None]) -> Any:
    """What was typed as the model's Limits. Raises TestbedProblems with everything that is wrong with it."""
    from pydantic import ValidationError

    from topology.model import Limits

    given: dict[str, Any] = {key: value for key, value in typed.items() if value is not None}
    if not given:
        raise TestbedProblems([Problem("node limit", "nothing", "no limit to change",
                                       "give --cpus 0.5, --memory 512MiB, --cpuset 0")])  # fmt: skip
    try:
        return Limits.model_validate(given)
    except ValidationError as error:
        options = {"cpu": "--cpus", "memory": "--memory", "cpuset": "--cpuset"}
        raise TestbedProblems([
            Problem(options[str(item["loc"][0])], "bad-value",
                    f"{item['input']!r}: {str(item['msg']).removeprefix('Value error, ')}")
            for item in error.errors()
        ]) from None  # fmt: skip


def _show(nodes: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    shown = [{**node, "state": _state(node)} for node in nodes]
    if as_json:
        keys = ("name", "role", "cohort", "address", "switch", "switch_port", "cpu", "memory_bytes", "cpuset", "speed",
                "pid", "container", "state")  # fmt: skip
        print(json.dumps({"nodes": [{key: node.get(key) for key in keys} for node in shown]}, indent=1))
        return
    from cohortnet.follow import console_for
    from cohortnet.show import node_table

    console_for().print(node_table(shown))


def _state(node: Mapping[str, Any]) -> str:
    if not node["pid"] or not Path(f"/proc/{node['pid']}").exists():
        return "ended"
    return "paused" if node.get("paused") else "running"
