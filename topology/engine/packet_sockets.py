"""The packet sockets of vswitchd: one for each port that receives, one through which all ports send.

They are borrowed from the running process (pidfd_getfd), so that `net.core.rmem_default` and `wmem_default`, which are
the whole machine's, stay as they are. Owns nothing: a vswitchd that starts anew has new sockets of the kernel's size.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

RECEIVE_BUFFER_BYTES = 8 * 2**20
_SYS_PIDFD_GETFD = 438  # the same number on every architecture
_SO_RCVBUFFORCE = 33


def vswitchd_pid(rundir: Path) -> int | None:
    """The pid of the vswitchd with that run folder, None where it has none."""
    try:
        return int((rundir / "ovs-vswitchd.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def opened(pid: int, wanted: Callable[[str], bool]) -> Iterator[int]:
    """Copies of the process's open files whose names in `/proc` are `wanted`; whoever takes one closes it. Raises
    OSError as `borrowed` does.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                if not wanted(os.readlink(f"/proc/{pid}/fd/{entry}")):
                    continue
                fd = libc.syscall(_SYS_PIDFD_GETFD, process, int(entry), 0)
                if fd < 0:
                    number = ctypes.get_errno()
                    if number == errno.EBADF:  # closed meanwhile
                        continue
                    raise OSError(number, f"pidfd_getfd: {os.strerror(number)}")
                yield fd
    finally:
        os.close(process)


def borrowed(pid: int) -> Iterator[socket.socket]:
    """The process's packet sockets, borrowed one after the other.

    Raises:
        OSError: where the process is gone, or the kernel (before 5.6) or its policy does not allow it.
    """
    for fd in opened(pid, lambda name: name.startswith("socket:")):
        with socket.socket(fileno=fd) as found:
            if found.family == socket.AF_PACKET:
                yield found


def enlarge_receive(pid: int) -> int:
    """Give each a receive buffer of `RECEIVE_BUFFER_BYTES`; how many have one now. Idempotent. Raises OSError.

    With the kernel's default size they overflow under load (measured: 140 instead of 6,400 Mbit/s).
    """
    count = 0
    for packet in borrowed(pid):
        if packet.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < RECEIVE_BUFFER_BYTES:
            packet.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        count += 1
    return count
