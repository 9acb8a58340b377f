"""What a user writes: the testbed file, strictly typed. Takes plain data, gives a `Testbed`; no I/O.

Cross references (does the link's node exist?) are checked in `topology.planning`, which sees preset and file together;
`topology.validation` reads files and shows the problems of both.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from topology.errors import Problem, TestbedProblems
from topology.problems import problems_of
from topology.units import parse_burst, parse_fraction, parse_meter_rate, parse_rate, parse_size, parse_time


def _written(value: object) -> object:
    # YAML reads 10 or 0xA000001 as a number, which would silently be an address.
    if isinstance(value, int | float | bytes):
        raise ValueError(f"{value!r} is no IPv4 address; write it like '10.0.3.1' (a network like '10.0.0.0/16')")
    return value


Rate = Annotated[int, BeforeValidator(parse_rate)]
Time = Annotated[float, BeforeValidator(parse_time)]
Size = Annotated[int, BeforeValidator(parse_size)]
Share = Annotated[float, BeforeValidator(parse_fraction)]
Address = Annotated[IPv4Address, Field(strict=False), BeforeValidator(_written)]
Network = Annotated[IPv4Network, Field(strict=False), BeforeValidator(_written)]

NODE_NAME = r"^[A-Za-z][A-Za-z0-9._-]{0,30}$"
TESTBED_NAME = r"^[a-z][a-z0-9-]{0,30}$"

Role = Literal[
    "client", "server", "mlfo-edge", "mlfo-central", "prometheus", "traffic-server", "traffic-client", "host"
]
RuntimeKind = Literal["docker", "namespace"]
Unsupported = Literal["delay", "jitter", "loss", "duplicate", "corrupt", "reorder"]
Cpuset = Annotated[str, Field(pattern=r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$")]
Distribution = Literal["normal", "uniform", "pareto"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Shaping(_Strict):
    """What one direction of a link does to packets; a key that is left out does nothing."""

    rate: Rate | None = None
    delay: Time | None = None
    jitter: Time | None = None
    distribution: Distribution | None = None
    loss: Share | None = None
    duplicate: Share | None = None
    corrupt: Share | None = None
    reorder: Share | None = None
    queue_packets: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class Limits(_Strict):
    """Processor and memory of a node: `cpu` in cores, `memory` as a size, `cpuset` in kernel notation ("0-1,3")."""

    cpu: Annotated[float, Field(ge=0.01, le=1024)] | None = None
    memory: Size | None = None
    cpuset: Cpuset | None = None


class SpeedClass(_Strict):
    """Clients of one speed: a `share` of all of them or a `count`, with `cpus` (cores), `memory` and `cpuset` each."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$")]
    share: Share | None = None
    count: Annotated[int, Field(ge=0, le=20000)] | None = None
    cpus: Annotated[float, Field(ge=0.01, le=1024)] | None = None
    memory: Size | None = None
    cpuset: Cpuset | None = None


class Speeds(_Strict):
    """Classes of speed that clients are drawn into. `seed` is the testbed's where it is left out."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    classes: Annotated[list[SpeedClass], Field(min_length=1, max_length=100)]


class Node(Limits):
    """A container or a set of namespaces with one interface in the emulated network."""

    name: Annotated[str, Field(pattern=NODE_NAME)]
    role: Role = "host"
    address: Address | None = None
    image: str | None = None
    command: list[str] | None = None
    environment: dict[str, str] = Field(default_factory=dict)


class Switch(_Strict):
    """An OpenFlow switch; `datapath_id` is given by order where it is left out."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,12}$")]
    datapath_id: Annotated[int, Field(ge=1, lt=2**48)] | None = None


class Link(Shaping):
    """A link between a node and a switch or between two switches.

    Keys of `Shaping` on the link itself hold for both directions; `up` (from `a` to `b`) and `down` (from `b` to `a`)
    replace them key by key.
    """

    a: str
    b: str
    up: Shaping | None = None
    down: Shaping | None = None


