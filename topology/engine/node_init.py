"""The first process of each node of the namespace runtime, and the small program that forks all of them.

Executed as a script (`python -I -S node_init.py`), with the standard library only, so that a node costs about a
megabyte. Reads JSON lines from stdin: `{"hosts": path}`, then one a node, `{"name", "hostname", "groups": [cgroup
folders], "keep": [folders below /tmp]}`, each of which it forks at once; at the end writes one JSON line a node,
`{"name", "pid"}` or `{"name", "error"}`, once that node is ready, and ends. The nodes stay: each is PID 1 of its own
PID namespace, adopts and reaps orphans, and takes the whole node with it when it ends. It never touches interfaces
other than `lo`.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import signal
import socket
import struct
import sys

_NEWNS, _NEWUTS, _NEWIPC = 0x00020000, 0x04000000, 0x08000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags,
          data.encode() if data else None)  # fmt: skip


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(probe, 0x8913, request))[1]  # SIOCGIFFLAGS
        fcntl.ioctl(probe, 0x8914, struct.pack("16sH14s", b"lo", flags | 1, b""))  # SIOCSIFFLAGS, IFF_UP


def _prepare_all(hosts: str) -> None:
    """What all nodes have alike, once: each node's mounts begin as a copy of this program's own."""
    _call("unshare", _NEWNS)
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Named network namespaces are mounts: a copy held in a node would keep another testbed's network alive after its
    # removal.
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    for point in points:
        if point.startswith(("/run/netns/", "/run/docker/netns/")):
            _libc.umount2(point.encode(), _MNT_DETACH)
    _mount(hosts, "/etc/hosts", None, _MS_BIND)


def _prepare(node: dict[str, object]) -> None:
    # The cgroups first: all that the node ever has is then counted to it, and `down` finds it from here on.
    for folder in node["groups"]:  # type: ignore[attr-defined]
        fd = os.open(f"{folder}/cgroup.procs", os.O_WRONLY)
        os.write(fd, b"0")
        os.close(fd)
    os.setsid()
    _call("unshare", _NEWNET | _NEWNS | _NEWUTS | _NEWIPC)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    # Each node has a /tmp of its own, but where all of the host's is kept; what programs need of the host's (a
    # checkout may lie there) is seen through it.
    keep = [] if "/tmp" in node["keep"] else list(node["keep"])  # type: ignore[operator, call-overload]
    kept = [(str(path), os.open(str(path), os.O_PATH)) for path in keep]
    if "/tmp" not in node["keep"]:  # type: ignore[operator]
        _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    for path, fd in kept:
        os.makedirs(path, exist_ok=True)
        _mount(f"/proc/self/fd/{fd}", path, None, _MS_BIND | _MS_REC)
        os.close(fd)
    socket.sethostname(str(node["hostname"]))
    _loopback_up()


def _end(number: int, frame: object) -> None:
    os._exit(0)


def _node(node: dict[str, object], ready: int) -> None:
    try:
        _prepare(node)
    except (OSError, KeyError, ValueError) as error:
        os.write(ready, str(error).encode()[:4000] or b"?")
        os._exit(1)
    quiet = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(quiet, fd)
    os.chdir("/")
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # waitid() with SIGCHLD blocked and waited for: no polling, and no child is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    os.closerange(3, 1024)  # `ready` too: that it closes without a word says that the node stands
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def main() -> None:
    """Fork all nodes, then wait for each one's word."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    _prepare_all(json.loads(sys.stdin.readline())["hosts"])
    gc.disable()  # a node lives on pages that it shares with all others as long as nobody writes into them
    gc.freeze()
    waiting = []
    for line in sys.stdin:
        node = json.loads(line)
        read, write = os.pipe()
        _call("unshare", _NEWPID)  # the next child is PID 1 of a new namespace
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _node(node, write)
            os._exit(0)
        _call("setns", own, _NEWPID)
        os.close(write)
        waiting.append((node["name"], pid, read))
    for name, pid, read in waiting:
        error = b""
        while part := os.read(read, 4096):
            error += part
        os.close(read)
        answer = {"name": name, "error": error.decode(errors="replace")} if error else {"name": name, "pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
