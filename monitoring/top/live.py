"""Keeps the picture fresh: collects, draws, listens to keys. The terminal is put back as it was, however it ends."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live

from monitoring.exporter.sampler import Sampler
from monitoring.inventory import InventoryError
from monitoring.top import frame as frames
from monitoring.top import view
from monitoring.top.frame import Frame
from monitoring.top.reading import Growth, take
from monitoring.top.services import Services


class Watch:
    """Collections one after the other, each with what the services said. Use it with `with`.

    The services are asked once at its begin; then either each time that it is told to `ask`, or, after `go_on`, by
    themselves. What exists is what the inventory says at each look. Raises InventoryError where it cannot be read.
    """

    def __init__(self, path: Path, period_s: float) -> None:
        self._sampler = Sampler(path)
        self._services = Services(self._sampler.inventory, max(period_s, 1.0))
        self._cpu = (time.monotonic(), time.process_time())
        self._path = path

    def __enter__(self) -> Watch:
        self._services.ask()
        self._before = take(self._sampler.families(), time.monotonic())
        self._cpu = (self._before.time, time.process_time())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._services.close()
        self._sampler.close()

    @property
    def gone(self) -> bool:
        """Whether the testbed was taken away."""
        return not self._path.exists()

    def ask(self) -> None:
        """Ask the services now: rates of meters are those since they were last asked. Not after `go_on`."""
        self._services.ask()

    def go_on(self) -> None:
        """From now on ask the services in the background."""
        self._services.start()

    def look(self) -> Frame:
        """Collect now: rates are those since the look before."""
        now = take(self._sampler.families(), time.monotonic())
        cpu = (now.time, time.process_time())
        passed = cpu[0] - self._cpu[0]
        used = (cpu[1] - self._cpu[1]) / passed if passed > 0 else None
        growth = Growth(self._before, now)
        made = frames.build(self._sampler.inventory, growth, self._services.latest, time.time(), used)
        self._before, self._cpu = now, cpu
        return made


def once(watch: Watch, period_s: float) -> Frame:
    """One frame: two collections, `period_s` seconds apart, since rates need both."""
    time.sleep(period_s)
    watch.ask()
    return watch.look()


@contextlib.contextmanager
def keys() -> Iterator[bool]:
    """Single keys from the terminal, unechoed, as long as this lasts; gives whether there is one to listen to."""
    if not sys.stdin.isatty():
        yield False
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield True
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _pressed(listening: bool, seconds: float) -> str:
    """The key that is pressed within so many seconds; "" for none."""
    if not listening:
        time.sleep(max(seconds, 0.0))
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], max(seconds, 0.0))
    if not ready:
        return ""
    # An empty read is a terminal that was closed: there is nobody left to watch.
    return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace") or "q"


def run(watch: Watch, period_s: float, console: Console) -> str:
    """Draw until q, Ctrl-C or the end of the testbed; gives why it ended: "quit" or "gone"."""
    by_memory = False
    watch.go_on()
    time.sleep(min(period_s, 1.0))
    shown = watch.look()
    with keys() as listening, Live(console=console, auto_refresh=False, screen=True) as live:
        due = time.monotonic()
        while True:
            live.update(view.draw(shown, console.width, console.height, by_memory=by_memory, live=True), refresh=True)
            key = _pressed(listening, due + period_s - time.monotonic())
            if key in ("q", "Q", "\x03", "\x04"):
                return "quit"
            if key in ("s", "S"):
                by_memory = not by_memory
                continue
            if time.monotonic() < due + period_s:
                continue
            if watch.gone:
                return "gone"
            due = max(due + period_s, time.monotonic() - period_s)
            try:
                shown = watch.look()
            except InventoryError:
                return "gone"


def write_lines(watch: Watch, period_s: float) -> str:
    """Plain lines each period, for a pipe or a log, until Ctrl-C or the end of the testbed; gives "gone"."""
    watch.go_on()
    while True:
        time.sleep(period_s)
        if watch.gone:
            return "gone"
        print("\n".join(view.lines(watch.look())), flush=True)
