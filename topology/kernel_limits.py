"""How many of each thing this kernel gives to all testbeds together, and how many are taken now. Reads only."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from topology.host_state import sysctl


@dataclass(frozen=True)
class Room:
    """One kind of thing: at most `most` (None: unknown), `used` of them now; `setting` is what raises it."""

    most: int | None
    used: int
    setting: str

    @property
    def free(self) -> int | None:
        """How many more there may be; None where it is not known."""
        return None if self.most is None else max(0, self.most - self.used)


@dataclass(frozen=True)
class KernelLimits:
    """Limits that many nodes meet together."""

    threads: Room
    """Processes and threads of the host: containers and namespaces count in it too."""
    neighbours: Room
    """Addresses that are resolved at one time: one table for all network namespaces."""
    files: Room
    """Open files of all processes together."""
    open_files: Room
    """Open files of one process (of the daemons that serve all nodes); its setting is inherited from the shell."""
    inotify: Room
    """Inotify instances of one user: containers need one each where cgroups are of version 2."""
    net_namespaces: Room


def _number(text: str | None) -> int | None:
    words = (text or "").split()
    return int(words[0]) if words and words[0].isdecimal() else None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def _threads() -> Room:
    named = {name: _number(sysctl(name)) for name in ("kernel.pid_max", "kernel.threads-max")}
    known = {name: value for name, value in named.items() if value is not None}
    fields = (_read("/proc/loadavg") or "").split()
    used = int(fields[3].partition("/")[2]) if len(fields) > 3 else 0
    least = min(known, key=lambda name: known[name]) if known else "kernel.pid_max"
    return Room(known.get(least), used, f"sudo sysctl {least}=")


def _neighbours() -> Room:
    lines = (_read("/proc/net/stat/arp_cache") or "").splitlines()
    used = int(lines[1].split()[0], 16) if len(lines) > 1 else 0
    name = "net.ipv4.neigh.default.gc_thresh3"
    return Room(_number(sysctl(name)), used, f"sudo sysctl {name}=")


def kernel_limits() -> KernelLimits:
    """What is set and used at this moment."""
    files = (_read("/proc/sys/fs/file-nr") or "").split()
    used = int(files[0]) if files else 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return KernelLimits(
        threads=_threads(),
        neighbours=_neighbours(),
        files=Room(_number(sysctl("fs.file-max")), used, "sudo sysctl fs.file-max="),
        open_files=Room(None if soft == resource.RLIM_INFINITY else soft, 0, "ulimit -n "),
        inotify=Room(_number(sysctl("fs.inotify.max_user_instances")), 0,
                     "sudo sysctl fs.inotify.max_user_instances="),
        net_namespaces=Room(_number(sysctl("user.max_net_namespaces")), 0, "sudo sysctl user.max_net_namespaces="),
    )  # fmt: skip
