"""Pausing a node: its processes stop where they stand, by the cgroup freezer of version 1 or 2, and go on later.

Takes names of testbed and node; joins the node's processes to a group of the freezer where that is a hierarchy of its
own. Removal lets them go on before it ends them (`cgroups.end_all`). Sockets stay open: the kernel answers for them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from topology.cgroup_mounts import folders_of
from topology.engine import cgroups
from topology.engine.cgroups import Hierarchy
from topology.errors import TopologyError


def pause(testbed: str, node: str, *, deadline_s: float = 10.0) -> None:
    """Stop every process in a node's groups where it stands, also those that it starts, until `resume`.

    Raises:
        TopologyError: where the kernel has no freezer, or a process does not stop in time (then all go on).
    """
    hierarchy = freezer_of(cgroups.hierarchies())
    if hierarchy is None:
        mend = "mkdir /sys/fs/cgroup/freezer; mount -t cgroup -o freezer none /sys/fs/cgroup/freezer"
        raise TopologyError(f"node {node!r} cannot be paused: no cgroup freezer is mounted; `{mend}`")
    folder = cgroups.make(hierarchy, (cgroups.ROOT, testbed, "nodes", node))
    file, stop, _ = cgroups.freezing(hierarchy.version)
    _write(folder / file, stop, node)
    deadline = time.monotonic() + deadline_s
    while True:
        outside = cgroups.members(testbed, f"nodes/{node}") - cgroups.pids_of(str(folder))
        for pid in sorted(outside):  # whoever joins a stopped group stops
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
        if not outside and is_paused(testbed, node):
            return
        if time.monotonic() > deadline:
            resume(testbed, node)
            raise TopologyError(f"node {node!r} did not stop in {deadline_s:g} s: a process of it waits in the kernel; "
                                "try again")  # fmt: skip
        time.sleep(0.005)


def resume(testbed: str, node: str) -> None:
    """Let the processes of a node go on; nothing happens where it is not paused. Raises TopologyError."""
    for folder, version in _folders(testbed, node):
        file, _, go_on = cgroups.freezing(version)
        _write(folder / file, go_on, node)


def is_paused(testbed: str, node: str) -> bool:
    """Whether the node's processes are stopped now."""
    for folder, version in _folders(testbed, node):
        with contextlib.suppress(OSError):
            name = "cgroup.events" if version == 2 else "freezer.state"
            return parse_frozen((folder / name).read_text(encoding="ascii"))
    return False


def holds(pid: int) -> bool:
    """Whether the process is paused (or about to be), by whomever: then nothing can be started in its groups."""
    with contextlib.suppress(OSError):
        for folder in folders_of(pid):
            for version in (1, 2):
                file, _, go_on = cgroups.freezing(version)
                with contextlib.suppress(FileNotFoundError):
                    if (folder / file).read_text(encoding="ascii").strip() != go_on:
                        return True
    return False


def freezer_of(found: Iterable[Hierarchy]) -> Hierarchy | None:
    """The hierarchy whose groups can be stopped: in version 2 (kernel 5.2 and later) the one there is. Pure."""
    return next((h for h in found if h.version == 2 or "freezer" in h.controllers), None)


def parse_frozen(text: str) -> bool:
    """Whether `freezer.state` (version 1) or `cgroup.events` (version 2) says that all processes have stopped. Pure."""
    words = text.split()
    if "frozen" in words:
        return words[words.index("frozen") + 1 :][:1] == ["1"]
    return words == ["FROZEN"]


def _folders(testbed: str, node: str) -> list[tuple[Path, int]]:
    found = []
    for hierarchy in cgroups.hierarchies():
        folder = hierarchy.folder / cgroups.ROOT / testbed / "nodes" / node
        if (folder / cgroups.freezing(hierarchy.version)[0]).exists():
            found.append((folder, hierarchy.version))
    return found


def _write(path: Path, word: str, node: str) -> None:
    try:
        path.write_text(word, encoding="ascii")
    except OSError as error:
        raise TopologyError(f"node {node!r}: writing {word!r} to {path} failed: {error.strerror}") from None
