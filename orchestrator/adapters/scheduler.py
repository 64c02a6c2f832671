"""The clockwork of ``wave serve``: one APScheduler job, the tick, at the time the last one asked for.

The scheduler is never a second source of truth: it knows when to look, and the tick finds out everything else from
the store. One process of
several ticks: it holds a lease; the others try again when that may be over.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.background import BackgroundScheduler

from orchestrator.errors import Busy, WaveError
from orchestrator.services.store import Store, Writing
from orchestrator.services.tick import Ticker

LOG = logging.getLogger(__name__)

LEASE: Final = "ticker"
GATEWAY: Final = "gateway"
LISTEN_EVERY: Final = timedelta(seconds=0.5)
"""How often the store's pulse is felt: an order given in another process is carried out within that."""

_JOB: Final = "tick"
_PULSE: Final = "pulse"


def process_name() -> str:
    """Who this process is, in leases: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class TickScheduler:
    """Runs the ticker until stopped.

    ``at_most``: the longest pause between two ticks; ``lease``: how long a dead ticker blocks the others; ``owner``
    names this process. ``poke`` asks
    for a tick at once; it is safe from any thread and never blocks. ``gateway``: the device gateway runs in this
    process too, so a gap between ticks is a
    time in which devices could not report, and silence is not counted for it.
    """

    def __init__(
        self,
        ticker: Ticker,
        store: Store,
        clock: Callable[[], datetime],
        *,
        at_most: timedelta,
        lease: timedelta,
        owner: str | None = None,
        gateway: bool = True,
    ) -> None:
        self._ticker = ticker
        self._store = store
        self._clock = clock
        self._at_most = min(at_most, lease / 3)
        self._lease = lease
        self._owner = owner or process_name()
        self._gateway = gateway
        self._guard = threading.Lock()
        self._running = False
        self._again = False
        self._pulse = ""
        # A poke during a tick starts a second run, which only notes that there must be another: it must not be skipped.
        defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 3}
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)

    def start(self) -> None:
        self._scheduler.start()
        self._scheduler.add_job(self._run, "date", id=_JOB, run_date=datetime.now(UTC), replace_existing=True)
        self._scheduler.add_job(self._listen, "interval", id=_PULSE, seconds=LISTEN_EVERY.total_seconds())

    def stop(self) -> None:
        """Let a tick under way end, and give the lease back."""
        self._scheduler.shutdown(wait=True)
        try:
            with self._store.writing() as w:
                w.drop_lease(LEASE, self._owner)
        except WaveError:
            LOG.warning("the ticker's lease could not be given back; it ends by itself")

    def poke(self) -> None:
        with self._guard:
            if self._running:
                self._again = True
                return
        self._at(datetime.now(UTC))

    def _at(self, when: datetime) -> None:
        if self._scheduler.running:
            self._scheduler.add_job(self._run, "date", id=_JOB, run_date=when, replace_existing=True)

    def _run(self) -> None:
        with self._guard:
            if self._running:
                self._again = True
                return
            self._running, self._again = True, False
        pause = self._at_most
        try:
            pause = self._look()
        except Busy:
            pause = timedelta(milliseconds=200)
        except WaveError as error:
            LOG.error("the tick failed and will be tried again: %s", error)
        except Exception:
            LOG.exception("the tick failed unexpectedly and will be tried again")
        finally:
            with self._guard:
                again, self._running = self._again, False
            self._at(datetime.now(UTC) + (timedelta(0) if again else pause))

    def _listen(self) -> None:
        try:
            with self._store.reading() as r:
                pulse = r.pulse()
        except WaveError as error:
            LOG.warning("the store's pulse could not be felt: %s", error)
            return
        if pulse != self._pulse:
            self._pulse = pulse
            self.poke()

    def _look(self) -> timedelta:
        """One tick, when this process holds the lease; how long to wait for the next."""
        now = self._clock()
        with self._store.writing() as w:
            if self._gateway:
                self._forgive_gap(w, w.heartbeat(GATEWAY, now=now), now)
            mine = w.take_lease(LEASE, self._owner, now=now, until=now + self._lease)
        if not mine:
            return self._at_most
        ticked = self._ticker.tick(now)
        if ticked.wake_at is None:
            return self._at_most
        return max(timedelta(0), min(self._at_most, ticked.wake_at - self._clock()))

    def _forgive_gap(self, w: Writing, last: datetime | None, now: datetime) -> None:
        """Time in which the gateway was down does not count as silence (RULES 4.6)."""
        if last is not None and now - last > 3 * self._at_most:
            moved = w.postpone_deadlines(now - last)
            LOG.info("the gateway was down for %s: %s deadlines of silence were moved", now - last, moved)