class Cohort(_Strict):
    """The clients that one FL server serves."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$")]
    server: str
    clients: Annotated[list[str], Field(min_length=1)]


class Publish(_Strict):
    """A port of a node that the host reaches at 127.0.0.1."""

    node: str
    port: Annotated[int, Field(ge=1, le=65535)]
    host_port: Annotated[int, Field(ge=1, le=65535)]


def parse_controller(value: object) -> str:
    """`IP:PORT` of an external controller, IPv6 in brackets. Raises ValueError."""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{value!r} is no address of a controller; write IP:PORT, such as '192.0.2.7:6653'")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]") if host.startswith("[") else host)
    except ValueError:
        raise ValueError(f"{value!r}: {host!r} is no IP address; write IP:PORT, such as '192.0.2.7:6653'") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{value!r}: {host!r} is no address of one machine; write IP:PORT, such as '192.0.2.7:6653'")
    return f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"


class Controller(_Strict):
    """Who steers the switches: our own controller, any OpenFlow 1.3 controller that this machine reaches at `address`,
    or none (each switch learns addresses by itself).
    """

    kind: Literal["builtin", "external", "none"] = "builtin"
    address: Annotated[str, BeforeValidator(parse_controller)] | None = None
    rest_host_port: Annotated[int, Field(ge=1, le=65535)] = 8080


def name_of_cohort(value: object) -> object:
    """A cohort by its name, or by its number without quotes."""
    # The presets' cohorts are called "1", "2", ...: who forgets the quotes means the same.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Meter(_Strict):
    """A limit in force from the start: exactly one of `cohort`, `client`, `server`, `address`, or `switch` with `port`.

    `up` is the direction from client to server. `rate` carries its unit (bit/s or packet/s), `burst` what it counts.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    cohort: Annotated[str, BeforeValidator(name_of_cohort)] | None = None
    client: str | None = None
    server: str | None = None
    switch: str | None = None
    port: Annotated[int, Field(ge=1, lt=0xFFFFFF00)] | None = None
    address: Address | None = None
    direction: Literal["up", "down", "both"] = "both"
    rate: Annotated[tuple[int, str], BeforeValidator(parse_meter_rate)]
    burst: Annotated[tuple[int, str], BeforeValidator(parse_burst)] | None = None
    enforce: Literal["auto", "drop", "queue"] = "auto"


