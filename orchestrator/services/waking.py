"""Waking the ticker, neither too seldom nor too often."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

POKE_EVERY: Final = timedelta(seconds=0.5)
"""How often the ticker is woken at most, unless something was stopped: it would do nothing but tick otherwise."""


class Waker:
    """Wakes the ticker: at once when something was stopped, else at most twice a second, and never forgets to."""

    def __init__(self, poke: Callable[[], None], clock: Callable[[], datetime]) -> None:
        self._poke = poke
        self._clock = clock
        self._poked_at: datetime | None = None
        self._owed = False

    def wake(self, *, urgent: bool) -> None:
        now = self._clock()
        if not urgent and self._poked_at is not None and abs(now - self._poked_at) < POKE_EVERY:
            self._owed = True
            return
        self._poked_at, self._owed = now, False
        self._poke()

    def catch_up(self) -> None:
        """Called again and again: what was put off is done when its time has come."""
        if self._owed:
            self.wake(urgent=False)
