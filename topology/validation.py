"""A testbed file checked completely: what the model refuses and what the planner refuses, together, with their lines.

Takes a file or data, gives testbed and plan, or every problem at once. Where the model refuses parts, they are taken
out of a copy and the planner judges the rest; what it then says about something that relies on the missing parts is
dropped, and named as not looked at. Starts nothing and looks at no machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from topology.document import Document, Location, Part, location_of, path_text, read_document
from topology.errors import Problem, TestbedProblems
from topology.model import Testbed, parse_testbed
from topology.plan import Plan
from topology.planning import make_plan
from topology.problems import known_keys, location_in, near

_ROUNDS = 8
"""Taking a wrong key away may leave its mapping without a needed one, and so on outwards: the model is less deep."""

_TARGETS = ("meters.cohort", "meters.client", "meters.server", "meters.switch", "meters.port", "meters.address")


@dataclass(frozen=True)
class _Topic:
    """Problems that the planner reports, and the parts of a file that it has to know for them."""

    text: str
    about: str
    """The part of the file that it concerns: said to be left open only where there is one."""
    codes: tuple[str, ...]
    needs: tuple[str, ...]


_ENDS = ("links.a", "links.b", "nodes.name", "switches.name", "preset")
_TOPICS = (
    _Topic("which names exist", "links", ("unknown-node", "unknown-switch", "empty"),
           ("nodes.name", "switches.name", "preset")),
    _Topic("which roles nodes have", "nodes",
           ("unknown-client", "unknown-server", "no-server", "no-client", "no-central"),
           ("nodes.name", "nodes.role", "preset")),
    _Topic("how links join the nodes", "links", ("links-of-node", "unknown-port", "disconnected"), _ENDS),
    _Topic("what varies a delay", "links", ("jitter-without-delay", "reorder-without-delay"),
           ("links.delay", "links.up.delay", "links.down.delay", "preset")),
    _Topic("images", "nodes", ("no-image-here",), ("runtime",)),
    _Topic("address pools", "nodes", ("outside-pool", "pool-empty", "overlap"),
           ("name", "address_pool", "management_pool", "preset")),
    _Topic("host ports", "publish", ("port-taken",),
           ("controller.kind", "controller.rest_host_port", "monitoring.port", "monitoring.exporter_port",
            "monitoring.prometheus", "preset")),
    _Topic("the controller", "controller", ("no-controller", "contradiction"),
           ("controller.kind", "controller.address", "monitoring.prometheus")),
    _Topic("loops", "controller", ("loop",), (*_ENDS, "controller.kind")),
    _Topic("what meters limit", "meters", ("one-target", "limited-twice", "missing-key", "unknown-cohort"),
           (*_TARGETS, "meters.direction", "cohorts.name", "controller.kind", "controller.address", "preset")),
    _Topic("patterns of traffic", "traffic", ("unused-key", "above-link-rate"),
           ("traffic.pattern", "traffic.period", "traffic.on", "traffic.low", "links.rate", "links.up.rate",
            "links.down.rate", *_ENDS)),
)  # fmt: skip
_ALWAYS = (
    "duplicate-name", "reserved-name", "self-link", "no-switch", "two-cohorts", "two-centrals", "duplicate-id",
    "duplicate-address", "same-node", "too-many-flows", "wrong-unit", "cannot-queue", "small-burst",
)  # fmt: skip
"""What is true of the parts that it names, whatever else is wrong."""


def check_file(path: Path, adapt: Callable[[dict[str, Any]], Any] | None = None) -> tuple[Testbed, Plan]:
    """Testbed and plan of a file; `adapt` is handed its mapping and gives what takes its place (options, already
    judged).

    Raises:
        TestbedProblems: with every problem, each with its line, and what could not be judged.
    """
    document = read_document(path)
    data = document.data
    if isinstance(data, dict) and adapt is not None:
        data = adapt(data)
    try:
        checked = check_data(data)
    except TestbedProblems as error:
        raise TestbedProblems(_placed(document, [*document.problems, *error.problems]), error.unchecked) from None
    if document.problems:
        raise TestbedProblems(_placed(document, document.problems))
    return checked


def check_data(data: Any) -> tuple[Testbed, Plan]:
    """The same for plain data, without lines."""
    try:
        testbed = parse_testbed(data)
    except TestbedProblems as error:
        further, unchecked = _rest(data) if isinstance(data, dict) else ([], ())
        raise TestbedProblems([*error.problems, *further], unchecked) from None
    return testbed, make_plan(testbed)


def _placed(document: Document, problems: Sequence[Problem]) -> list[Problem]:
    placed = [document.placed(problem) for problem in problems]
    # In the order of the file; those of one line in the order in which they were found.
    return sorted(placed, key=lambda problem: problem.line or 0)


# The rest of a file of which parts are wrong


class _Kept(list[Any]):
    """A list of which elements were taken, and the places that the others had."""

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__(items)
        self.origin = list(range(len(items)))


def _rest(data: dict[Any, Any]) -> tuple[list[Problem], tuple[str, ...]]:
    """What the planner says of the valid parts, and what it was not asked."""
    copy = _copied(data, {})
    lacking: set[str] = set()
    dropped: list[str] = []
    for _ in range(_ROUNDS):
        try:
            testbed = Testbed.model_validate(copy)
            break
        except ValidationError as error:
            _take_out(copy, error, lacking, dropped)
    else:
        return [], ("anything that concerns several parts of the file",)
    try:
        make_plan(testbed)
        found: Sequence[Problem] = ()
    except TestbedProblems as error:
        found = error.problems
    hidden = [topic for topic in _TOPICS if any(_lacks(need, lacking) for need in topic.needs)]
    unsure = {code for topic in hidden for code in topic.codes}
    known = {*_ALWAYS, *(code for topic in _TOPICS for code in topic.codes)}
    kept = [problem for problem in found if problem.code in known and problem.code not in unsure]
    others = ["what the planner works out from several parts"] if {problem.code for problem in found} - known else []
    return [replace(problem, path=_original(copy, problem.path)) for problem in kept], (
        *dict.fromkeys(dropped),
        *(topic.text for topic in hidden if topic.about in data or "preset" in data), *others)  # fmt: skip


def _copied(value: Any, made: dict[int, Any]) -> Any:
    """A deep copy in which what was one object (by aliases) still is one."""
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, dict):
        copy: Any = {}
        made[id(value)] = copy
        copy.update({key: _copied(item, made) for key, item in value.items()})
        return copy
    if isinstance(value, list):
        copy = _Kept(value)
        made[id(value)] = copy
        copy[:] = [_copied(item, made) for item in value]
        return copy
    return value


def _take_out(data: dict[Any, Any], error: ValidationError, lacking: set[str], dropped: list[str]) -> None:
    doomed: dict[tuple[int, Part], tuple[Any, Any]] = {}
    for item in error.errors():
        location = location_in(item, data)
        if item["type"] == "missing":
            location = location[:-1]
            if location:
                dropped.append(_original(data, path_text(location)))
        elif item["type"] == "extra_forbidden":
            meant = near(location[-1], known_keys(Testbed, location[:-1], data)) if location else None
            if meant is not None:
                lacking.add(_fact((*location[:-1], meant)))
        if not location or location == ("name",):
            data["name"] = "unnamed"
            lacking.add("name")
            continue
        lacking.add(_fact(location))
        owner = _at(data, location[:-1])
        key: Any = location[-1]
        if isinstance(owner, dict):
            on = True if key == "on" else None  # YAML 1.1
            key = next((own for own in owner if str(own) == key), on)
        doomed[id(owner), location[-1]] = (owner, key)
    # From the end of each list, so that the places of the others do not move before they are taken.
    for owner, key in sorted(doomed.values(), key=lambda pair: -pair[1] if type(pair[1]) is int else 0):
        if isinstance(owner, _Kept) and isinstance(key, int) and key < len(owner):
            del owner[key], owner.origin[key]
        elif isinstance(owner, dict):
            owner.pop(key, None)


def _at(data: Any, location: Location) -> Any:
    here = data
    for part in location:
        if isinstance(here, dict):
            here = here.get(part, here.get(True) if part == "on" else None)
        else:
            here = here[part] if isinstance(here, list) and isinstance(part, int) and part < len(here) else None
    return here


def _fact(location: Location) -> str:
    names = [str(part) for part in location if not isinstance(part, int)]
    # Each number of a preset decides about names, links and cohorts alike.
    return "preset" if names[0] == "preset" else ".".join(names)


def _lacks(need: str, lacking: set[str]) -> bool:
    return any(need == fact or need.startswith(f"{fact}.") for fact in lacking)


def _original(data: Any, path: str) -> str:
    """The path that a value of the copy has in the file."""
    parts: list[Part] = []
    here = data
    for part in location_of(path):
        if isinstance(here, _Kept) and isinstance(part, int) and part < len(here):
            parts.append(here.origin[part])
            here = here[part]
        else:
            parts.append(part)
            here = here.get(part) if isinstance(here, dict) else None
    return path_text(parts)
