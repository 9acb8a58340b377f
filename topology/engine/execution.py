"""Running a program in a node and waiting for it, as `cohortnet exec` and the shell do."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from topology.engine import interrupts, launch, namespaces
from topology.errors import TopologyError


def execute(
    inventory: Mapping[str, Any],
    node: str,
    argv: Sequence[str],
    *,
    tty: bool = False,
    input: str | None = None,
    timeout_s: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
) -> subprocess.CompletedProcess[str]:
    """Run a program in a node, in all its namespaces and under its limits, in both runtimes, and wait for its end.

    With `tty` it gets this process's own standard streams, else its output is captured (`stdout`, `stderr`) and `input`
    is its input. The status is as `subprocess` has it (negative: ended by that signal).

    Raises:
        TopologyError: where the node is unknown, not running or paused, or the program cannot be started.
        subprocess.TimeoutExpired: after `timeout_s` seconds; the program is killed, with all that it has started in
            its session. At a terminal, whose session it shares, the program alone is.
    """
    entry = launch.find_node(inventory, node)
    environment = {**launch.node_environment(entry), **(env or {})}
    # A terminal's job control needs its session; everything else gets one of its own, which can be ended as a whole.
    own = not (tty and os.isatty(0))
    stream = None if tty else subprocess.PIPE
    stdin = None if tty else (subprocess.DEVNULL if input is None else subprocess.PIPE)
    try:
        process = namespaces.start_in_node(
            entry["pid"],
            entry["cgroups"],
            argv,
            env=environment,
            stdin=stdin,
            stdout=stream,
            stderr=stream,
            cwd=cwd,
            new_session=own,
        )
    except OSError as error:
        raise TopologyError(f"node {node!r}: `{argv[0]}` cannot be started: {error.strerror}") from error
    try:
        with interrupts.sigterm_as_interrupt():
            output, errors = process.communicate(None if input is None else input.encode(), timeout=timeout_s)
    except BaseException:
        with suppress(ProcessLookupError):
            if own:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(
        list(argv),
        process.returncode,
        (output or b"").decode(errors="replace"),
        (errors or b"").decode(errors="replace"),
    )
