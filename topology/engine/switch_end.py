"""The end of a vswitchd, whose packet sockets and taps the kernel would close one by one.

After each packet socket the kernel waits until nobody looks at it any more, and after each tap that goes with its file
several times: a switch of six hundred ports is dying for ten to twenty seconds. Copies of its files are held here
while it dies, which it then does at once, and are closed by many threads, which all wait at the same time. Its taps
are told to stay: they go with their network namespace, all together. Takes a pid; owns nothing.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from topology.engine import packet_sockets

_CLOSERS = 64
_TUN = "/dev/net/tun"
_TUNSETPERSIST = 0x400454CB


def end(pid: int, *, timeout_s: float = 10.0) -> None:
    """Kill the process and close what it had open. Raises ProcessLookupError where it is gone."""
    copies: list[int] = []
    process = os.pidfd_open(pid)
    try:
        with _many_files():
            with suppress(OSError):  # where the kernel does not lend them, its end takes its time
                for fd in packet_sockets.opened(pid, lambda name: name.startswith("socket:") or name == _TUN):
                    copies.append(fd)
            for fd in copies:
                with suppress(OSError):  # a socket
                    fcntl.ioctl(fd, _TUNSETPERSIST, 1)
            signal.pidfd_send_signal(process, signal.SIGKILL)
            # Only a copy that outlives the original is the one whose closing does the work.
            waiting = select.poll()
            waiting.register(process, select.POLLIN)
            waiting.poll(timeout_s * 1000)
    finally:
        os.close(process)
        if copies:
            with ThreadPoolExecutor(max_workers=min(_CLOSERS, len(copies)), thread_name_prefix="close") as pool:
                list(pool.map(os.close, copies))


@contextmanager
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
