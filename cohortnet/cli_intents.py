"""`cohortnet intent ...`: post intents to the edge MLFO, follow, show and stop them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cohortnet.cli_runs import print_summaries
from cohortnet.terminal import DEFAULT_RUNS, JsonOption, RunsOption, TestbedOption, fail, pick_testbed, reported

intent_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Post intents, follow and stop them.")


def _fields(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


@intent_app.command(
    "send", epilog="Example: sudo cohortnet intent send intents/drilling.yaml --ipstart 10 --cohortsize 4 --wait"
)
def intent_send(
    file: Annotated[Path, typer.Argument(help="Intent file (YAML).")],
    ipstart: Annotated[int | None, typer.Option(help="Last octet of the first client.")] = None,
    cohortsize: Annotated[int | None, typer.Option(help="Number of consecutive clients.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Cohort of the plan, instead of ipstart and cohortsize.")] = None,
    sameserver: Annotated[
        str | None, typer.Option(help="no: a server by the plan; nor: reset first; yes: the last one.")
    ] = None,
    avgalgo: Annotated[str | None, typer.Option(help="Strategy, e.g. FedAvg.")] = None,
    fracfit: Annotated[float | None, typer.Option(help="Share of clients that train in a round, 0 to 1.")] = None,
    minfit: Annotated[int | None, typer.Option(help="Clients that train in a round, at least.")] = None,
    minav: Annotated[int | None, typer.Option(help="Clients that must be there, at least.")] = None,
    numround: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end and print its table.")] = False,
    runs: RunsOption = None,
    testbed: TestbedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Post an intent to the edge MLFO."""
    from cohortnet.orchestrator import Orchestrator, edge_url

    fields = _fields(ipstart=ipstart, cohortsize=cohortsize, cohort=cohort, sameserver=sameserver, avgalgo=avgalgo,
                     fracfit=fracfit, minfit=minfit, minav=minav, numround=numround)  # fmt: skip
    with reported(as_json):
        inventory = pick_testbed(testbed)
        answer = Orchestrator(edge_url(inventory)).send(file, fields)
        if as_json and not wait:
            print(json.dumps(answer, indent=1))
        elif not as_json:
            print(f"intent {answer['id']} {answer['state']}")
            for note in answer.get("notes") or []:
                print(f"  note: {note}")
        if wait:
            _wait(inventory, [answer["id"]], recorded_in(inventory, runs), as_json)


@intent_app.command("list", epilog="Example: sudo cohortnet intent list")
def intent_list(testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """List the intents that the edge MLFO knows."""
    from cohortnet.follow import console_for
    from cohortnet.orchestrator import Orchestrator, edge_url
    from cohortnet.show import intent_table

    with reported(as_json):
        found = Orchestrator(edge_url(pick_testbed(testbed))).intents()
        if as_json:
            print(json.dumps(found, indent=1))
        else:
            console_for().print(intent_table(found))


@intent_app.command("show", epilog="Example: sudo cohortnet intent show ID")
def intent_show(
    identity: Annotated[str, typer.Argument(help="The intent's id.")], testbed: TestbedOption = None
) -> None:
    """Show everything about one intent, as JSON."""
    from cohortnet.orchestrator import Orchestrator, edge_url

    with reported():
        print(json.dumps(Orchestrator(edge_url(pick_testbed(testbed))).intent(identity), indent=1))


@intent_app.command("stop", epilog="Example: sudo cohortnet intent stop ID")
def intent_stop(
    identity: Annotated[str, typer.Argument(help="The intent's id.")], testbed: TestbedOption = None
) -> None:
    """Cancel an intent and end its run."""
    from cohortnet.orchestrator import Orchestrator, edge_url

    with reported():
        answer = Orchestrator(edge_url(pick_testbed(testbed))).stop(identity)
        print(f"intent {identity} {answer.get('state', 'cancelled')}")


@intent_app.command("wait", epilog="Example: sudo cohortnet intent wait ID1 ID2")
def intent_wait(
    identities: Annotated[list[str], typer.Argument(help="Ids of intents.")],
    runs: RunsOption = None, testbed: TestbedOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Follow intents to their end and print the table; status 1 where one did not succeed."""
    with reported(as_json):
        inventory = pick_testbed(testbed)
        _wait(inventory, identities, recorded_in(inventory, runs), as_json)


def recorded_in(inventory: dict[str, Any], typed: Path | None) -> Path:
    """The folder of the records: the one typed, else the one that the testbed was raised with."""
    from cohortnet.lifecycle import runs_file

    if typed is not None:
        return typed
    try:
        return Path(runs_file(inventory["testbed"]).read_text(encoding="utf-8"))
    except OSError:
        return DEFAULT_RUNS


def _wait(inventory: dict[str, Any], identities: list[str], runs: Path, as_json: bool) -> None:
    from cohortnet.follow import console_for, follow_intents, wait_recorded
    from cohortnet.orchestrator import edge_url

    states = follow_intents(edge_url(inventory), identities, console_for(stderr=as_json))
    missing = wait_recorded(runs, identities)
    if missing:
        fail(f"no complete record of {', '.join(missing)} in {runs}; `sudo cohortnet logs recorder` says why")
    print_summaries(runs, identities, as_json)
    if any(state != "succeeded" for state in states.values()):
        raise typer.Exit(1)
