"""Finding a process's cgroup folders: both versions, both of Docker's drivers, and this process."""

from __future__ import annotations

import os
from pathlib import Path

from topology.cgroup_mounts import CgroupMount, folders_of, match_folders, mounts, parse_mounts

V1 = """31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_version_1_gives_each_hierarchy_and_leaves_roots_out() -> None:
    membership = "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"
    assert [str(folder) for folder in match_folders(membership, parse_mounts(V1))] == [
        "/sys/fs/cgroup/cpu,cpuacct/docker/abc",
        "/sys/fs/cgroup/memory/docker/abc",
        "/sys/fs/cgroup/systemd/docker/abc",
    ]


def test_version_2_with_the_systemd_driver() -> None:
    hierarchies = parse_mounts("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
    found = match_folders("0::/system.slice/docker-abc.scope\n", hierarchies)
    assert found == [Path("/sys/fs/cgroup/system.slice/docker-abc.scope")]


def test_a_mount_of_a_part_of_the_hierarchy_shows_only_what_is_below_it() -> None:
    part = [CgroupMount(Path("/sys/fs/cgroup"), "/docker/outer", 2, ("cpu",))]
    assert match_folders("0::/docker/outer/docker/abc\n", part) == [Path("/sys/fs/cgroup/docker/abc")]
    assert match_folders("0::/elsewhere\n", part) == []
    assert match_folders("0::/docker/outer\n", part) == []


def test_mount_points_with_blanks_are_read() -> None:
    (mount,) = parse_mounts("30 23 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n")
    assert mount.folder == Path("/mnt/my groups")


def test_our_own_folders_hold_our_pid() -> None:
    assert mounts(), "no cgroup hierarchy is mounted here"
    for folder in folders_of(os.getpid()):
        assert str(os.getpid()) in (folder / "cgroup.procs").read_text().split(), folder
