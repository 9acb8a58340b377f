"""What will be built: every name, address, MAC, datapath id, port number and path resolved. Types only; pure data.

`topology.planning` makes a Plan from a Testbed, `topology.engine` makes it real, `topology.inventory` writes down what
exists.
Units are SI: bit/s, seconds, bytes, fractions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from topology.plain import plain

STATE_ROOT = Path("/run/cohortnet")
"""Every testbed has its folder below this one."""


@dataclass(frozen=True)
class Shape:
    """One direction of a link. A rate of None is unlimited; a queue of None follows from rate and delay."""

    rate_bps: int | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    distribution: str | None = None
    """How the jitter is spread: "normal", "uniform" or "pareto"; None is uniform."""
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    queue_packets: int | None = None

    def needs_netem(self) -> tuple[str, ...]:
        """The properties of this shape that only the kernel's netem can do, by their names in a testbed file."""
        values = {
            "delay": self.delay_s, "jitter": self.jitter_s, "loss": self.loss, "duplicate": self.duplicate,
            "corrupt": self.corrupt, "reorder": self.reorder,
        }  # fmt: skip
        return tuple(name for name, value in values.items() if value)


@dataclass(frozen=True)
class PlannedNode:
    """A node: its name, its one interface in the emulated network, its limits and what it runs.

    `cpu` in cores, `memory_bytes` in bytes, None is unlimited. `program` is started once the testbed is up ("python"
    stands for the
    runtime's interpreter). `container` is the name that the Docker runtime gives. A node that is linked to nothing
    (yet) has an empty `switch` and port 0, one without an IPv4 address an empty `address`.
    """

    name: str
    role: str
    cohort: str | None
    address: str
    prefix_length: int
    mac: str
    interface: str
    management_address: str
    management_interface: str
    switch: str
    switch_port: int
    cpu: float | None
    memory_bytes: int | None
    cpuset: str | None
    image: str
    container: str
    program: tuple[str, ...] | None
    environment: dict[str, str]
    state: str
    runtime: str | None = None
    """The runtime of this node alone; None is the plan's."""
    options: dict[str, Any] = field(default_factory=dict)
    """What only the node's runtime understands. Docker: `create` and `host` (arguments of docker-py's
    `create_container` and `create_host_config`), `lint: false` for an image that needs none of our programs.
    Namespace: `share_tmp`, for the host's own /tmp.
    """

    speed: str | None = None
    """The class of speed that the node was drawn into, where the testbed has such classes."""

    @property
    def log(self) -> str:
        """Where the output of the node's program goes (namespace runtime)."""
        return f"{self.state}/program.log"


@dataclass(frozen=True)
class PlannedPort:
    """A port of a switch: `name` is the real name (the alias), `interface` the name in the core namespace."""

    number: int
    name: str
    interface: str
    peer_kind: str
    peer: str
    peer_port: int | None


@dataclass(frozen=True)
class PlannedSwitch:
    """A switch; `bridge` is its name in the testbed's own Open vSwitch."""

    name: str
    datapath_id: int
    bridge: str
    ports: tuple[PlannedPort, ...]


@dataclass(frozen=True)
class Declared:
    """What a link's directions were raised with, where they are another shape now."""

    a_to_b: Shape
    b_to_a: Shape


@dataclass(frozen=True)
class PlannedLink:
    """A link. Ends are node or switch names; a port is None at a node's end. Interfaces are those of the two ends.

    `a_to_b` and `b_to_a` are in force now; `declared` is None where that is what the link was raised with.
    """

    name: str
    a: str
    b: str
    a_port: int | None
    b_port: int | None
    a_interface: str
    b_interface: str
    a_to_b: Shape
    b_to_a: Shape
    declared: Declared | None = None


@dataclass(frozen=True)
class PlannedCohort:
    """The clients that one server serves, in the order of their partition ids."""

    name: str
    server: str
    clients: tuple[str, ...]


@dataclass(frozen=True)
class PublishedPort:
    """A port that the host reaches at `host`:`host_port`; a node of None is the core namespace (the controller)."""

    node: str | None
    port: int
    host: str
    host_port: int


@dataclass(frozen=True)
class PlannedMeter:
    """A limit that is in force from the start. `rate` in `unit` ("bit/s" or "packet/s"), `burst` in bits or packets,
    None for one second of the rate; `target` is what the controller's REST calls so (docs/architecture.md).
    """

    name: str
    target: dict[str, str | int]
    direction: str
    unit: str
    rate: int
    burst: int | None
    enforce: str

    def as_body(self) -> dict[str, Any]:
        """The meter as the controller's REST takes it, with its name."""
        body = asdict(self)
        if self.burst is None:
            del body["burst"]
        return body


@dataclass(frozen=True)
class PlannedFlow:
    """Background traffic between two nodes. `rate_bps` is the mean payload; what the pattern does not use is None.

    `ports` are two at the destination: a connection with a new rate begins on one before that on the other ends.
    """

    name: str
    source: str
    destination: str
    protocol: str
    pattern: str
    rate_bps: int
    period_s: float | None
    on_s: float | None
    low_bps: int | None
    size_bytes: int | None
    seed: int | None
    start: bool
    ports: tuple[int, int]


