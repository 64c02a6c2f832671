"""One device's attempt at one rollout: what a report, a check-in or the clock makes of it, and what enters the tallies.

Everything here is a pure step ``Update -> Step``; whoever stores an update adds the step's ``Counts`` in the same
transaction. What an update counts is a function of its course as it stands (``counted``), and a step adds the
difference: so the tallies always equal a recount. Reports and the clock need no more than the course, so that whoever
has many of them need read no more. A device adds at most one bad outcome per class and at most one resolution to a
rollout, whatever is sent, resent, reordered or retried (P10), because ``bad`` and ``resolved`` only ever grow.

* Only a check-in that runs the Target's commit confirms; a success event means ``applied`` (RULES 3.5).
* A failure is never overturned; a confirmation is, once, by a later failure, rollback or silence (RULES 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, Generic, NamedTuple, Self, TypeVar

from orchestrator.core.course import (
    NOTHING,
    UNDER_WAY,
    UPDATE_MEANING,
    Counts,
    Course,
    UpdateStatus,
    counted,
    course_values,
    difference,
)
from orchestrator.core.outcomes import Outcome, OutcomeClass

__all__ = [
    "IGNORED_AFTER",
    "KINDS_OF_FAILURE",
    "LOOKS_IN_A_PATIENCE",
    "STOPPABLE",
    "UNDER_WAY",
    "UPDATE_MEANING",
    "Counts",
    "Course",
    "EventKind",
    "Patience",
    "Step",
    "Taken",
    "Update",
    "UpdateStatus",
    "comes_back",
    "counted",
    "difference",
    "offer",
    "offer_again",
    "on_check_in",
    "on_deadline",
    "on_event",
    "retire",
    "retired",
    "retry",
    "withdraw",
]


class EventKind(StrEnum):
    """What a device may report."""

    __hash__ = str.__hash__

    DOWNLOADING = "downloading"
    DOWNLOAD_FAILED = "download_failed"
    INSTALLING = "installing"
    APPLIED = "applied"
    FAILED = "failed"
    VERIFY_FAILED = "verify_failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"
    """It was told to stop, has stopped, and runs what it had."""
    REFUSED = "refused"
    """It will not have the Target, though nobody told it to stop."""
    NOTED = "noted"
    """It said something that changes nothing."""


KINDS_OF_FAILURE: Final[Mapping[EventKind, OutcomeClass]] = {
    EventKind.FAILED: OutcomeClass.FAILED,
    EventKind.VERIFY_FAILED: OutcomeClass.VERIFY_FAILED,
    EventKind.ROLLED_BACK: OutcomeClass.ROLLED_BACK,
    EventKind.DOWNLOAD_FAILED: OutcomeClass.DOWNLOAD_FAILED,
}
"""The events that a class may be given to; ``core.codes`` says which."""

IGNORED_AFTER: Final = 3
"""Check-ins after an offer, without a start, that make a device count as ignoring it (RULES 3.7)."""

LOOKS_IN_A_PATIENCE: Final = 100
"""Moments within a patience at which confirmed devices may be looked at."""

_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)


_PROGRESS: Final[Mapping[EventKind, UpdateStatus]] = {
    EventKind.DOWNLOADING: UpdateStatus.DOWNLOADING,
    EventKind.INSTALLING: UpdateStatus.INSTALLING,
    EventKind.APPLIED: UpdateStatus.APPLIED,
}

_RANK: Final[Mapping[UpdateStatus, int]] = {
    UpdateStatus.WITHDRAWN: 0,
    UpdateStatus.OFFERED: 1,
    UpdateStatus.DOWNLOADING: 2,
    UpdateStatus.INSTALLING: 3,
    UpdateStatus.APPLIED: 4,
}
"""Progress only goes up: an event that comes late changes nothing."""

_BEYOND: Final = 5
"""The rank of what progress does not reach."""

_ENDED: Final = frozenset({UpdateStatus.FAILED, UpdateStatus.ROLLED_BACK, UpdateStatus.SILENT, UpdateStatus.IGNORED})
"""A bad end is never overturned (RULES 3.4); only a retry leaves it."""

STOPPABLE: Final = frozenset({UpdateStatus.OFFERED, UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING})
"""What a device can still stop; later it has written the Target."""

_AT_REST: Final = _ENDED | {UpdateStatus.WITHDRAWN, UpdateStatus.RETIRED}
"""Here a device that does not run the Target says nothing by what it runs."""


class Patience(NamedTuple):
    """How long silence is borne: ``silent_after`` of the policy, at least three times the device's usual gap between
    check-ins."""

    silent_after: timedelta
    usual_gap: timedelta = timedelta(0)

    @property
    def length(self) -> timedelta:
        return _length(*self)

    def after(self, start: datetime) -> datetime:
        """When it has passed; those who speak together share the moment."""
        return _sum(start, _length(*self))


@lru_cache(maxsize=4_096)
def _sum(start: datetime, length: timedelta) -> datetime:
    return start + length


@lru_cache(maxsize=4_096)
def _length(silent_after: timedelta, usual_gap: timedelta) -> timedelta:
    return max(silent_after, 3 * usual_gap)


@dataclass(slots=True, unsafe_hash=True, kw_only=True)
class Update(Course):
    """The facts of one update that its steps depend on: its course, and what the offer said.

    ``check_ins`` since the offer without a start, at which the offer was repeated.
    """

    offered_at: Final[datetime]
    from_commit: Final[str | None]
    to_commit: Final[str]
    check_ins: Final[int] = 0
    tries: Final[int] = 1

    def come_to(self, course: Course) -> Self:
        return type(self)(
            *course_values(course),
            offered_at=self.offered_at,
            from_commit=self.from_commit,
            to_commit=self.to_commit,
            check_ins=self.check_ins,
            tries=self.tries,
        )


Taken = TypeVar("Taken", bound=Course)
"""What a step is made on: a whole update, or its course alone."""


class Step(NamedTuple, Generic[Taken]):
    """An update after something happened, and what that counts. ``changed`` False: nothing to write."""

    update: Taken
    counts: Counts = NOTHING
    changed: bool = True


def offer(*, from_commit: str | None, to_commit: str, patience: Patience, now: datetime) -> Step[Update]:
    """A device is admitted."""
    until = now + patience.length
    update = Update(UpdateStatus.OFFERED, until, offered_at=now, from_commit=from_commit, to_commit=to_commit)
    return Step(update, counted(update))


def offer_again(
    update: Update, *, from_commit: str | None, patience: Patience, now: datetime, to_commit: str | None = None
) -> Step[Update]:
    """An offer that was withdrawn, or whose device had left, is given again; place and outcomes stay.

    ``to_commit`` where the device's hardware id now has another one."""
    return _step(
        update,
        replace(
            update,
            status=UpdateStatus.OFFERED,
            offered_at=now,
            from_commit=from_commit,
            to_commit=to_commit or update.to_commit,
            deadline_at=now + patience.length,
            installing_at=None,
            confirmed_at=None,
            check_ins=0,
        ),
    )


