"""How long rounds take: turns what a strategy is seen to do into the duration of each round.

Takes the moments at which a strategy is called, gives each round's seconds once. Knows nothing of Flower.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Told = Callable[[int, float], None]


class RoundClock:
    """Tells `(round, seconds)` for each round that was ended by the next one or by the strategy's end.

    A round lasts from its configuration to the configuration of the next. Where a strategy with a loop of its own
    configures nothing, it lasts from the last thing that was seen of the round before to the last of its own.
    """

    def __init__(self, told: Told, clock: Callable[[], float] = time.monotonic) -> None:
        self._told = told
        self._clock = clock
        self._round: int | None = None
        self._began = self._last = clock()

    def configured(self, number: int) -> None:
        """A round is being configured; again in the same round, it only goes on."""
        now = self._clock()
        if number != self._round:
            self._finish(now)
            self._round, self._began = number, now
        self._last = now

    def seen(self, number: int) -> None:
        """Something of a round has just ended: an aggregation, an evaluation. Round 0 is before all rounds."""
        if number > 0 and number != self._round:
            self._finish(self._last)
            self._round, self._began = number, self._last
        self._last = self._clock()

    def ended(self) -> None:
        """The strategy has returned."""
        self._finish(self._clock())

    def _finish(self, at: float) -> None:
        if self._round is not None:
            self._told(self._round, at - self._began)
        self._round = None
