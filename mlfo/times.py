"""The deadlines of an edge orchestrator, in one place. All in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Deadlines, all in seconds."""

    join_s: float = 60.0
    join_per_client_s: float = 3.0
    allocation_s: float = 1800.0
    message_s: float = 600.0
    grace_s: float = 30.0
    lost_s: float = 60.0
    collect_s: float = 10.0
    finish_s: float = 30.0
    watch_s: float = 1.0
    watch_per_client_s: float = 0.05
    raising_s: float = 120.0

    def join(self, clients: int) -> float:
        return min(self.join_s + self.join_per_client_s * clients, 86_400.0)

    def watch(self, clients: int) -> float:
        """Between two looks at joining clients: many starting clients are not to be disturbed by being asked
        how they are."""
        return max(self.watch_s, self.watch_per_client_s * clients)
