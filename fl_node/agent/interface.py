"""Byte counters of the interface that carries a node's FL traffic. Only reads the kernel's figures."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import TypedDict

_SIOCGIFADDR = 0x8915


class Counters(TypedDict):
    """Bytes since the interface was made, as the node sees them: rx is received by the node."""

    name: str
    rx_bytes: int
    tx_bytes: int


def holding(address: str, fallback: str = "eth0") -> str:
    """The interface that holds the IPv4 `address`, else `fallback`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(reply[20:24]) == address:
                return name
    return fallback


def counters(name: str) -> Counters | None:
    """Present counters of interface `name`, or None where there is none of that name."""
    with open("/proc/self/net/dev") as file:
        for line in file:
            found, colon, rest = line.partition(":")
            if colon and found.strip() == name:
                fields = rest.split()
                return {"name": name, "rx_bytes": int(fields[0]), "tx_bytes": int(fields[8])}
    return None
