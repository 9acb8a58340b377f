"""The command `cohortnet`. Parses, calls, prints; decides nothing itself.

Exit status: 0 done, 1 something failed while it ran, 2 the input is wrong (nothing was done).
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cohortnet.choose import Choice, choose_testbed
from cohortnet.cli_grafana import grafana
from cohortnet.cli_intents import intent_app
from cohortnet.cli_links import link_app
from cohortnet.cli_meters import meter_app, show_app
from cohortnet.cli_nodes import node_app
from cohortnet.cli_report import report
from cohortnet.cli_runs import runs_app
from cohortnet.cli_top import top
from cohortnet.cli_traffic import traffic_app
from cohortnet.cli_verify import verify
from cohortnet.progress import Progress
from cohortnet.terminal import (
    DEFAULT_RUNS,
    JsonOption,
    RunsOption,
    TestbedOption,
    check_testbed_name,
    fail,
    known_node,
    need_root,
    pick_testbed,
    reported,
    typed_as,
)
from topology.errors import TestbedProblems, TopologyError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Real federated learning over networks that you design.")  # fmt: skip
app.add_typer(intent_app, name="intent")
app.add_typer(runs_app, name="runs")
app.add_typer(meter_app, name="meter")
app.add_typer(show_app, name="show")
app.add_typer(traffic_app, name="traffic")
app.add_typer(link_app, name="link")
app.add_typer(node_app, name="node")
app.command(epilog="Example: sudo cohortnet verify --tolerance '3 %'")(verify)
app.command(epilog="Example: sudo cohortnet grafana --port 3000")(grafana)
app.command(epilog="Example: cohortnet report edgeintent02-299128f0 --out report.html")(report)
app.command(epilog="Example: sudo cohortnet top --period 2")(top)

FileArgument = Annotated[Path | None, typer.Argument(help="Testbed file (YAML); leave it out for the preset.")]
PresetOption = Annotated[str | None, typer.Option("--preset",
                         help="factory-satellite (the default), three-access, cloud-fog-edge.")]  # fmt: skip
CohortsOption = Annotated[int | None, typer.Option("--cohorts", help="FL servers in the preset (default 3, or 2).")]
ClientsOption = Annotated[int | None, typer.Option("--clients", help="FL clients (default 50; 30, 16 in the others).")]
CampusesOption = Annotated[int | None, typer.Option("--campuses", help="Switches of factory-satellite (default 5).")]
NameOption = Annotated[str | None, typer.Option("--name", help="The testbed's name (default: the preset's or file's).")]
RuntimeOption = Annotated[str | None, typer.Option("--runtime", help="docker (default) or namespace.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of partitions, selection and training.")]
AllowOption = Annotated[list[str] | None, typer.Option("--allow-unsupported", metavar="PROPERTY",
                        help="Go on without what this kernel cannot do, e.g. delay; can be repeated.")]  # fmt: skip
MonitoringOption = Annotated[bool, typer.Option("--monitoring",
                             help="Measure everything while it is up (as `monitoring: true` in a file).")]  # fmt: skip


def build(choice: Choice, *, probe: bool = True, raising: bool = True) -> tuple[Any, Any]:
    """(testbed, plan), checked against this machine where `probe` is set; without `raising`, root is not needed.

    What will be tight here is said on stderr.
    """
    testbed, plan = choose_testbed(choice)
    if probe:
        from topology.doctor import capabilities, check_plan, kernel_limits, port_problems, resource_warnings

        found = capabilities()
        problems = check_plan(plan, found, raising=raising)
        if raising:
            from topology.engine import neighbours

            problems += neighbours.problems(plan, neighbours.others(plan.testbed))
            problems += port_problems(plan, neighbours.known_ports(plan))
        for warning in resource_warnings(plan, found, kernel_limits()):
            print(f"cohortnet: {warning.name}: {warning.detail}; {warning.cost}", file=sys.stderr)
        if problems:
            raise TestbedProblems(problems)
    return testbed, plan


@app.command(epilog="Example: cohortnet validate testbed.yaml")
def validate(
    file: FileArgument = None,
    preset: PresetOption = None,
    cohorts: CohortsOption = None,
    clients: ClientsOption = None,
    campuses: CampusesOption = None,
    name: NameOption = None,
    runtime: RuntimeOption = None,
    seed: SeedOption = None,
    allow_unsupported: AllowOption = None,
    monitoring: MonitoringOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a testbed completely (also against this machine) and show every problem; starts nothing, needs no root."""
    choice = Choice(file, preset, cohorts, clients, campuses, name, runtime, seed, allow_unsupported or (), monitoring)
    with reported(as_json):
        _, plan = build(choice, raising=False)
        if as_json:
            print(json.dumps({"valid": True, "errors": []}))
        else:
            sizes = f"{len(plan.nodes)} nodes, {len(plan.switches)} switches, {len(plan.links)} links"
            print(f"{plan.testbed}: valid ({sizes})")


