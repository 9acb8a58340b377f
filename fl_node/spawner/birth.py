"""How one process is born into a node: fork, cgroups, namespaces, signals, then a Python module or another
program.

Takes an Order, gives a pid and a pipe on which the child says that it has joined, or why it could not. The
steps and their order matter; each has its reason beside it. Must be called from the only thread of a process:
the kernel's parent-death signal follows the thread that forked, and setns() of a mount namespace needs a
single thread.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import os
import resource
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NoReturn

from fl_node.spawner import kernel
from fl_node.spawner.inventory import Place

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The mount namespace comes last: it takes away the host's /proc and /sys/fs/cgroup, and changes root and
# folder.
_DOORS = (
    ("net", kernel.CLONE_NEWNET),
    ("uts", kernel.CLONE_NEWUTS),
    ("ipc", kernel.CLONE_NEWIPC),
    ("mnt", kernel.CLONE_NEWNS),
)


class BirthError(Exception):
    """The process could not be started; the text names the node."""


@dataclass(frozen=True)
class Order:
    """What to start, and where. `log` is a path that exists in the spawner's mount namespace."""

    key: int
    place: Place
    argv: tuple[str, ...]
    env: dict[str, str]
    log: str

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "node": self.place.node,
            "pid": self.place.pid,
            "cgroups": list(self.place.cgroups),
            "argv": list(self.argv),
            "env": self.env,
            "log": self.log,
        }

    @staticmethod
    def from_json(body: dict[str, Any]) -> Order:
        place = Place(body["node"], body["pid"], tuple(body["cgroups"]))
        return Order(body["key"], place, tuple(body["argv"]), dict(body["env"]), body["log"])


def as_module(argv: tuple[str, ...]) -> tuple[str, ...] | None:
    """(module, *arguments) where `argv` is `python -m module ...`, which is run in the fork itself; else
    None."""
    if len(argv) >= 3 and argv[0] in ("python", "python3", sys.executable) and argv[1] == "-m":
        return argv[2:]
    return None


class Midwife:
    """Forks processes into nodes on behalf of the one process that made it.

    `nofile_soft` is the limit of open files that children get back where this process has raised its own.
    """

    def __init__(self, nofile_soft: int | None = None) -> None:
        self.nofile_soft = nofile_soft
        self._own_pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._self_pidfd = os.pidfd_open(os.getpid())

    def deliver(self, order: Order, keep: Collection[int]) -> tuple[int, int]:
        """Fork. Returns the child's pid and the read end of its report; the child keeps only the descriptors
        `keep`.

        The report is JSON lines until end of file: `{"node_pid": n}` when it has joined, `{"error": text}`
        where it could not join or execute. Raises BirthError where the node is not there to be joined.
        """
        node = order.place.node
        doors = _open_doors(order.place)
        report_out, report_in = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # No handler of this process may run in the child before the child has reset them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            kernel.setns(doors["pid"], kernel.CLONE_NEWPID, f"the PID namespace of node {node!r}")
            try:
                pid = os.fork()
                if pid == 0:
                    self._become(order, doors, report_in, keep)
            finally:  # reached by the parent only: _become() never returns
                kernel.setns(self._own_pid_ns, kernel.CLONE_NEWPID, "the spawner's own PID namespace")
        except OSError as error:
            os.close(report_out)
            raise BirthError(f"node {node!r}: nothing can be forked into it: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(report_in)
            for fd in doors.values():
                os.close(fd)
        os.set_blocking(report_out, False)
        return pid, report_out

    def _become(self, order: Order, doors: dict[str, int], report: int, keep: Collection[int]) -> NoReturn:
        """In the child: join, say so, and run. Ends the process, whatever happens."""
        try:
            os.setsid()  # first, so that its group can be signalled from the first moment
            kernel.die_with_parent(self._self_pidfd)
            for folder in order.place.cgroups:  # before the rest: what it allocates from now on is the node's
                _write_own_pid(os.path.join(folder, "cgroup.procs"))
            _redirect(order.log)
            for name, kind in _DOORS:
                kernel.setns(doors[name], kind, f"the {name} namespace of node {order.place.node!r}")
            reset_signals()
            if self.nofile_soft is not None:
                hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile_soft, hard))
            close_all_but({0, 1, 2, report, *keep})
            environment = {"PATH": DEFAULT_PATH, **order.env}
            os.environ.clear()
            os.environ.update(environment)
            _go_home(environment)
            os.umask(0o022)
            _say(report, {"node_pid": os.getpid()})
        except BaseException as error:  # there is no caller above: every end is told and is an exit
            _say(report, {"error": f"node {order.place.node!r}: {error}"})
            os._exit(126)
        module = as_module(order.argv)
        if module is None:
            _execute(order.argv, environment, report)
        os.close(report)
        _run_module(module)


