"""`cohortnet meter ...` and `cohortnet show ...`: limits of bandwidth, and what the switches have now."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from cohortnet.terminal import JsonOption, TestbedOption, fail, pick_testbed, reported

meter_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Limit the bandwidth of cohorts, clients, servers, addresses and switch ports.",
)
show_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show what the switches have now.")

UrlOption = Annotated[str | None, typer.Option("--url", metavar="URL", envvar="COHORTNET_CONTROLLER",
                      help="The controller's REST, such as http://127.0.0.1:8080; needs no root.")]  # fmt: skip
SwitchOption = Annotated[str | None, typer.Option("--switch", help="Only this switch.")]
FAIL_MODES = {
    "secure": "secure: without their controller switches keep flows and meters, and try to reach it every second",
    "standalone": "standalone: each switch learns addresses by itself",
}


def _controller(testbed: str | None, url: str | None) -> Any:
    from cohortnet.controller_client import Controller, controller_url

    return Controller(url if url is not None else controller_url(pick_testbed(testbed)))


def _target(
    cohort: str | None, client: str | None, server: str | None, address: str | None, switch: str | None,
    port: int | None,
) -> dict[str, Any]:  # fmt: skip
    given = {"cohort": cohort, "client": client, "server": server, "address": address, "switch": switch}
    named = {key: value for key, value in given.items() if value is not None}
    if (switch is None) != (port is None):
        raise typer.BadParameter("--switch and --port belong together, such as --switch swCampus1 --port 11")
    if len(named) != 1:
        found = " and ".join(f"--{key}" for key in named) or "none"
        raise typer.BadParameter(f"a meter limits exactly one thing, found {found}; give one of --cohort 1, "
                                 "--client fc.10, --server fed.1, --address IP, --switch S --port N")  # fmt: skip
    ((kind, value),) = named.items()
    if kind == "switch":
        return {"kind": "port", "switch": switch, "port": port}
    return {"kind": kind, "address" if kind == "address" else "name": value}


def _limits(name: str, up: str | None, down: str | None, rate: str | None, direction: str | None) -> dict[str, Any]:
    """Meter's name -> direction and rate: `--rate` makes one meter of that name, `--up` NAME.up, `--down` NAME.down."""
    if rate is not None and (up is not None or down is not None):
        raise typer.BadParameter("--rate cannot be combined with --up and --down: it sets one limit, they set two")
    if rate is not None:
        return {name: {"direction": direction or "both", "rate": rate}}
    if direction is not None:
        raise typer.BadParameter("--direction belongs to --rate; --up and --down say the direction themselves")
    typed = {"up": up, "down": down}
    limits = {f"{name}.{way}": {"direction": way, "rate": value} for way, value in typed.items() if value is not None}
    if not limits:
        raise typer.BadParameter("which rate? Give --up 20mbit, --down 20mbit or both, or --rate 20mbit --direction up")
    return limits


