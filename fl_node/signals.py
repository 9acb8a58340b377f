"""How the FL server and the FL client are stopped: SIGTERM and SIGINT become `Stopped` in the main thread, once.

Owns these two signals from `stop_by_signal` on. Decides nothing about a run; starts nothing.
"""

from __future__ import annotations

import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """SIGTERM or SIGINT. Not an Exception, so that an application's own `except Exception` lets it pass."""


def stop_by_signal() -> None:
    """From now on the first of the two signals raises Stopped, and no other one does."""
    for each in STOPPING:
        signal.signal(each, _stop)


def ignore(*more: signal.Signals) -> None:
    """From now on the two signals, and `more`, do nothing: what ends the process is on its way already."""
    for each in (*STOPPING, *more):
        signal.signal(each, signal.SIG_IGN)


def _stop(number: int, _: FrameType | None) -> None:
    ignore()
    raise Stopped(signal.Signals(number).name)