class Traffic(_Strict):
    """Background traffic from one node to another; it is sent while it is started.

    `rate` is the mean of the payload over a long time, whatever the pattern. `period` (on-off, sine), `on` (on-off: how
    much of a period is sent), `low` (sine: its lowest rate), `size` and `seed` (poisson: blocks that arrive).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    source: str = Field(alias="from")
    destination: str = Field(alias="to")
    rate: Rate
    protocol: Literal["tcp", "udp"] = "tcp"
    pattern: Literal["constant", "poisson", "on-off", "sine"] = "constant"
    period: Time | None = None
    on: Time | None = None
    size: Size | None = None
    low: Rate | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    start: bool = False

    @model_validator(mode="before")
    @classmethod
    def _key_on(cls, data: Any) -> Any:
        # In YAML 1.1 an unquoted `on` is the truth value, also as a key.
        if isinstance(data, dict) and True in data and "on" not in data:
            return {("on" if key is True else key): value for key, value in data.items()}
        return data


def parse_period(value: object) -> float:
    """A period of collections, in seconds. Raises ValueError."""
    seconds = parse_time(value)
    if not 0.1 <= seconds <= 60:
        raise ValueError(f"{value!r}: a period is '100 ms' to '60 s' (Prometheus calls a series gone after minutes)")
    return seconds


def parse_retention(value: object) -> float:
    """How long samples are kept, in seconds. Raises ValueError."""
    seconds = parse_time(value)
    if not 600 <= seconds <= 366 * 86400:
        raise ValueError(f"{value!r}: a retention is '10 min' to '366 d'")
    return seconds


class Monitoring(_Strict):
    """What is measured while the testbed is up. `prometheus`: on the host, in the emulated network (its node is the one
    with the role prometheus, and monitoring traffic is part of the experiment), or none of ours.

    `period` is that of the collections, `retention` how long Prometheus keeps samples (a testbed's are gone with it; a
    run's are kept with the run). Both ports are at 127.0.0.1 of the host.
    """

    prometheus: Literal["host", "in-band", "none"] = "host"
    period: Annotated[float, BeforeValidator(parse_period)] = 5.0
    retention: Annotated[float, BeforeValidator(parse_retention)] = 86400.0
    port: Annotated[int, Field(ge=1, le=65535)] = 9090
    exporter_port: Annotated[int, Field(ge=1, le=65535)] = 9100


def switched(value: object) -> object:
    """A table that `true` stands for."""
    # `monitoring: true` is the table of all defaults, `false` the same as leaving the key out.
    return value if not isinstance(value, bool) else ({} if value else None)


class _Sized(_Strict):
    """What every preset has; its nodes, switches and links are added to those of the file."""

    cohorts: Annotated[int, Field(ge=1, le=2000)] = 3
    clients: Annotated[int, Field(ge=1, le=20000)] = 50


class FactorySatellite(_Sized):
    """Servers behind a satellite, clients on campus switches."""

    kind: Literal["factory-satellite"] = "factory-satellite"
    campuses: Annotated[int, Field(ge=1, le=200)] = 5


class ThreeAccess(_Sized):
    """Clients behind three kinds of access: satellite, fixed wireless and metro fibre.

    `spread: cohort` puts each cohort behind one kind, in turn; `client` spreads the clients of each cohort over all.
    """

    kind: Literal["three-access"]
    clients: Annotated[int, Field(ge=1, le=20000)] = 30
    spread: Literal["cohort", "client"] = "cohort"
    satellite: Shaping = Field(default_factory=Shaping)
    wireless: Shaping = Field(default_factory=Shaping)
    metro: Shaping = Field(default_factory=Shaping)


class CloudFogEdge(_Sized):
    """A tree of three tiers; FL servers stand in the cloud, or each in the fog next to its clients."""

    kind: Literal["cloud-fog-edge"]
    cohorts: Annotated[int, Field(ge=1, le=2000)] = 2
    clients: Annotated[int, Field(ge=1, le=20000)] = 16
    fogs: Annotated[int, Field(ge=1, le=50)] = 2
    edges: Annotated[int, Field(ge=1, le=50)] = 2
    servers: Literal["cloud", "fog"] = "cloud"
    cloud_link: Shaping = Field(default_factory=Shaping)
    fog_link: Shaping = Field(default_factory=Shaping)
    client_link: Shaping = Field(default_factory=Shaping)


def distance_or_time(value: object) -> object:
    """The word `distance`, or a time. Raises ValueError."""
    return value if value == "distance" else parse_time(value)


class GraphPreset(_Sized):
    """A real or synthetic network of the collection topohub, a switch for each of its nodes.

    `place` is where cohorts stand: at the nodes with most links, or at those of a list. `delay: distance` is what light
    takes in fibre over the links' lengths.
    """

    kind: Literal["graph"]
    graph: Annotated[str, Field(min_length=3, max_length=100)]
    clients: Annotated[int, Field(ge=1, le=20000)] = 12
    place: Literal["degree"] | Annotated[list[str], Field(min_length=1, max_length=2000)] = "degree"
    core: str | None = None
    rate: Rate | None = None
    delay: Annotated[float | Literal["distance"], BeforeValidator(distance_or_time)] | None = None
    client_link: Shaping = Field(default_factory=Shaping)


Preset = FactorySatellite | ThreeAccess | CloudFogEdge | GraphPreset
PRESETS = ("factory-satellite", "three-access", "cloud-fog-edge", "graph")


def _with_kind(value: object) -> object:
    # A preset without a kind is the first one, as it always was.
    return {"kind": PRESETS[0], **value} if isinstance(value, dict) else value


class Testbed(_Strict):
    """The whole file."""

    __test__ = False

    name: Annotated[str, Field(pattern=TESTBED_NAME)]
    runtime: RuntimeKind = "docker"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    address_pool: Network = IPv4Network("10.0.0.0/16")
    management_pool: Network | None = None
    container_prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{0,20}$")] = "mn."
    image: str = "cohortnet/node:latest"
    preset: Annotated[Preset, Field(discriminator="kind"), BeforeValidator(_with_kind)] | None = None
    limits: dict[Role, Limits] = Field(default_factory=dict)
    speeds: Speeds | None = None
    nodes: list[Node] = Field(default_factory=list)
    switches: list[Switch] = Field(default_factory=list)
    links: list[Link] = Field(default_factory=list)
    cohorts: list[Cohort] = Field(default_factory=list)
    publish: list[Publish] | None = None
    controller: Controller = Field(default_factory=Controller)
    meters: Annotated[list[Meter], Field(max_length=5000)] = Field(default_factory=list)
    traffic: Annotated[list[Traffic], Field(max_length=200)] = Field(default_factory=list)
    monitoring: Annotated[Monitoring | None, BeforeValidator(switched)] = None
    allow_unsupported: list[Unsupported] = Field(default_factory=list)


def _found(data: object) -> str:
    return "nothing" if data is None else f"a {type(data).__name__}"


def parse_testbed(data: Any) -> Testbed:
    """Plain data (from YAML or JSON) as a Testbed.

    Raises:
        TestbedProblems: with every problem found.
    """
    if not isinstance(data, dict):
        raise TestbedProblems([Problem("", "wrong-type", f"a testbed is a mapping of keys, found {_found(data)}",
                                       "start with `name: my-testbed`")])  # fmt: skip
    try:
        return Testbed.model_validate(data)
    except ValidationError as error:
        raise TestbedProblems(problems_of(error, data, Testbed)) from None
