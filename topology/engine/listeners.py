"""On which TCP ports somebody listens in a network namespace, as the kernel's tables of it say."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_LISTEN = "0A"


def ports(pid: int) -> set[int]:
    """The ports, on whatever address, in the network namespace of that process; none where it has ended."""
    found: set[int] = set()
    for family in ("tcp", "tcp6"):  # whoever listens on all addresses may stand in the second one only
        with suppress(OSError):
            found |= parse(Path(f"/proc/{pid}/net/{family}").read_text(encoding="ascii"))
    return found


def parse(table: str) -> set[int]:
    """The ports with a listener in the text of `/proc/<pid>/net/tcp` or `tcp6`. Pure."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTEN}
