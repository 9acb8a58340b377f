"""The testbed as the orchestrator sees it: nodes, cohorts and addresses from ``inventory.json``. Reads it,
never writes it."""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlfo.errors import SetupError

AGENT_PORT = 5000


@dataclass(frozen=True)
class Node:
    """A node of the testbed; ``agent_port`` is where its agent listens (TCP)."""

    name: str
    role: str
    cohort: str
    address: str
    agent_port: int = AGENT_PORT


@dataclass(frozen=True)
class Cohort:
    """A cohort of the plan: its server and its clients, in plan order."""

    name: str
    server: str
    clients: tuple[str, ...]


class Inventory:
    """One version of the inventory, indexed. Raises SetupError where the content is not an inventory of
    version 1."""

    def __init__(self, content: dict[str, Any], agent_port: int = AGENT_PORT) -> None:
        try:
            if content.get("version") != 1:
                raise SetupError(
                    f"inventory version {content.get('version')!r} is unknown; this program reads version 1"
                )
            self.testbed = str(content["testbed"])
            self.state = str(content.get("state", "up"))
            self.seed = int(content.get("seed") or 0)
            self.nodes = {
                n["name"]: Node(
                    name=str(n["name"]),
                    role=str(n["role"]),
                    cohort=str(n.get("cohort") or ""),
                    address=str(n["address"]),
                    agent_port=int(n.get("agent_port") or agent_port),
                )
                for n in content["nodes"]
            }
            self.cohorts = {
                str(c["name"]): Cohort(str(c["name"]), str(c["server"]), tuple(map(str, c["clients"])))
                for c in content.get("cohorts", [])
            }
            pool = ipaddress.ip_network(
                content.get("network", {}).get("address_pool", "10.0.0.0/16"), strict=False
            )
            # The family's "ipstart" counts from 10.0.1.0 in the pool 10.0.0.0/16.
            self.client_base = int(pool.network_address) + 256
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SetupError(f"the inventory cannot be read: {type(error).__name__}: {error}") from error
        self._by_address = {n.address: n for n in self.nodes.values()}
        self._cohort_of = {client: c.name for c in self.cohorts.values() for client in c.clients}

    def with_role(self, role: str) -> list[Node]:
        return [n for n in self.nodes.values() if n.role == role]

    def at(self, address: str) -> Node | None:
        return self._by_address.get(address)

    def cohort_of(self, client: str) -> Cohort | None:
        """The plan's cohort of a client, by membership, else by the node's own mark."""
        name = self._cohort_of.get(client)
        if name is None and client in self.nodes:
            name = self.nodes[client].cohort
        return self.cohorts.get(name) if name else None

    def servers(self) -> list[str]:
        """All servers in plan order: those of cohorts first, then servers that no cohort names."""
        order = [c.server for c in self.cohorts.values() if c.server in self.nodes]
        order += [n.name for n in self.with_role("server")]
        return list(dict.fromkeys(order))

    def client_address(self, offset: int) -> str:
        """The address 10.0.1.0 + offset, by arithmetic: 256 is 10.0.2.0."""
        return str(ipaddress.ip_address(self.client_base + offset))


class InventoryFile:
    """The inventory on disk: waits for it once, then reads it again whenever it changes. Safe from many
    threads."""

    def __init__(self, path: Path, agent_port: int = AGENT_PORT) -> None:
        self.path = path
        self.agent_port = agent_port
        self._lock = threading.Lock()
        self._mark: tuple[int, int, int] | None = None
        self._current: Inventory | None = None

    def wait(self, timeout_s: float) -> Inventory:
        """The first readable inventory; raises SetupError after ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                return self.get()
            except SetupError as error:
                if time.monotonic() >= end:
                    raise SetupError(f"{error} (waited {timeout_s:g} s for {self.path})") from error
            time.sleep(0.1)

    def get(self) -> Inventory:
        """The inventory as it is now; a version that cannot be read leaves the last good one standing."""
        with self._lock:
            try:
                stat = self.path.stat()
                mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if self._current is None or mark != self._mark:
                    content = json.loads(self.path.read_text("utf-8"))
                    self._current = Inventory(content, self.agent_port)
                    self._mark = mark
            except (OSError, ValueError, SetupError) as error:
                if self._current is None:
                    raise SetupError(
                        f"inventory {self.path} cannot be read: {error}; is the testbed up?"
                    ) from error
            return self._current
