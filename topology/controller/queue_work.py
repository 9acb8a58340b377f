"""The work at the interfaces of one network namespace: look what is there, decide, run `tc`, wait for old queues.

Both steps are called within the namespace. Takes and fills in `Job`s; keeps nothing between calls.
"""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topology.controller import queue_lines
from topology.controller.queue_lines import AppliedTree, Line
from topology.controller.queue_tree import Box, QueueLimit, QueuePlace, build
from topology.engine import netlink, queue_counters, shaping
from topology.errors import TopologyError
from topology.plan import Shape

_TC = ["tc", "-force", "-batch", "-"]
_TC_TIMEOUT_S = 60.0
_DRAIN_S = 0.5
"""How long a class on its way out may take to send what it holds; what then is left is dropped."""
_SIOCGIFHWADDR = 0x8927

Place = tuple[str | None, str]
"""Node (None: core) and interface."""


@dataclass
class Job:
    """One interface: what is wanted there, what was in force, and (filled in) what is done about it.

    `tree` is what is in force afterwards, None: the engine's shape alone. `unreachable`: nothing could be done, and
    what was in force may still be.
    """

    place: Place
    limits: list[QueueLimit]
    before: AppliedTree | None
    tree: AppliedTree | None = None
    places: Mapping[str, QueuePlace] = field(default_factory=dict)
    shape: Shape = field(default_factory=Shape)
    lines: list[Line] = field(default_factory=list)
    leaving: tuple[int, ...] = ()
    finish: list[Line] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unreachable: bool = False

    @property
    def subject(self) -> str:
        node, interface = self.place
        return f"interface {interface!r}" + (f" of node {node!r}" if node else "")

    @property
    def has_work(self) -> bool:
        return bool(self.lines or self.finish)

    def fail(self, text: str) -> None:
        """Nothing came of it. Silent where nothing is wanted: an interface that is gone has no limits either."""
        if self.limits:
            self.errors.append(text)
        self.tree, self.lines, self.finish, self.leaving = None, [], [], ()
        self.unreachable = True


def look(jobs: Sequence[Job], inventory: Mapping[str, Any]) -> None:
    """Fill in what each job has to do, from what the kernel shows."""
    with netlink.socket_here() as link:
        for job in jobs:
            try:
                _look(job, link, inventory)
            except TopologyError as error:
                job.fail(f"{job.subject}: {error}")
                job.unreachable = True


def _look(job: Job, link: socket.socket, inventory: Mapping[str, Any]) -> None:
    node, interface = job.place
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        job.fail(f"{job.subject} does not exist (yet); links and ports come with the testbed, `cohortnet show ports`")
        job.unreachable = False  # what was in force went with the interface
        return
    if node is not None:
        _check_node(node, interface, inventory)
    job.shape = _shape(inventory, node, interface)
    found = queue_counters.classes(link, index)
    major = queue_lines.root_major(job.shape)
    classes = {item.minor: item for item in found if item.major == major}
    # The engine's own class (1:1) is no part of any tree.
    ours = {minor: item for minor, item in classes.items() if major == 2 or minor != 1}
    before = job.before if job.before is not None and _is_in_force(job.before, major, ours) else None
    if before is None:
        roots = {item.kind for item in queue_counters.disciplines(link, index) if item.parent_major == 0}
        if ours or (major == 2 and "htb" in roots):
            parents = {minor: item.parent_minor for minor, item in classes.items()}
            job.lines += queue_lines.reset_lines(interface, job.shape, parents)
        elif job.limits and (problem := _base_problem(interface, job.shape, set(classes), roots)):
            raise TopologyError(problem)
    tree = build(job.shape, job.limits, _implied(inventory, node, interface))
    job.errors += tree.refused
    change = queue_lines.change(interface, job.shape, before, tree)
    job.places, job.tree = tree.places, change.tree
    job.lines += change.lines
    job.leaving, job.finish = change.leaving, change.finish


def _check_node(node: str, interface: str, inventory: Mapping[str, Any]) -> None:
    """A pid can be another process's by now: nothing is touched in a namespace that is not the node's."""
    entry = next(entry for entry in inventory["nodes"] if entry["name"] == node)
    if entry["interface"] != interface:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, _SIOCGIFHWADDR, struct.pack("16s24x", interface.encode()))
    mac = answer[18:24].hex(":")
    if mac != entry["mac"].lower():
        wanted = entry["mac"]
        raise TopologyError(f"process {entry['pid']} is not node {node!r}: its {interface} has {mac}, not {wanted}")