def retry(update: Update, *, patience: Patience, now: datetime) -> Step[Update]:
    """A person lets a device with a bad outcome try once more; what was counted stays counted (RULES 7.5). The new try
    has its own time, so that it comes to an end too."""
    return _step(
        update,
        replace(
            update,
            status=UpdateStatus.OFFERED,
            offered_at=now,
            deadline_at=now + patience.length,
            installing_at=None,
            confirmed_at=None,
            recovered_at=None,
            check_ins=0,
            tries=update.tries + 1,
        ),
    )


def on_event(
    update: Taken, kind: EventKind, *, patience: Patience, now: datetime, outcome: Outcome | None = None
) -> Step[Taken]:
    """The device reported ``kind``; ``now`` is the moment of receipt. Of a retired device nothing counts. ``outcome``:
    the class that a failure counts in; None: that of its kind, where a failed verification is a failure."""
    if update.status is UpdateStatus.RETIRED:
        return Step(update, changed=False)
    match kind:
        case EventKind.DOWNLOADING | EventKind.INSTALLING | EventKind.APPLIED:
            after = _progress(update, _PROGRESS[kind], patience=patience, now=now)
        case EventKind.FAILED | EventKind.VERIFY_FAILED:
            after = _bad(_begun(update, now), outcome or OutcomeClass.FAILED, UpdateStatus.FAILED)
        case EventKind.ROLLED_BACK:
            after = _bad(_begun(update, now), outcome or OutcomeClass.ROLLED_BACK, UpdateStatus.ROLLED_BACK)
        case EventKind.DOWNLOAD_FAILED:
            outcome = outcome or OutcomeClass.DOWNLOAD_FAILED
            after = _download_failed(_begun(update, now), outcome, patience=patience, now=now)
        case EventKind.CANCELLED:
            after = _cancelled(update)
        case EventKind.REFUSED:
            after = _refused(update)
        case EventKind.NOTED:
            after = update
    return _step(update, after)


