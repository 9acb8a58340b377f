"""What a node's control groups say of its processor time, memory and processes; version 1 and 2, one record.

Takes the folders that the inventory lists for a node. Which file is where is found out once, since version 1 spreads
them over several hierarchies. Reads only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_UNLIMITED = 1 << 62
"""Version 1 writes "no limit" as the largest number of whole pages."""

_FILES_V1 = ("cpuacct.usage", "cpuacct.stat", "cpu.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.stat",
             "memory.usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control", "cgroup.procs")  # fmt: skip
_FILES_V2 = ("cpu.stat", "cpu.max", "memory.stat", "memory.current", "memory.max", "memory.events", "cgroup.procs")


@dataclass(frozen=True)
class Usage:
    """A node's usage since it began: seconds, bytes, counts. None where this kernel or this node has no such figure."""

    cpu_s: float | None = None
    user_s: float | None = None
    system_s: float | None = None
    cpu_limit_cores: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_s: float | None = None
    memory_bytes: int | None = None
    working_set_bytes: int | None = None
    rss_bytes: int | None = None
    memory_limit_bytes: int | None = None
    oom_kills: int | None = None
    processes: int | None = None


def fields(text: bytes) -> dict[bytes, int]:
    """The `name value` lines of a file such as `memory.stat`."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def _count_lines(text: bytes) -> int:
    return text.count(b"\n")


def usage_v1(files: Mapping[str, bytes]) -> Usage:
    """The usage from the texts of version 1's files; a file that is not there is left out of it. Pure."""
    cpu_s = user_s = system_s = limit = throttled_s = None
    periods = throttled = memory = working = rss = most = kills = processes = None
    if "cpuacct.usage" in files:
        cpu_s = int(files["cpuacct.usage"]) / 1e9
    if "cpuacct.stat" in files:
        times = fields(files["cpuacct.stat"])
        user_s, system_s = times[b"user"] / _CLOCK_TICKS, times[b"system"] / _CLOCK_TICKS
    if "cpu.cfs_quota_us" in files and (quota := int(files["cpu.cfs_quota_us"])) > 0:
        limit = quota / int(files["cpu.cfs_period_us"])
        if "cpu.stat" in files:
            found = fields(files["cpu.stat"])
            periods, throttled = found[b"nr_periods"], found[b"nr_throttled"]
            throttled_s = found[b"throttled_time"] / 1e9
    if "memory.usage_in_bytes" in files:
        memory = int(files["memory.usage_in_bytes"])
        if "memory.stat" in files:
            found = fields(files["memory.stat"])
            working = max(0, memory - found.get(b"total_inactive_file", 0))
            rss = found.get(b"total_rss", found.get(b"rss"))
    if "memory.limit_in_bytes" in files and (number := int(files["memory.limit_in_bytes"])) < _UNLIMITED:
        most = number
    if "memory.oom_control" in files:
        kills = fields(files["memory.oom_control"]).get(b"oom_kill")
    if "cgroup.procs" in files:
        processes = _count_lines(files["cgroup.procs"])
    return Usage(cpu_s, user_s, system_s, limit, periods, throttled, throttled_s, memory, working, rss, most, kills,
                 processes)  # fmt: skip


def usage_v2(files: Mapping[str, bytes]) -> Usage:
    """The same from version 2's files. Pure."""
    cpu_s = user_s = system_s = limit = throttled_s = None
    periods = throttled = memory = working = rss = most = kills = processes = None
    if "cpu.stat" in files:
        found = fields(files["cpu.stat"])
        cpu_s, user_s, system_s = (found[key] / 1e6 for key in (b"usage_usec", b"user_usec", b"system_usec"))
        quota, _, period = files.get("cpu.max", b"max 100000").partition(b" ")
        if quota != b"max":
            limit = int(quota) / int(period)
            periods, throttled = found.get(b"nr_periods"), found.get(b"nr_throttled")
            throttled_s = found.get(b"throttled_usec", 0) / 1e6
    if "memory.current" in files:
        memory = int(files["memory.current"])
        if "memory.stat" in files:
            found = fields(files["memory.stat"])
            working = max(0, memory - found.get(b"inactive_file", 0))
            rss = found.get(b"anon")
    if "memory.max" in files and files["memory.max"].strip() != b"max":
        most = int(files["memory.max"])
    if "memory.events" in files:
        kills = fields(files["memory.events"]).get(b"oom_kill")
    if "cgroup.procs" in files:
        processes = _count_lines(files["cgroup.procs"])
    return Usage(cpu_s, user_s, system_s, limit, periods, throttled, throttled_s, memory, working, rss, most, kills,
                 processes)  # fmt: skip


class Groups:
    """The control groups of one node."""

    def __init__(self, folders: Iterable[str]) -> None:
        known = [folder for folder in folders if os.path.isdir(folder)]
        second = [folder for folder in known if os.path.exists(f"{folder}/cgroup.controllers")]
        # Version 2 is often mounted beside version 1, without any controller of its own.
        holds = any(os.path.exists(f"{folder}/{name}") for folder in second for name in ("memory.current", "cpu.max"))
        self._version = 2 if holds else 1
        known = second if holds else [folder for folder in known if folder not in second]
        self._paths: dict[str, str] = {}
        for name in _FILES_V1 if self._version == 1 else _FILES_V2:
            for folder in known:
                if os.path.exists(f"{folder}/{name}"):
                    self._paths[name] = f"{folder}/{name}"
                    break

    def read(self) -> Usage:
        """The usage now. A file that cannot be read (the node is just going) is left out of it."""
        files = {}
        for name, path in self._paths.items():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    files[name] = os.read(fd, 65536)
                finally:
                    os.close(fd)
            except OSError:
                continue
        return usage_v1(files) if self._version == 1 else usage_v2(files)
