"""Progress of long work: a live bar on a terminal, plain lines elsewhere (a log file, a pipe, CI)."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Call it as progress(step, done, total) from any thread; steps appear in the order in which they begin."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._lock = threading.Lock()
        self._begun: dict[str, float] = {}
        self._done: set[str] = set()
        self._quiet = quiet
        self._bars: RichProgress | None = None
        self._tasks: dict[str, int] = {}
        if not quiet and sys.stderr.isatty():
            self._bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Progress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        with self._lock:
            first = step not in self._begun
            self._begun.setdefault(step, time.monotonic())
            if self._quiet:
                return
            if self._bars is not None:
                if first:
                    self._tasks[step] = self._bars.add_task(step, total=total)
                self._bars.update(self._tasks[step], completed=done, total=total)  # type: ignore[arg-type]
            elif done >= total and step not in self._done:
                self._done.add(step)
                seconds = time.monotonic() - self._begun[step]
                print(f"  {step}: {done}/{total} ({seconds:.1f} s)", file=sys.stderr, flush=True)
