"""The kernel calls that Python 3.11 does not wrap: setns, parent-death signal, and who a process is.

Takes file descriptors and numbers, raises OSError with the subject in its text. Knows nothing of nodes.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int, subject: str) -> None:
    """Join the namespace behind `fd`, which must be of `kind` (CLONE_NEW...)."""
    if _libc.setns(fd, kind) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot join {subject}: {os.strerror(code)}")


def die_with_parent(parent_pidfd: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send `signum` to this process when the thread that forked it ends.

    `parent_pidfd` is the parent's own pidfd, inherited: should the parent have ended before the request was
    made, this process ends at once (getppid() does not tell, it is 0 across PID namespaces).
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    poller = select.poll()
    poller.register(parent_pidfd, select.POLLIN)
    if poller.poll(0):
        os._exit(1)


def set_name(name: str) -> None:
    """Set the name that `ps` and `top` show (15 characters at most)."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def status_field(pid: int, field: str) -> str | None:
    """One field of /proc/<pid>/status, or None where the process or the field is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return None


def open_fds() -> set[int]:
    """The file descriptors that this process has open now."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            os.fstat(number)
        except OSError:  # the listing's own descriptor is closed by now
            continue
        found.add(number)
    return found
