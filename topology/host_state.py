"""What is set on this host now: listening ports, sysctls, firewall, clock. Reads only, caches nothing."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from topology.capabilities import run

_LISTEN = "0A"
_TIME_ERROR = 5
_TIMEX_BYTES = 208


@dataclass(frozen=True)
class Clock:
    """`synchronised` is None where the kernel does not say; `offset_s` is how far the clock is from true time, ahead or
    behind, as `service` says.
    """

    source: str
    synchronised: bool | None
    service: str | None = None
    offset_s: float | None = None


@dataclass(frozen=True)
class Forwarding:
    """`policy` is that of the FORWARD chain (None: could not be read); `bridge_calls` whether bridged frames
    pass through it; `dropping` the chains of nftables that drop what they forward (None: could not be read).
    """

    policy: str | None
    bridge_calls: bool
    dropping: tuple[str, ...] | None = None


def sysctl(name: str) -> str | None:
    """A kernel setting by its dotted name, None where this kernel does not have it."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def listening(ports: Iterable[int]) -> dict[int, str]:
    """Those of the ports that are taken at 127.0.0.1 -> by whom (empty where that cannot be seen)."""
    wanted = set(ports)
    taken: dict[int, str] = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/self/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == _LISTEN and int(number, 16) in wanted and _covers_loopback(address):
                taken[int(number, 16)] = ""
    for port in taken:
        taken[port] = _holder(port)
    return taken


def _covers_loopback(address: str) -> bool:
    # The kernel prints words of the machine's (little-endian) order: 127.0.0.1 is 0100007F.
    return set(address) == {"0"} or address.endswith("0100007F")


def _holder(port: int) -> str:
    _, output = run(["ss", "-Hltnp", f"sport = :{port}"])
    return ", ".join(
        f"{name} (pid {pid})" for name, pid in dict.fromkeys(re.findall(r'\("([^"]+)",pid=(\d+)', output))
    )


def forwarding() -> Forwarding:
    """What the firewall does with forwarded packets."""
    calls = sysctl("net.bridge.bridge-nf-call-iptables") == "1"
    status, output = run(["iptables", "-w", "1", "-S", "FORWARD"]) if os.geteuid() == 0 else (None, "")
    found = re.search(r"^-P FORWARD (\w+)", output, re.MULTILINE)
    chains = run(["nft", "-j", "list", "chains"]) if os.geteuid() == 0 else (None, "")
    dropping = dropping_chains(chains[1]) if chains[0] == 0 else None
    return Forwarding(found.group(1) if status == 0 and found else None, calls, dropping)


def dropping_chains(text: str) -> tuple[str, ...] | None:
    """Chains of `nft -j list chains` that hook into forwarding and drop by default, but that of iptables. Pure."""
    try:
        entries = [entry["chain"] for entry in json.loads(text)["nftables"] if "chain" in entry]
    except (ValueError, KeyError, TypeError):
        return None
    return tuple(
        f"{chain.get('family')} {chain.get('table')} {chain.get('name')}"
        for chain in entries
        if chain.get("hook") == "forward" and chain.get("policy") == "drop"
        and (chain.get("table"), chain.get("name")) != ("filter", "FORWARD")
    )  # fmt: skip


def clock() -> Clock:
    """The kernel's clock source, and whether a time service keeps it."""
    try:
        source = (
            Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .read_text("ascii")
            .strip()
        )
    except OSError:
        source = "unknown"
    try:
        state = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6").adjtimex(
            ctypes.create_string_buffer(_TIMEX_BYTES)
        )
    except (OSError, AttributeError):
        return Clock(source, None)
    return Clock(source, None if state < 0 else state != _TIME_ERROR, *_offset())


def _offset() -> tuple[str | None, float | None]:
    status, output = run(["chronyc", "-c", "tracking"])
    if status == 0:
        offset = chrony_offset(output)
        if offset is not None:
            return "chrony", offset
    status, output = run(["timedatectl", "timesync-status"])
    offset = timesyncd_offset(output) if status == 0 else None
    return ("systemd-timesyncd", offset) if offset is not None else (None, None)


def chrony_offset(text: str) -> float | None:
    """The clock's offset in seconds from `chronyc -c tracking`: its fifth field."""
    fields = text.strip().split(",")
    try:
        return abs(float(fields[4])) if len(fields) >= 13 and fields[2] != "0" else None
    except ValueError:
        return None


def timesyncd_offset(text: str) -> float | None:
    """The offset in seconds from `timedatectl timesync-status` ("Offset: +1.234ms"), None where there is none yet."""
    found = re.search(r"^\s*Offset: ([+-]?[0-9.]+)(us|ms|s|min)$", text, re.MULTILINE)
    if not found:
        return None
    return abs(float(found.group(1))) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}[found.group(2)]
