"""An application's template: a process that has PyTorch and the application warm, and forks node processes
from that.

`TemplateProcess` is what runs in the forked template; `Template` is the spawner's end of it. They speak JSON
lines over a socket pair: warm, start and stop one way; warmed, started and ended the other. The template dies
with the spawner, and node processes die with their template.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from fl_node.spawner import kernel
from fl_node.spawner.birth import Midwife, Order, close_all_but, reset_signals
from fl_node.spawner.brood import Brood, next_zombie
from fl_node.spawner.loop import Loop
from fl_node.spawner.wire import Wire

FL_PROGRAMS = ("fl_node.server", "fl_node.client")  # what is run in an application's forks, loaded once


class TemplateProcess:
    """In the template: warms on request, forks on request, reports. Ends when the spawner's end closes."""

    def __init__(self, sock: socket.socket, keep: set[int], midwife: Midwife) -> None:
        self._loop = Loop()
        self._brood = Brood(self._loop, midwife, self._started, self._ended, keep)
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        self._loop.on_signal(signal.SIGTERM, self._brood.stop_all)
        self._wire = Wire(self._loop, sock, self._take, self._loop.stop)

    def run(self) -> None:
        self._loop.run()

    def _take(self, message: dict[str, Any]) -> None:
        operation = message["op"]
        if operation == "warm":
            self._warm(message["application"], message["config"])
        elif operation == "start":
            self._brood.start(Order.from_json(message["order"]))
        elif operation == "stop":
            self._brood.stop(message["key"])

    def _warm(self, application: str, config: dict[str, Any]) -> None:
        began = time.monotonic()
        error = None
        before = kernel.open_fds()
        try:
            import torch

            from fl_node.warm import warm

            torch.set_num_threads(1)
            for name in FL_PROGRAMS:
                if importlib.util.find_spec(name) is not None:
                    importlib.import_module(name)
            warm(application, config)
        except (
            Exception
        ) as problem:  # whatever an application does while it is loaded is its own; the template lives on
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}"
        self._brood.keep |= kernel.open_fds() - before  # what the application opened, its children may need
        gc.collect()
        gc.freeze()
        threads = int(kernel.status_field(os.getpid(), "Threads") or 1)
        self._wire.send(
            {"event": "warmed", "seconds": time.monotonic() - began, "error": error, "threads": threads}
        )

    def _started(self, key: int, answer: dict[str, Any]) -> None:
        self._wire.send({"event": "started", "key": key, "answer": answer})

    def _ended(self, key: int, code: int) -> None:
        self._wire.send({"event": "ended", "key": key, "exit": code})

    def _reap(self) -> None:
        while (pid := next_zombie()) is not None:
            if self._brood.owns(pid):
                self._brood.reap(pid)
            else:
                os.waitpid(pid, 0)


class Template:
    """In the spawner: one application's template.

    `on_warmed(template)`, `on_started(key, answer)`, `on_exit(key, code)` as they come; `on_gone(template)`
    once, when the template's process has closed its end.
    """

    def __init__(
        self,
        loop: Loop,
        application: str,
        keep: set[int],
        on_warmed: Callable[[Template], None],
        on_started: Callable[[int, dict[str, Any]], None],
        on_exit: Callable[[int, int], None],
        on_gone: Callable[[Template], None],
        nofile_soft: int | None,
    ) -> None:
        self.application = application
        self.config: dict[str, Any] | None = None
        self.seconds: float | None = None
        self.error: str | None = None
        self.threads = 1
        self.keys: set[int] = set()
        self.waiting: deque[list[Wire]] = deque()  # for each warming that was asked for, who waits for it
        self.last_used = time.monotonic()
        self._on_warmed = on_warmed
        self._on_started = on_started
        self._on_exit = on_exit
        self._on_gone = on_gone
        parents_end, childs_end = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        guard = os.pidfd_open(os.getpid())
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        if self.pid == 0:
            _template_main(application, childs_end, keep, guard, nofile_soft)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(guard)
        childs_end.close()
        self._wire = Wire(loop, parents_end, self._take, lambda: self._on_gone(self))

    def warm(self, config: dict[str, Any]) -> None:
        self.config, self.seconds = config, None
        self.waiting.append([])
        self._wire.send({"op": "warm", "application": self.application, "config": config})

    def start(self, order: Order) -> None:
        self.keys.add(order.key)
        self.last_used = time.monotonic()
        self._wire.send({"op": "start", "order": order.to_json()})

    def stop(self, key: int) -> None:
        self._wire.send({"op": "stop", "key": key})

    def close(self) -> None:
        """End the template; its children, if any are left, die with it."""
        self._wire.close()

    def to_json(self) -> dict[str, Any]:
        return {
            "application": self.application,
            "pid": self.pid,
            "seconds": self.seconds,
            "error": self.error,
            "threads": self.threads,
            "children": len(self.keys),
        }

    def _take(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "warmed":
            self.seconds, self.error, self.threads = message["seconds"], message["error"], message["threads"]
            self._on_warmed(self)
        elif event == "started":
            if not message["answer"]["ok"]:
                self.keys.discard(message["key"])
            self._on_started(message["key"], message["answer"])
        elif event == "ended":
            self.keys.discard(message["key"])
            self._on_exit(message["key"], message["exit"])


def _template_main(
    application: str, sock: socket.socket, keep: set[int], guard: int, nofile_soft: int | None
) -> NoReturn:
    code = 1
    try:
        kernel.die_with_parent(guard)
        reset_signals()
        close_all_but({0, 1, 2, sock.fileno(), *keep})
        kernel.set_name("template")
        TemplateProcess(sock, {0, 1, 2} | keep, Midwife(nofile_soft)).run()
        code = 0
    except BaseException:  # the last frame of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
