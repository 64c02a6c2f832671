"""Looks into the store for devices that are not in memory: whoever waits at the same time is found with one look.

A look by itself costs more in the handing over between threads than in the database; after a restart, when a whole
fleet is unknown to memory, that is what decides how soon it is served.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from orchestrator.errors import Busy
from orchestrator.services.kept import Kept

MOST_LOOKS: Final = 2_000
"""Looks into the store that may wait at once: whoever guesses ids fills a short queue, not the memory."""

_TOGETHER: Final = 200
"""Devices that one look finds."""


class Looks:
    """``find`` gives the devices it knows of those asked for; ``later`` runs it in another thread."""

    def __init__(
        self, find: Callable[[Sequence[str]], Mapping[str, Kept]], later: Callable[[Callable[[], None]], None]
    ) -> None:
        self._find = find
        self._later = later
        self._guard = threading.Lock()
        self._wanted: list[tuple[str, Future[Kept | None]]] = []
        self._looking = False

    def look(self, device_id: str) -> Future[Kept | None]:
        """The device as it is stored, None for a stranger. Raises Busy when too many wait."""
        done: Future[Kept | None] = Future()
        with self._guard:
            if len(self._wanted) >= MOST_LOOKS:
                raise Busy("Too many devices have to be looked up at once.", remedy="Ask again in a few seconds.")
            self._wanted.append((device_id, done))
            begin, self._looking = not self._looking, True
        if begin:
            self._later(self._work)
        return done

    def _work(self) -> None:
        while True:
            with self._guard:
                some, self._wanted = self._wanted[:_TOGETHER], self._wanted[_TOGETHER:]
                if not some:
                    self._looking = False
                    return
            try:
                found = self._find(list(dict.fromkeys(device_id for device_id, _ in some)))
            except Exception as error:
                for _, done in some:
                    done.set_exception(error)
            else:
                for device_id, done in some:
                    done.set_result(found.get(device_id))
