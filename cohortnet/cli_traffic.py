"""`cohortnet traffic ...`: background traffic of a running testbed, listed, started, stopped, given another rate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from cohortnet.terminal import JsonOption, TestbedOption, fail, need_root, pick_testbed, reported

traffic_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Background traffic: the flows that the testbed file, or the preset, declares under `traffic:`.",
)
NamesArgument = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Flows; none: all of them.")]
_INPUT_CODES = ("unknown-flow", "bad-value", "above-link-rate")


@traffic_app.command("list", epilog="Example: sudo cohortnet traffic list --json")
def traffic_list(testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """List the flows: rate, pattern, what is sent now, and why one does not run."""
    need_root()
    from topology.traffic import client

    with reported(as_json):
        _show(client.listed(pick_testbed(testbed)), as_json)


@traffic_app.command("start", epilog="Example: sudo cohortnet traffic start background")
def traffic_start(names: NamesArgument = None, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """Start flows; returns when they send, or with status 1 and the reason where one does not."""
    flows = _command({"op": "start", "flows": names or None}, testbed, as_json)
    idle = [f"{flow['name']}: {flow['state']}: {flow['reason']}" for flow in flows if not flow["running"]]
    if idle:
        fail("\n".join(idle), 1)


@traffic_app.command("stop", epilog="Example: sudo cohortnet traffic stop")
def traffic_stop(names: NamesArgument = None, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """Stop flows; returns when nothing of them is left."""
    _command({"op": "stop", "flows": names or None}, testbed, as_json)


@traffic_app.command("set", epilog="Example: sudo cohortnet traffic set background --rate 10mbit")
def traffic_set(
    name: Annotated[str, typer.Argument(help="The flow.")],
    rate: Annotated[str, typer.Option("--rate", help="Its new mean rate of payload, such as 10mbit.")],
    testbed: TestbedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a flow another rate: at once where it runs, else when it is started; it does not start one."""
    from topology.units import parse_rate

    try:
        rate_bps = parse_rate(rate)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rate") from None
    _command({"op": "set", "flow": name, "rate_bps": rate_bps}, testbed, as_json)


def _command(request: Mapping[str, Any], testbed: str | None, as_json: bool) -> list[dict[str, Any]]:
    need_root()
    from topology.traffic import client

    with reported(as_json):
        try:
            flows = client.command(pick_testbed(testbed), request)
        except client.TrafficError as error:
            if as_json:
                print(json.dumps({"errors": [{"code": error.code, "message": str(error)}]}))
            fail(str(error), 2 if error.code in _INPUT_CODES else 1)
            raise
        _show(flows, as_json)
        return flows


def _show(flows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"flows": list(flows)}, indent=1))
        return
    from cohortnet.follow import console_for
    from cohortnet.show_traffic import traffic_table

    console_for().print(traffic_table(flows))
