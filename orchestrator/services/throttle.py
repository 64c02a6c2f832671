"""How often somebody may be wrong: the wait doubles with each failure. In memory, for this process.

An attempt is counted before it is judged, and taken back when it was right; so many that come at once count as many.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Final

from orchestrator.errors import TooMany

MOST_KEPT: Final = 20_000
"""Keys; those that tried longest ago are forgotten first."""


class Throttle:
    """``free`` failures cost nothing; after them the wait is ``first``, and twice that with each further one, up to
    ``at_most``. After ``forgotten`` without an attempt a key begins anew. Thread-safe."""

    def __init__(self, *, free: int, first: timedelta, at_most: timedelta, forgotten: timedelta) -> None:
        self._free = free
        self._first = first
        self._at_most = at_most
        self._forgotten = forgotten
        self._guard = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[int, datetime]] = OrderedDict()

    def attempt(self, key: Hashable, now: datetime) -> None:
        """One more try, counted as wrong until told otherwise. Raises TooMany; a refused one is not counted."""
        with self._guard:
            wrong, last = self._known.get(key, (0, now))
            if now - last >= self._forgotten:
                wrong = 0
            wait = last + self._wait(wrong) - now
            if wrong and wait > timedelta(0):
                raise TooMany("Too many attempts.", after=wait.total_seconds())
            self._known[key] = (wrong + 1, now)
            self._known.move_to_end(key)
            if len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)

    def right(self, key: Hashable, *, all_of_them: bool) -> None:
        """That attempt was right: it is taken back, or all before it too."""
        with self._guard:
            wrong, last = self._known.pop(key, (0, None))
            if wrong > 1 and last is not None and not all_of_them:
                self._known[key] = (wrong - 1, last)

    def _wait(self, wrong: int) -> timedelta:
        over = wrong - self._free
        if over < 0:
            return timedelta(0)
        return min(self._at_most, self._first * (1 << min(over, 30)))


class Homes:
    """From where people signed in of late, so that who guesses their names elsewhere is counted apart from them. In
    memory, for this process. Thread-safe."""

    def __init__(self, *, forgotten: timedelta = timedelta(days=30)) -> None:
        self._forgotten = forgotten
        self._guard = threading.Lock()
        self._known: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    def add(self, name: str, place: str, now: datetime) -> None:
        """They signed in from there."""
        with self._guard:
            self._known[name, place] = now
            self._known.move_to_end((name, place))
            if len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)

    def key(self, name: str, place: str, now: datetime) -> tuple[str, str]:
        """Under what an attempt is counted: the name anywhere, or the name at that place."""
        with self._guard:
            at = self._known.get((name, place))
        return name, "" if at is None or now - at >= self._forgotten else place
