"""Whose turn it is to tick, and whether silence counts: the same for ``wave serve`` and for ``wave tick``.

One process ticks at a time: it holds a lease. The gateway says by a heartbeat that it lives; that comes from the
gateway's own job and never from the tick, so that a long tick is not taken for a gateway that was down. While no
gateway lives nobody can report, so nobody is counted silent; when one is back, all deadlines, and the clocks of those
that are still waited for, are moved by as long as it was away (RULES 4.6).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.words import span
from orchestrator.services.store import Store
from orchestrator.services.tick import GATEWAY, Ticked, Ticker

LOG = logging.getLogger(__name__)

LEASE: Final = "ticker"
BEAT_EVERY: Final = timedelta(seconds=10)
"""How often a gateway says that it lives."""

DOWN_AFTER: Final = timedelta(minutes=1)
"""Without a heartbeat for so long, no gateway lives."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One process's part in the ticking. ``owner`` names it; ``lease``: how long it blocks the others when it dies."""

    ticker: Ticker
    store: Store
    owner: str
    lease: timedelta
    down_after: timedelta = DOWN_AFTER

    def beat(self, now: datetime) -> timedelta:
        """A gateway lives. How long none did before, which is nobody's silence; zero when one did."""
        with self.store.writing() as w:
            last = w.heartbeat(GATEWAY, now=now)
            if last is None or now - last <= self.down_after:
                return timedelta(0)
            moved = w.postpone_deadlines(now - last, now=now)
        LOG.info("the gateway was down for %s: %s deadlines of silence were moved", span(now - last), moved)
        return now - last

    def look(self, now: datetime) -> Ticked:
        """One tick, if nobody else ticks (``elsewhere``); without a living gateway nobody is counted silent in it."""
        with self.store.writing() as w:
            if not w.take_lease(LEASE, self.owner, now=now, until=now + self.lease):
                return Ticked(now, elsewhere=True)
            last = w.last_heartbeat(GATEWAY)
        return self.ticker.tick(now, silences=last is not None and now - last <= self.down_after)

    def end(self) -> None:
        """Let another one tick at once."""
        with self.store.writing() as w:
            w.drop_lease(LEASE, self.owner)
