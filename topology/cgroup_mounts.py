"""Where control groups are: the mounted hierarchies of version 1 and 2, and the folders of a process.

Reads `/proc` only; never makes, changes or removes a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class CgroupMount:
    """One mounted hierarchy; `root` is the group that its folder shows; a named one has no controllers."""

    folder: Path
    root: str
    version: int
    controllers: tuple[str, ...]
    name: str | None = None


_KNOWN = frozenset(
    ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "io", "devices", "freezer", "net_cls", "net_prio")
    + ("perf_event", "hugetlb", "rdma", "misc")
)


def parse_mounts(mountinfo: str) -> list[CgroupMount]:
    """The hierarchies in the text of `/proc/<pid>/mountinfo`; version 2 comes without its controllers."""
    mounts = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        options = kind[2].split(",")
        name = next((option.removeprefix("name=") for option in options if option.startswith("name=")), None)
        controllers = tuple(option for option in options if option in _KNOWN) if kind[0] == "cgroup" else ()
        version = 1 if kind[0] == "cgroup" else 2
        mounts.append(
            CgroupMount(Path(_unescape(fields[4])), _unescape(fields[3]), version, controllers, name)
        )
    return mounts


def _unescape(field: str) -> str:
    # The kernel writes blanks and backslashes in octal.
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def mounts() -> list[CgroupMount]:
    """The hierarchies mounted here, those of version 2 with the controllers that they really have."""
    found = []
    for mount in parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8")):
        controllers = mount.controllers
        if mount.version == 2:
            try:
                controllers = tuple((mount.folder / "cgroup.controllers").read_text(encoding="ascii").split())
            except OSError:
                controllers = ()
        found.append(CgroupMount(mount.folder, mount.root, mount.version, controllers, mount.name))
    return found


def match_folders(membership: str, hierarchies: Sequence[CgroupMount]) -> list[Path]:
    """The folders that the text of `/proc/<pid>/cgroup` names, without root groups: they limit nothing."""
    folders: list[Path] = []
    for line in membership.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        number, subsystems, group = parts
        wanted = frozenset(subsystems.split(",")) - {""}
        for mount in hierarchies:
            if number == "0" and not wanted:
                matches = mount.version == 2
            elif mount.name is not None:
                matches = f"name={mount.name}" in wanted
            else:
                matches = mount.version == 1 and bool(wanted & frozenset(mount.controllers))
            if not matches or group == "/":
                continue
            # A mount can show a part of the hierarchy only (a container's bind mount); outside
            # of it there is no folder.
            try:
                inside = PurePosixPath(group).relative_to(mount.root)
            except ValueError:
                continue
            folder = mount.folder / inside
            if folder not in folders and str(inside) != ".":
                folders.append(folder)
    return folders


def folders_of(pid: int, hierarchies: Sequence[CgroupMount] | None = None) -> list[Path]:
    """The existing cgroup folders of a process, one for each hierarchy in which it is below the root.

    Raises:
        OSError: where the process does not exist (any more).
    """
    membership = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    return [
        f for f in match_folders(membership, mounts() if hierarchies is None else hierarchies) if f.is_dir()
    ]
