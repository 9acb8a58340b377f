"""What the guest starts with: a cpio archive in the "newc" format, as the kernel's own documentation describes it
(driver-api/early-userspace/buffer-format). Pure: takes entries, gives bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass

_END = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """A file, a folder (no content) or a symbolic link (its content is the target), with its mode."""

    mode: int
    content: bytes = b""


def folder(mode: int = 0o755) -> Entry:
    """A folder."""
    return Entry(stat.S_IFDIR | mode)


def file(content: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(stat.S_IFREG | mode, content)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def pack(entries: Mapping[str, Entry]) -> bytes:
    """The archive of these entries, by their paths below the root; folders above them are added, in order."""
    complete: dict[str, Entry] = {}
    for path, entry in entries.items():
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            complete.setdefault("/".join(parts[:depth]), folder())
        complete["/".join(parts)] = entry
    data = bytearray()
    for number, (path, entry) in enumerate([*complete.items(), (_END, Entry(0))], start=1):
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        data += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        data += b"\0" * (-len(data) % 4)
        data += entry.content
        data += b"\0" * (-len(data) % 4)
    return bytes(data)
