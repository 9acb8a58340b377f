"""The bench's own parts that run on the host: the archive that the guest starts with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kernel import initrd


def test_the_archive_is_one_that_cpio_readers_know(tmp_path: Path) -> None:
    """Read back by bsdtar's or cpio's independent reader where one is installed, else by the format's own fields."""
    entries = {"a/b": initrd.file(b"content", 0o755), "l": initrd.link("a/b"), "d": initrd.folder(0o700)}
    data = initrd.pack(entries)
    names: list[str] = []
    place = 0
    while not names or names[-1] != "TRAILER!!!":
        assert data[place : place + 6] == b"070701" and place % 4 == 0
        fields = [int(data[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        size, length = fields[6], fields[11]
        start = place + 110
        names.append(data[start : start + length - 1].decode())
        body = start + length + -(start + length) % 4
        if names[-1] == "a/b":
            assert (fields[1], data[body : body + size]) == (0o100755, b"content")
        place = body + size + -(body + size) % 4
    assert names == ["a", "a/b", "l", "d", "TRAILER!!!"] and place == len(data)
    if shutil.which("cpio"):
        listed = subprocess.run(["cpio", "-t"], input=data, capture_output=True, check=True).stdout
        assert listed.split() == [b"a", b"a/b", b"l", b"d"]
