"""Limits that queue: makes the limits of all interfaces be exactly those that are wanted, and reads what they counted.

Enters the core namespace (the process's own) and nodes' namespaces. What is in force is kept in `<state>/queues.json`,
so that a controller that starts anew changes nothing that is right already; the kernel is looked at each time, and an
interface that is not as the file says is made anew. How trees look is `queue_tree`'s, how to get there `queue_lines`'.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from topology.controller.queue_lines import AppliedTree
from topology.controller.queue_tree import QueueLimit, QueueMember, QueuePlace
from topology.controller.queue_work import Job, Place, carry_out, look
from topology.engine import namespaces, netlink, queue_counters, send_buffer
from topology.errors import TopologyError

__all__ = ["QueueEnforcer", "QueueLimit", "QueueMember"]

_WORKERS = 4
_T = TypeVar("_T")


class QueueEnforcer:
    """The queue limits of a testbed. Calls may come from several threads; they are carried out one after the other."""

    def __init__(self, inventory: Mapping[str, Any]) -> None:
        self._inventory = inventory
        self._file = Path(inventory["paths"]["state"]) / "queues.json"
        self._lock = threading.Lock()
        self._trees: dict[Place, AppliedTree] | None = None
        self._places: dict[tuple[Place, str], QueuePlace] = {}

    def apply(self, limits: Sequence[QueueLimit]) -> list[str]:
        """Make exactly these the limits in force; gives what could not be done, as texts.

        Interfaces without limits get back the shape that the engine gave them. A new rate is set under traffic and
        loses no packet; so are limits set and removed. An error at one interface leaves the others alone, and that
        interface with its own shape only; calling again tries again.
        """
        with self._lock:
            errors: list[str] = []
            trees = self._load(errors)
            wanted: dict[Place, list[QueueLimit]] = {}
            for limit in limits:
                wanted.setdefault((limit.node, limit.interface), []).append(limit)
            if any(node is None for node, _ in wanted) and (problem := send_buffer.enlarge(self._inventory)):
                errors.append(problem)
            by_node: dict[str | None, list[Job]] = {}
            for place in dict.fromkeys([*trees, *wanted]):
                by_node.setdefault(place[0], []).append(Job(place, wanted.get(place, []), trees.get(place)))
            jobs = [job for group in by_node.values() for job in group]
            inventory = self._with_pids(by_node)
            self._everywhere(by_node, inventory, lambda group: look(group, inventory))
            working = {node: [job for job in group if job.has_work] for node, group in by_node.items()}
            busy = {node: group for node, group in working.items() if group}
            if busy:
                # Before anything is done: a controller that ends in between finds a kernel that is not as written, and
                # makes the interface anew.
                for group in busy.values():
                    for job in group:
                        tree = job.tree or job.before
                        if tree is not None:
                            trees[job.place] = tree
                self._store(errors)
                self._everywhere(busy, inventory, carry_out)
            for job in jobs:
                if job.tree is None and not job.unreachable:
                    trees.pop(job.place, None)
            if busy or any(job.tree is None for job in jobs):
                self._store(errors)
            self._places = {(job.place, key): place for job in jobs if job.tree for key, place in job.places.items()}
            return [*errors, *(text for job in jobs for text in job.errors)]

    def statistics(self, limit: QueueLimit) -> dict[str, Any]:
        """What the limit has passed (bytes of whole frames), dropped and holds, and what each member got of it.

        Figures count from when the limit's place in its interface's tree was made. With an `error`, all are 0.
        """
        nothing: dict[str, Any] = {
            "packets": 0, "bytes": 0, "drops": 0, "backlog_bytes": 0,
            "shares": [{"client": member.name, "bytes": 0} for member in limit.members],
        }  # fmt: skip
        place = (limit.node, limit.interface)
        with self._lock:
            tree, where = self._load([]).get(place), self._places.get((place, limit.key))
        if tree is None or where is None:
            return {**nothing, "error": f"meter {limit.meter!r} is not in force at interface {limit.interface!r}"}

        def read() -> tuple[list[queue_counters.Counted], list[queue_counters.Counted]]:
            with netlink.socket_here() as link:
                index = socket.if_nametoindex(limit.interface)
                return queue_counters.classes(link, index), queue_counters.disciplines(link, index)

        try:
            classes, disciplines = self._inside(limit.node, self._inventory, read)
        except (OSError, TopologyError) as error:
            return {**nothing, "error": f"interface {limit.interface!r}: {error}"}
        counted = {item.minor: item for item in classes if item.major == tree.major}
        dropped = {item.parent_minor: item.drops for item in disciplines if item.parent_major == tree.major}
        own = counted.get(tree.minors[where.key])
        if own is None:
            return {**nothing, "error": f"the queue of meter {limit.meter!r} at {limit.interface!r} is gone"}
        sent = {key: counted[minor].bytes for key, minor in tree.minors.items() if minor in counted}
        held = [counted[tree.minors[key]] for key in where.leaves if tree.minors[key] in counted]
        return {
            "packets": own.packets,
            "bytes": own.bytes,
            "drops": sum(dropped.get(item.minor, 0) for item in held),
            "backlog_bytes": sum(item.backlog for item in held),
            "shares": [{"client": name, "bytes": sum(sent.get(key, 0) for key in leaves)}
                       for name, leaves in where.shares],
        }  # fmt: skip

    def _load(self, errors: list[str]) -> dict[Place, AppliedTree]:
        if self._trees is None:
            self._trees = {}
            try:
                data = json.loads(self._file.read_text(encoding="utf-8"))
                for item in data["interfaces"]:
                    self._trees[(item["node"], item["interface"])] = AppliedTree.from_dict(item["tree"])
            except FileNotFoundError:
                pass
            except (OSError, ValueError, KeyError, TypeError) as error:
                errors.append(f"{self._file} cannot be read ({error}); queues of before may be left on interfaces")
        return self._trees

    def _store(self, errors: list[str]) -> None:
        data = [{"node": node, "interface": interface, "tree": tree.as_dict()}
                for (node, interface), tree in (self._trees or {}).items()]  # fmt: skip
        temporary = self._file.with_name(self._file.name + ".new")
        try:
            temporary.write_text(json.dumps({"version": 1, "interfaces": data}) + "\n", encoding="utf-8")
            os.replace(temporary, self._file)
        except OSError as error:
            text = f"{self._file} cannot be written: {error}"
            errors += [] if text in errors else [text]

    def _with_pids(self, nodes: Iterable[str | None]) -> Mapping[str, Any]:
        """The inventory; read anew where it was given while the testbed was being raised and pids are still missing."""
        pids = {node["name"]: node["pid"] for node in self._inventory["nodes"]}
        if any(node is not None and pids.get(node) is None for node in nodes):
            path = Path(self._inventory["paths"]["shared"]) / "inventory.json"
            try:
                self._inventory = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return self._inventory  # what is missing then is named where it is needed
        return self._inventory

    def _everywhere(
        self, by_node: Mapping[str | None, list[Job]], inventory: Mapping[str, Any],
        action: Callable[[list[Job]], None],
    ) -> None:  # fmt: skip
        """Call the action with each group of jobs, in its namespace, a few at the same time."""

        def one(node: str | None) -> None:
            try:
                self._inside(node, inventory, lambda: action(by_node[node]))
            except (OSError, TopologyError) as error:
                for job in by_node[node]:
                    job.fail(f"{job.subject}: {error}")

        with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="queues") as pool:
            list(pool.map(one, by_node))

    @staticmethod
    def _inside(node: str | None, inventory: Mapping[str, Any], function: Callable[[], _T]) -> _T:
        if node is None:
            return function()
        entry = next((entry for entry in inventory["nodes"] if entry["name"] == node), None)
        if entry is None:
            raise TopologyError(f"there is no node {node!r}")
        if entry["pid"] is None:
            raise TopologyError(f"node {node!r} is not running yet")
        return namespaces.inside(namespaces.of_process(entry["pid"]), function)
