"""Warms an application, forks one server and some clients from it, prints how each ended and what a client
weighs.

Run as a program by test_warm.py: forking has to happen in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path


def fork(module: str, config: Path, log: Path) -> int:
    """A child that runs `module` from a settings file, as the spawner does."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        imported = __import__(module, fromlist=["main"])
        code = imported.main(["--config", str(config)])
        sys.stdout.flush()
    finally:
        os._exit(code)


def pss_bytes(pid: int) -> int:
    """Proportional set size."""
    with contextlib.suppress(OSError):  # it may have ended just now
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """argv: application, config as JSON, server's file, clients' files."""
    from fl_node.warm import warm

    application, config, server, *clients = sys.argv[1:]
    seconds = warm(application, json.loads(config))
    threads = threading.active_count()
    tasks = len(os.listdir("/proc/self/task"))
    folder = Path(server).parent
    pids = [fork("fl_node.server", Path(server), folder / "server.log")]
    pids += [fork("fl_node.client", Path(path), Path(path).with_suffix(".log")) for path in clients]
    weights = [0]
    running = set(pids)
    codes = {}
    while running:
        weights.append(max(pss_bytes(pid) for pid in pids[1:]))
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.discard(pid)
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "threads": threads,
                "tasks": tasks,
                "codes": [codes[pid] for pid in pids],
                "pss_bytes": max(weights),
            }
        )
    )


if __name__ == "__main__":
    main()
