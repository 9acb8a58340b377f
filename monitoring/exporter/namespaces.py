"""Sockets in other network namespaces: made by a thread that enters the namespace and ends; they stay where they were
made.

The calling thread never changes its own namespace. (Python has `os.setns` from 3.12 only, hence ctypes.)
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def inside(namespace: str | Path, function: Callable[[], _T]) -> _T:
    """Call `function` within a network namespace (a file such as `/proc/<pid>/ns/net`) and give back its result.

    Raises OSError where the namespace does not exist, and whatever `function` raises.
    """
    result = inside_all([namespace], function)[0]
    if isinstance(result, BaseException):
        raise result
    return result


def inside_all(places: Iterable[str | Path], function: Callable[[], _T]) -> list[_T | Exception]:
    """Call `function` within each of the namespaces in turn, in one thread; its results, or what went wrong there."""
    results: list[_T | Exception] = []

    def run() -> None:
        for place in places:
            try:
                fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if _libc.setns(fd, _CLONE_NEWNET) != 0:
                        number = ctypes.get_errno()
                        raise OSError(number, os.strerror(number), str(place))
                finally:
                    os.close(fd)
                results.append(function())
            except Exception as error:  # handed to the caller, one for each place
                results.append(error)

    thread = threading.Thread(target=run, name="in-namespace", daemon=True)
    thread.start()
    thread.join()
    return results


def inode(pid: int) -> int | None:
    """Which network namespace a process is in, as a number; None where it does not run (any more)."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