@app.command("schema", epilog="Example: cohortnet schema > testbed.schema.json")
def show_schema() -> None:
    """Print the JSON Schema of a testbed file, for editors that complete and check as you type."""
    from topology.schema import testbed_schema

    print(json.dumps(testbed_schema(), indent=1, ensure_ascii=False))


@app.command("plan", epilog="Example: cohortnet plan --cohorts 3 --clients 12 --json")
def show_plan(
    file: FileArgument = None,
    preset: PresetOption = None,
    cohorts: CohortsOption = None,
    clients: ClientsOption = None,
    campuses: CampusesOption = None,
    name: NameOption = None,
    runtime: RuntimeOption = None,
    seed: SeedOption = None,
    allow_unsupported: AllowOption = None,
    monitoring: MonitoringOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what would be built: every name, address, datapath id and port number; starts nothing, needs no root."""
    choice = Choice(file, preset, cohorts, clients, campuses, name, runtime, seed, allow_unsupported or (), monitoring)
    with reported(as_json):
        _, plan = build(choice, probe=False)
        if as_json:
            print(json.dumps(plan.as_dict(), indent=1))
            return
        from cohortnet.follow import console_for
        from cohortnet.show import plan_tables

        for table in plan_tables(plan):
            console_for().print(table)


@app.command(epilog="Example: sudo cohortnet up --cohorts 2 --clients 8 --runtime namespace --allow-unsupported delay")
def up(
    file: FileArgument = None,
    preset: PresetOption = None,
    cohorts: CohortsOption = None,
    clients: ClientsOption = None,
    campuses: CampusesOption = None,
    name: NameOption = None,
    runtime: RuntimeOption = None,
    seed: SeedOption = None,
    allow_unsupported: AllowOption = None,
    monitoring: MonitoringOption = False,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Raise a testbed; it stays until `cohortnet down`."""
    need_root()
    choice = Choice(file, preset, cohorts, clients, campuses, name, runtime, seed, allow_unsupported or (), monitoring)
    with reported(as_json):
        raised = raise_chosen(choice, runs or DEFAULT_RUNS)
        if as_json:
            print(json.dumps(raised, indent=1))
        else:
            print_raised(raised)


def raise_chosen(choice: Choice, runs: Path) -> dict[str, Any]:
    """Validate, plan and raise; gives the inventory. SIGTERM ends it as Ctrl-C does: with everything taken away."""
    from cohortnet.lifecycle import raise_all

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        testbed, plan = build(choice)
        print(f"Raising {plan.testbed}: {len(plan.nodes)} nodes on the {plan.runtime} runtime", file=sys.stderr)
        with Progress() as progress:
            return raise_all(plan, testbed, runs, progress)
    except KeyboardInterrupt as error:
        notes = getattr(error, "__notes__", ())
        fail("interrupted; " + ("\n".join(notes) if notes else "nothing is left"), 130)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def print_raised(inventory: dict[str, Any]) -> None:
    """What a user needs next."""
    name = inventory["testbed"]
    print(f"Testbed {name} is up: {len(inventory['nodes'])} nodes, {len(inventory['switches'])} switches "
          f"({inventory['core']['datapath']} datapath), {len(inventory['cohorts'])} cohorts.")  # fmt: skip
    if inventory["unsupported"]:
        print(f"Not applied, because this kernel cannot: {', '.join(inventory['unsupported'])}.")
    if inventory["core"]["controller"]["kind"] == "external":
        print(f"Its switches are steered by the external controller {inventory['core']['controller']['address']}.")
    for meter in inventory["meters"]:
        print(f"  meter {meter['name']}: {meter['rate']} {meter['unit']} {meter['direction']}")
    monitoring = inventory["monitoring"] or {}
    for port in inventory["published"]:
        what = f"{port['node']}:{port['port']}" if port["node"] else "controller REST"
        if f"{port['host']}:{port['host_port']}" != monitoring.get("prometheus_address"):
            print(f"  http://{port['host']}:{port['host_port']}  {what}")
    if monitoring:
        if monitoring["prometheus_address"]:
            where = f", in {monitoring['node']}" if monitoring["node"] else ""
            print(f"  http://{monitoring['prometheus_address']}  Prometheus{where}")
        print(f"  http://{monitoring['exporter']}/metrics  exporter, a collection each {monitoring['period_s']:g} s")
    program = typed_as()
    if inventory["cohorts"] and any(node["role"] == "mlfo-edge" for node in inventory["nodes"]):
        cohort = shlex.quote(inventory["cohorts"][0]["name"])
        print(f"Next: sudo {program} intent send intents/drilling.yaml --testbed {name} --cohort {cohort} --wait")
    print(f"Then: sudo {program} down {name}")


@app.command(epilog="Example: sudo cohortnet down factory-satellite")
def down(
    name: Annotated[str | None, typer.Argument(help="The testbed; may be left out where only one exists.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Remove all testbeds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a testbed in whatever state it is (also half-made, also after a crash); touches nothing else."""
    if name is not None and every:
        raise typer.BadParameter(f"give a testbed's name or --all, not both: --all removes more than {name!r}")
    need_root()
    from cohortnet.lifecycle import remove_all
    from topology.engine import engine

    with reported(as_json):
        if name is not None:
            check_testbed_name(name)
        names = [summary.name for summary in engine.list_testbeds()]
        if name is not None:
            chosen = [name]
        elif every or len(names) <= 1:
            chosen = names
        else:
            raise TopologyError(f"several testbeds exist ({', '.join(names)}); name one, or give --all")
        removed = {}
        for testbed in chosen:
            with Progress(quiet=as_json) as progress:
                removal = remove_all(testbed, progress)
            removed[testbed] = {"removed": list(removal.removed), "remaining": list(removal.left)}
        if as_json:
            print(json.dumps(removed, indent=1))
        else:
            _print_removed(removed)
        if any(what["remaining"] for what in removed.values()):
            raise typer.Exit(1)


def _print_removed(removed: dict[str, dict[str, list[str]]]) -> None:
    if not removed:
        print("No testbed exists; nothing to remove.")
    for testbed, what in removed.items():
        left = f"; could not remove: {', '.join(what['remaining'])}" if what["remaining"] else ""
        if what["removed"] or left:
            print(f"Removed {testbed}: {len(what['removed'])} things{left}")
        else:
            print(f"Nothing of {testbed} exists.")


@app.command("ls", epilog="Example: cohortnet ls --json")
def list_all(as_json: JsonOption = False) -> None:
    """List the testbeds of this host."""
    from topology.engine import engine

    with reported(as_json):
        found = engine.list_testbeds()
        if as_json:
            print(json.dumps([dict(vars(summary)) for summary in found], indent=1, default=str))
        elif not found:
            print("No testbed exists; `sudo cohortnet up` raises one.")
        for summary in found if not as_json else []:
            print(f"{summary.name}  {summary.state}  {summary.runtime}  {summary.nodes} nodes")


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
             epilog="Example: sudo cohortnet exec fc.10 ping -c 3 10.0.0.101")  # fmt: skip
def execute(
    node: Annotated[str, typer.Argument(help="The node.")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    testbed: TestbedOption = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds until the command is ended.")] = 3600.0,
) -> None:
    """Run a command in a node, within its namespaces and limits; the exit status is the command's."""
    need_root()
    from topology.engine import execution

    with reported():
        inventory = pick_testbed(testbed)
        known_node(inventory, node)
        try:
            done = execution.execute(inventory, node, command, tty=True, timeout_s=timeout)
        except subprocess.TimeoutExpired:
            fail(f"{node}: `{command[0]}` had not ended after {timeout:g} s and was ended", 124)
        raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


@app.command(epilog="Example: cohortnet doctor --json")
def doctor(
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Status 1 for every finding that is not ok.")] = False,
) -> None:
    """Say what this machine's kernel and daemons can do, what a lack costs, and how to mend it.

    Ends with status 1 where no testbed can be raised on this machine.
    """
    from dataclasses import asdict

    from topology.doctor import can_raise, capabilities, findings, kernel_limits

    found = findings()
    able = can_raise(found)
    if as_json:
        print(
            json.dumps(
                {"can_raise": able, "capabilities": asdict(capabilities()), "limits": asdict(kernel_limits()),
                 "findings": [asdict(item) for item in found]},
                indent=1,
            )
        )  # fmt: skip
    else:
        from cohortnet.follow import console_for
        from cohortnet.show import finding_table

        console_for().print(finding_table([asdict(item) for item in found]))
    if not able or (strict and any(item.status != "ok" for item in found)):
        raise typer.Exit(1)


@app.command(epilog="Example: sudo cohortnet logs fed.1 --run ID")
def logs(
    node: Annotated[
        str,
        typer.Argument(help="A node, or a daemon: controller, spawner, recorder, monitoring, prometheus, proxy, "
                       "ovs-vswitchd."),
    ],
    run: Annotated[str | None, typer.Option("--run", help="The log of that run's process in the node.")] = None,
    tail: Annotated[int, typer.Option("--tail", min=1, max=100000, help="Lines from the end.")] = 200,
    testbed: TestbedOption = None,
) -> None:
    """Show the log of a node's program, of a run's process in it, or of a daemon of the testbed."""
    from cohortnet.logs import read_log

    with reported():
        print(read_log(pick_testbed(testbed), node, run, tail), end="")


def guarded(call: Callable[[], Any]) -> int:
    """Run the command line and give its exit status; Ctrl-C is 130, without a traceback."""
    try:
        call()
    except KeyboardInterrupt:
        print("cohortnet: interrupted", file=sys.stderr)
        return 130
    except SystemExit as ended:
        return int(ended.code or 0) if not isinstance(ended.code, str) else 1
    return 0


def main() -> None:
    """Entry point of the console script."""
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
