"""The C library's memory: one arena, and freed memory given back between messages.

glibc keeps freed memory for later, and dozens of clients on one machine cannot afford that. Giving it back at
every `free` (low trim and mmap thresholds) costs more than it saves: measured on LeNet, an evaluation of
10,000 images then takes 311,000 page faults and 1.3 s of processor time in place of 7,700 and 0.56 s, and
stands at the same size after `trim`. So thresholds are high and fixed, and `trim` runs after each message.
Elsewhere than on glibc this does nothing.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def _libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
    except OSError:  # another C library
        return None


def keep_small() -> None:
    """One arena, and thresholds that a training step does not cross."""
    libc = _libc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def trim() -> None:
    """Give freed memory back to the kernel."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


def resident_bytes() -> int:
    """Resident set of this process, in bytes (0 where /proc does not tell)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0
