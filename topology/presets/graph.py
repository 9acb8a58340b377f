"""A network of the collection topohub (real backbones, the Internet Topology Zoo, SNDlib, synthetic ones) as a testbed:
a switch for each of its nodes, cohorts at some of them. Reads the collection, changes nothing.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from topology.errors import Problem, TestbedProblems
from topology.model import GraphPreset, Switch
from topology.presets.expansion import Cast, Expansion, background, cohorts_of, published, shaped

FIBRE_KM_PER_S = 200_000.0
MOST_SWITCHES = 400
_LONGEST_NAME = 13


def _refuse(path: str, code: str, message: str, hint: str) -> TestbedProblems:
    return TestbedProblems([Problem(path, code, message, hint)])


@cache
def graph_names() -> tuple[str, ...]:
    """Names of all graphs of the collection, such as "topozoo/Abilene". Raises TestbedProblems without topohub."""
    try:
        import topohub
    except ModuleNotFoundError:
        raise _refuse("preset.graph", "missing-package", "the package topohub is not installed",
                      "`pip install topohub`, or use another preset") from None  # fmt: skip
    folder = Path(str(topohub.__file__)).parent / "data"
    return tuple(sorted(str(path.relative_to(folder))[: -len(".json")] for path in folder.rglob("*.json")))


def _load(name: str) -> dict[str, Any]:
    names = graph_names()
    if name not in names:
        lowered = {other.lower(): other for other in names}
        near = [lowered[found] for found in difflib.get_close_matches(name.lower(), lowered, n=5, cutoff=0.5)]
        near += [other for other in names if name.lower() in other.lower() and other not in near][: 5 - len(near)]
        hint = f"near it: {', '.join(near)}" if near else "such as topozoo/Abilene, sndlib/polska, backbone/africa"
        raise _refuse("preset.graph", "unknown-graph", f"topohub has no graph {name!r} (it has {len(names)})", hint)
    import topohub

    loaded: dict[str, Any] = topohub.get(name)
    return loaded


def switch_names(nodes: list[dict[str, Any]]) -> list[str]:
    """A short name that a switch may have, for each node: its own name where that will do, numbered where two meet."""
    names: list[str] = []
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        plain = unicodedata.normalize("NFKD", str(node.get("name") or "")).encode("ascii", "ignore").decode()
        short = re.sub(r"[^A-Za-z0-9_-]", "", plain.replace(" ", "-"))[:_LONGEST_NAME].strip("-")
        if not re.match(r"[A-Za-z]", short):
            short = f"n{index}"
        name, number = short, 1
        while name.lower() in taken:
            number += 1
            suffix = f"-{number}"
            name = short[: _LONGEST_NAME - len(suffix)] + suffix
        taken.add(name.lower())
        names.append(name)
    return names


def graph(preset: GraphPreset, pool: IPv4Network) -> Expansion:
    """The graph's nodes as switches; servers and MLFOs at `core` (else the node with most links); cohort k at the k-th
    place, beginning again where there are more cohorts than places.

    Raises:
        TestbedProblems: where the graph or a place does not exist, or the graph is too large.
    """
    data = _load(preset.graph)
    if len(data["nodes"]) > MOST_SWITCHES:
        raise _refuse("preset.graph", "too-large", f"{preset.graph} has {len(data['nodes'])} nodes",
                      f"graphs of at most {MOST_SWITCHES} nodes can be raised")  # fmt: skip
    names = switch_names(data["nodes"])
    index_of = {node["id"]: index for index, node in enumerate(data["nodes"])}
    pairs: dict[tuple[int, int], float] = {}
    degree = [0] * len(names)
    for edge in data["edges"]:
        a, b = sorted((index_of[edge["source"]], index_of[edge["target"]]))
        if a != b and (a, b) not in pairs:
            pairs[a, b] = float(edge.get("dist") or 0.0)
            degree[a] += 1
            degree[b] += 1
    by_degree = [names[index] for index in sorted(range(len(names)), key=lambda i: (-degree[i], i))]
    core = _place(preset, "preset.core", preset.core, names) if preset.core is not None else by_degree[0]
    joined = {names[index] for index in _joined(names.index(core), pairs)}
    if isinstance(preset.place, list):
        places = [_place(preset, f"preset.place[{i}]", name, names) for i, name in enumerate(preset.place)]
        for i, name in enumerate(places):
            if name not in joined:
                message = f"{preset.graph} has no way from {name} to {core}"
                hint = f"{len(joined)} of its nodes are joined to {core}: take another place, or another `core:`"
                raise _refuse(f"preset.place[{i}]", "no-way", message, hint)
    else:
        places = [name for name in by_degree if name != core and name in joined] or [core]
    cast = Cast(pool)
    feds, clients = cast.servers(preset.cohorts), cast.clients(preset.clients)
    cloud, prom, appserv, mo, app = cast.cloud(), cast.prom(), cast.appserv(), cast.mo(), cast.app()
    cohorts = cohorts_of(preset.cohorts, clients)
    links = [shaped(node.name, core) for node in (*feds, cloud, prom, appserv)]
    for cohort in cohorts:
        at = places[(int(cohort.name) - 1) % len(places)]
        links += [shaped(client, at, preset.client_link) for client in cohort.clients]
    links += [shaped(mo.name, places[0]), shaped(app.name, places[0])]
    for (a, b), kilometres in pairs.items():
        properties: dict[str, float | int] = {} if preset.rate is None else {"rate": preset.rate}
        if preset.delay == "distance":
            properties["delay"] = round(kilometres / FIBRE_KM_PER_S, 6)
        elif preset.delay is not None:
            properties["delay"] = preset.delay
        links.append(shaped(names[a], names[b], None, **properties))
    switches = [Switch(name=name, datapath_id=0x10000 + number) for number, name in enumerate(names)]
    nodes = [*feds, cloud, prom, appserv, mo, app, *clients]
    return Expansion(nodes, switches, links, cohorts, published(), background())


def _joined(start: int, pairs: Iterable[tuple[int, int]]) -> set[int]:
    neighbours: dict[int, set[int]] = defaultdict(set)
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    found, todo = {start}, [start]
    while todo:
        for other in neighbours[todo.pop()] - found:
            found.add(other)
            todo.append(other)
    return found


def _place(preset: GraphPreset, path: str, name: str, names: list[str]) -> str:
    known = {known.lower(): known for known in names}
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), known, n=5, cutoff=0.3) or list(known)[:5]
    hint = f"its nodes are called {', '.join(known[other] for other in near)}, ...; `cohortnet plan` shows all"
    raise _refuse(path, "unknown-place", f"{preset.graph} has no node {name!r}", hint)
