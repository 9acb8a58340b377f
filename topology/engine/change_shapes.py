"""Another shape for links of a testbed that is up, and back to what they were declared with.

Takes a testbed's name, two ends and the properties that change; collects everything that stands against it before
anything is done. Plan and inventory say then what is in force, `declared` what was raised. Which lines get there is
`reshaping`'s; limits that the controller enforces by queues at the same interface follow from the inventory.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from topology import finding
from topology.capabilities import capabilities
from topology.engine import links, namespaces, netlink, programs, queue_counters, reshaping, shaping
from topology.engine.change import Change, changing
from topology.engine.reshaping import Layout
from topology.errors import Problem, TestbedProblems, TopologyError
from topology.plan import Declared, PlannedLink, Shape
from topology.shapes import contradictions

Direction = Literal["both", "a-to-b", "b-to-a"]
DIRECTIONS: tuple[Direction, ...] = ("both", "a-to-b", "b-to-a")
_NETEM = ("delay_s", "jitter_s", "loss", "duplicate", "corrupt", "reorder")


@dataclass(frozen=True)
class _End:
    """One interface to be changed: where it is, from which shape to which (both as this kernel can do them)."""

    link: str
    place: Path
    interface: str
    old: Shape
    new: Shape


def set_shape(
    testbed: str, a: str, b: str, changes: Mapping[str, Any], direction: Direction = "both"
) -> PlannedLink:
    """Change properties of the link between two ends, under traffic; the others stay. Gives the link as it is then.

    `changes` are fields of `Shape` (SI units); a rate of None is unlimited, a queue of None follows from rate and
    delay. `a-to-b` is from the first named end to the second.

    Raises:
        TestbedProblems: with everything that stands against it; nothing was changed then.
        TopologyError: where there is no such link, or the kernel refuses; both directions are then as before.
    """
    with changing(testbed) as change:
        link = _find(change, a, b)
        ways = _ways(link, a, direction)
        shapes = {way: replace(getattr(link, way), **changes) if way in ways else getattr(link, way)
                  for way in ("a_to_b", "b_to_a")}  # fmt: skip
        problems = [*_refusals(link, changes), *_contradictions(link, {way: shapes[way] for way in ways})]
        if problems:
            raise TestbedProblems(problems)
        return _put(change, [_with(link, shapes["a_to_b"], shapes["b_to_a"])])[0]


def put_shape(testbed: str, name: str, sender: str, shape: Shape) -> dict[str, Any]:
    """Give what one end of a link, found by its name, sends this shape, under traffic; gives the new inventory.

    What this kernel lacks is left out where the testbed allows that (`allow_unsupported`), as when it was made.

    Raises:
        TestbedProblems: with everything that stands against it; nothing was changed then.
        TopologyError: where there is no such link, or the kernel refuses; the link is then as before.
    """
    with changing(testbed) as change:
        link = next((link for link in change.plan.links if link.name == name), None)
        if link is None or sender not in (link.a, link.b):
            raise TopologyError(f"testbed {testbed!r} has no link {name!r} with the end {sender!r}")
        way = "a_to_b" if link.a == sender else "b_to_a"
        allowed = () if capabilities().netem is not False else change.plan.allow_unsupported
        if problems := [*_refusals(link, vars(shape), allowed), *_contradictions(link, {way: shape})]:
            raise TestbedProblems(problems)
        skipped = [name for name in shape.needs_netem() if name in allowed]
        change.inventory["unsupported"] = list(dict.fromkeys([*change.inventory["unsupported"], *skipped]))
        shapes = {"a_to_b": link.a_to_b, "b_to_a": link.b_to_a, way: shape}
        _put(change, [_with(link, shapes["a_to_b"], shapes["b_to_a"])])
        return change.inventory


def reset(testbed: str, a: str | None = None, b: str | None = None) -> list[PlannedLink]:
    """Give one link, or all of them, the shape that they were declared with; gives those that had another.

    Raises TopologyError where there is no such link, or the kernel refuses.
    """
    with changing(testbed) as change:
        some = change.plan.links if a is None or b is None else [_find(change, a, b)]
        wanted = [_with(link, link.declared.a_to_b, link.declared.b_to_a) for link in some if link.declared]
        return _put(change, wanted) if wanted else []


def find(inventory: Mapping[str, Any], a: str, b: str) -> dict[str, Any]:
    """The link between two ends, in either order. Raises TestbedProblems where there is none."""
    try:
        return links.find_link(inventory, a, b)
    except TopologyError as error:
        message, _, hint = str(error).partition("; ")
        raise TestbedProblems([Problem("link", "unknown-link", message, hint)]) from None


def _find(change: Change, a: str, b: str) -> PlannedLink:
    name = find(change.inventory, a, b)["name"]
    return next(link for link in change.plan.links if link.name == name)


def _ways(link: PlannedLink, a: str, direction: Direction) -> tuple[str, ...]:
    if direction == "both":
        return ("a_to_b", "b_to_a")
    return ("a_to_b",) if (direction == "a-to-b") == (link.a == a) else ("b_to_a",)


def _with(link: PlannedLink, a_to_b: Shape, b_to_a: Shape) -> PlannedLink:
    declared = link.declared or Declared(link.a_to_b, link.b_to_a)
    same = (declared.a_to_b, declared.b_to_a) == (a_to_b, b_to_a)
    return replace(link, a_to_b=a_to_b, b_to_a=b_to_a, declared=None if same else declared)


def _refusals(link: PlannedLink, changes: Mapping[str, Any], allowed: Sequence[str] = ()) -> list[Problem]:
    """What this kernel cannot do of the properties asked for, as the doctor says it; `allowed` may be lacking."""
    found = capabilities()
    problems = []
    asked = Shape(**{key: value for key, value in changes.items() if key in _NETEM})
    if found.netem is False:
        for name in (name for name in asked.needs_netem() if name not in allowed):
            problems.append(Problem(f"{link.name}.{name}", "unsupported",
                                    f"this kernel ({found.kernel}) has no netem, which `{name}` needs",
                                    finding.NETEM_REMEDY))  # fmt: skip
    if found.htb is False and changes.get("rate_bps") is not None:
        problems.append(Problem(f"{link.name}.rate", "unsupported",
                                f"this kernel ({found.kernel}) has no HTB and cannot limit a rate",
                                "`sudo modprobe sch_htb`, or a kernel with CONFIG_NET_SCH_HTB"))  # fmt: skip
    return problems


def _contradictions(link: PlannedLink, shapes: Mapping[str, Shape]) -> list[Problem]:
    problems = []
    for way, shape in shapes.items():
        towards = f"{link.a} to {link.b}" if way == "a_to_b" else f"{link.b} to {link.a}"
        for code, message, key in contradictions(shape):
            problems.append(Problem(f"{link.name} ({towards})", code, message, f"give `--{key}` too"))
    return problems


def _put(change: Change, wanted: Sequence[PlannedLink]) -> list[PlannedLink]:
    """Bring links to what they are to be, or leave all as they were; then write it down and wait for who follows."""
    present = {link.name: link for link in change.plan.links}
    ends = [end for link in wanted for end in _ends(change, present[link.name], link)]
    done: list[_End] = []
    try:
        for end in ends:
            done.append(end)
            _apply(end, end.old, end.new)
    except BaseException:
        for end in reversed(done):
            with suppress(TopologyError, OSError):  # the first error is the one to tell
                _apply(end, end.new, end.old)
        raise
    renewed = {link.name: link for link in wanted}
    change.plan = replace(change.plan, links=tuple(renewed.get(link.name, link) for link in change.plan.links))
    change.note_links(renewed)
    change.save()
    change.wait_for_flows()
    return list(wanted)


def _ends(change: Change, old: PlannedLink, new: PlannedLink) -> list[_End]:
    nodes = {node.name for node in change.plan.nodes}
    lacking = change.inventory["unsupported"] if capabilities().netem is False else ()
    ends = []
    for name, interface, before, after in (
        (old.a, old.a_interface, old.a_to_b, new.a_to_b), (old.b, old.b_interface, old.b_to_a, new.b_to_a),
    ):  # fmt: skip
        if before != after:
            place = change.namespace_of(name) if name in nodes else change.core
            ends.append(_End(old.name, place, interface, shaping.without(before, lacking),
                             shaping.without(after, lacking)))  # fmt: skip
    return ends


def _apply(end: _End, old: Shape, new: Shape) -> None:
    subject = f"link {end.link}"

    def run() -> None:
        for step in reshaping.steps(end.interface, _layout(end.interface, subject), old, new):
            programs.tc_batch(step.lines, subject)
            if step.empty is not None:
                _wait_empty(end.interface, step.empty, step.within_s, subject)

    namespaces.inside(end.place, run)


def _index(interface: str, subject: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise TopologyError(f"{subject}: its interface {interface!r} is gone") from None


def _layout(interface: str, subject: str) -> Layout:
    index = _index(interface, subject)
    with netlink.socket_here() as link:
        return reshaping.read_layout(queue_counters.disciplines(link, index), queue_counters.classes(link, index))


def _wait_empty(interface: str, classid: str, within_s: float, subject: str) -> None:
    """Wait until a class holds nothing; what it holds after that time is lost."""
    index, minor = _index(interface, subject), int(classid.partition(":")[2], 16)
    deadline = time.monotonic() + within_s
    with netlink.socket_here() as link:
        while any(item.minor == minor and item.backlog for item in queue_counters.classes(link, index)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
