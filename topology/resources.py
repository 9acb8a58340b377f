"""What a plan takes of this machine, and what of it will be tight: memory, cores, and the kernel's own limits. Pure.

Nothing here stands against raising a plan: the figures are those of one measured application, a user's may need less.
They were measured with a run of LeNet on 8 of 16 clients in the namespace runtime (`docs/validation.md` has the table).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from topology.capabilities import Capabilities
from topology.finding import Finding, count, mebibytes
from topology.kernel_limits import KernelLimits, Room
from topology.plan import Plan
from topology.traffic import paths
from topology.traffic.schedule import pattern_of

CLIENT_BYTES = {"namespace": 45 * 2**20, "docker": 200 * 2**20}
"""A PyTorch client's own memory: forked from a warm process, or with its own Python."""
CORE_BYTES = 512 * 2**20
"""Switches, controller, and the warm process that clients are forked from."""
CORE_THREADS = 250
"""Switches, controller and MLFOs: a thread for each request that may come at once."""
FL_THREADS, OTHER_THREADS = 36, 2
FL_FILES, OTHER_FILES, CORE_FILES = 30, 4, 200
FL_NEIGHBOURS, OTHER_NEIGHBOURS = 6, 2
"""Every node and the host know one another; a client, its server and its MLFO do too."""
PORT_FILES, SWITCH_FILES = 2, 32
MOST_CLIENTS_PER_CORE = 32
"""More than this, and a round of LeNet takes longer than most time-outs of applications (0.3 s a client and core)."""
MOST_NODES = 1022
"""Ports of a Linux bridge (1023), one of which is the host's: the management network is one bridge."""


@dataclass(frozen=True)
class Demand:
    """What a plan takes."""

    nodes: int
    fl_nodes: int
    memory_bytes: int
    threads: int
    files: int
    switch_files: int
    neighbours: int
    inotify: int
    net_namespaces: int


def demand(plan: Plan, cgroup_version: int | None) -> Demand:
    """What the plan takes once its clients train."""
    fl = [node for node in plan.nodes if node.role in ("client", "server")]
    others = len(plan.nodes) - len(fl)
    # What training takes; a lower limit caps it, other nodes are small beside it.
    own = CLIENT_BYTES[plan.runtime]
    memory = sum(min(node.memory_bytes or own, own) for node in fl)
    ports = sum(len(switch.ports) for switch in plan.switches)
    return Demand(
        nodes=len(plan.nodes),
        fl_nodes=len(fl),
        memory_bytes=memory + (CORE_BYTES if fl else 0),
        threads=len(fl) * FL_THREADS + others * OTHER_THREADS + CORE_THREADS,
        files=len(fl) * FL_FILES + others * OTHER_FILES + CORE_FILES,
        switch_files=ports * PORT_FILES + SWITCH_FILES if plan.switches else 0,
        neighbours=len(fl) * FL_NEIGHBOURS + others * OTHER_NEIGHBOURS,
        # The shim of a container watches its group's events by inotify where cgroups are of version 2.
        inotify=len(plan.nodes) if plan.runtime == "docker" and cgroup_version == 2 else 0,
        net_namespaces=len(plan.nodes) + 1,
    )


def resource_warnings(plan: Plan, found: Capabilities, limits: KernelLimits | None = None) -> list[Finding]:
    """What will be tight on this machine, with numbers."""
    needed = demand(plan, found.cgroup_version)
    return [*_cores(plan, found), *_memory(plan, found, needed), *(_kernel(needed, limits) if limits else []),
            *_overfull_paths(plan)]  # fmt: skip


def _cores(plan: Plan, found: Capabilities) -> list[Finding]:
    cores = sum(n.cpu or 0.0 for n in plan.nodes)
    if cores > found.cores:
        return [Finding("cores", "warning", f"limits sum up to {cores:g} cores on {found.cores}",
                        "nodes that work at the same time get less than declared, and rounds take longer",
                        "fewer nodes, smaller `cpu:`, or a larger machine")]  # fmt: skip
    clients = sum(1 for n in plan.nodes if n.role == "client" and n.cpu is None)
    if clients > MOST_CLIENTS_PER_CORE * found.cores:
        share = clients / found.cores
        return [Finding("cores", "warning", f"{clients} clients without `cpu:` share {count(found.cores, 'core')}",
                        f"a client that trains alone takes {share:.0f} times as long when all train",
                        f"at most {MOST_CLIENTS_PER_CORE * found.cores} clients, or a larger machine")]  # fmt: skip
    return []


