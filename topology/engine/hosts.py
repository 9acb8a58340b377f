"""The nodes' `/etc/hosts`: one file a testbed, `shared/hosts`, mounted in every bare node; says who is where now.

A container has a file of its own from Docker, which says who was where when it was made.
"""

from __future__ import annotations

import os

from topology.plan import Plan


def text(plan: Plan) -> str:
    """What it says. Pure."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    return "\n".join([*lines, *(f"{node.address} {node.name}" for node in plan.nodes if node.address)]) + "\n"


def write(plan: Plan) -> None:
    """Write it, in place: nodes have this very file mounted. Nothing happens where it says so already. Raises OSError.
    """
    wanted = text(plan).encode()
    fd = os.open(plan.shared / "hosts", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(fd, "r+b") as file:
        if file.read() != wanted:
            file.seek(0)
            file.write(wanted)
            file.truncate()