@dataclass(frozen=True)
class PlannedMonitoring:
    """What measures the testbed while it is up, as the inventory has it too. Addresses are `IP:PORT` of the host.

    `prometheus` is "host", "in-band" or "none"; `node` is the one that it runs in where that is "in-band".
    """

    prometheus: str
    period_s: float
    retention_s: float
    exporter: str
    prometheus_address: str | None
    folder: str
    node: str | None = None

    def ports(self) -> dict[str, int]:
        """Key of the testbed file -> the host's port that is taken for it."""
        keys = {"monitoring.exporter_port": self.exporter}
        if self.prometheus_address:
            keys["monitoring.port"] = self.prometheus_address
        return {key: int(address.rpartition(":")[2]) for key, address in keys.items()}


@dataclass(frozen=True)
class Plan:
    """A whole testbed, ready to be made."""

    testbed: str
    runtime: str
    seed: int
    address_pool: str
    management: str
    management_host: str
    host_interface: str
    core_namespace: str
    controller: str
    nodes: tuple[PlannedNode, ...]
    switches: tuple[PlannedSwitch, ...]
    links: tuple[PlannedLink, ...]
    cohorts: tuple[PlannedCohort, ...]
    published: tuple[PublishedPort, ...]
    allow_unsupported: tuple[str, ...]
    meters: tuple[PlannedMeter, ...] = ()
    traffic: tuple[PlannedFlow, ...] = ()
    controller_address: str | None = None
    """Where an external controller listens, `IP:PORT` as this machine reaches it."""
    monitoring: PlannedMonitoring | None = None

    @property
    def fail_mode(self) -> str:
        """What a switch does without its controller: "secure" keeps its flows and meters and learns nothing by itself,
        "standalone" is a learning switch.
        """
        return "standalone" if self.controller == "none" else "secure"

    @property
    def state(self) -> Path:
        """The testbed's own folder, readable by root only."""
        return STATE_ROOT / self.testbed

    @property
    def shared(self) -> Path:
        """What nodes may read (the inventory, the spawner's socket)."""
        return self.state / "shared"

    @property
    def logs(self) -> Path:
        """Logs of the testbed's daemons."""
        return self.state / "logs"

    @property
    def inventory(self) -> Path:
        """Where the inventory is written."""
        return self.shared / "inventory.json"

    @property
    def spawner(self) -> Path:
        """The spawner's socket (namespace runtime)."""
        return self.shared / "spawner.sock"

    def runtime_of(self, node: PlannedNode) -> str:
        """The runtime that makes this node."""
        return node.runtime or self.runtime

    def node(self, name: str) -> PlannedNode:
        """The node of that name. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def needs_netem(self) -> dict[str, list[str]]:
        """Property (delay, loss, ...) -> names of the links that ask for it."""
        needed: dict[str, list[str]] = {}
        for link in self.links:
            for name in dict.fromkeys(link.a_to_b.needs_netem() + link.b_to_a.needs_netem()):
                needed.setdefault(name, []).append(link.name)
        return needed

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        data: dict[str, Any] = plain(self)
        return data


def _link(item: dict[str, Any]) -> PlannedLink:
    declared = item.get("declared")
    return PlannedLink(
        **{
            **item,
            "a_to_b": Shape(**item["a_to_b"]),
            "b_to_a": Shape(**item["b_to_a"]),
            "declared": Declared(Shape(**declared["a_to_b"]), Shape(**declared["b_to_a"])) if declared else None,
        }
    )


def plan_from_dict(data: dict[str, Any]) -> Plan:
    """A Plan from what `Plan.as_dict` gave (after a round through JSON). Raises KeyError or TypeError on other data."""
    switches = tuple(
        PlannedSwitch(**{**item, "ports": tuple(PlannedPort(**port) for port in item["ports"])})
        for item in data["switches"]
    )
    nodes = tuple(
        PlannedNode(**{**item, "program": None if item["program"] is None else tuple(item["program"])})
        for item in data["nodes"]
    )
    links = tuple(_link(item) for item in data["links"])
    cohorts = tuple(PlannedCohort(**{**item, "clients": tuple(item["clients"])}) for item in data["cohorts"])
    published = tuple(PublishedPort(**item) for item in data["published"])
    meters = tuple(PlannedMeter(**item) for item in data.get("meters", ()))
    traffic = tuple(PlannedFlow(**{**item, "ports": tuple(item["ports"])}) for item in data.get("traffic", ()))
    watched = data.get("monitoring")
    lists = {"nodes": nodes, "switches": switches, "links": links, "cohorts": cohorts, "published": published,
             "meters": meters, "traffic": traffic,
             "monitoring": PlannedMonitoring(**watched) if watched else None}  # fmt: skip
    return Plan(**{**data, **lists, "allow_unsupported": tuple(data["allow_unsupported"])})