def on_check_in(
    update: Update, *, running: str | None, patience: Patience, now: datetime, repeated: bool = True
) -> Step[Update]:
    """The device asked and said which commit it runs (None: it could not say). ``repeated``: the offer may still be
    given, so that coming back without a start says something (RULES 3.7)."""
    if running == update.to_commit:
        return _step(update, _running_target(update, patience=patience, now=now))
    if update.status in _AT_REST:
        return Step(update, changed=False)
    if running is not None:
        if update.status is UpdateStatus.CONFIRMED:
            if update.bad_outcome:
                return Step(update, changed=False)  # a retry that had succeeded: its outcomes are counted
            # It ran the Target and runs something else now: back to the old one is a rollback, a third is a departure.
            if running == update.from_commit:
                return _step(update, _bad(update, OutcomeClass.ROLLED_BACK, UpdateStatus.ROLLED_BACK))
            return _step(update, _left(update))
        if update.from_commit is not None and running != update.from_commit:
            return _step(update, _left(update))
    if update.status is UpdateStatus.OFFERED and repeated:
        # Not started in this try, whatever it did in one before.
        seen = replace(update, check_ins=update.check_ins + 1)
        over = seen.check_ins >= IGNORED_AFTER
        return _step(update, _bad(seen, OutcomeClass.IGNORED, UpdateStatus.IGNORED) if over else seen)
    return Step(update, changed=False)


def comes_back(update: Update, every: timedelta, now: datetime) -> bool:
    """Whether a look by a device that is to look once in ``every`` says that it came back without a start. Clients that
    look several times before they begin say so once in that time."""
    return now >= update.offered_at + (update.check_ins + 1) * every


def on_deadline(
    update: Taken, *, last_seen_at: datetime | None, patience: Patience, now: datetime, ended_at: datetime | None = None
) -> Step[Taken]:
    """The update's deadline has passed. ``ended_at``: since when the rollout is completed.

    A confirmed device is watched until its rollout ends (RULES 3.4): seen within its patience, it is looked at again
    when that has passed once more. Who confirms later is looked at once.

    Whose download has failed, and who is still seen, is not silent: its offer is taken back, so that it holds no part
    of the pace, and is given again when it asks and its turn is there."""
    if update.deadline_at is None or now < update.deadline_at:
        return Step(update, changed=False)
    if update.confirmed_at is not None:
        heard = last_seen_at is not None and last_seen_at > update.confirmed_at
        if ended_at is not None and (heard or update.confirmed_at <= ended_at):
            return _step(update, replace(update, deadline_at=None))
        if last_seen_at is not None and heard and last_seen_at + patience.length > now:
            return _step(update, replace(update, deadline_at=_watched_until(last_seen_at, patience)))
    if last_seen_at is not None and (extended := last_seen_at + patience.length) > now:
        if update.status is UpdateStatus.OFFERED:
            # Heard of since the offer: it comes back without starting, which is for `ignored` to judge.
            return _step(update, replace(update, deadline_at=extended))
        if update.status is UpdateStatus.DOWNLOADING and update.bad and not update.ended:
            # A download failed and no other has come to anything: it speaks, and has nothing to install.
            return _step(update, replace(update, status=UpdateStatus.WITHDRAWN, deadline_at=None))
    return _step(update, _bad(update, OutcomeClass.SILENT, UpdateStatus.SILENT))


def _watched_until(seen_at: datetime, patience: Patience) -> datetime:
    """When to look at a confirmed device again: rounded up to a hundredth of the patience, so that however many are
    watched, they are due at few moments."""
    ends, step = seen_at + patience.length, patience.length / LOOKS_IN_A_PATIENCE
    over = (ends - _EPOCH) % step if step else step
    return ends + (step - over) if over else ends


def withdraw(update: Taken) -> Step[Taken]:
    """Take the offer back from a device that has not started, in this try; one that has may finish."""
    if update.status is not UpdateStatus.OFFERED:
        return Step(update, changed=False)
    return _step(update, replace(update, status=UpdateStatus.WITHDRAWN, deadline_at=None))


def retire(update: Taken) -> Step[Taken]:
    """Its device is retired and leaves the denominators (RULES 7.7): what has come to no outcome never will, and what
    has is not watched any more. Taken back into the fleet, the device is offered the Target again, at its place."""
    ends = update.status in _RANK or (update.status is UpdateStatus.LEFT and not update.resolved)
    return _step(update, replace(update, status=UpdateStatus.RETIRED if ends else update.status, deadline_at=None))


