"""`cohortnet link ...`: what the links of a running testbed do to packets, changed under traffic and given back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer

from cohortnet.terminal import JsonOption, TestbedOption, need_root, pick_testbed, reported
from topology.errors import Problem, TestbedProblems

link_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Links: rate, delay, loss and the like of each direction, changed while traffic passes.",
)
AArgument = Annotated[str, typer.Argument(metavar="A", help="One end: a node or a switch.")]
BArgument = Annotated[str, typer.Argument(metavar="B", help="The other end; of several links `B#2` is the second.")]
AnyA = Annotated[str | None, typer.Argument(metavar="[A", help="One end; none: all links.")]
AnyB = Annotated[str | None, typer.Argument(metavar="B]", help="The other end; of several links `B#2` is the second.")]
_DISTRIBUTIONS = ("normal", "uniform", "pareto")


@link_app.command("set", epilog="Example: sudo cohortnet link set aggsw10 satsw11 --rate 10mbit --direction a-to-b")
def link_set(
    a: AArgument,
    b: BArgument,
    rate: Annotated[str | None, typer.Option("--rate", help="Such as 10mbit, or `unlimited`.")] = None,
    delay: Annotated[str | None, typer.Option("--delay", help="One way, such as 20ms; 0ms takes it away.")] = None,
    jitter: Annotated[str | None, typer.Option("--jitter", help="How far the delay varies, such as 3ms.")] = None,
    distribution: Annotated[str | None, typer.Option("--distribution", help="Of the jitter: normal, uniform, pareto.")
                            ] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="Share of packets lost, such as 1%.")] = None,
    duplicate: Annotated[str | None, typer.Option("--duplicate", help="Share sent twice.")] = None,
    corrupt: Annotated[str | None, typer.Option("--corrupt", help="Share with a wrong bit.")] = None,
    reorder: Annotated[str | None, typer.Option("--reorder", help="Share sent ahead of the delay.")] = None,
    queue: Annotated[str | None, typer.Option("--queue-packets", help="Frames that may wait, or `auto`.")] = None,
    direction: Annotated[str, typer.Option("--direction", help="both, a-to-b or b-to-a, as the ends are typed.")
                         ] = "both",
    testbed: TestbedOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Change what is given; the rest stays. Packets that the new setting would not lose are not lost."""
    typed = {"rate": rate, "delay": delay, "jitter": jitter, "distribution": distribution, "loss": loss,
             "duplicate": duplicate, "corrupt": corrupt, "reorder": reorder, "queue-packets": queue}  # fmt: skip
    with reported(as_json):
        changes = parse_changes({key: value for key, value in typed.items() if value is not None}, direction)
        need_root()
        from dataclasses import asdict

        from topology.engine import change_shapes

        way = next(item for item in change_shapes.DIRECTIONS if item == direction)
        link = change_shapes.set_shape(pick_testbed(testbed)["testbed"], a, b, changes, way)
        _show([asdict(link)], as_json)


def parse_changes(typed: Mapping[str, str], direction: str) -> dict[str, Any]:
    """What was typed as fields of a Shape. Raises TestbedProblems with everything that is wrong with it."""
    from topology.engine.change_shapes import DIRECTIONS
    from topology.units import parse_fraction, parse_rate, parse_time

    def rate(text: str) -> int | None:
        return None if text == "unlimited" else parse_rate(text)

    def queue(text: str) -> int | None:
        if text == "auto":
            return None
        if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
            raise ValueError(f"{text!r} is no queue; write frames, 1 to 1000000, or `auto`")
        return int(text)

    def distribution(text: str) -> str:
        if text not in _DISTRIBUTIONS:
            raise ValueError(f"{text!r} is no distribution; allowed are {', '.join(_DISTRIBUTIONS)}")
        return text

    fields: dict[str, tuple[str, Callable[[str], Any]]] = {
        "rate": ("rate_bps", rate), "delay": ("delay_s", parse_time), "jitter": ("jitter_s", parse_time),
        "distribution": ("distribution", distribution), "loss": ("loss", parse_fraction),
        "duplicate": ("duplicate", parse_fraction), "corrupt": ("corrupt", parse_fraction),
        "reorder": ("reorder", parse_fraction), "queue-packets": ("queue_packets", queue),
    }  # fmt: skip
    problems, changes = [], {}
    for key, text in typed.items():
        field, parse = fields[key]
        try:
            changes[field] = parse(text)
        except ValueError as error:
            problems.append(Problem(f"--{key}", "bad-value", str(error)))
    if direction not in DIRECTIONS:
        problems.append(Problem("--direction", "bad-value", f"{direction!r} is no direction",
                                f"one of: {', '.join(DIRECTIONS)}"))  # fmt: skip
    if not typed:
        problems.append(Problem("link set", "nothing", "nothing to change", "give --rate 10mbit, --delay 20ms, ..."))
    if problems:
        raise TestbedProblems(problems)
    # A jitter that goes takes its distribution with it.
    return {**({"distribution": None} if changes.get("jitter_s") == 0 else {}), **changes}


@link_app.command("show", epilog="Example: sudo cohortnet link show fc.10 swCampus1 --json")
def link_show(a: AnyA = None, b: AnyB = None, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """Show links: what each direction does now, what was declared where that is another, and whether it is up."""
    need_root()
    with reported(as_json):
        _check_pair(a, b)
        from topology.engine import change_shapes, links

        inventory = pick_testbed(testbed)
        found = inventory["links"] if a is None or b is None else [change_shapes.find(inventory, a, b)]
        down = links.down_links(inventory)
        _show([{**link, "state": "down" if link["name"] in down else "up"} for link in found], as_json)


@link_app.command("reset", epilog="Example: sudo cohortnet link reset")
def link_reset(a: AnyA = None, b: AnyB = None, testbed: TestbedOption = None, as_json: JsonOption = False) -> None:
    """Give a link, or all of them, what they were declared with."""
    need_root()
    with reported(as_json):
        _check_pair(a, b)
        from dataclasses import asdict

        from topology.engine import change_shapes

        _show([asdict(link) for link in change_shapes.reset(pick_testbed(testbed)["testbed"], a, b)], as_json)


@link_app.command("up", epilog="Example: sudo cohortnet link up aggsw10 satsw11")
def link_up(a: AArgument, b: BArgument, testbed: TestbedOption = None) -> None:
    """Take a link up again."""
    _switch(a, b, testbed, True)


@link_app.command("down", epilog="Example: sudo cohortnet link down aggsw10 satsw11")
def link_down(a: AArgument, b: BArgument, testbed: TestbedOption = None) -> None:
    """Take a link down: traffic goes another way where there is one."""
    _switch(a, b, testbed, False)


def _switch(a: str, b: str, testbed: str | None, up: bool) -> None:
    need_root()
    with reported():
        from topology.engine import change_links, change_shapes

        inventory = pick_testbed(testbed)
        change_links.set_state(inventory, change_shapes.find(inventory, a, b)["name"], up)
        print(f"link {a} {b} is {'up' if up else 'down'}")


def _check_pair(a: str | None, b: str | None) -> None:
    if (a is None) != (b is None):
        _refuse("ends", f"a link has two ends, found only {a!r}", "name both, such as fc.10 swCampus1, or none")


def _refuse(path: str, message: str, hint: str) -> NoReturn:
    raise TestbedProblems([Problem(path, "bad-value", message, hint)])


def _show(links: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"links": list(links)}, indent=1))
        return
    if not links:
        print("every link is as it was declared")
        return
    from cohortnet.follow import console_for
    from cohortnet.show import changed_link_table

    console_for().print(changed_link_table(links))
