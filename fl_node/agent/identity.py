"""Who this node is, from the environment that the runtime gives it. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class IdentityError(Exception):
    """A variable that the agent cannot do without is missing."""


@dataclass(frozen=True)
class Identity:
    testbed: str
    node: str
    role: str
    cohort: str
    address: str
    state: Path
    spawner: str | None

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Identity:
        """Raises IdentityError naming every variable that is missing."""
        missing = [name for name in ("COHORTNET_NODE", "COHORTNET_STATE") if not environment.get(name)]
        if missing:
            raise IdentityError(
                f"{', '.join(missing)} not set: a testbed's runtime sets them; by hand: "
                "COHORTNET_NODE=fc.1 COHORTNET_STATE=/tmp/fc.1 python -m fl_node.agent"
            )
        return Identity(
            testbed=environment.get("COHORTNET_TESTBED", ""),
            node=environment["COHORTNET_NODE"],
            role=environment.get("COHORTNET_ROLE", ""),
            cohort=environment.get("COHORTNET_COHORT", ""),
            address=environment.get("COHORTNET_ADDRESS", "").partition("/")[0],
            state=Path(environment["COHORTNET_STATE"]),
            spawner=environment.get("COHORTNET_SPAWNER") or None,
        )
