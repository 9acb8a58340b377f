"""How a testbed's programs are started so that they are counted to it and found again: daemons in its core, programs in
its nodes.

Whatever is started here stands in a cgroup of the testbed before its first instruction, so a removal finds it even
where everything else went wrong; where the testbed is being removed at that moment, the group is gone and the program
does not start.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import topology
from topology.engine import cgroups, freezer, namespaces
from topology.errors import TopologyError

_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
PACKAGE_ROOT = Path(topology.__file__).resolve().parent.parent


def in_core(testbed: str, argv: Sequence[str], *, namespace: str | None = None) -> list[str]:
    """`argv` as a command that first joins the core's cgroups and, where one is named, a network namespace.

    A fork-safe way that needs no code between fork and exec: for any `subprocess` call. Raises TopologyError without
    core groups.
    """
    groups = cgroups.core_groups(testbed)
    if not groups:
        raise TopologyError(f"testbed {testbed!r} has no cgroups; is it up? `cohortnet ls` shows those that are")
    enter = ["nsenter", f"--net={namespaces.named(namespace)}", "--"] if namespace else []
    return ["/bin/sh", "-c", _JOIN, "join", *groups, "--", *enter, *argv]


def python_environment() -> dict[str, str]:
    """The environment for a Python program of this project: this process's, with the project's packages on the path."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def start_daemon(
    testbed: str,
    argv: Sequence[str],
    log: Path,
    *,
    namespace: str | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that outlives this process, in the core's cgroups, in its own session, with its output in `log`.

    Raises TopologyError where it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            return subprocess.Popen(
                in_core(testbed, argv, namespace=namespace), stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd="/", pass_fds=tuple(pass_fds),
                env=dict(python_environment() if env is None else env),
            )  # fmt: skip
        except OSError as error:
            raise TopologyError(f"{argv[0]} cannot be started: {error}") from error


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of what a daemon has said; empty where there is no log."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def find_node(inventory: Mapping[str, Any], node: str) -> dict[str, Any]:
    """The entry of a node in which a program can be started now.

    Raises:
        TopologyError: where it is unknown, has ended, or is paused (whatever joins it would stop before its first
        instruction, and whoever starts it would wait for that).
    """
    entry = running_node(inventory, node)
    if freezer.holds(entry["pid"]):
        raise TopologyError(f"node {node!r} is paused; `cohortnet node resume {node}` first")
    return entry


def running_node(inventory: Mapping[str, Any], node: str) -> dict[str, Any]:
    """The entry of a running node, paused or not. Raises TopologyError where it is unknown or has ended."""
    for entry in inventory["nodes"]:
        if entry["name"] == node:
            if not entry["pid"] or not Path(f"/proc/{entry['pid']}/ns/net").exists():
                raise TopologyError(
                    f"node {node!r} of {inventory['testbed']!r} is not running; "
                    f"`cohortnet down {inventory['testbed']}` and `cohortnet up` raise it anew"
                )
            return dict(entry)
    names = [entry["name"] for entry in inventory["nodes"]]
    raise TopologyError(
        f"{inventory['testbed']!r} has no node {node!r}; its nodes: {', '.join(names[:12])}"
        + (", ..." if len(names) > 12 else "")
    )


def node_environment(entry: Mapping[str, Any]) -> dict[str, str]:
    """What a program in that node gets: a plain path and home, the terminal's kind, and the node's own variables."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TERM", "LANG", "LC_ALL", "TZ") if key in os.environ}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **kept, **entry["environment"]}