def _is_in_force(tree: AppliedTree, major: int, found: Mapping[int, queue_counters.Counted]) -> bool:
    if tree.major != major or set(tree.minors.values()) != set(found):
        return False
    for item in tree.classes:
        seen = found[tree.minors[item.key]]
        parent = tree.minors[item.parent] if item.parent else 0
        if (seen.parent_minor, seen.rate, seen.ceil) != (parent, item.rate_bps // 8, item.ceil_bps // 8):
            return False
    return True


def _base_problem(interface: str, shape: Shape, minors: set[int], roots: set[str]) -> str | None:
    own = shaping.commands(interface, shape)
    if not own:
        return None
    kind = own[0][7]
    if kind in roots and (kind != "htb" or 1 in minors):
        return None
    return f"it does not have its link's own {kind} (yet), only {', '.join(sorted(roots)) or 'nothing'}"


def _shape(inventory: Mapping[str, Any], node: str | None, interface: str) -> Shape:
    """What the engine made of the link's declared direction that leaves by this interface."""
    nodes = {entry["name"] for entry in inventory["nodes"]}
    for link in inventory["links"]:
        for end, name, shape in (
            (link["a"], link["a_interface"], link["a_to_b"]), (link["b"], link["b_interface"], link["b_to_a"]),
        ):  # fmt: skip
            if name == interface and (end if end in nodes else None) == node:
                return shaping.without(Shape(**shape), inventory["unsupported"])
    return Shape()


def _implied(inventory: Mapping[str, Any], node: str | None, interface: str) -> Box:
    """What all packets at the interface have in common: a node's own address as source, or as destination."""
    addresses = {entry["name"]: entry["address"] for entry in inventory["nodes"]}
    if node is not None:
        return (addresses.get(node), None)
    for switch in inventory["switches"]:
        for port in switch["ports"]:
            if port["interface"] == interface:
                return (None, addresses.get(port["peer"]))
    return (None, None)


def carry_out(jobs: Sequence[Job]) -> None:
    """Run all lines, wait until what leaves is empty, run the rest. A job that fails ends in the engine's shape."""
    failed = _run(jobs, [(job, line) for job in jobs for line in job.lines])
    going = [job for job in jobs if id(job) not in failed]
    _drain(going)
    failed |= _run(going, [(job, line) for job in going for line in job.finish])
    if not failed:
        return
    with netlink.socket_here() as link:
        for job in (job for job in jobs if id(job) in failed):
            try:
                _reset(job, link)
            except (OSError, TopologyError) as error:
                job.errors.append(f"{job.subject}: it was not given back its own shape: {error}")


def _run(jobs: Sequence[Job], lines: Sequence[tuple[Job, Line]]) -> set[int]:
    """Put lines through one `tc`; the first refusal of each job becomes its error. The ids of jobs that failed."""
    if not lines:
        return set()
    text = "".join(" ".join(line) + "\n" for _, line in lines)
    try:
        done = subprocess.run(_TC, input=text, capture_output=True, text=True, timeout=_TC_TIMEOUT_S, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        for job in {id(job): job for job, _ in lines}.values():
            job.errors.append(f"{job.subject}: `{' '.join(_TC)}`: {error}")
        return {id(job) for job, _ in lines}
    failed: set[int] = set()
    said: list[str] = []
    for output in done.stderr.splitlines():
        if (found := re.match(r"Command failed .*:(\d+)$", output)) is None:
            said.append(output.strip())
            continue
        job, line = lines[int(found[1]) - 1]
        if id(job) not in failed:
            words = " ".join(text for text in said if text and "talking to the kernel" not in text)
            job.errors.append(f"{job.subject}: `tc {' '.join(line)}`: {words or 'no message'}")
        failed.add(id(job))
        said = []
    if done.returncode != 0 and not failed:
        for job in jobs:
            job.errors.append(f"{job.subject}: `{' '.join(_TC)}` ended with status {done.returncode}: {done.stderr}")
            failed.add(id(job))
    return failed


def _drain(jobs: Sequence[Job]) -> None:
    waiting = {job.place: set(job.leaving) for job in jobs if job.leaving and job.finish}
    deadline = time.monotonic() + _DRAIN_S
    with netlink.socket_here() as link:
        while waiting and time.monotonic() < deadline:
            for place, minors in list(waiting.items()):
                try:
                    found = queue_counters.classes(link, socket.if_nametoindex(place[1]))
                except (OSError, TopologyError):
                    found = []
                if not any(item.minor in minors and item.backlog for item in found):
                    del waiting[place]
            if waiting:
                time.sleep(0.005)


def _reset(job: Job, link: socket.socket) -> None:
    job.tree = None
    interface = job.place[1]
    index = socket.if_nametoindex(interface)
    major = queue_lines.root_major(job.shape)
    found = {item.minor: item.parent_minor for item in queue_counters.classes(link, index) if item.major == major}
    roots = {item.kind for item in queue_counters.disciplines(link, index) if item.parent_major == 0}
    if major == 2 and "htb" not in roots and not shaping.commands(interface, job.shape):
        return
    if major == 1 and "htb" not in roots:
        return
    failed = Job(job.place, [], None)
    _run([failed], [(failed, line) for line in queue_lines.reset_lines(interface, job.shape, found)])
    job.errors += failed.errors
