"""One device's attempt at one rollout: what a report, a check-in or the clock makes of it, and what enters the tallies.

Everything here is a pure step ``Update -> Step``; whoever stores an update adds the step's ``Counts`` in the same transaction. A device
adds at most one bad outcome per class and at most one resolution to a rollout, whatever is sent, resent, reordered or
retried (P10): each count is guarded by a mark that is set once in the update itself.

* Only a check-in that runs the Target's commit confirms; a success event means ``applied`` (RULES 3.5).
* A failure is never overturned; a confirmation is, once, by a later failure, rollback or silence (RULES 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

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
}

IGNORED_AFTER: Final = 3
"""Check-ins after an offer, without a start, that make a device count as ignoring it (RULES 3.7)."""

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


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence is borne: ``silent_after`` of the policy, at least three times the device's usual gap between check-ins."""

    silent_after: timedelta
    usual_gap: timedelta = timedelta(0)

    @property
    def length(self) -> timedelta:
        return max(self.silent_after, 3 * self.usual_gap)


@dataclass(frozen=True, slots=True)
class Update:
    """The facts of one update that its steps depend on.

    ``bad`` holds the classes already counted; ``resolved`` whether an outcome was counted; ``confirmed_at`` when it was first seen
    running the Target; ``deadline_at`` when silence counts, None when it no longer can; ``check_ins`` since the offer without a start.
    """

    status: UpdateStatus
    offered_at: datetime
    from_commit: str | None
    to_commit: str
    deadline_at: datetime | None
    started_at: datetime | None = None
    installing_at: datetime | None = None
    confirmed_at: datetime | None = None
    resolved: bool = False
    recovered_at: datetime | None = None
    bad: frozenset[OutcomeClass] = frozenset()
    check_ins: int = 0
    tries: int = 1

    @property
    def started(self) -> bool:
        return self.started_at is not None

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
    """What a step adds to the tallies of the update's slice; a negative number takes back."""

    offered: int = 0
    withdrawn: int = 0
    started: int = 0
    applied: int = 0
    resolved: int = 0
    confirmed: int = 0
    left: int = 0
    bad: tuple[OutcomeClass, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """An update after something happened, and what that counts. ``changed`` False: nothing to write."""

    update: Update
    counts: Counts = field(default_factory=Counts)
    changed: bool = True


def offer(*, from_commit: str | None, to_commit: str, patience: Patience, now: datetime) -> Step:
    """A device is admitted."""
    update = Update(UpdateStatus.OFFERED, now, from_commit, to_commit, deadline_at=now + patience.length)
    return Step(update, Counts(offered=1))


def offer_again(update: Update, *, from_commit: str | None, patience: Patience, now: datetime) -> Step:
    """A withdrawn offer is given again; place and outcomes stay."""
    renewed = replace(
        update,
        status=UpdateStatus.OFFERED,
        offered_at=now,
        from_commit=from_commit,
        deadline_at=now + patience.length,
        check_ins=0,
    )
    return Step(renewed, Counts(withdrawn=-1))


def retry(update: Update, *, patience: Patience, now: datetime) -> Step:
    """A person lets a device with a bad outcome try once more; what was counted stays counted (RULES 7.5)."""
    renewed = replace(
        update,
        status=UpdateStatus.OFFERED,
        offered_at=now,
        deadline_at=None,
        installing_at=None,
        check_ins=0,
        tries=update.tries + 1,
    )
    return Step(renewed)


def on_event(update: Update, kind: EventKind, *, patience: Patience, now: datetime) -> Step:
    """The device reported ``kind``; ``now`` is the moment of receipt."""
    counts = Counts()
    # Whatever it says, it speaks: a first report is the start, and a withdrawn device that started counts again.
    if update.started_at is None:
        withdrawn = -1 if update.status is UpdateStatus.WITHDRAWN else 0
        counts = replace(counts, started=1, withdrawn=withdrawn)
        update = replace(update, started_at=now)
    match kind:
        case EventKind.FAILED:
            return _bad(update, counts, OutcomeClass.FAILED)
        case EventKind.ROLLED_BACK:
            return _bad(update, counts, OutcomeClass.ROLLED_BACK)
        case EventKind.DOWNLOAD_FAILED:
            return _download_failed(update, counts, patience=patience, now=now)
        case EventKind.DOWNLOADING | EventKind.INSTALLING | EventKind.APPLIED:
            return _progress(update, counts, kind, patience=patience, now=now)


def on_check_in(update: Update, *, running: str | None, patience: Patience, now: datetime) -> Step:
    """The device asked and said which commit it runs (None: it could not say)."""
    if running == update.to_commit:
        return _running_target(update, patience=patience, now=now)
    if update.confirmed_at is not None and running is not None and not update.bad_outcome:
        # It ran the Target and runs something else now: back to the old one is a rollback, a third is a departure.
        if running == update.from_commit:
            return _bad(update, Counts(), OutcomeClass.ROLLED_BACK)
        return _left(update)
    if running is None or update.status is UpdateStatus.WITHDRAWN:
        return Step(update, changed=False)
    if update.from_commit is not None and running != update.from_commit and not update.resolved:
        return _left(update)
    if update.status is UpdateStatus.OFFERED and not update.resolved:
        seen = replace(update, check_ins=update.check_ins + 1)
        if seen.check_ins >= IGNORED_AFTER and OutcomeClass.IGNORED not in seen.bad:
            return _bad(seen, Counts(), OutcomeClass.IGNORED)
        return Step(seen)
    return Step(update, changed=False)


def on_deadline(update: Update, *, last_seen_at: datetime | None, patience: Patience, now: datetime) -> Step:
    """The update's deadline has passed. A confirmed device is looked at once more: seen since it confirmed, it is well."""
    if update.deadline_at is None or now < update.deadline_at:
        return Step(update, changed=False)
    if update.confirmed_at is not None and last_seen_at is not None and last_seen_at > update.confirmed_at:
        return Step(replace(update, deadline_at=None))
    if (
        update.status is UpdateStatus.OFFERED
        and last_seen_at is not None
        and (extended := last_seen_at + patience.length) > now
    ):
        # Heard of since the offer: it comes back without starting, which is for `ignored` to judge.
        return Step(replace(update, deadline_at=extended))
    return _bad(update, Counts(), OutcomeClass.SILENT)


def withdraw(update: Update) -> Step:
    """Take the offer back from a device that has not started; one that has may finish."""
    if update.status is not UpdateStatus.OFFERED or update.resolved:
        return Step(update, changed=False)
    return Step(replace(update, status=UpdateStatus.WITHDRAWN, deadline_at=None), Counts(withdrawn=1))


def _bad(update: Update, counts: Counts, outcome: OutcomeClass) -> Step:
    if outcome in update.bad:
        return Step(replace(update, deadline_at=None), counts)
    after = replace(update, status=_BAD_STATUS[outcome], bad=update.bad | {outcome}, resolved=True, deadline_at=None)
    return Step(
        after,
        replace(
            counts,
            resolved=counts.resolved + (0 if update.resolved else 1),
            confirmed=counts.confirmed - (1 if update.counts_as_confirmed else 0),
            left=counts.left + _returned(update),
            bad=(*counts.bad, outcome),
        ),
    )


def _download_failed(update: Update, counts: Counts, *, patience: Patience, now: datetime) -> Step:
    if update.resolved:
        return Step(update, counts)
    after = replace(update, status=UpdateStatus.DOWNLOADING, deadline_at=now + patience.length)
    if OutcomeClass.DOWNLOAD_FAILED in update.bad:
        return Step(after, counts)
    bad = (*counts.bad, OutcomeClass.DOWNLOAD_FAILED)
    return Step(replace(after, bad=update.bad | {OutcomeClass.DOWNLOAD_FAILED}), replace(counts, bad=bad))


def _progress(update: Update, counts: Counts, kind: EventKind, *, patience: Patience, now: datetime) -> Step:
    status = _PROGRESS[kind]
    if update.status not in _RANK or _RANK[status] <= _RANK[update.status]:
        return Step(update, counts, changed=bool(counts.started or counts.withdrawn))
    after = replace(update, status=status)
    if not update.resolved:
        # Silence runs from `installing`; before it, from what was heard last.
        installing = update.installing_at or (now if status is not UpdateStatus.DOWNLOADING else None)
        base = update.installing_at or now
        after = replace(after, installing_at=installing, deadline_at=base + patience.length)
    if status is UpdateStatus.APPLIED:
        counts = replace(counts, applied=1)
    return Step(after, counts)


def _running_target(update: Update, *, patience: Patience, now: datetime) -> Step:
    if update.confirmed_at is not None:
        return Step(update, changed=False)
    withdrawn = -1 if update.status is UpdateStatus.WITHDRAWN else 0
    started = 0 if update.started else 1
    after = replace(update, confirmed_at=now, started_at=update.started_at or now)
    if update.bad_outcome:
        return Step(replace(after, recovered_at=now, deadline_at=None), Counts(started=started, withdrawn=withdrawn))
    # One more look: a device that confirms and then falls dark within the same patience is silent after all.
    confirmed = replace(after, status=UpdateStatus.CONFIRMED, resolved=True, deadline_at=now + patience.length)
    resolved = 0 if update.resolved else 1
    counts = Counts(started=started, withdrawn=withdrawn, resolved=resolved, confirmed=1, left=_returned(update))
    return Step(confirmed, counts)


def _returned(update: Update) -> int:
    """What an outcome takes back from ``left``: a device that had left without one is heard of after all."""
    return -1 if update.status is UpdateStatus.LEFT and not update.resolved else 0


def _left(update: Update) -> Step:
    if update.status is UpdateStatus.LEFT:
        return Step(update, changed=False)
    after = replace(update, status=UpdateStatus.LEFT, deadline_at=None)
    return Step(after, Counts(left=0 if update.resolved else 1))
