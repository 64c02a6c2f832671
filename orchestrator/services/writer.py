"""The one thread that writes on the path of devices: many small works, one transaction, one commit.

Callers hand in an item and get a future; the thread takes everything that waits, runs it in one ``store.writing()`` and
resolves the futures only after the commit: what was acknowledged is on the disk. When a batch fails its items are tried
one by one, so that one bad item fails alone; when the store itself cannot be had, all of them are told. Idle check-ins
leave only their time behind (``touch``), written once a second, with a batch where there is one just then.

Answers for: order, bounds, atomicity, acknowledgement. Not for: what an item means (``Work.run`` does).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from orchestrator.errors import Busy, Conflict, StoreUnavailable, WaveError
from orchestrator.services import tracing
from orchestrator.services.store import Store, Writing

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

CONFLICT_TRIES: Final = 5
"""How often an item alone is tried when other writers keep getting in its way."""

MOST_AT_ONCE: Final = 1_000
"""Weight of what one transaction takes."""

MOST_UNSEEN: Final = 200_000
"""Times of idle check-ins kept while the store cannot be written; more are forgotten, they are only a hint."""


FAILING_FOR: Final = timedelta(seconds=30)
"""How long a write that found no store counts as the state of things, while nobody tries another."""


@dataclass(slots=True)
class Batch:
    """One transaction under way. ``now`` was read inside it; ``after`` runs once it has committed, before anybody is
    told. ``saved``: keys of devices whose last sight is written already. ``locked``: the rollouts that the works named
    beforehand; none may touch another, because it would be locked out of turn."""

    w: Writing
    now: datetime
    locked: frozenset[int] = frozenset()
    after: list[Callable[[], None]] = field(default_factory=list)
    saved: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Work(Generic[Item, Result]):
    """A kind of work. ``run`` gets all items of this kind in a batch at once, in the order they came, and gives a
    result or an error for each. Kinds of lower ``rank`` go first: reports before check-ins, so that a halt that a
    report proves stands before the next offer. ``rollouts`` names those that ``run`` may offer or count anything of:
    the writer locks those of all kinds together, by rising key, before the first of them runs."""

    name: str
    rank: int
    run: Callable[[Batch, Sequence[Item]], Sequence[Result | WaveError]]
    rollouts: Callable[[Batch, Sequence[Item]], Collection[int]] = lambda batch, items: ()


@dataclass(slots=True)
class _Waiting:
    work: Work[Any, Any]
    item: Any
    weight: int
    future: Future[Any]


class Writer:
    """Owns write transactions on the device path. Its thread begins with the first work; ``close`` lets it finish what
    waits.

    ``most_waiting`` and ``most_at_once`` are sums of weights; over the first a caller is told Busy at once. ``between``
    is called in the thread after each batch, and at least every ``touch_every``.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime],
        most_waiting: int = 20_000,
        most_at_once: int = MOST_AT_ONCE,
        touch_every: timedelta = timedelta(seconds=1),
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self.most_waiting = most_waiting
        self._most_at_once = most_at_once
        self._touch_every = touch_every
        self._between = between
        self._guard = threading.Lock()
        self._change = threading.Condition(self._guard)
        self._queue: deque[_Waiting] = deque()
        self._weight = 0
        self._seen: dict[int, tuple[datetime, timedelta]] = {}
        self._touched_at: datetime | None = None
        self._failed_at: datetime | None = None
        self._closing = False
        self._ended = False
        self._thread: threading.Thread | None = None
        self.batches = 0
        self.items = 0

    def start(self) -> None:
        """Begin the thread; done by itself with the first work."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="writer", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Finish what waits, then end. Idempotent."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether work handed in now will be done."""
        return not (self._closing or self._ended)

    @property
    def failing(self) -> bool:
        """Whether the last write, not long ago, found no store to write to: a full disk, a database that is gone. After
        ``FAILING_FOR`` without another it is no more known, so that who asks first tries again."""
        at = self._failed_at
        return at is not None and timedelta(0) <= self._clock() - at < FAILING_FOR

    def heard(self, error: WaveError | None) -> None:
        """What became of a write elsewhere in this process, such as the heartbeat: it tells of the same store."""
        if error is None:
            self._note_success()
        else:
            self._note_failure(error)

    @property
    def waiting(self) -> int:
        """The weight of what waits now."""
        return self._weight

    def submit(self, work: Work[Item, Result], item: Item, *, weight: int = 1) -> Future[Result]:
        """Hand in an item. Raises Busy when too much waits already, or the writer is closing or has ended."""
        future: Future[Result] = Future()
        with self._guard:
            if not self.alive:
                raise Busy("The server is shutting down.", remedy="Ask again in a minute.")
            if self._weight + weight > self.most_waiting and self._queue:
                raise Busy("Too many devices are writing at once.", remedy="Ask again in a few seconds.")
            self._weight += weight
            self._queue.append(_Waiting(work, item, weight, future))
            self.start()
            if len(self._queue) == 1:
                self._change.notify()
        return future

    def touch(self, device_key: int, at: datetime, usual_gap: timedelta) -> None:
        """Note that a device was seen, soon. Never blocks on the store."""
        with self._guard:
            if len(self._seen) < MOST_UNSEEN:
                self.start()
                self._seen[device_key] = (at, usual_gap)

    def _live(self) -> None:
        try:
            self._write()
        finally:
            self._ended = True  # asked with every report; the thread itself would take a lock to tell

    def _write(self) -> None:
        while True:
            with self._change:
                if not self._queue and not self._closing:
                    self._change.wait(self._touch_every.total_seconds())
                batch = self._take()
                ending = self._closing and not self._queue and not batch
            if batch:
                self._commit(batch)
            else:
                self._touch_only()
            try:
                self._between()
            except Exception:
                _log.exception("something failed between two batches")
            if ending:
                return

    def _take(self) -> list[_Waiting]:
        """The next batch, from the front of the queue."""
        batch: list[_Waiting] = []
        weight = 0
        while self._queue and (not batch or weight + self._queue[0].weight <= self._most_at_once):
            one = self._queue.popleft()
            weight += one.weight
            batch.append(one)
        self._weight -= weight
        return batch

    def _commit(self, batch: list[_Waiting], tries: int = 1) -> None:
        try:
            with tracing.span("write", {"wave.items": len(batch)}, parent=""):
                results = self._attempt(batch)
        except (StoreUnavailable, Busy) as error:
            self._note_failure(error)
            for one in batch:
                one.future.set_exception(error)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._commit([one])
            elif isinstance(error, Conflict) and tries < CONFLICT_TRIES:
                self._commit(batch, tries + 1)
            else:
                if not isinstance(error, WaveError):
                    _log.exception("an item of %s failed", batch[0].work.name)
                batch[0].future.set_exception(error)
        else:
            for one, result in zip(batch, results, strict=True):
                if isinstance(result, WaveError):
                    one.future.set_exception(result)
                else:
                    one.future.set_result(result)

    def _attempt(self, batch: list[_Waiting]) -> list[Any]:
        """Run all in one transaction; the results are good only when it has committed."""
        groups: dict[Work[Any, Any], list[int]] = {}
        for index, one in enumerate(batch):
            groups.setdefault(one.work, []).append(index)
        results: list[Any] = [None] * len(batch)
        seen = self._swap_seen() if self._touches() else {}
        try:
            with self._store.writing() as w:
                locked = self._lock(w, batch, groups)
                # The clock is read once nobody else decides: what follows is later than all it sees.
                under_way = Batch(w, self._clock(), locked)
                for work in sorted(groups, key=lambda each: each.rank):
                    indexes = groups[work]
                    found = work.run(under_way, [batch[index].item for index in indexes])
                    for index, result in zip(indexes, found, strict=True):
                        results[index] = result
                # last, as devices come last in everybody's order of locks
                if unseen := {key: when for key, when in seen.items() if key not in under_way.saved}:
                    w.touch(unseen)
        except BaseException:
            self._give_back(seen)
            raise
        self._forget_seen(under_way)
        self._note_success()
        self.batches += 1
        self.items += len(batch)
        for then in under_way.after:
            try:
                then()
            except Exception:
                _log.exception("something failed after a commit")
        return results

    def _lock(self, w: Writing, batch: list[_Waiting], groups: Mapping[Work[Any, Any], list[int]]) -> frozenset[int]:
        asking = Batch(w, self._clock())
        keys: set[int] = set()
        for work, indexes in groups.items():
            keys.update(work.rollouts(asking, [batch[index].item for index in indexes]))
        for key in sorted(keys):
            w.lock_rollout(key)
        return frozenset(keys)

    def _touches(self) -> bool:
        """Whether it is time to write when devices were seen; also when the clock was set back."""
        at = self._touched_at
        return at is None or not timedelta(0) <= self._clock() - at < self._touch_every

    def _swap_seen(self) -> dict[int, tuple[datetime, timedelta]]:
        self._touched_at = self._clock()
        with self._change:
            seen, self._seen = self._seen, {}
        return seen

    def _forget_seen(self, batch: Batch) -> None:
        """What is still to be written of devices that the batch saved as it saw them later."""
        with self._change:
            for key in batch.saved & self._seen.keys():
                if self._seen[key][0] <= batch.now:
                    del self._seen[key]

    def _give_back(self, seen: dict[int, tuple[datetime, timedelta]]) -> None:
        with self._change:
            if len(seen) + len(self._seen) < MOST_UNSEEN:
                self._seen = {**seen, **self._seen}

    def _touch_only(self) -> None:
        seen = self._swap_seen()
        if not seen:
            return
        try:
            with self._store.writing() as w:
                w.touch(seen)
        except WaveError as error:
            self._give_back(seen)
            if not self._note_failure(error):
                _log.warning("when devices were seen could not be written: %s", error)
        except Exception:
            _log.exception("when devices were seen could not be written")
        else:
            self._note_success()

    def _note_failure(self, error: WaveError) -> bool:
        """Whether the store is not there. That is said once, and not with every second that it lasts."""
        if not isinstance(error, StoreUnavailable):
            return False
        if self._failed_at is None:
            _log.error("nothing of devices can be written: %s They are told to come again later.", error)
        self._failed_at = self._clock()
        return True

    def _note_success(self) -> None:
        if self._failed_at is not None:
            self._failed_at = None
            _log.info("what devices say is written again")
