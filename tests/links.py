"""Takes links of a running testbed down and up, by their ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topology.engine import change_links, links


def set_link(inventory: Mapping[str, Any], a: str, b: str, up: bool) -> None:
    change_links.set_state(inventory, links.find_link(inventory, a, b)["name"], up)
