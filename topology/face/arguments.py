"""What scripts of the Mininet world write as arguments, read strictly: values become SI numbers, and whatever the
engine does not do is refused with the name of the call and of the argument.

Pure. Mininet prints an error and goes on, or drops an argument without a word; nothing here does.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError
from typing import Any

from topology.errors import TopologyError
from topology.plan import Shape

_TIME = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(us|usecs?|ms|msecs?|s|secs?)\s*$")
_TIMES = {"u": 1e-6, "m": 1e-3, "s": 1.0}
_SIZE = re.compile(r"^\s*([0-9]+)\s*([bkmg]?)b?\s*$", re.IGNORECASE)
_SIZES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$", re.IGNORECASE)
SHAPE_KEYS = ("bw", "delay", "jitter", "loss", "max_queue_size")
SHAPE_WORDS = frozenset((
    *SHAPE_KEYS, "use_hfsc", "use_tbf", "latency_ms", "enable_ecn", "enable_red", "speedup", "gro", "disable_gro",
    "txo", "rxo",
))  # fmt: skip
"""All that `shape` reads of a link's parameters, also what it refuses."""
_OTHER_QUEUES = ("use_hfsc", "use_tbf", "latency_ms", "enable_ecn", "enable_red", "speedup", "r2q", "burst")


class NotHonoured(TopologyError):
    """An argument, class or call of that world which this engine does not do; the text says what to write instead."""


def refuse(call: str, name: str, value: object, why: str) -> NotHonoured:
    """The error for one argument, to be raised."""
    return NotHonoured(f"{call}: {name}={value!r} is not honoured: {why}")


def processor_share(call: str, name: str, share: Any) -> float:
    """A share of all of this machine's cores as a number of cores; infinite for -1, which is Mininet's "no limit".

    Raises NotHonoured for what is neither -1 nor above 0 and up to 1.
    """
    number = isinstance(share, (int, float)) and not isinstance(share, bool)
    if number and share == -1:
        return math.inf
    if not number or not 0 < share <= 1:
        raise refuse(call, name, share,
                     "it is a share of all cores of this machine, above 0 and up to 1, or -1 for no limit")  # fmt: skip
    return float(share) * (os.cpu_count() or 1)


def leftover(call: str, params: Mapping[str, Any], known: str) -> None:
    """Refuse whatever was not read. Raises NotHonoured with all names."""
    unknown = {name: value for name, value in params.items() if value is not None}
    if unknown:
        said = ", ".join(f"{name}={value!r}" for name, value in unknown.items())
        raise NotHonoured(f"{call}: {said}: no such argument is honoured here; known are {known}")


def rate_bps(call: str, name: str, value: object) -> int:
    """Mininet's bandwidth in Mbit/s. Rates above 1000 are honoured too."""
    number = _number(call, name, value, "a number of Mbit/s")
    if not 0.001 <= number <= 1e6:
        raise refuse(call, name, value, "a bandwidth is 0.001 to 1000000 Mbit/s; leave it out for an unlimited link")
    return round(number * 1e6)


def seconds(call: str, name: str, value: object) -> float:
    """A time with its unit ('5ms'). A bare number is refused: `tc` would take it for microseconds."""
    found = _TIME.match(value) if isinstance(value, str) else None
    if found is None:
        raise refuse(call, name, value, "write a time with its unit, such as '5ms' (a bare number means microseconds)")
    return float(found.group(1)) * _TIMES[found.group(2)[0]]


def share(call: str, name: str, value: object) -> float:
    """A loss in per cent, as a fraction."""
    text = value.removesuffix("%") if isinstance(value, str) else value
    number = _number(call, name, text, "a number of per cent")
    if not 0 <= number <= 100:
        raise refuse(call, name, value, "a loss is 0 to 100 per cent")
    return number / 100


