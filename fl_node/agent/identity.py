"""Who this node is, from the environment that the runtime gives it. Only reads."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class IdentityError(Exception):
    """A variable that the agent cannot do without is missing, or one cannot be read."""


@dataclass(frozen=True)
class Identity:
    testbed: str
    node: str
    role: str
    cohort: str
    address: str
    state: Path
    spawner: str | None
    management: Network | None = None  # who is in it may look, and start or stop nothing

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Identity:
        """Raises IdentityError naming every variable that is missing, or the one that cannot be read."""
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
            management=_network(environment.get("COHORTNET_MANAGEMENT", "")),
        )


def _network(text: str) -> Network | None:
    if not text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:  # taken as no restriction, it would open what it is to close
        raise IdentityError(
            f"COHORTNET_MANAGEMENT is {text[:80]!r}: {error}; a network such as 100.74.144.0/20 is wanted"
        ) from error
