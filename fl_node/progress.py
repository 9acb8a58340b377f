"""What a person reads in a process's log: one short line for each step, flushed at once."""

from __future__ import annotations

import time


def say(text: str) -> None:
    """Print one line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def size(count: int) -> str:
    """Bytes for people, decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"
