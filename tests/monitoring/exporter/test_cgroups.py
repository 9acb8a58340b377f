"""Control groups of both versions give the same record; figures that a kernel lacks are left out, not made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitoring.exporter.cgroups import Groups, Usage

_TICKS = os.sysconf("SC_CLK_TCK")
_V1 = {
    "cpuacct": {"cpuacct.usage": "2500000000\n", "cpuacct.stat": f"user {2 * _TICKS}\nsystem {_TICKS // 2}\n"},
    "cpu": {"cpu.stat": "nr_periods 40\nnr_throttled 4\nthrottled_time 1500000000\n", "cpu.cfs_quota_us": "50000\n",
            "cpu.cfs_period_us": "100000\n"},
    "memory": {"memory.usage_in_bytes": "5000\n", "memory.limit_in_bytes": "9223372036854771712\n",
               "memory.stat": "cache 7\nrss 1\ninactive_file 1\ntotal_rss 3000\ntotal_inactive_file 1000\n",
               "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"},
    "pids": {"pids.current": "9\n", "cgroup.procs": "11\n12\n13\n"},
}  # fmt: skip
_V2 = {
    "cgroup.controllers": "cpu memory pids\n", "cpu.max": "50000 100000\n", "memory.current": "5000\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 40\nnr_throttled 4\n"
                "throttled_usec 1500000\n",
    "memory.max": "max\n", "memory.stat": "anon 3000\nfile 7\ninactive_file 1000\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 2\noom_kill 2\n", "cgroup.procs": "11\n12\n13\n",
}  # fmt: skip
_WANTED = Usage(cpu_s=2.5, user_s=2.0, system_s=0.5, cpu_limit_cores=0.5, periods=40, throttled_periods=4,
                throttled_s=1.5, memory_bytes=5000, working_set_bytes=4000, rss_bytes=3000, memory_limit_bytes=None,
                oom_kills=2, processes=3)  # fmt: skip


def _fill(folder: Path, files: dict[str, str]) -> str:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return str(folder)


def _version_1(root: Path, **changes: dict[str, str]) -> list[str]:
    return [_fill(root / name, {**files, **changes.get(name, {})}) for name, files in _V1.items()]


def test_both_versions_say_the_same(tmp_path: Path) -> None:
    assert Groups(_version_1(tmp_path / "one")).read() == _WANTED
    assert Groups([_fill(tmp_path / "two", _V2)]).read() == _WANTED


def test_without_a_processor_limit_there_is_no_throttling(tmp_path: Path) -> None:
    one = Groups(_version_1(tmp_path / "one", cpu={"cpu.cfs_quota_us": "-1\n"})).read()
    two = Groups([_fill(tmp_path / "two", {**_V2, "cpu.max": "max 100000\n"})]).read()
    assert one == two
    assert (one.cpu_limit_cores, one.periods, one.throttled_periods, one.throttled_s) == (None,) * 4


def test_a_memory_limit_is_told(tmp_path: Path) -> None:
    one = Groups(_version_1(tmp_path / "one", memory={"memory.limit_in_bytes": "536870912\n"})).read()
    two = Groups([_fill(tmp_path / "two", {**_V2, "memory.max": "536870912\n"})]).read()
    assert one.memory_limit_bytes == two.memory_limit_bytes == 2**29


def test_a_group_without_controllers_beside_version_1_is_passed_over(tmp_path: Path) -> None:
    files = {"cgroup.controllers": "\n", "cgroup.procs": "1\n", "cpu.stat": "usage_usec 1\n"}
    unified = _fill(tmp_path / "unified", files)
    assert Groups([unified, *_version_1(tmp_path / "one")]).read() == _WANTED


def test_what_is_gone_has_no_figures(tmp_path: Path) -> None:
    groups = Groups(folders := _version_1(tmp_path / "one"))
    for folder in folders:
        for path in Path(folder).iterdir():
            path.unlink()
    assert groups.read() == Usage()
    assert Groups([str(tmp_path / "nothing")]).read() == Usage()


@pytest.mark.live
def test_this_kernels_own_files_are_read(tmp_path: Path) -> None:
    folders = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup"):
            folders.append(before.split()[4])
    usage = Groups(folders).read()
    assert usage.memory_bytes and usage.cpu_s and usage.processes, f"nothing read below {folders}"