def retired(*, from_commit: str | None, to_commit: str, now: datetime) -> Step[Update]:
    """A device with a place is retired before it had its offer: the place is kept, and waits for nobody."""
    update = Update(UpdateStatus.RETIRED, None, offered_at=now, from_commit=from_commit, to_commit=to_commit)
    return Step(update, counted(update))


def _step(before: Taken, after: Taken) -> Step[Taken]:
    if after is before or (after.status is before.status and after == before):
        return Step(before, changed=False)
    return Step(after, difference(before, after))


def _begun(update: Taken, now: datetime) -> Taken:
    """Whatever it says, it speaks: a first report is the start, and a withdrawn device that started counts again."""
    return update if update.started_at is not None else replace(update, started_at=now)


def _bad(update: Taken, outcome: Outcome, status: UpdateStatus) -> Taken:
    if update.status is UpdateStatus.ROLLED_BACK and status is UpdateStatus.FAILED:
        status = update.status  # whichever of the two was heard first: going back says more
    bad = update.bad | {outcome}
    return replace(update, status=status, bad=bad, resolved=True, deadline_at=None, ended=True)


def _download_failed(update: Taken, outcome: Outcome, *, patience: Patience, now: datetime) -> Taken:
    """No end: the device may try again, and is offered again when it asks and may be. It counts whenever it is heard,
    and takes back no progress: it may have been overtaken by what came after it. It has as long again to begin, or to
    say that it failed once more."""
    update = replace(update, bad=update.bad | {outcome})
    if update.status not in (UpdateStatus.OFFERED, UpdateStatus.DOWNLOADING):
        return update
    return replace(update, status=UpdateStatus.DOWNLOADING, deadline_at=now + patience.length)


def _cancelled(update: Taken) -> Taken:
    """As ``withdraw``, also of one that has started: an outcome would be of our making. What is written already cannot
    be taken back by a word."""
    if update.status not in STOPPABLE:
        return update
    return replace(update, status=UpdateStatus.WITHDRAWN, deadline_at=None)


def _refused(update: Taken) -> Taken:
    """It counts as ignoring the offer at once, instead of after three check-ins; beside a bad end of another kind, and
    beside a confirmation, too, because what a device says may come in any order. Of one that is withdrawn it says
    nothing."""
    if update.status in _ENDED:
        return replace(update, bad=update.bad | {OutcomeClass.IGNORED})
    if update.status not in STOPPABLE and update.status not in (UpdateStatus.APPLIED, UpdateStatus.CONFIRMED):
        return update
    return _bad(update, OutcomeClass.IGNORED, UpdateStatus.IGNORED)


def _progress(update: Taken, status: UpdateStatus, *, patience: Patience, now: datetime) -> Taken:
    if _RANK[status] <= _RANK.get(update.status, _BEYOND):
        return _begun(update, now)
    # Silence runs from `installing`; before it, from what was heard last.
    installing = update.installing_at
    if installing is None and status is not UpdateStatus.DOWNLOADING:
        installing = now
    until = patience.after(installing or now)
    begun = update.started_at or now
    # Nearly every report is one of these: the course is made at once, which takes a tenth of `replace`.
    confirmed, resolved, recovered = update.confirmed_at, update.resolved, update.recovered_at
    return update.come_to(
        Course(status, until, begun, installing, confirmed, resolved, recovered, update.bad, update.ended)
    )


def _running_target(update: Update, *, patience: Patience, now: datetime) -> Update:
    if update.confirmed_at is not None:
        if update.status is not UpdateStatus.LEFT:
            return update
        # Back from a departure: watched again, unless nothing more of it could count.
        until = None if update.bad_outcome else _watched_until(now, patience)
        return replace(update, status=UpdateStatus.CONFIRMED, deadline_at=until)
    after = replace(update, confirmed_at=now, started_at=update.started_at or now)
    if update.bad_outcome:
        status = update.status if update.status in _ENDED else UpdateStatus.CONFIRMED
        return replace(after, status=status, recovered_at=now, deadline_at=None)
    # A device that confirms and then falls dark is silent after all.
    until = _watched_until(now, patience)
    return replace(after, status=UpdateStatus.CONFIRMED, resolved=True, deadline_at=until)


def _left(update: Taken) -> Taken:
    return replace(update, status=UpdateStatus.LEFT, deadline_at=None)
