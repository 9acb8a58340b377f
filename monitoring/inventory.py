"""The inventory as monitoring reads it: typed, and read again when the file changes.

Takes the path of `inventory.json` (docs/architecture.md has its form). Keys that monitoring does not use are left
alone, so that an inventory may grow. Never writes it, never waits for it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

VERSION = 1


class InventoryError(Exception):
    """The inventory is missing, of another version, or not what docs/architecture.md says."""


@dataclass(frozen=True)
class Node:
    """A node; `pid` is its first process on the host (None while it is being raised), `cohort` is "" where it has none.
    """

    name: str
    role: str
    cohort: str
    address: str
    management_address: str
    interface: str
    switch: str
    runtime: str
    pid: int | None
    cgroups: tuple[str, ...]

    def device(self, interface: str) -> str:
        """The name of an interface of the node as it is known outside: `fed.1-eth0`."""
        return interface if interface.startswith(f"{self.name}-") else f"{self.name}-{interface}"


@dataclass(frozen=True)
class Port:
    """A switch port; `interface` is what the core's namespace calls it, `name` what people do."""

    number: int
    name: str
    interface: str
    peer: str


@dataclass(frozen=True)
class Switch:
    """An Open vSwitch bridge of the core."""

    name: str
    bridge: str
    datapath_id: int
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class Shape:
    """One direction as declared: bit/s (None: not limited), seconds, loss as a ratio; `rest` is all else that the
    inventory says of it (jitter, queue and the like), to be compared only."""

    rate_bps: int | None
    delay_s: float
    loss: float
    rest: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Link:
    """A link; an end with a port is a switch's."""

    name: str
    a: str
    b: str
    a_port: int | None
    b_port: int | None
    a_interface: str
    b_interface: str
    a_to_b: Shape
    b_to_a: Shape


@dataclass(frozen=True)
class Cohort:
    """A server with its clients."""

    name: str
    server: str
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """What exists, as of one state of the file."""

    testbed: str
    state: str
    runtime: str
    core_namespace: str
    ovs_rundir: str
    datapath: str
    controller: str
    """`builtin`, `external` or `none`."""
    controller_rest: tuple[str, int] | None
    """Where the host reaches the controller's REST; None where it is not published."""
    nodes: tuple[Node, ...]
    switches: tuple[Switch, ...]
    links: tuple[Link, ...]
    cohorts: tuple[Cohort, ...]
    state_folder: Path
    monitoring: Mapping[str, Any] | None = field(compare=False)
    """The key `monitoring` as it stands in the file; None: this testbed is not monitored."""

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by their names."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def names_by_address(self) -> Mapping[bytes, str]:
        """Names of nodes by their address in the emulated network (four bytes)."""
        found = ((packed(node.address), node.name) for node in self.nodes)
        return {address: name for address, name in found if address is not None}

    @cached_property
    def interfaces(self) -> Mapping[str, tuple[str, ...]]:
        """Interfaces of each node in the emulated network: its own, and those at which further links end."""
        found: dict[str, dict[str, None]] = {node.name: {node.interface: None} for node in self.nodes}
        for link in self.links:
            for end, interface in ((link.a, link.a_interface), (link.b, link.b_interface)):
                if end in found:
                    found[end][interface] = None
        return {name: tuple(names) for name, names in found.items()}

    @property
    def period_s(self) -> float:
        """The declared sampling period in seconds."""
        return float((self.monitoring or {}).get("period_s") or 5.0)


def packed(address: str) -> bytes | None:
    """An IPv4 address as four bytes; None where it is none (a node may have no address of its own)."""
    try:
        return socket.inet_pton(socket.AF_INET, address)
    except OSError:
        return None


def read(path: Path) -> Inventory:
    """The inventory in that file. Raises InventoryError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InventoryError(
            f"{path}: {error.strerror}; `cohortnet ls` shows the testbeds that are up"
        ) from None
    except ValueError as error:
        raise InventoryError(f"{path} is no JSON: {error}") from None
    return parse(data, str(path))


def parse(data: Mapping[str, Any], subject: str = "inventory") -> Inventory:
    """The inventory from plain data. Raises InventoryError naming `subject`. Pure."""
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise InventoryError(f"{subject} has version {version!r}; this program reads version {VERSION}")
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InventoryError(f"{subject}: {type(error).__name__} at {error}; it is not as docs/architecture.md has "
                             "inventories") from None  # fmt: skip


def _parse(data: Mapping[str, Any]) -> Inventory:
    nodes = tuple(
        Node(entry["name"], entry["role"], entry["cohort"] or "", entry["address"], entry["management_address"],
             entry["interface"], entry["switch"], entry.get("runtime", data["runtime"]), entry["pid"],
             tuple(entry["cgroups"]))
        for entry in data["nodes"]
    )  # fmt: skip
    switches = tuple(
        Switch(entry["name"], entry["bridge"], entry["datapath_id"], tuple(
            Port(port["number"], port["name"], port["interface"], port["peer"]) for port in entry["ports"]
        ))
        for entry in data["switches"]
    )  # fmt: skip
    links = tuple(
        Link(entry["name"], entry["a"], entry["b"], entry["a_port"], entry["b_port"], entry["a_interface"],
             entry["b_interface"], _shape(entry["a_to_b"]), _shape(entry["b_to_a"]))
        for entry in data["links"]
    )  # fmt: skip
    core = data["core"]
    rest = next(((str(entry["host"]), int(entry["host_port"])) for entry in data.get("published", ())
                 if entry["node"] is None), None)  # fmt: skip
    return Inventory(
        testbed=data["testbed"],
        state=data["state"],
        runtime=data["runtime"],
        core_namespace=core["namespace"],
        ovs_rundir=core["ovs_rundir"],
        datapath=core["datapath"],
        controller=core["controller"]["kind"],
        controller_rest=rest,
        nodes=nodes,
        switches=switches,
        links=links,
        cohorts=tuple(Cohort(entry["name"], entry["server"], tuple(entry["clients"])) for entry in data["cohorts"]),
        state_folder=Path(data["paths"]["state"]),
        monitoring=data.get("monitoring"),
    )


def _shape(data: Mapping[str, Any]) -> Shape:
    own = ("rate_bps", "delay_s", "loss")
    rest = tuple(sorted((key, value) for key, value in data.items() if key not in own))
    return Shape(data["rate_bps"], float(data["delay_s"]), float(data["loss"]), rest)


class Watched:
    """An inventory file, read again when it was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._inventory: Inventory | None = None

    def current(self) -> tuple[Inventory, bool]:
        """The inventory as it stands in the file now, and whether it is another one than at the last call.

        Raises InventoryError; then the next call reads again.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            self._stamp = None
            raise InventoryError(f"{self.path}: {error.strerror}; `cohortnet ls` shows the testbeds that are up"
                                 ) from None  # fmt: skip
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp and self._inventory is not None:
            return self._inventory, False
        self._inventory = read(self.path)
        self._stamp = stamp
        return self._inventory, True
