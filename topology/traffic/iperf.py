"""iperf3 as this package uses it: its command lines, and what its output says. Pure.

Three ways of its own (3.12) are allowed for. With `-b` it holds the *mean since the connection began*, and so would
send at full speed after a stall until it has caught up: TCP flows are paced by the kernel (`--fq-rate`) a little above
their rate. It writes blocks of 128 KiB, a whole second of a 1 Mbit/s flow: blocks are made as small as the rate asks.
`-t` takes whole seconds only: a segment is given as a number of bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROGRAM = "iperf3"
CATCH_UP = 1.25
"""How fast a TCP flow may make up for a stall, as a multiple of its rate."""
BLOCK_S = 0.01
"""A block holds so much of the rate."""
LEAST_BLOCK, MOST_BLOCK = 256, 131072
DATAGRAM = 1448
"""A UDP block that fills a frame of 1500 bytes as TCP does."""
CONNECT_MS = 3000
_INTERVAL = re.compile(r"^\[\s*\d+\]\s+[\d.]+-[\d.]+\s+sec\s+[\d.]+ \w+\s+([\d.]+) Kbits/sec(?!.*(?:sender|receiver))")
_ERROR = re.compile(r"^iperf3: (?:error|interrupt|getsockopt)\b[\s-]*(.+)$")


def server(address: str, port: int) -> list[str]:
    """A server that stays, reachable at that address of its node only."""
    return [PROGRAM, "--server", "--bind", address, "--port", str(port), "--interval", "0", "--forceflush"]


def block_bytes(rate_bps: int, protocol: str) -> int:
    """The size of one write: about `BLOCK_S` of the rate."""
    wanted = int(rate_bps / 8 * BLOCK_S)
    return max(LEAST_BLOCK, min(DATAGRAM if protocol == "udp" else MOST_BLOCK, wanted))


def client(
    source: str, destination: str, port: int, protocol: str, rate_bps: int, duration_s: float
) -> list[str]:
    """A client that sends `rate_bps` of payload for `duration_s` and ends; says each second how much it has sent."""
    block = block_bytes(rate_bps, protocol)
    size = max(block, round(rate_bps * duration_s / 8))
    command = [PROGRAM, "--client", destination, "--port", str(port), "--bind", source, "--bytes", str(size),
               "--bitrate", str(rate_bps), "--length", str(block), "--interval", "1", "--format", "k",
               "--forceflush", "--connect-timeout", str(CONNECT_MS)]  # fmt: skip
    return [*command, "--udp"] if protocol == "udp" else [*command, "--fq-rate", str(round(rate_bps * CATCH_UP))]


@dataclass(frozen=True)
class Said:
    """What a line of a client's output means; all None for a line that is only words."""

    connected: bool = False
    sent_bps: float | None = None
    error: str | None = None


def read_line(line: str) -> Said:
    """One line of output."""
    if " connected to " in line:
        return Said(connected=True)
    interval = _INTERVAL.match(line)
    if interval:
        return Said(sent_bps=float(interval.group(1)) * 1000)
    error = _ERROR.match(line)
    return Said(error=error.group(1)) if error else Said()
