"""The census: every quarter of an hour the fleet is counted once, so that no page has to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.errors import WaveError
from orchestrator.services.store import Store

EVERY: Final = timedelta(minutes=15)

LOOK_EVERY: Final = timedelta(minutes=1)
"""How often it is asked whether one is due: another process may have taken it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Censuses:
    """Takes them. ``clock`` gives aware UTC."""

    store: Store
    clock: Callable[[], datetime]

    def take(self) -> bool:
        """Count the fleet when that is due. The counting holds no writer up: it is a reading, and only what came of it
        is written."""
        now = self.clock()
        with self.store.reading() as r:
            last = r.census_at()
            if last is not None and now - last < EVERY:
                return False
            found = r.count_fleet(now)
        with self.store.writing() as w:
            return w.keep_census(found, every=EVERY)

    def run(self, over: threading.Event) -> None:
        """Until ``over``."""
        while True:
            try:
                self.take()
            except WaveError as error:
                _log.warning("the fleet could not be counted, which is tried again: %s", error)
            if over.wait(LOOK_EVERY.total_seconds()):
                return
