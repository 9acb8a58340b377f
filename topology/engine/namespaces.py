"""Linux namespaces by system call: named network namespaces, and running a function or a program inside of one.

Owns `/run/netns/<name>` of the names it is given. Everything that enters a namespace does so in a thread of its own,
which ends there: the caller's threads never change their namespace. (Python has `os.setns` from 3.12 only, hence
ctypes.)
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

NETNS_ROOT = Path("/run/netns")
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `fd`. Raises OSError."""
    _check(_libc.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Give the calling thread its own namespaces or attributes. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def unmount(path: Path | str) -> None:
    """Unmount at once, whoever still uses it. Raises OSError."""
    _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), str(path))


def in_thread(body: Callable[[], _T]) -> _T:
    """Call `body` in a thread that ends with it, so that what it does to its own namespaces ends too; its result or its
    error.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(body())
        except BaseException as error:  # noqa: B036  (handed on to the caller's thread, nothing is swallowed)
            errors.append(error)

    thread = threading.Thread(target=run, name="in-namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def inside(namespace: Path, function: Callable[[], _T]) -> _T:
    """Call `function` within a network namespace and give back its result; sockets that it makes stay in there.

    `namespace` is a file such as `/run/netns/x` or `/proc/<pid>/ns/net`. Raises OSError where it does not exist, and
    whatever `function` raises. `/proc/sys/net` is that of the namespace.
    """

    def body() -> _T:
        enter(namespace)
        return function()

    return in_thread(body)


def enter(namespace: Path) -> None:
    """Move the calling thread, which has to be one that was made for this, into a network namespace. Raises OSError."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
    finally:
        os.close(fd)


def of_process(pid: int) -> Path:
    """The network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net")


def named(name: str) -> Path:
    """Where the network namespace of that name is (as `ip netns` has it)."""
    return NETNS_ROOT / name


def _loopback_up() -> None:
    # struct ifreq: 16 bytes of name, then the flags.
    request = struct.pack("16sh22x", b"lo", _IFF_UP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def create(name: str) -> None:
    """Make a named network namespace with `lo` up.

    Raises:
        FileExistsError: where the name is taken.
        OSError: where the kernel refuses.
    """
    NETNS_ROOT.mkdir(parents=True, exist_ok=True)
    target = named(name)
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))

    def body() -> None:
        unshare(CLONE_NEWNET)
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        _check(_libc.mount(source.encode(), os.fsencode(target), b"none", _MS_BIND, None), str(target))
        _loopback_up()

    try:
        in_thread(body)
    except OSError:
        target.unlink(missing_ok=True)
        raise


def exists(name: str) -> bool:
    """Whether a named network namespace, or what is left of one, is there."""
    return named(name).exists()


def delete(name: str) -> bool:
    """Remove a named network namespace; also one that is half made. False where there was none."""
    target = named(name)
    if not target.exists():
        return False
    for _ in range(16):  # one mount a turn: a name can have been mounted over
        try:
            unmount(target)
        except OSError:
            break
    target.unlink(missing_ok=True)
    return True


_NODE_NAMESPACES = (
    ("uts", CLONE_NEWUTS),
    ("ipc", CLONE_NEWIPC),
    ("net", CLONE_NEWNET),
    ("pid", CLONE_NEWPID),
    ("mnt", CLONE_NEWNS),
)


def start_in_node(
    pid: int,
    cgroups: Sequence[str],
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: int | IO[Any] | None,
    stdout: int | IO[Any] | None,
    stderr: int | IO[Any] | None,
    cwd: str = "/",
    new_session: bool = False,
    terminal: bool = False,
    options: Mapping[str, Any] | None = None,
    with_thread: bool = False,
) -> subprocess.Popen[Any]:
    """Start a program in all namespaces of process `pid`, as a child of this process, with the node's limits on it.

    It joins the cgroups first: entering namespaces alone would leave it outside of the node's limits. The program is
    looked up in the node's file system. With `terminal` (and a new session) its standard input becomes its controlling
    terminal, so that a Ctrl-C written there interrupts what runs. `options` are further arguments of `Popen`, such as
    `text`. `with_thread` is for a thread made for this one program: that thread stays in the node's namespaces, and the
    kernel kills the program when it ends, however its process ends.

    Raises:
        FileNotFoundError: where the program, or the process `pid`, does not exist.
        OSError: where a namespace or a cgroup cannot be joined.
    """

    def join() -> None:  # system calls only: it runs between fork and exec
        for fd in groups:
            os.write(fd, b"0")
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if with_thread:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def body() -> subprocess.Popen[Any]:
        unshare(CLONE_FS)  # a thread that shares its root and folder with others may not change its mounts
        for fd, kind in spaces:
            setns(fd, kind)
        return subprocess.Popen(
            list(argv), env=dict(env), cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr,
            preexec_fn=join, start_new_session=new_session, **(options or {}),
        )  # fmt: skip

    groups: list[int] = []
    spaces: list[tuple[int, int]] = []
    try:
        groups += [os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in cgroups]
        for name, kind in _NODE_NAMESPACES:
            spaces.append((os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind))
        return body() if with_thread else in_thread(body)
    finally:
        for fd in groups:
            os.close(fd)
        for fd, _ in spaces:
            os.close(fd)
