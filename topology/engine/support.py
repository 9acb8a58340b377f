"""What a plan declares and this kernel cannot do: refused, or gone without by the user's own word."""

from __future__ import annotations

import subprocess

from topology.engine import namespaces
from topology.errors import Problem
from topology.plan import Plan


def has_netem() -> bool:
    """Whether the kernel has netem: tried on the loopback of a network namespace that lives as long as the trial."""
    command = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]

    def attempt() -> bool:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0

    return namespaces.in_thread(attempt)


def unsupported(plan: Plan) -> tuple[list[str], list[Problem]]:
    """Declared properties that this kernel lacks and the user allows to leave out, and problems for those he does not."""
    needed = plan.needs_netem()
    if not needed or has_netem():
        return [], []
    allowed = [name for name in needed if name in plan.allow_unsupported]
    problems = [
        Problem("links", "no-netem", f"{name} is declared on {len(names)} links ({names[0]}, ...), and this kernel has no netem",
                f"use a kernel with sch_netem (`modprobe sch_netem`), or go on without: `--allow-unsupported {name}`")
        for name, names in needed.items() if name not in plan.allow_unsupported
    ]  # fmt: skip
    return allowed, problems
