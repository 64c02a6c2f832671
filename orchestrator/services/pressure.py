"""How long devices shall wait until they check in again, as things are: the interval of the settings, stretched while
this process is under pressure (``core.stretching``)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.stretching import followed, pressure, stretched
from orchestrator.services.settings import Settings

LOOKS_EVERY: Final = timedelta(seconds=0.25)
"""How old what was worked out may be."""


class Pressure:
    """``waiting`` says how much waits to be written, of ``most_waiting``. ``late`` is told how late the event loop gets
    round to its work; without that only the queue counts."""

    def __init__(self, settings: Settings, waiting: Callable[[], int], most_waiting: int) -> None:
        self._settings = settings
        self._waiting = waiting
        self._most_waiting = most_waiting
        self._late = timedelta(0)
        self._looked_at: datetime | None = None
        self.counts = 0.0
        self._every = settings.check_in_every.total_seconds()
        self._stretched = self._every

    def late(self, by: timedelta) -> None:
        """The longest delay since the last look is what counts. From any thread."""
        self._late = max(self._late, by)

    def check_in_after(self, spread: float, now: datetime, *, needed: bool) -> float:
        """Seconds until a device shall ask again; ``spread`` is its part of the jitter, from -1 to 1. Whoever is
        ``needed``, as it has an update under way, is never put off: it is what decisions wait for."""
        if self._looked_at is None or abs(now - self._looked_at) >= LOOKS_EVERY:
            self._look(now)
        every = self._every if needed else self._stretched
        return round(every * (1 + self._settings.check_in_jitter * spread), 1)

    def _look(self, now: datetime) -> None:
        elapsed = LOOKS_EVERY if self._looked_at is None else max(now - self._looked_at, timedelta(0))
        self._looked_at = now
        seen = pressure(waiting=self._waiting(), most_waiting=self._most_waiting, late=self._late)
        self._late = timedelta(0)
        self.counts = followed(self.counts, seen, elapsed=elapsed)
        settings = self._settings
        self._stretched = stretched(settings.check_in_every, settings.check_in_at_most, self.counts).total_seconds()