def _number(call: str, name: str, value: object, what: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
    except ValueError:
        raise refuse(call, name, value, f"write {what}") from None
    return number


def whole(call: str, name: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least`."""
    number = _number(call, name, value, "a whole number")
    if number != int(number) or number < least:
        raise refuse(call, name, value, f"write a whole number of at least {least}")
    return int(number)


def size_bytes(call: str, name: str, value: object) -> int:
    """Docker's memory sizes: bytes, or '512m'."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = _SIZE.match(value) if isinstance(value, str) else None
    if found is None or int(found.group(1)) == 0:
        raise refuse(call, name, value, "write bytes, or a size such as '512m' or '1g'")
    return int(found.group(1)) * _SIZES[found.group(2).lower()]


def address(call: str, name: str, value: object, prefix_length: int) -> tuple[str, int]:
    """'10.0.0.1/8' or '10.0.0.1' (then of `prefix_length`) as address and prefix length."""
    try:
        if not isinstance(value, str):
            raise ValueError
        found = IPv4Interface(value if "/" in value else f"{value}/{prefix_length}")
    except (AddressValueError, NetmaskValueError, ValueError):
        raise refuse(call, name, value, "write an IPv4 address, such as '10.0.0.1/8'") from None
    if found.ip in (IPv4Address(0), found.network.broadcast_address) and found.network.prefixlen < 31:
        raise refuse(call, name, value, "that is no address of one host")
    return str(found.ip), found.network.prefixlen


def mac(call: str, name: str, value: object) -> str:
    """A unicast hardware address."""
    if not isinstance(value, str) or not _MAC.match(value) or int(value[:2], 16) & 1:
        raise refuse(call, name, value, "write the address of one interface, such as '00:00:00:00:00:01'")
    return value.lower()


def shape(call: str, params: dict[str, Any], *, tc: bool) -> Shape:
    """The shape of one direction, taken out of a link's parameters; without `tc` (a link that is no TCLink) any of them
    is refused, for Mininet would drop it without a word.
    """
    for name in _OTHER_QUEUES:
        value = params.pop(name, None)
        if value:
            raise refuse(call, name, value, "rates are held by HTB with a queue of the link's own size; set "
                         "max_queue_size= for another")  # fmt: skip
    for name, plain in (("gro", False), ("disable_gro", True), ("txo", True), ("rxo", True)):
        value = params.pop(name, None)
        if value is not None and value != plain:
            raise refuse(call, name, value, "offloads are set by the engine, as fast as this machine's switch allows")
    readers: dict[str, Callable[[str, str, object], float]] = {
        "bw": rate_bps, "delay": seconds, "jitter": seconds, "loss": share, "max_queue_size": whole,
    }  # fmt: skip
    written = dict(params)
    values = {name: read(call, name, params[name]) for name, read in readers.items() if params.get(name) is not None}
    for name in SHAPE_KEYS:
        value = params.pop(name, None)
        if value is not None and not tc:
            raise refuse(call, name, value, "a plain Link has no shape (Mininet would drop it without a word); add "
                         "cls=TCLink, or make the net with link=TCLink")  # fmt: skip
    if values.get("jitter") and not values.get("delay"):
        raise refuse(call, "jitter", written["jitter"], "jitter varies a delay; add delay=")
    queue = values.get("max_queue_size")
    return Shape(
        rate_bps=None if "bw" not in values else int(values["bw"]),
        delay_s=values.get("delay", 0.0),
        jitter_s=values.get("jitter", 0.0),
        loss=values.get("loss", 0.0),
        queue_packets=None if queue is None else int(queue),
    )


@dataclass(frozen=True)
class Container:
    """What a script asks of a Docker host. `host` and `create` are arguments of docker-py."""

    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    cpu: float | None
    memory_bytes: int | None
    cpuset: str | None
    published: tuple[tuple[int, int], ...]
    """Pairs of port and host's port."""
    host: dict[str, Any]
    create: dict[str, Any]


_HOST_OPTIONS = ("cap_add", "cap_drop", "devices", "device_requests", "dns", "dns_search", "ipc_mode", "privileged",
                 "security_opt", "shm_size", "sysctls", "tmpfs", "ulimits", "pids_limit", "blkio_weight")  # fmt: skip
_CREATE_OPTIONS = ("working_dir", "user", "entrypoint", "stop_signal")
DEFAULT_COMMAND = ("sh",)
"""As in Containernet a host's image does not run its own command but a shell with a terminal, which stands idle."""


def container(call: str, params: dict[str, Any]) -> Container:
    """Take a Docker host's arguments out of `params`. Raises NotHonoured."""
    image = params.pop("dimage", None)
    if not isinstance(image, str) or not image:
        raise refuse(call, "dimage", image, "name an image of this machine")
    command = params.pop("dcmd", None)
    words = tuple(shlex.split(command) if isinstance(command, str) else command or ()) or DEFAULT_COMMAND
    period, quota = params.pop("cpu_period", None), params.pop("cpu_quota", None)
    host: dict[str, Any] = {}
    cpu = None
    if quota is not None and quota != -1:
        used = whole(call, "cpu_period", period if period is not None else 100_000, 1000)
        host |= {"cpu_period": used, "cpu_quota": whole(call, "cpu_quota", quota, 1000)}
        cpu = host["cpu_quota"] / used
    elif period is not None:
        raise refuse(call, "cpu_period", period, "a period without cpu_quota= limits nothing")
    if (shares := params.pop("cpu_shares", None)) is not None:
        host["cpu_shares"] = whole(call, "cpu_shares", shares, 2)
    memory = params.pop("mem_limit", None)
    memory_bytes = None if memory is None else size_bytes(call, "mem_limit", memory)
    if (swap := params.pop("memswap_limit", None)) is not None:
        host["memswap_limit"] = size_bytes(call, "memswap_limit", swap)
        if memory_bytes is None:
            raise refuse(call, "memswap_limit", swap, "it is memory and swap together; add mem_limit=")
    cpuset = params.pop("cpuset_cpus", None)
    binds = params.pop("volumes", None) or []
    if isinstance(binds, str) or not all(isinstance(bind, str) and bind.count(":") in (1, 2) for bind in binds):
        raise refuse(call, "volumes", binds, "write a list such as ['/home/user:/mnt/data:rw']")
    host |= {"binds": list(binds)} if binds else {}
    environment = params.pop("environment", None) or {}
    if isinstance(environment, list):
        environment = dict(entry.partition("=")[::2] for entry in environment)
    host |= {name: params.pop(name) for name in _HOST_OPTIONS if params.get(name) is not None}
    create = {name: params.pop(name) for name in _CREATE_OPTIONS if params.get(name) is not None}
    if words == DEFAULT_COMMAND:
        create |= {"stdin_open": True, "tty": True}
    published = _published(call, params)
    if params.pop("network_mode", None) not in (None, "none"):
        raise NotHonoured(f"{call}: network_mode is not honoured: a host has the emulated network and no other")
    return Container(
        image, words, {str(key): str(value) for key, value in environment.items()}, cpu, memory_bytes,
        None if cpuset is None else str(cpuset), published, host, create,
    )  # fmt: skip


def _published(call: str, params: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    if params.pop("publish_all_ports", None):
        raise refuse(call, "publish_all_ports", True, "name the ports: port_bindings={80: 8080}")
    pairs = []
    bindings = params.pop("port_bindings", None) or {}
    ports = params.pop("ports", None) or []
    for inside, outside in bindings.items():
        where, host_port = outside if isinstance(outside, tuple) and len(outside) == 2 else ("127.0.0.1", outside)
        if where != "127.0.0.1":
            raise refuse(call, "port_bindings", bindings, "ports are published at 127.0.0.1 of this machine only")
        text = str(inside)
        if text.endswith("/udp"):
            raise refuse(call, "port_bindings", bindings, "only TCP ports are published")
        pairs.append((whole(call, "port_bindings", text.removesuffix("/tcp")), whole(call, "port_bindings", host_port)))
    missing = [port for port in ports if str(port).removesuffix("/tcp") not in {str(inside) for inside, _ in pairs}]
    if missing:
        raise refuse(call, "ports", ports, f"no port of this machine is named for {missing[0]}; add port_bindings="
                     f"{{{missing[0]}: PORT}}")  # fmt: skip
    return tuple(pairs)
