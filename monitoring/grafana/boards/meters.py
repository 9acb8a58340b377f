"""What meters count, as expressions that hold for those that drop and for those that queue.

A meter that drops counts what came to it, dropped packets included; a queue counts what it sent, and the packets that
it dropped. Series of the two never have the same labels, so `or` puts them together.
"""

from __future__ import annotations

from monitoring.grafana.boards.frame import RATE, TESTBED

BY_METER = "by (meter, direction)"


def _total(counter: str) -> str:
    return f"cohortnet_meter_{counter}_total{{{TESTBED}}}"


def _rate(counter: str) -> str:
    return f"rate({_total(counter)}{RATE})"


PACKETS_CAME = f"{_rate('packets')} or {_rate('queue_packets')} + {_rate('queue_drops')}"
"""Packets a second that came to each meter."""
PACKETS_DROPPED = f"{_rate('band_drop_packets')} or {_rate('queue_drops')}"
TOTAL_CAME = f"{_total('packets')} or {_total('queue_packets')} + {_total('queue_drops')}"
"""Packets that came to each meter since it was set."""
TOTAL_DROPPED = f"{_total('band_drop_packets')} or {_total('queue_drops')}"
TOTAL_BYTES = f"{_total('bytes')} or {_total('queue_bytes')}"
"""Bytes that came to each meter; of a queue those that it sent."""
BITS_PASSED = f"sum {BY_METER} (8 * {_rate('bytes')}) - sum {BY_METER} (8 * {_rate('band_drop_bytes')})"
"""Bit/s that a meter that drops lets through."""
BITS_QUEUED = f"sum {BY_METER} (8 * {_rate('queue_bytes')})"
"""Bit/s that a meter's queue sends."""
