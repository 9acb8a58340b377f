"""The C library's memory: kept small, given back after each message.

glibc keeps freed memory for later. Dozens of clients on one machine cannot afford that: measured, a LeNet
client stands at 23 MB with these settings and at 42 MB without. Elsewhere than on glibc this does nothing.
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


def keep_small(mmap_threshold_bytes: int = 1 << 20) -> None:
    """One arena, low trim threshold, and large blocks by mmap, so that freeing one gives it back."""
    libc = _libc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 10)
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold_bytes)


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
