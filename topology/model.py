"""What a user writes: the testbed file, strictly typed. Takes plain data, gives a `Testbed`; no I/O but reading the
file.

Cross references (does the link's node exist?) are checked in `topology.plan`, which sees preset and file together.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from topology.errors import Problem, TestbedProblems
from topology.units import parse_burst, parse_fraction, parse_meter_rate, parse_rate, parse_size, parse_time

Rate = Annotated[int, BeforeValidator(parse_rate)]
Time = Annotated[float, BeforeValidator(parse_time)]
Size = Annotated[int, BeforeValidator(parse_size)]
Share = Annotated[float, BeforeValidator(parse_fraction)]

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

    cpu: Annotated[float, Field(ge=0.01, le=1024, strict=False)] | None = None
    memory: Size | None = None
    cpuset: Cpuset | None = None


class SpeedClass(_Strict):
    """Clients of one speed: a `share` of all of them or a `count`, with `cpus` (cores), `memory` and `cpuset` each."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$")]
    share: Share | None = None
    count: Annotated[int, Field(ge=0, le=20000)] | None = None
    cpus: Annotated[float, Field(ge=0.01, le=1024, strict=False)] | None = None
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
    address: Annotated[IPv4Address, Field(strict=False)] | None = None
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


def _parse_controller(value: object) -> str:
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
    address: Annotated[str, BeforeValidator(_parse_controller)] | None = None
    rest_host_port: Annotated[int, Field(ge=1, le=65535)] = 8080


def _name_of_cohort(value: object) -> object:
    # The presets' cohorts are called "1", "2", ...: who forgets the quotes means the same.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Meter(_Strict):
    """A limit in force from the start: exactly one of `cohort`, `client`, `server`, `address`, or `switch` with `port`.

    `up` is the direction from client to server. `rate` carries its unit (bit/s or packet/s), `burst` what it counts.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    cohort: Annotated[str, BeforeValidator(_name_of_cohort)] | None = None
    client: str | None = None
    server: str | None = None
    switch: str | None = None
    port: Annotated[int, Field(ge=1, lt=0xFFFFFF00)] | None = None
    address: Annotated[IPv4Address, Field(strict=False)] | None = None
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


def _parse_period(value: object) -> float:
    seconds = parse_time(value)
    if not 0.1 <= seconds <= 60:
        raise ValueError(f"{value!r}: a period is '100 ms' to '60 s' (Prometheus calls a series gone after minutes)")
    return seconds


def _parse_retention(value: object) -> float:
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
    period: Annotated[float, BeforeValidator(_parse_period)] = 5.0
    retention: Annotated[float, BeforeValidator(_parse_retention)] = 86400.0
    port: Annotated[int, Field(ge=1, le=65535)] = 9090
    exporter_port: Annotated[int, Field(ge=1, le=65535)] = 9100


def _switched(value: object) -> object:
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


def _distance_or_time(value: object) -> object:
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
    delay: Annotated[float | Literal["distance"], BeforeValidator(_distance_or_time)] | None = None
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
    address_pool: Annotated[IPv4Network, Field(strict=False)] = IPv4Network("10.0.0.0/16")
    management_pool: Annotated[IPv4Network, Field(strict=False)] | None = None
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
    monitoring: Annotated[Monitoring | None, BeforeValidator(_switched)] = None
    allow_unsupported: list[Unsupported] = Field(default_factory=list)


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


_CODES = {"extra_forbidden": "unknown-key", "missing": "missing-key", "value_error": "bad-value"}


def _problem(error: Any, data: Any) -> Problem:
    # The preset's kind stands in the error's place, and not in the file.
    location = tuple(part for part in error["loc"] if part not in PRESETS)
    path = _path(location)
    code = _CODES.get(error["type"], "wrong-type" if error["type"].endswith("_type") else "bad-value")
    message = str(error["msg"]).removeprefix("Value error, ")
    hint = ""
    if error["type"] == "union_tag_invalid":
        path, message = f"{path}.kind", f"{error['ctx']['tag']!r} is no preset; allowed are {', '.join(PRESETS)}"
    elif code == "unknown-key":
        message = f"the key {error['loc'][-1]!r} is not known here"
        hint = "`cohortnet validate --help` and docs/topologies.md list the keys"
    elif code == "missing-key":
        message = f"the key {error['loc'][-1]!r} is missing"
    elif error["type"] != "value_error":
        message = f"{error['input']!r}: {message[0].lower()}{message[1:]}"
    return Problem(path, code, message, hint)


def parse_testbed(data: Any) -> Testbed:
    """Plain data (from YAML or JSON) as a Testbed.

    Raises:
        TestbedProblems: with every problem found.
    """
    if not isinstance(data, dict):
        raise TestbedProblems([Problem("", "wrong-type", f"a testbed is a mapping of keys, found {type(data).__name__}",
                                       "start with `name: my-testbed`")])  # fmt: skip
    try:
        return Testbed.model_validate(data)
    except ValidationError as error:
        raise TestbedProblems([_problem(item, data) for item in error.errors()]) from None


def load_testbed(path: Path) -> Testbed:
    """Read a testbed file (YAML by the safe loader; at most 8 MiB).

    Raises:
        TestbedProblems: where the file cannot be read, is not YAML, or is no valid testbed.
    """
    try:
        if path.stat().st_size > 8 * 2**20:
            raise TestbedProblems([Problem(str(path), "too-large", "a testbed file has at most 8 MiB")])
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TestbedProblems([Problem(str(path), "unreadable", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise TestbedProblems([Problem(str(path), "not-text", "is not UTF-8 text")]) from None
    except (ValueError, RecursionError) as error:
        # The loader lets these out of dates that are none and of thousands of nested brackets.
        raise TestbedProblems([Problem(str(path), "not-yaml", f"cannot be read: {error}", "quote the value")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "syntax error"
        raise TestbedProblems([Problem(str(path), "not-yaml", f"is not YAML{where}: {reason}")]) from None
    return parse_testbed(data)
