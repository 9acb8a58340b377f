"""Taking a testbed away, after any kind of end: while up, half made, killed, or with its state file gone.

Finds what belongs to a testbed by its state file and by the names that everything of it carries; removes exactly that,
can be repeated, and looks afterwards whether anything is left. Never ends a process or deletes a thing that does not
stand in the testbed's own groups or names.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from topology.engine import cgroups, management, namespaces, openvswitch, state, switch_end
from topology.engine.namespace_runtime import NamespaceRuntime
from topology.engine.runtime import Progress, Runtime
from topology.errors import TopologyError
from topology.plan import Plan
from topology.planning import host_interface

_GRACE_S = 1.0
"""For daemons to end by themselves: a recorder writes its last lines."""

_END_S, _END_A_PORT_S = 15.0, 0.1
"""For killed daemons to be gone: where the kernel does not lend a switch's files, it closes its packet sockets one by
one.
"""


@dataclass(frozen=True)
class Removal:
    """What `down` did: names of what was removed and, where something would not go, of what is left and why."""

    testbed: str
    removed: tuple[str, ...]
    left: tuple[str, ...]
    seconds: float


def pick_runtime(kind: str) -> Runtime:
    """The runtime of that name; Docker's is loaded only where it is wanted. Raises TopologyError."""
    if kind == "namespace":
        return NamespaceRuntime()
    try:
        from topology.engine.docker_runtime import DockerRuntime
    except ImportError as error:
        raise TopologyError(f"the Docker runtime cannot be loaded: {error}; choose `--runtime namespace`") from error
    runtime: Runtime = DockerRuntime()
    return runtime


def _core_namespace(testbed: str) -> str:
    return f"cn.{testbed}"


def remains(testbed: str) -> list[str]:
    """What there is of a testbed on this machine (containers apart), as names. Empty: nothing."""
    found = [f"process {pid}" for pid in sorted(cgroups.members(testbed))]
    if cgroups.exists(testbed):
        found.append(f"cgroups cohortnet/{testbed}")
    if namespaces.exists(_core_namespace(testbed)):
        found.append(f"network namespace {_core_namespace(testbed)}")
    if Path("/sys/class/net", host_interface(testbed)).exists():
        found.append(f"interface {host_interface(testbed)}")
    if state.folder(testbed).exists():
        found.append(f"folder {state.folder(testbed)}")
    return found


def _mounts_below(folder: Path) -> list[str]:
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines())
    return sorted((p for p in points if p == str(folder) or p.startswith(f"{folder}/")), reverse=True)


class _Steps:
    """Runs each step whatever became of those before; keeps what was removed and what failed."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.left: list[str] = []

    def run(self, step: Callable[[], list[str]]) -> None:
        try:
            self.removed += step()
        except (TopologyError, OSError) as error:
            self.left.append(str(error))


def remove(testbed: str, progress: Progress) -> Removal:
    """Remove everything of that testbed; the caller holds its lock. Does not raise for what would not go: it is in
    `left`.
    """
    start = time.monotonic()
    known = state.load(testbed)
    folder = state.folder(testbed)
    steps = _Steps()
    # The switches first: Open vSwitch would otherwise look at each of its ports vanishing.
    steps.run(lambda: _end_switches(known.plan if known else None))
    end_s = _END_S + _END_A_PORT_S * (2 * len(known.plan.links) if known else 0)
    # While the kernel takes the nodes' namespaces apart, whoever deletes an interface waits for it.
    steps.run(lambda: _named("interface", management.remove_interface(testbed, host_interface(testbed))))
    # Daemons may take a while (a recorder writes its last lines): the nodes go meanwhile.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="daemons") as pool:
        daemons = pool.submit(cgroups.end_all, testbed, grace_s=_GRACE_S, deadline_s=end_s, below="core")
        steps.run(lambda: [f"node {name}" for name in NamespaceRuntime().remove(testbed, folder, progress)])
        if known is None or known.plan.runtime == "docker" or state.has_containers(testbed):
            steps.run(lambda: _docker_nodes(testbed, folder, progress, wanted=known is not None))
        steps.run(lambda: _ended("daemons", daemons.result()))
    progress("daemons ended", 1, 1)
    steps.run(lambda: _ended("processes", cgroups.end_all(testbed, grace_s=0.0)))
    core = _core_namespace(testbed)
    steps.run(lambda: [f"network namespace {core}"] if namespaces.delete(core) else [])
    had_groups = cgroups.exists(testbed)
    stuck = cgroups.remove(testbed)
    steps.left += [f"cgroup {path}" for path in stuck]
    steps.removed += [f"cgroups cohortnet/{testbed}"] if had_groups and not stuck else []
    for point in _mounts_below(folder):
        steps.run(partial(_unmount, point))
    # The plan is kept as long as something is left: the next `down` needs it.
    if folder.exists() and not steps.left:
        shutil.rmtree(folder, ignore_errors=True)
        steps.removed.append(f"folder {folder}")
    if not steps.left:
        steps.left += _wait_until_gone(testbed)
    progress("removed", 1, 1)
    return Removal(testbed, tuple(steps.removed), tuple(steps.left), time.monotonic() - start)


def _wait_until_gone(testbed: str, deadline_s: float = 5.0) -> list[str]:
    # The kernel takes a moment for interfaces and groups after their last user has ended.
    deadline = time.monotonic() + deadline_s
    while (left := remains(testbed)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _end_switches(plan: Plan | None) -> list[str]:
    if plan is None:
        return []
    pid = openvswitch.vswitchd_pid(plan)
    if pid is not None and pid in cgroups.members(plan.testbed, "core"):
        with suppress(ProcessLookupError):
            switch_end.end(pid)
        return [f"Open vSwitch with {len(plan.switches)} switches"]
    return []


def _ended(what: str, count: int) -> list[str]:
    return [f"{count} {what}"] if count else []


def _named(what: str, name: str | None) -> list[str]:
    return [f"{what} {name}"] if name else []


def _docker_nodes(testbed: str, folder: Path, progress: Progress, *, wanted: bool) -> list[str]:
    try:
        return pick_runtime("docker").remove(testbed, folder, progress)
    except TopologyError:
        if wanted:
            raise
        return []  # no plan says that there were containers, and nobody can be asked


def _unmount(point: str) -> list[str]:
    namespaces.unmount(point)
    return [f"mount {point}"]
