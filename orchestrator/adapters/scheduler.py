"""The clockwork of ``wave serve``: one APScheduler job, the tick, at the time the last one asked for.

The scheduler is never a second source of truth: it knows when to look, and the tick finds out everything else from the
store. One process of several ticks: it holds a lease; the others try again when that may be over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.background import BackgroundScheduler

from orchestrator.adapters.lock import process_name
from orchestrator.errors import Busy, WaveError
from orchestrator.services import following
from orchestrator.services.metering import Ticks
from orchestrator.services.store import Store
from orchestrator.services.tick import Ticked, Ticker
from orchestrator.services.tracing import NOTHING, Span
from orchestrator.services.turn import BEAT_EVERY, DOWN_AFTER, Turn

LOG = logging.getLogger(__name__)

LISTEN_EVERY: Final = timedelta(seconds=0.5)
"""How often the store's pulse is felt: an order given in another process is carried out within that."""

SET_BACK: Final = 1.0
"""Seconds by which a clock goes back that was set, and not only steered."""

_JOB: Final = "tick"
_PULSE: Final = "pulse"
_BEAT: Final = "beat"


class TickScheduler:
    """Runs the ticker until stopped.

    ``at_most``: the longest pause between two ticks; ``lease``: how long a dead ticker blocks the others; ``owner``
    names this process. ``poke`` asks for a tick at once; it is safe from any thread and never blocks. ``gateway``: the
    device gateway runs in this process too, and its heartbeat is a job beside the tick; without one for ``down_after``
    nobody is counted silent. ``ticks``: where it counts what it does.
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
        down_after: timedelta = DOWN_AFTER,
        ticks: Ticks | None = None,
        on_beat: Callable[[WaveError | None], None] = lambda error: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._at_most = min(at_most, lease / 3)
        self._turn = Turn(ticker, store, owner or process_name(), lease, down_after)
        self._gateway = gateway
        self._on_beat = on_beat
        self._guard = threading.Lock()
        self._running = False
        self._again = False
        self._pulse = ""
        self._deaf = ""
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="clock watch", daemon=True)
        self.ticks = ticks or Ticks()
        # A poke during a tick starts a second run, which only notes that there must be another: it must not be skipped.
        defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 3}
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)

    def start(self) -> None:
        self._scheduler.start()
        self._set_jobs()
        self._watcher.start()

    def _set_jobs(self) -> None:
        """All of them, from this moment on. The pulse comes last: the tick that is due now sees all that it tells."""
        now = datetime.now(UTC)
        every = ((self.listen, _PULSE, LISTEN_EVERY, now + LISTEN_EVERY), (self._beat, _BEAT, BEAT_EVERY, now))
        for job, name, pause, first in every if self._gateway else every[:1]:
            self._scheduler.add_job(
                job, "interval", id=name, seconds=pause.total_seconds(), next_run_time=first, replace_existing=True
            )
        self._at(now)

    def _watch(self) -> None:
        """Jobs are due by the clock of the day. Where that is set back they would come as much later: no tick, no
        heartbeat and no order from elsewhere for so long. So they are set anew."""
        ahead = time.time() - time.monotonic()
        while not self._stopped.wait(LISTEN_EVERY.total_seconds()):
            before, ahead = ahead, time.time() - time.monotonic()
            if before - ahead > SET_BACK:
                LOG.warning("the clock of this machine was set back by %.0f s: what is due is due now", before - ahead)
                self._set_jobs()

    def stop(self) -> None:
        """Let a tick under way end, and give the lease back. Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self._scheduler.shutdown(wait=True)
        try:
            self._turn.end()
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
        with following.work("tick") as span:
            self._look_once(span)

    def _look_once(self, span: Span) -> None:
        """And set the time of the next look, whatever comes of this one."""
        pause = self._at_most
        try:
            pause = self._look(span)
        except Busy:
            pause = timedelta(milliseconds=200)
        except WaveError as error:
            self.ticks.failed += 1
            span.failed(str(error))
            LOG.error("the tick failed and will be tried again: %s", error)
        except Exception as error:
            self.ticks.failed += 1
            span.failed(type(error).__name__)
            LOG.exception("the tick failed unexpectedly and will be tried again")
        finally:
            with self._guard:
                again, self._running = self._again, False
            self._at(datetime.now(UTC) + (timedelta(0) if again else pause))

    def listen(self) -> None:
        """Feel the store's pulse, and tick when something was ordered elsewhere; a job of its own."""
        try:
            with self._store.reading() as r:
                pulse = r.pulse()
        except WaveError as error:
            if self._deaf != str(error):  # felt twice a second: said once
                LOG.warning("the store's pulse could not be felt: %s", error)
            self._deaf = str(error)
            return
        if self._deaf:
            LOG.info("the store's pulse is felt again")
            self._deaf = ""
        if pulse != self._pulse:
            self._pulse = pulse
            self.poke()

    def _look(self, span: Span = NOTHING) -> timedelta:
        """One tick, when this process holds the lease; how long to wait for the next."""
        begun, now = time.monotonic(), self._clock()
        ticked = self._turn.look(now)
        span.note({"wave.decisions": ticked.decided, "wave.elsewhere": ticked.elsewhere})
        self._count(ticked, now, time.monotonic() - begun)
        if ticked.wake_at is None:
            return self._at_most
        return max(timedelta(0), min(self._at_most, ticked.wake_at - self._clock()))

    def _count(self, ticked: Ticked, now: datetime, seconds: float) -> None:
        if ticked.elsewhere:
            self.ticks.elsewhere += 1
            return
        self.ticks.done += 1
        self.ticks.decided += ticked.decided
        self.ticks.problems = len(ticked.problems)
        self.ticks.last_at, self.ticks.seconds = now, seconds

    def _beat(self) -> None:
        """The gateway in this process lives, whatever the tick is doing."""
        try:
            self._turn.beat(self._clock())
        except WaveError as error:
            LOG.warning("the gateway's heartbeat could not be written: %s", error)
            self._on_beat(error)
        else:
            self._on_beat(None)