@meter_app.command("set", epilog="Example: sudo cohortnet meter set lab --cohort 1 --up 20mbit --down 50mbit")
def meter_set(
    name: Annotated[str, typer.Argument(help="The meter's name; --up and --down make NAME.up and NAME.down.")],
    cohort: Annotated[str | None, typer.Option("--cohort", help="All clients of a cohort together.")] = None,
    client: Annotated[str | None, typer.Option("--client", help="One client, such as fc.10.")] = None,
    server: Annotated[str | None, typer.Option("--server", help="One FL server, such as fed.1.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="IPv4 address of a node or a board.")] = None,
    switch: Annotated[str | None, typer.Option("--switch", help="With --port: a port of that switch.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, help="With --switch: the port's number.")] = None,
    up: Annotated[str | None, typer.Option("--up", help="Limit from client to server, such as 20mbit.")] = None,
    down: Annotated[str | None, typer.Option("--down", help="Limit from server to client.")] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="One limit: 20mbit, '500 packet/s'.")] = None,
    direction: Annotated[str | None, typer.Option("--direction", help="Of --rate: up, down, both (default).")] = None,
    burst: Annotated[str | None, typer.Option("--burst", help="Default: 1 s of the rate; 50 ms of a queue.")] = None,
    enforce: Annotated[str, typer.Option("--enforce", help="drop (switch), queue (fair shares), or auto.")] = "auto",
    testbed: TestbedOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a limit, or change it in place; repeating the command changes nothing."""
    from cohortnet.show_controller import meter_line

    target = _target(cohort, client, server, address, switch, port)
    more = {"enforce": enforce, **({"burst": burst} if burst is not None else {})}
    limits = _limits(name, up, down, rate, direction)
    bodies = {key: {"target": target, **limit, **more} for key, limit in limits.items()}
    with reported(as_json):
        views = _controller(testbed, url).set(bodies)
        if as_json:
            print(json.dumps({"meters": views}, indent=1))
            return
        for view in views:
            print(meter_line(view))


@meter_app.command("show", epilog="Example: sudo cohortnet meter show lab --json")
def meter_show(
    name: Annotated[str | None, typer.Argument(help="One meter, or the pair NAME.up and NAME.down.")] = None,
    testbed: TestbedOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show meters: rate, burst, drop or queue, where, and what passed and was dropped."""
    with reported(as_json):
        meters = _controller(testbed, url).meters()
        if name is not None:
            chosen = _named([meter["name"] for meter in meters], name)
            meters = [meter for meter in meters if meter["name"] in chosen]
        if as_json:
            print(json.dumps({"meters": meters}, indent=1))
            return
        from cohortnet.follow import console_for
        from cohortnet.show_controller import meter_table

        console_for().print(meter_table(meters))


@meter_app.command("rm", epilog="Example: sudo cohortnet meter rm lab")
def meter_rm(
    name: Annotated[str | None, typer.Argument(help="One meter, or the pair NAME.up and NAME.down.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All meters.")] = False,
    testbed: TestbedOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take limits away; the switches are then as they were before."""
    if (name is None) != every:
        raise typer.BadParameter("give the name of one meter, or --all")
    with reported(as_json):
        controller = _controller(testbed, url)
        names = [meter["name"] for meter in controller.meters()]
        chosen = names if name is None else _named(names, name)
        if every:
            controller.remove_all()
        else:
            for meter in chosen:
                controller.remove(meter)
        if as_json:
            print(json.dumps({"removed": chosen}))
        else:
            print(f"removed: {', '.join(chosen)}" if chosen else "there is no meter")


def _named(names: list[str], wanted: str) -> list[str]:
    from cohortnet.controller_client import ControllerError, with_name

    chosen = with_name(names, wanted)
    if not chosen:
        more = ", ..." if len(names) > 12 else ""
        there = f"there are: {', '.join(names[:12])}{more}" if names else "there is none"
        message = f"no meter is called {wanted!r}; {there}"
        raise ControllerError(message, [{"path": "name", "code": "unknown-meter", "message": message}], 404)
    return chosen


@show_app.command("meters", epilog="Example: sudo cohortnet show meters --switch aggsw10")
def show_meters(
    switch: SwitchOption = None, testbed: TestbedOption = None, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Meters with what passed and what was dropped."""
    with reported(as_json):
        controller = _controller(testbed, url)
        if switch is not None:
            _known_switch(controller, switch)
        meters = [meter for meter in controller.meters() if switch is None or _stands_at(meter, switch)]
        if as_json:
            print(json.dumps({"meters": meters}, indent=1))
            return
        from cohortnet.follow import console_for
        from cohortnet.show_controller import meter_table

        console_for().print(meter_table(meters))


def _known_switch(controller: Any, switch: str) -> None:
    from cohortnet.controller_client import ControllerError

    names = [item["name"] for item in controller.topology()["switches"]]
    if switch not in names:
        raise ControllerError(f"no switch is called {switch!r}; one of: {', '.join(names[:20])}", None, 404)


def _stands_at(meter: dict[str, Any], switch: str) -> bool:
    return meter["target"].get("switch") == switch or any(e.get("switch") == switch for e in meter["entries"])


@show_app.command("flows", epilog="Example: sudo cohortnet show flows --switch aggsw10")
def show_flows(
    switch: SwitchOption = None, testbed: TestbedOption = None, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Flows as the switches have them now, in the order in which packets meet them, with their counters."""
    _show("flows", switch, testbed, url, as_json)


@show_app.command("ports", epilog="Example: sudo cohortnet show ports --switch swCampus1 --json")
def show_ports(
    switch: SwitchOption = None, testbed: TestbedOption = None, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Ports of the switches: what is behind them, their state and counters."""
    _show("ports", switch, testbed, url, as_json)


def _show(what: str, switch: str | None, testbed: str | None, url: str | None, as_json: bool) -> None:
    from cohortnet.follow import console_for
    from cohortnet.show_controller import flow_tables, port_tables

    with reported(as_json):
        controller = _controller(testbed, url)
        answer = controller.flows(switch) if what == "flows" else controller.ports(switch)
        fail_mode = "secure"  # of every testbed that our controller steers
        connected = {item["name"]: bool(item["connected"]) for item in controller.topology()["switches"]}
        if as_json:
            switches = [{**item, "connected": connected.get(item["switch"], True)} for item in answer["switches"]]
            print(json.dumps({**answer, "switches": switches, "fail_mode": fail_mode}, indent=1))
        else:
            for table in (flow_tables if what == "flows" else port_tables)(answer, connected, fail_mode):
                console_for().print(table)
            print(f"Fail mode {FAIL_MODES[fail_mode]}.")
        lost = [item["message"] for item in answer.get("errors") or ()]
        if lost:
            print(f"cohortnet: {'; '.join(lost)}", file=sys.stderr)
            fail("not every switch answered", 1)