def _open_doors(place: Place) -> dict[str, int]:
    """Descriptors of the namespaces of the node's init, all of one process even should its pid be used
    again."""
    opened: dict[str, int] = {}
    folder = -1
    try:
        folder = os.open(f"/proc/{place.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        numbers = (kernel.status_field(place.pid, "NSpid") or "").split()
        if len(numbers) < 2 or numbers[-1] != "1":
            raise BirthError(
                f"node {place.node!r}: pid {place.pid} of the inventory is not the init of a PID namespace "
                f"(NSpid {' '.join(numbers) or 'gone'}); has the testbed been taken down?"
            )
        for name in ("pid", *(door for door, _ in _DOORS)):
            opened[name] = os.open(f"ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, BirthError) as error:
        for fd in opened.values():
            os.close(fd)
        if isinstance(error, BirthError):
            raise
        raise BirthError(f"node {place.node!r}: its init (pid {place.pid}) is gone: {error}") from error
    finally:
        if folder >= 0:
            os.close(folder)
    return opened


def _write_own_pid(path: str) -> None:
    try:
        with open(path, "w") as file:
            file.write("0")  # 0 is the writer, whatever its number is in which PID namespace
    except OSError as error:
        raise OSError(error.errno, f"cannot join cgroup {path}: {error.strerror}") from error


def _redirect(log: str) -> None:
    """stdin from nowhere, stdout and stderr to the end of `log`."""
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise OSError(error.errno, f"cannot open log {log}: {error.strerror}") from error
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)


def reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(keep: Collection[int]) -> None:
    """Close every other descriptor: a kept socket of another child would hide that child's end from its
    owner."""
    for number in kernel.open_fds() - set(keep):
        try:
            os.close(number)
        except OSError:
            continue


def _go_home(environment: dict[str, str]) -> None:
    try:
        os.chdir(environment.get("COHORTNET_STATE", "/"))
    except OSError:
        os.chdir("/")


def _say(report: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the spawner has ended, and so will this process
        os.write(report, json.dumps(message).encode() + b"\n")


def _execute(argv: tuple[str, ...], environment: dict[str, str], report: int) -> NoReturn:
    program = sys.executable if argv[0] == "python" else argv[0]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, other programs expect it
    try:
        os.execvpe(program, [program, *argv[1:]], environment)
    except OSError as error:
        _say(report, {"error": f"cannot execute {program}: {error.strerror}"})
    os._exit(127)


def _run_module(module: tuple[str, ...]) -> NoReturn:
    """As `python -m` would, and end as the interpreter does, save that nothing is torn down page by page."""
    name = module[0]
    kernel.set_name(name)
    sys.argv = list(module)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    gc.enable()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()  # Python's own generator seeds itself anew after a fork, NumPy's does not
    sys.modules.pop(name, None)  # what it imports stays; it is itself run anew, as __main__
    code = 1
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = _exit_code(end.code)
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # the last frame of a process: the traceback is its last word
        traceback.print_exc()
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    print(value, file=sys.stderr)
    return 1
