"""The builder: takes one job after the other and has the provider build it.

Any number of builders, in processes or on machines of their own, work on one queue. What keeps them apart is the
lease: a job belongs to whoever holds the newest fence on it, the holder renews it from a side thread while the
provider works, and who finds that the lease went to another stops and throws its work away. So a builder may be
killed at any moment: its job is taken up again when its lease is over, its log is kept, and what it published whole
is found and not built twice.

A build that failed in a way that may pass (BuildFailed) is tried again after a growing delay: the job stays leased
until then, which every builder respects and which survives all of them. ContentUnavailable does not pass by itself,
unless it is the whole repository or its tools that are away: then jobs wait, untaken, until they are back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from orchestrator.errors import BuildFailed, Busy, Conflict, ContentUnavailable, StoreUnavailable, WaveError
from orchestrator.services import following
from orchestrator.services.commits import pair_text
from orchestrator.services.delta_provider import BuildProgress, DeltaProvider, DeltaRecord
from orchestrator.services.records import BuildJob
from orchestrator.services.store import Store, Writing
from orchestrator.services.tracing import Span

LOG = logging.getLogger(__name__)

PASSING: Final = (Busy, Conflict, StoreUnavailable)
"""Troubles of the store that may be over soon."""

WRITE_EVERY: Final = timedelta(seconds=1)
"""Progress and log go to the store at most this often."""

WRITE_TRIES: Final = 10
"""How often the end of a job is written before the builder gives it up to its lease."""

LOG_AT_MOST: Final = 200_000
"""Characters of log that one try may write."""

LEASED_AT_MOST: Final = 10
"""How often a job is begun: one that kills its builder each time is given up after that."""


class Stop(Protocol):
    """What ``threading.Event`` is: set from elsewhere when the builder shall end."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """``lease``: how long a job belongs to a builder that says nothing. ``idle``: how long to wait when there is
    nothing to do. ``tries``: how often a build may fail. ``retry_after``: the wait after the first failure, three times
    as long after each further one."""

    lease: timedelta = timedelta(seconds=30)
    idle: timedelta = timedelta(seconds=1)
    tries: int = 3
    retry_after: timedelta = timedelta(seconds=20)

    def delay(self, attempt: int) -> timedelta:
        """How long to wait after the ``attempt``-th try, counted from 1."""
        return self.retry_after * float(3 ** max(attempt - 1, 0))


class Builder:
    """One worker. ``owner`` names it in leases and logs and must be no other's; ``clock`` gives aware UTC; ``poke`` is
    called after each job that came to an end."""

    def __init__(
        self,
        store: Store,
        provider: DeltaProvider,
        clock: Callable[[], datetime],
        *,
        owner: str,
        pace: Pace | None = None,
        poke: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._provider = provider
        self._clock = clock
        self._owner = owner
        self._pace = pace or Pace()
        self._poke = poke

    def run(self, stop: Stop) -> None:
        """Work until ``stop`` is set; blocks. A build under way is then ended and its job given back. Nothing that goes
        wrong with a job or for a while with the store ends the loop."""
        self._sweep()
        trouble = 0
        while not stop.is_set():
            try:
                worked = self.work_once(stop)
                trouble = 0
            except (*PASSING, ContentUnavailable) as error:
                trouble += 1
                LOG.warning("builder %s waits: %s", self._owner, error)
                stop.wait(min(2.0**trouble, 30.0))
                continue
            if not worked:
                stop.wait(self._pace.idle.total_seconds())

    def work_once(self, stop: Stop) -> bool:
        """Take one job and bring it to an end; False when there was none. Raises Busy, Conflict, StoreUnavailable when
        the store could not be asked, ContentUnavailable when nothing can be built at all."""
        self._provider.check()
        now = self._clock()
        with self._store.writing() as w:
            job = w.lease_build(self._owner, now=now, until=now + self._pace.lease)
        if job is None:
            return False
        if job.attempts > LEASED_AT_MOST:
            self._finish(job, None, f"It was begun {LEASED_AT_MOST} times and never came to an end: is there memory?")
            return True
        if job.attempts > 1:
            self._sweep()
        about = {"wave.from": job.pair.from_commit or "", "wave.to": job.pair.to_commit}
        with following.work("build", {**about, "wave.attempt": job.attempts}) as span:
            LOG.info("builder %s builds %s, try %d", self._owner, pair_text(job.pair), job.attempts)
            self._build(job, stop, span)
        return True

    def _build(self, job: BuildJob, stop: Stop, span: Span) -> None:
        keeper = _Keeper(self._store, self._clock, job, self._pace.lease)
        keeper.say(f"--- try {max(job.attempts, 1)} by {self._owner} at {self._clock():%Y-%m-%d %H:%M:%S} UTC")
        record: DeltaRecord | None = None
        error: WaveError | None = None
        keeper.start()
        try:
            record = self._provider.build(
                job.pair, progress=keeper.progress, cancelled=lambda: stop.is_set() or keeper.lost.is_set()
            )
        except WaveError as problem:
            error = problem
            span.failed(str(problem))
        except Exception as problem:
            # A fault of ours or of the provider's must not take the builder down, and must not be silent either.
            span.failed(type(problem).__name__)
            LOG.exception("builder %s failed at %s", self._owner, pair_text(job.pair))
            error = BuildFailed(f"The build broke off: {type(problem).__name__}: {problem}", remedy="Please report it.")
        finally:
            keeper.end()
        if keeper.lost.is_set():
            # Whoever has the job now finds a delta that was published whole; anything less has been thrown away.
            LOG.warning("builder %s lost its lease on %s", self._owner, pair_text(job.pair))
        elif record is not None:
            span.note({"wave.bytes": record.bytes})
            self._finish(job, record, None, log=keeper.rest(f"--- ready: {record.bytes} bytes"))
        elif stop.is_set():
            stopped = "--- the builder was stopped; the job is taken up again"
            self._finish(job, None, "The builder was stopped.", log=keeper.rest(stopped), retry=True)
        else:
            assert error is not None
            self._failed(job, error, keeper)

    def _failed(self, job: BuildJob, error: WaveError, keeper: _Keeper) -> None:
        attempt = max(job.attempts, 1)
        LOG.warning("builder %s could not build %s: %s", self._owner, pair_text(job.pair), error)
        log = keeper.rest(f"--- try {attempt} failed: {error}")
        if isinstance(error, ContentUnavailable) and self._is_away():
            self._finish(job, None, str(error), log=log, retry=True)
            return
        if isinstance(error, ContentUnavailable) or attempt >= self._pace.tries:
            self._finish(job, None, str(error), log=log)
            return
        delay = self._pace.delay(attempt)
        stage = f"waiting for try {attempt + 1} of {self._pace.tries}"
        self._write(lambda w, now: w.renew_build(job.key, job.fence, until=now + delay, stage=stage, done=0.0, log=log))

    def _is_away(self) -> bool:
        """Whether the repository or its tools cannot be used at all just now."""
        try:
            self._provider.check()
        except ContentUnavailable:
            return True
        return False

    def _finish(
        self, job: BuildJob, record: DeltaRecord | None, error: str | None, *, log: str = "", retry: bool = False
    ) -> None:
        def write(w: Writing, now: datetime) -> bool:
            stage, done = ("publish", 1.0) if record else (job.stage, job.done)
            if log and not w.renew_build(
                job.key, job.fence, until=now + self._pace.lease, stage=stage, done=done, log=log
            ):
                return False
            return w.finish_build(job.key, job.fence, record, error, now=now, retry=retry)

        if not self._write(write):
            LOG.warning("builder %s lost its lease on %s at the very end", self._owner, pair_text(job.pair))
            return
        try:
            self._poke()
        except Exception:
            LOG.exception("builder %s could not wake the ticker; it looks again by itself", self._owner)

    def _write(self, change: Callable[[Writing, datetime], bool]) -> bool:
        """One writing session, tried again for about as long as the lease lasts. Raises what the store raised last."""
        for left in reversed(range(WRITE_TRIES)):
            try:
                with self._store.writing() as w:
                    return change(w, self._clock())
            except PASSING:
                if not left:
                    raise
                threading.Event().wait(self._pace.lease.total_seconds() / (2 * WRITE_TRIES))
        raise AssertionError("unreachable")

    def _sweep(self) -> None:
        """Remove what killed builds left behind. Builds go on without."""
        try:
            if removed := self._provider.sweep():
                LOG.info("removed %d things that killed builds left behind", removed)
        except WaveError as error:
            LOG.warning("builder %s could not sweep: %s", self._owner, error)


class _Keeper:
    """Keeps the lease of one job from a side thread and carries progress and log into the store.

    The thread that builds only ever touches memory here, so a slow database slows no build down. ``lost`` is set when
    the job went to another, or when the lease ran out because the store could not be reached.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime], job: BuildJob, lease: timedelta) -> None:
        self.lost = threading.Event()
        self._store = store
        self._clock = clock
        self._job = job
        self._lease = lease
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._length = 0
        self._stage = "generate"
        self._done = 0.0
        self._changed = False
        self._ended = threading.Event()
        # What it writes into the log belongs to the build.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=f"keeper-{job.key}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop renewing, and wait until the last renewal is through."""
        self._ended.set()
        self._thread.join()

    def progress(self, step: BuildProgress) -> None:
        """What the provider calls."""
        with self._lock:
            self._stage, self._done = step.stage, max(0.0, min(step.done, 1.0))
            self._changed = True
        if step.line is not None:
            self.say(step.line)

    def say(self, line: str) -> None:
        """A line for the log; what is too much is cut off, and says so."""
        line = line.rstrip("\n")
        with self._lock:
            if self._length > LOG_AT_MOST:
                return
            self._length += len(line) + 1
            self._lines.append(line if self._length <= LOG_AT_MOST else "--- more than fits here is left out")
            self._changed = True

    def rest(self, last: str) -> str:
        """What of the log is not in the store yet, with a last line that always fits."""
        with self._lock:
            lines, self._lines = [*self._lines, last], []
        return "\n".join(lines) + "\n"

    def _run(self) -> None:
        renew_every = self._lease / 3
        step = min(WRITE_EVERY, renew_every)
        until = self._clock() + self._lease
        since = timedelta(0)
        while not self._ended.wait(step.total_seconds()):
            since += step
            with self._lock:
                due = self._changed or since >= renew_every
                self._changed = False
                lines, stage, done = self._lines.copy(), self._stage, self._done
            if not due:
                continue
            log = "\n".join(lines) + "\n" if lines else ""
            now = self._clock()
            try:
                with self._store.writing() as w:
                    ours = w.renew_build(
                        self._job.key, self._job.fence, until=now + self._lease, stage=stage, done=done, log=log
                    )
            except WaveError as error:
                LOG.warning("the lease on %s could not be renewed: %s", pair_text(self._job.pair), error)
                self._changed = True
                if self._clock() >= until:
                    self.lost.set()
                    return
                continue
            if not ours:
                self.lost.set()
                return
            until, since = now + self._lease, timedelta(0)
            with self._lock:
                del self._lines[: len(lines)]
