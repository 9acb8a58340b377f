"""What a testbed could leave behind, looked for with the host's own tools and /proc, not with our own code."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path


def _lines(*command: str) -> list[str]:
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _processes(name: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            groups = (folder / "cgroup").read_text()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, IndexError):
            continue
        if state != "Z" and (f"cohortnet/{name}/" in groups or f"/run/cohortnet/{name}/" in command):
            found.append(f"process {folder.name}: {command[:120]}")
    return found


def leftovers(name: str) -> list[str]:
    """Everything on this host that still carries the testbed's name."""
    found = _processes(name)
    found += [f"netns {line}" for line in _lines("ip", "netns") if f"cn.{name}" in line.split()[0:1]]
    found += [f"link {line}" for line in _lines("ip", "-d", "link") if f"cohortnet:{name}" in line]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if f"cohortnet/{name}" in line]
    for root, folders, _ in os.walk("/sys/fs/cgroup"):
        if root.endswith(f"/cohortnet/{name}"):
            found.append(f"cgroup {root}")
            folders.clear()
    found += [
        f"container {line}"
        for line in _lines("docker", "ps", "-a", "-q", "--filter", f"label=cohortnet.testbed={name}")
    ]
    if (state := Path("/run/cohortnet") / name).exists():
        found.append(f"folder {state}")
    return found


def wait_for_none(name: str, timeout_s: float = 10.0) -> list[str]:
    """Poll: a process that was killed takes a moment to go."""
    deadline = time.monotonic() + timeout_s
    while (found := leftovers(name)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