def _memory(plan: Plan, found: Capabilities, needed: Demand) -> list[Finding]:
    if needed.memory_bytes <= found.memory_available_bytes:
        return []
    own = CLIENT_BYTES[plan.runtime]
    room = max(0, (found.memory_available_bytes - CORE_BYTES) // own)
    return [Finding(
        "memory", "warning",
        f"{needed.fl_nodes} FL nodes of about {mebibytes(own)} need {mebibytes(needed.memory_bytes)}; "
        f"{mebibytes(found.memory_available_bytes)} are free",
        "the kernel ends processes where memory runs out, and runs fail",
        f"at most {room} FL nodes" + (", or `--runtime namespace`" if plan.runtime == "docker" else ""),
    )]  # fmt: skip


_KERNEL: tuple[tuple[str, str, Callable[[Demand], int], Callable[[KernelLimits], Room], str], ...] = (
    ("threads", "processes and threads", lambda d: d.threads, lambda k: k.threads,
     "nothing more can be started on this machine, and runs fail"),
    ("neighbours", "resolved addresses", lambda d: d.neighbours, lambda k: k.neighbours,
     "the kernel forgets addresses in use: packets are lost, on the whole machine"),
    ("open files", "open files of all processes", lambda d: d.files, lambda k: k.files,
     "no process of this machine can open a file or a connection"),
    ("open files of a process", "files open in the switches' daemon", lambda d: d.switch_files, lambda k: k.open_files,
     "the last switch ports cannot be opened, and raising fails"),
    ("inotify", "inotify instances", lambda d: d.inotify, lambda k: k.inotify,
     "the last containers are not watched for lack of memory, or do not start"),
    ("network namespaces", "network namespaces", lambda d: d.net_namespaces, lambda k: k.net_namespaces,
     "the last nodes cannot be made"),
)  # fmt: skip


def _kernel(needed: Demand, limits: KernelLimits) -> list[Finding]:
    warnings = []
    for name, what, wanted, room, cost in _KERNEL:
        number, kind = wanted(needed), room(limits)
        if kind.free is None or number <= kind.free:
            continue
        used = f" ({kind.used} in use)" if kind.used else ""
        enough = 1 << (2 * (number + kind.used)).bit_length()
        warnings.append(Finding(
            name, "warning", f"{needed.nodes} nodes need about {number} {what}; the limit is {kind.most}{used}",
            cost, f"`{kind.setting}{enough}`",
        ))  # fmt: skip
    return warnings


def nodes_that_fit(found: Capabilities, limits: KernelLimits) -> tuple[int, str]:
    """How many FL clients of the namespace runtime this machine holds, and what ends first."""
    bounds = {"a bridge's ports": MOST_NODES,
              "memory": max(0, found.memory_available_bytes - CORE_BYTES) // CLIENT_BYTES["namespace"]}  # fmt: skip
    for name, room, core, each in (
        ("threads", limits.threads, CORE_THREADS, FL_THREADS),
        ("neighbours (gc_thresh3)", limits.neighbours, 0, FL_NEIGHBOURS),
        ("open files", limits.files, CORE_FILES, FL_FILES),
        ("open files of a process (ulimit -n)", limits.open_files, 2 * SWITCH_FILES, PORT_FILES),
        ("network namespaces", limits.net_namespaces, 1, 1),
    ):
        if room.free is not None:
            bounds[name] = max(0, room.free - core) // each
    first = min(bounds, key=lambda name: bounds[name])
    return bounds[first], first


def _overfull_paths(plan: Plan) -> list[Finding]:
    """UDP flows that send more than their way carries; TCP flows of that kind are no plan at all."""
    links = paths.rates(plan.links) if plan.traffic else []
    warnings = []
    for flow in plan.traffic:
        pattern = pattern_of(asdict(flow))
        narrowest = paths.narrowest_bps(links, flow.source, flow.destination)
        wrong = paths.beyond_path(pattern, flow.protocol, narrowest)
        if wrong is not None:
            warnings.append(Finding("traffic", "warning", f"flow {flow.name!r}: {wrong.message}",
                                    "the rest is lost in front of that link, with what others send there",
                                    "a lower `rate:`"))  # fmt: skip
    return warnings
