"""Messages to people: asked for in the transaction of the decision, sent afterwards by whoever leases them.

What is asked for with a decision is there if and only if the decision is, and once: by rollout, journal entry and
destination. It is tried until the destination takes it, for a day, ever more seldom; then it is dead, and stays to be
seen and revived. A message is sent again only where its sender died, or was told of a failure, after the destination
had taken it; its id is the same then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol

from orchestrator.core.facts import Facts
from orchestrator.core.journal import Entry
from orchestrator.core.notices import Notice, On, notice
from orchestrator.core.policy import Policy
from orchestrator.core.states import POLICY, RolloutStatus
from orchestrator.errors import Busy, NotFound, WaveError
from orchestrator.services import following, tracing
from orchestrator.services.house_log import note, several
from orchestrator.services.notice_store import NoticeRow, Post, Wanted
from orchestrator.services.records import RolloutRow
from orchestrator.services.stops import stopping
from orchestrator.services.store import Store, Writing
from orchestrator.services.tracing import Span

LOG = logging.getLogger(__name__)

FIRST_PAUSE: Final = timedelta(seconds=15)
"""Between the first try and the second; twice as long after each further one."""

LONGEST_PAUSE: Final = timedelta(hours=1)

GIVE_UP_AFTER: Final = timedelta(days=1)
"""So long a message is tried."""

LEASE: Final = timedelta(minutes=5)
"""How long a sender that died keeps a message from being tried by another; longer than any try takes."""

NOTED_WITHIN: Final = 5
"""Times that a busy store is asked to note what became of a try."""

AT_ONCE: Final = 4
"""Destinations that are tried at the same time."""


class Sender(Protocol):
    """Reaches the destinations of an installation. Thread-safe."""

    def names(self) -> Collection[str]:
        """Raises InvalidFile, InvalidInput for destinations that cannot be read."""

    def send(self, destination: str, notice: Notice, *, link: str | None, at: datetime) -> None:
        """Hand it over; returns when the destination has taken it. Raises Unavailable with what went wrong and without
        any secret, NotFound for a name that is none. Gives up after half a minute by itself."""


@lru_cache(maxsize=256)
def _policy(canonical: str) -> Policy:
    return Policy.from_canonical(canonical)


def policy_of(row: RolloutRow) -> Policy:
    """The policy a rollout is bound to, from its own copy."""
    return _policy(row.policy)


def ask(w: Writing, row: RolloutRow, entries: Sequence[Entry], facts: Facts | None) -> None:
    """Ask for the messages that the rollout's policy wants about these journal entries. ``facts``: what the decision
    saw, where the machine decided."""
    if not entries:
        return
    policy = policy_of(row)
    if policy.notify is None:
        return
    for entry in entries:
        destinations = policy.told_of(entry.event, entry.by)
        if destinations:
            told = _notice(row, entry, facts)
            wanted = Wanted(row.key, f"journal {entry.seq}", told, entry.at, entry.at + GIVE_UP_AFTER)
            w.add_notices(wanted, destinations)


def _notice(row: RolloutRow, entry: Entry, facts: Facts | None) -> Notice:
    state = row.state
    wave = next((each for each in state.waves if each.wave == entry.wave), None)
    stopped = state.status in (RolloutStatus.HALTED, RolloutStatus.HELD) and facts is not None
    return notice(
        rollout=state.rollout,
        version=row.target_version,
        status=state.status,
        seq=entry.seq,
        digest=entry.hash,
        event=entry.event,
        by=entry.by,
        at=entry.at,
        sentence=entry.sentence,
        wave=entry.wave,
        wave_status=None if wave is None else wave.status,
        wave_held=wave is not None and wave.hold is not None,
        stopped_by=stopping(state, facts) if stopped and facts is not None else (),
        trace=tracing.carried(),
        awaits=entry.facts[On.AWAITED]["command"] if entry.event == On.AWAITED else None,
    )


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one round came to. ``next_at``: when the next message is to be tried; None: none waits."""

    sent: int = 0
    failed: int = 0
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Notices:
    """Sends what waits, and shows and revives it. ``url``: where people reach the console, without a slash at the end;
    ``chance``: a number in [0, 1), another one each time; ``together`` runs pieces of work side by side and returns
    when all have ended."""

    store: Store
    sender: Sender
    clock: Callable[[], datetime]
    url: str | None
    chance: Callable[[], float]
    together: Callable[[Sequence[Callable[[], bool]]], Sequence[bool]] = lambda work: [each() for each in work]

    def deliver(self, *, until: Callable[[], bool] = lambda: False) -> Delivered:
        """Try everything that is due, once each, a few destinations at a time; no further when ``until`` says so."""
        sent = failed = 0
        while not until() and (rows := self._lease()):
            ended = self.together([self._trial(row) for row in rows])
            sent += sum(ended)
            failed += len(ended) - sum(ended)
        return Delivered(sent, failed, self.next_at())

    def next_at(self) -> datetime | None:
        with self.store.reading() as r:
            return r.next_notice_at()

    def _lease(self) -> Sequence[NoticeRow]:
        now = self.clock()
        with self.store.writing() as w:
            return w.lease_notices(now=now, until=now + LEASE, limit=AT_ONCE)

    def _trial(self, row: NoticeRow) -> Callable[[], bool]:
        return lambda: self._try(row)

    def _try(self, row: NoticeRow) -> bool:
        about = {
            "wave.destination": row.destination,
            "wave.rollout": row.notice.rollout,
            "wave.event": row.notice.event,
        }
        with following.work("delivery", {**about, "wave.attempt": row.attempts}, parent=row.notice.trace) as span:
            return self._tried(row, span)

    def _tried(self, row: NoticeRow, span: Span) -> bool:
        try:
            self.sender.send(row.destination, row.notice, link=self._link(row.notice), at=self.clock())
            error = None
        except WaveError as refused:
            error = str(refused)
        except Exception as fault:
            # Another's text may hold anything, a password too: its kind must do.
            error = f"a fault in sending: {type(fault).__name__}"
        now = self.clock()
        status, at = (Post.SENT, now) if error is None else self._after_failure(row, now)
        self._note(row, status, error, at)
        if error is not None:
            span.failed(error)
            what = "is dead" if status is Post.DEAD else f"is tried again at {at:%H:%M:%S}"
            LOG.warning("message %d to %s %s: %s", row.key, row.destination, what, error)
        return error is None

    def _note(self, row: NoticeRow, status: Post, error: str | None, at: datetime) -> None:
        """What is not noted is sent twice: a store that is busy is asked again."""
        for left in reversed(range(NOTED_WITHIN)):
            try:
                with self.store.writing() as w:
                    w.end_notice(row.key, row.attempts, status, error, at=at)
                return
            except Busy:
                if not left:
                    raise

    def _after_failure(self, row: NoticeRow, now: datetime) -> tuple[Post, datetime]:
        if now >= row.give_up_at:
            return Post.DEAD, now
        # The last try is made when the time is over, not before.
        return Post.WAITING, min(now + pause_after(row.attempts, self.chance()), row.give_up_at)

    def _link(self, told: Notice) -> str | None:
        return None if self.url is None else f"{self.url}/rollouts/{told.rollout}"

    # ------------------------------------------------------------------------------------------ for people

    def destinations(self) -> Sequence[str]:
        """Raises InvalidFile, InvalidInput."""
        return sorted(self.sender.names())

    def list(
        self,
        *,
        statuses: Collection[Post] | None = None,
        rollout: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> Sequence[NoticeRow]:
        """Newest first; those that follow the one with the key ``after``. Raises NotFound for a rollout that is not
        there."""
        with self.store.reading() as r:
            if rollout is not None and r.rollout(rollout) is None:
                raise NotFound(f"There is no rollout {rollout}.", remedy="`wave list` shows them all.")
            return r.notices(statuses=statuses, rollout=rollout, after=after, limit=limit)

    def counts(self) -> dict[Post, int]:
        with self.store.reading() as r:
            return r.count_notices()

    def retry(self, keys: Sequence[int] = (), *, by: str = POLICY) -> int:
        """Try these once more, or all that are dead or wait; for a day again. How many. Raises NotFound."""
        now = self.clock()
        with self.store.writing() as w:
            many = w.revive_notices(keys or None, now=now, give_up_at=now + GIVE_UP_AFTER)
            if many:
                whom = several([str(key) for key in keys]) or "all that wait"
                note(w, now, "messages_retried", whom, f"had {many} messages tried again", by=by)
        if keys and not many:
            raise NotFound("None of these is dead or waits.", remedy="`wave notify list` shows all.")
        return many

    def test(self, destination: str, *, by: str = POLICY) -> None:
        """Send a message that says that it is a test. Raises NotFound, Unavailable."""
        now = self.clock()
        self.sender.send(destination, _test_notice(now), link=self.url, at=now)
        with self.store.writing() as w:
            note(w, now, "message_tested", destination, f"sent a test to {destination}", by=by)


def pause_after(attempts: int, chance: float) -> timedelta:
    """How long to wait after so many failed tries: half to one and a half times 15 s, 30 s, 1 min … 1 h. ``chance`` in
    [0, 1) spreads those that failed together."""
    steady: timedelta = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempts - 1, 20))
    return steady * (0.5 + chance)


def _test_notice(now: datetime) -> Notice:
    return Notice(
        id=f"test-{int(now.timestamp() * 1_000_000)}",
        rollout="test",
        version=0,
        seq=0,
        event="test",
        wave=None,
        by="policy",
        at=f"{now:%Y-%m-%d %H:%M:%S} UTC",
        status="test",
        wave_status=None,
        title="A test of wave's messages",
        sentence="This is a test: somebody typed `wave notify test`.",
        meaning="Messages reach you. Nothing has happened.",
        commands=("wave notify list",),
    )
