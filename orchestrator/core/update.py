"""One device's attempt at one rollout: what a report, a check-in or the clock makes of it, and what enters the tallies.

Everything here is a pure step ``Update -> Step``; whoever stores an update adds the step's ``Counts`` in the same
transaction. What an update counts is a function of the update as it stands (``counted``), and a step adds the
difference:
so the tallies always equal a recount. A device adds at most one bad outcome per class and at most one resolution to a
rollout, whatever is sent, resent, reordered or retried (P10), because ``bad`` and ``resolved`` only ever grow.

* Only a check-in that runs the Target's commit confirms; a success event means ``applied`` (RULES 3.5).
* A failure is never overturned; a confirmation is, once, by a later failure, rollback or silence (RULES 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple

from orchestrator.core.outcomes import OutcomeClass


class UpdateStatus(StrEnum):
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    APPLIED = "applied"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SILENT = "silent"
    IGNORED = "ignored"
    LEFT = "left"
    WITHDRAWN = "withdrawn"
    RETIRED = "retired"


class EventKind(StrEnum):
    """What a device may report."""

    DOWNLOADING = "downloading"
    DOWNLOAD_FAILED = "download_failed"
    INSTALLING = "installing"
    APPLIED = "applied"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


UPDATE_MEANING: Final[Mapping[UpdateStatus, str]] = {
    UpdateStatus.OFFERED: "Told of the Target, not started.",
    UpdateStatus.DOWNLOADING: "Fetching the content.",
    UpdateStatus.INSTALLING: "Writing it.",
    UpdateStatus.APPLIED: "Written, waiting for the reboot.",
    UpdateStatus.CONFIRMED: "Runs the Target and says so.",
    UpdateStatus.FAILED: "Said that it could not.",
    UpdateStatus.ROLLED_BACK: "Went back to what it had.",
    UpdateStatus.SILENT: "Nothing that counts was heard in time.",
    UpdateStatus.IGNORED: "Came back three times and never started.",
    UpdateStatus.LEFT: "Runs something that is neither the old nor the new commit.",
    UpdateStatus.WITHDRAWN: "The offer was taken back before it started.",
    UpdateStatus.RETIRED: "Its device was retired before it came to an outcome.",
}

IGNORED_AFTER: Final = 3
"""Check-ins after an offer, without a start, that make a device count as ignoring it (RULES 3.7)."""

LOOKS_IN_A_PATIENCE: Final = 100
"""Moments within a patience at which confirmed devices may be looked at."""

_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)

_BAD_STATUS: Final[Mapping[OutcomeClass, UpdateStatus]] = {
    OutcomeClass.FAILED: UpdateStatus.FAILED,
    OutcomeClass.ROLLED_BACK: UpdateStatus.ROLLED_BACK,
    OutcomeClass.SILENT: UpdateStatus.SILENT,
    OutcomeClass.IGNORED: UpdateStatus.IGNORED,
}

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

_ENDED: Final = frozenset(_BAD_STATUS.values())
"""A bad end is never overturned (RULES 3.4); only a retry leaves it."""

_AT_REST: Final = _ENDED | {UpdateStatus.WITHDRAWN, UpdateStatus.RETIRED}
"""Here a device that does not run the Target says nothing by what it runs."""

UNDER_WAY: Final = frozenset({UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING, UpdateStatus.APPLIED})
"""Started and not come to an end."""


class Patience(NamedTuple):
    """How long silence is borne: ``silent_after`` of the policy, at least three times the device's usual gap between
    check-ins."""

    silent_after: timedelta
    usual_gap: timedelta = timedelta(0)

    @property
    def length(self) -> timedelta:
        return max(self.silent_after, 3 * self.usual_gap) if self.usual_gap else self.silent_after


@dataclass(slots=True, unsafe_hash=True)
class Update:
    """The facts of one update that its steps depend on.

    ``bad`` holds the classes already counted; ``resolved`` whether an outcome was counted; ``confirmed_at`` when it was
    first seen running the Target in this try; ``deadline_at`` when silence counts, None when it no longer can;
    ``check_ins`` since the offer without a start, at which the offer was repeated.

    Its fields are final for the type checker only: made ``frozen`` it takes ten times as long to make, and every report
    makes two.
    """

    status: Final[UpdateStatus]
    offered_at: Final[datetime]
    from_commit: Final[str | None]
    to_commit: Final[str]
    deadline_at: Final[datetime | None]
    started_at: Final[datetime | None] = None
    installing_at: Final[datetime | None] = None
    confirmed_at: Final[datetime | None] = None
    resolved: Final[bool] = False
    recovered_at: Final[datetime | None] = None
    bad: Final[frozenset[OutcomeClass]] = frozenset()
    check_ins: Final[int] = 0
    tries: Final[int] = 1

    @property
    def started(self) -> bool:
        return self.started_at is not None

    @property
    def under_way(self) -> bool:
        """Started, and neither at an end nor gone elsewhere: nothing else is offered to the device meanwhile."""
        return self.status in UNDER_WAY

    @property
    def counts_as_confirmed(self) -> bool:
        """Confirmed, and nothing bad known of it."""
        return self.confirmed_at is not None and not self.bad_outcome

    @property
    def bad_outcome(self) -> bool:
        """Whether it has come to a bad end; a failed download alone is no end, the device may try again."""
        return bool(self.bad - {OutcomeClass.DOWNLOAD_FAILED})


@dataclass(frozen=True, slots=True)
class Counts:
    """What a step adds to the tallies of the update's slice; a negative number takes back.

    ``applied``: written, and either waiting for the reboot or confirmed.
    """

    offered: int = 0
    withdrawn: int = 0
    started: int = 0
    applied: int = 0
    resolved: int = 0
    confirmed: int = 0
    left: int = 0
    bad: tuple[OutcomeClass, ...] = ()
    retired: int = 0

    def __bool__(self) -> bool:
        return self is not _NOTHING and self != _NOTHING

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.offered + other.offered,
            self.withdrawn + other.withdrawn,
            self.started + other.started,
            self.applied + other.applied,
            self.resolved + other.resolved,
            self.confirmed + other.confirmed,
            self.left + other.left,
            self.bad + other.bad,
            self.retired + other.retired,
        )

    @classmethod
    def total(cls, many: Sequence[Counts]) -> Counts:
        """The sum of many."""
        offered, withdrawn, started, applied, resolved, confirmed, left, retired = (
            sum(map(one, many)) for one in _NUMBERS
        )
        bad = tuple(chain.from_iterable(each.bad for each in many))
        return cls(offered, withdrawn, started, applied, resolved, confirmed, left, bad, retired)


_NOTHING: Final = Counts()
_NUMBERS: Final = tuple(
    map(attrgetter, ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "left", "retired"))
)

_Marks = tuple[bool, bool, bool, bool, bool, bool, bool]


def counted(update: Update) -> Counts:
    """What an update as it stands has added in all: the tallies of a slice are the sum over its updates."""
    withdrawn, started, applied, resolved, confirmed, left, retired = map(int, _marks(update))
    return Counts(1, withdrawn, started, applied, resolved, confirmed, left, _in_order(update.bad), retired)


def _marks(update: Update) -> _Marks:
    """Whether it is withdrawn, started, applied, resolved, confirmed, left, retired, as the tallies mean it."""
    status, confirmed = update.status, update.confirmed_at is not None
    return (
        status is UpdateStatus.WITHDRAWN and not update.resolved,
        update.started_at is not None,
        confirmed or status is UpdateStatus.APPLIED,
        update.resolved,
        confirmed and not update.bad_outcome,
        status is UpdateStatus.LEFT and not update.resolved,
        status is UpdateStatus.RETIRED and not update.resolved,
    )


def _in_order(outcomes: frozenset[OutcomeClass]) -> tuple[OutcomeClass, ...]:
    return tuple(each for each in OutcomeClass if each in outcomes)


def difference(before: Update, after: Update) -> Counts:
    """What the tallies must gain when one becomes the other."""
    was, now = _marks(before), _marks(after)
    if was == now and after.bad == before.bad:
        return _NOTHING
    return _gained(was, now, after.bad - before.bad)


@lru_cache(maxsize=1_024)
def _gained(was: _Marks, now: _Marks, bad: frozenset[OutcomeClass]) -> Counts:
    # Few combinations ever occur: each is made once.
    withdrawn, started, applied, resolved, confirmed, left, retired = (b - a for a, b in zip(was, now, strict=True))
    return Counts(0, withdrawn, started, applied, resolved, confirmed, left, _in_order(bad), retired)


class Step(NamedTuple):
    """An update after something happened, and what that counts. ``changed`` False: nothing to write."""

    update: Update
    counts: Counts = _NOTHING
    changed: bool = True


def offer(*, from_commit: str | None, to_commit: str, patience: Patience, now: datetime) -> Step:
    """A device is admitted."""
    update = Update(UpdateStatus.OFFERED, now, from_commit, to_commit, deadline_at=now + patience.length)
    return Step(update, counted(update))


def offer_again(
    update: Update, *, from_commit: str | None, patience: Patience, now: datetime, to_commit: str | None = None
) -> Step:
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


def retry(update: Update, *, patience: Patience, now: datetime) -> Step:
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


def on_event(update: Update, kind: EventKind, *, patience: Patience, now: datetime) -> Step:
    """The device reported ``kind``; ``now`` is the moment of receipt. Of a retired device nothing counts."""
    if update.status is UpdateStatus.RETIRED:
        return Step(update, changed=False)
    match kind:
        case EventKind.DOWNLOADING | EventKind.INSTALLING | EventKind.APPLIED:
            after = _progress(update, kind, patience=patience, now=now)
        case EventKind.FAILED:
            after = _bad(_begun(update, now), OutcomeClass.FAILED)
        case EventKind.ROLLED_BACK:
            after = _bad(_begun(update, now), OutcomeClass.ROLLED_BACK)
        case EventKind.DOWNLOAD_FAILED:
            after = _download_failed(_begun(update, now), patience=patience, now=now)
    return _step(update, after)


def on_check_in(
    update: Update, *, running: str | None, patience: Patience, now: datetime, repeated: bool = True
) -> Step:
    """The device asked and said which commit it runs (None: it could not say). ``repeated``: the offer may still be
    given, so that coming back without a start says something (RULES 3.7)."""
    if running == update.to_commit:
        return _step(update, _running_target(update, patience=patience, now=now))
    if running is None or update.status in _AT_REST:
        return Step(update, changed=False)
    if update.status is UpdateStatus.CONFIRMED:
        if update.bad_outcome:
            return Step(update, changed=False)  # a retry that had succeeded: its outcomes are counted
        # It ran the Target and runs something else now: back to the old one is a rollback, a third is a departure.
        if running == update.from_commit:
            return _step(update, _bad(update, OutcomeClass.ROLLED_BACK))
        return _step(update, _left(update))
    if update.from_commit is not None and running != update.from_commit:
        return _step(update, _left(update))
    if update.status is UpdateStatus.OFFERED and repeated:
        # Not started in this try, whatever it did in one before.
        seen = replace(update, check_ins=update.check_ins + 1)
        return _step(update, _bad(seen, OutcomeClass.IGNORED) if seen.check_ins >= IGNORED_AFTER else seen)
    return Step(update, changed=False)


def on_deadline(
    update: Update,
    *,
    last_seen_at: datetime | None,
    patience: Patience,
    now: datetime,
    ended_at: datetime | None = None,
) -> Step:
    """The update's deadline has passed. ``ended_at``: since when the rollout is completed.

    A confirmed device is watched until its rollout ends (RULES 3.4): seen within its patience, it is looked at again
    when that has passed once more. Who confirms later is looked at once."""
    if update.deadline_at is None or now < update.deadline_at:
        return Step(update, changed=False)
    if update.confirmed_at is not None:
        heard = last_seen_at is not None and last_seen_at > update.confirmed_at
        if ended_at is not None and (heard or update.confirmed_at <= ended_at):
            return _step(update, replace(update, deadline_at=None))
        if last_seen_at is not None and heard and last_seen_at + patience.length > now:
            return _step(update, replace(update, deadline_at=_watched_until(last_seen_at, patience)))
    if (
        update.status is UpdateStatus.OFFERED
        and last_seen_at is not None
        and (extended := last_seen_at + patience.length) > now
    ):
        # Heard of since the offer: it comes back without starting, which is for `ignored` to judge.
        return _step(update, replace(update, deadline_at=extended))
    return _step(update, _bad(update, OutcomeClass.SILENT))


def _watched_until(seen_at: datetime, patience: Patience) -> datetime:
    """When to look at a confirmed device again: rounded up to a hundredth of the patience, so that however many are
    watched, they are due at few moments."""
    ends, step = seen_at + patience.length, patience.length / LOOKS_IN_A_PATIENCE
    over = (ends - _EPOCH) % step if step else step
    return ends + (step - over) if over else ends


def withdraw(update: Update) -> Step:
    """Take the offer back from a device that has not started, in this try; one that has may finish."""
    if update.status is not UpdateStatus.OFFERED:
        return Step(update, changed=False)
    return _step(update, replace(update, status=UpdateStatus.WITHDRAWN, deadline_at=None))


def retire(update: Update) -> Step:
    """Its device is retired and leaves the denominators (RULES 7.7): what has come to no outcome never will, and what
    has is not watched any more. Taken back into the fleet, the device is offered the Target again, at its place."""
    ends = update.status in _RANK or (update.status is UpdateStatus.LEFT and not update.resolved)
    return _step(update, replace(update, status=UpdateStatus.RETIRED if ends else update.status, deadline_at=None))


def retired(*, from_commit: str | None, to_commit: str, now: datetime) -> Step:
    """A device with a place is retired before it had its offer: the place is kept, and waits for nobody."""
    update = Update(UpdateStatus.RETIRED, now, from_commit, to_commit, deadline_at=None)
    return Step(update, counted(update))


def _step(before: Update, after: Update) -> Step:
    if after is before or (after.status is before.status and after == before):
        return Step(before, changed=False)
    return Step(after, difference(before, after))


def _begun(update: Update, now: datetime) -> Update:
    """Whatever it says, it speaks: a first report is the start, and a withdrawn device that started counts again."""
    return update if update.started_at is not None else replace(update, started_at=now)


def _bad(update: Update, outcome: OutcomeClass) -> Update:
    return replace(update, status=_BAD_STATUS[outcome], bad=update.bad | {outcome}, resolved=True, deadline_at=None)


def _download_failed(update: Update, *, patience: Patience, now: datetime) -> Update:
    """No end: the device may try again, and is offered again when it asks and may be."""
    if update.status not in _RANK:
        return update
    if not update.resolved:
        update = replace(update, bad=update.bad | {OutcomeClass.DOWNLOAD_FAILED})
    if update.status is UpdateStatus.WITHDRAWN:
        return update
    return replace(update, status=UpdateStatus.DOWNLOADING, deadline_at=now + patience.length)


def _progress(update: Update, kind: EventKind, *, patience: Patience, now: datetime) -> Update:
    status = _PROGRESS[kind]
    if update.status not in _RANK or _RANK[status] <= _RANK[update.status]:
        return _begun(update, now)
    # Silence runs from `installing`; before it, from what was heard last.
    installing = update.installing_at
    if installing is None and status is not UpdateStatus.DOWNLOADING:
        installing = now
    # Nearly every report is one of these: the update is made at once, which takes a fifth of `replace` of `replace`.
    return Update(
        status,
        update.offered_at,
        update.from_commit,
        update.to_commit,
        (installing or now) + patience.length,
        update.started_at or now,
        installing,
        update.confirmed_at,
        update.resolved,
        update.recovered_at,
        update.bad,
        update.check_ins,
        update.tries,
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


def _left(update: Update) -> Update:
    return replace(update, status=UpdateStatus.LEFT, deadline_at=None)
