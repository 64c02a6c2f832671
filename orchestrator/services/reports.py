"""A batch of reports in one transaction: each event once, each update folded once, and the halt that they prove.

Events are taken whatever the rollout's status; what cannot be about this device is refused item by item, and the good
ones beside it are kept. Of an update of which very much has been said, only what still moves it is kept, and what the
server notes itself: the rest is taken, so that nobody sends it again, and forgotten. Also counts silences when their
time has come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from orchestrator.core.codes import Classes
from orchestrator.core.course import Course, UpdateStatus
from orchestrator.core.outcomes import Outcome
from orchestrator.core.states import RolloutStatus
from orchestrator.core.stopping import STOPPED
from orchestrator.core.update import KINDS_OF_FAILURE, EventKind, Patience, on_deadline, on_event
from orchestrator.errors import WaveError
from orchestrator.services.board import Board
from orchestrator.services.check_in import Settle, Wake
from orchestrator.services.chronicle import rules_of
from orchestrator.services.messages import (
    LONGEST_CODE,
    LONGEST_ID,
    LONGEST_MESSAGE,
    OwnEvent,
    Received,
    Refusal,
    ReportedEvent,
)
from orchestrator.services.records import CourseRow, EventRow, RolloutRow
from orchestrator.services.remembered import Remembered
from orchestrator.services.room import Room, drop, takes
from orchestrator.services.store import Writing
from orchestrator.services.tallies import Tallies
from orchestrator.services.writer import Batch

DUE_AT_ONCE: Final = 1_000
"""Silences counted between two looks at whether they stop the rollout."""

MOST_BATCHES: Final = 10
"""Such looks in one transaction; the next tick goes on."""

_LONGEST_TIME: Final = 64
_KINDS: Final[Mapping[str, EventKind]] = {str(kind): kind for kind in EventKind}
_MOST_NAMES: Final = 1_000

_patience: Final = lru_cache(maxsize=4_096)(Patience)
"""Most devices are borne with for as long as others."""


class Told(NamedTuple):
    """A report that was let in."""

    device_key: int
    device_id: str
    events: Sequence[ReportedEvent]
    received_at: datetime


class _Known(NamedTuple):
    """What of a rollout its reports need."""

    key: int
    target: int
    silent_after: timedelta
    classes: Classes
    stopped: bool
    cancels: bool


class _About(NamedTuple):
    """A rollout, and how far the devices that report on it are, by their keys."""

    key: int
    target: int
    silent_after: timedelta
    classes: Classes
    stopped: bool
    cancels: bool
    rows: dict[int, CourseRow]


_Good = tuple[int, EventKind, timedelta, CourseRow, Outcome | None]
"""An event that may count: which report, what it says, the policy's patience, how far its device is, and the class of a
failure."""


@dataclass(slots=True)
class Reports:
    """Runs batches. ``changed`` is told which devices' updates moved, after the commit."""

    board: Board
    settle: Settle
    wake: Wake
    changed: Callable[[Mapping[str, list[CourseRow]]], None] = lambda rows: None
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    _names: Remembered[str, _Known] = field(default_factory=lambda: Remembered(_MOST_NAMES))
    _room: Room = field(default_factory=Room)

    def rollouts(self, batch: Batch, told: Sequence[Told]) -> set[int]:
        """Those that the reports are about; one of them may be halted."""
        found = self._rollouts(batch, {event.rollout for one in told for event in one.events})
        return {known.key for known in found.values()}

    def run(self, batch: Batch, told: Sequence[Told]) -> list[Received | WaveError]:
        courses = self._courses(batch, told)
        told_to = _stopped(batch.w, courses, told)
        refusals: list[list[Refusal]] = []
        good: list[_Good] = []
        rows: list[EventRow] = []
        for number, (device_key, _, events, received_at) in enumerate(told):
            mine: list[Refusal] = []
            for index, event in enumerate(events):
                about = courses.get(event.rollout)
                course = None if about is None else about.rows.get(device_key)
                kind = _KINDS.get(event.event)
                if about is None or course is None or kind is None or event.target != about.target or not _named(event):
                    mine.append(Refusal(index, event.id[:LONGEST_ID], *_problem(event, about)))
                    continue
                if kind is EventKind.CANCELLED and (about.key, device_key) not in told_to:
                    kind = EventKind.REFUSED  # nobody told it to stop: that must not come to no outcome
                row = _row(device_key, event, about.key, received_at)
                failure = KINDS_OF_FAILURE.get(kind)
                outcome = None if failure is None else about.classes.of(failure, row.code)
                good.append((number, kind, about.silent_after, course, outcome))
                rows.append(row)
            refusals.append(mine)
        fresh = batch.w.log_events(rows) if rows else []
        left = self._room.left(batch, rows, fresh)
        unkept: list[EventRow] = []
        tallies = Tallies(batch.now)
        accepted = [0] * len(told)
        duplicates = [0] * len(told)
        touched: dict[str, list[CourseRow]] = {}
        for (number, kind, silent_after, course, outcome), row, new in zip(good, rows, fresh, strict=True):
            if not new:
                duplicates[number] += 1
                continue
            accepted[number] += 1
            patience = _patience(silent_after, course.usual_gap)
            step = on_event(course.update, kind, patience=patience, now=batch.now, outcome=outcome)
            if left and not takes(left, row) and not _moves(course.update, step.update):
                unkept.append(row)
            if tallies.step(course, step):
                touched.setdefault(told[number].device_id, []).append(course)
        if unkept:
            own = {(one.device_key, each.id) for one in told for each in one.events if isinstance(each, OwnEvent)}
            drop(batch.w, [row for row in unkept if (row.device_key, row.event_id) not in own])
        stopped = False
        for key in tallies.write(batch.w):
            stopped = self.settle(batch.w, key, now=batch.now) or stopped
        done = [Received(*each) for each in zip(accepted, duplicates, refusals, strict=True)]
        batch.after.append(lambda: self._committed(done, touched, stopped, tallies.moved))
        return list(done)

    def _courses(self, batch: Batch, told: Sequence[Told]) -> dict[str, _About]:
        """By the rollout's name, those of the devices that report; a rollout that is not there is left out."""
        devices: dict[str, set[int]] = defaultdict(set)
        for one in told:
            for event in one.events:
                devices[event.rollout].add(one.device_key)
        known = self._rollouts(batch, devices)
        return {
            name: _About(*known[name], batch.w.load_courses(known[name].key, devices[name]))
            for name in sorted(known, key=lambda name: known[name].key)
        }

    def expire(self, w: Writing, row: RolloutRow, *, now: datetime) -> int:
        """Count the silences that are due, at most ten thousand, part of the caller's transaction, which has locked the
        rollout; how many updates it looked at. Stops the rollout when they prove that it must be."""
        looked = 0
        silent_after = rules_of(row).silent_after
        standing = row.state.standing
        ended_at = standing.since if row.state.status is RolloutStatus.COMPLETED else None
        for _ in range(MOST_BATCHES):
            due = w.due(row.key, now=now, limit=DUE_AT_ONCE)
            tallies = Tallies(now)
            for update, seen_at in due:
                patience = Patience(silent_after, update.usual_gap)
                step = on_deadline(update.update, last_seen_at=seen_at, patience=patience, now=now, ended_at=ended_at)
                tallies.step(update, step)
            looked += len(due)
            stopped = False
            for key in tallies.write(w):
                stopped = self.settle(w, key, now=now) or stopped
            if stopped or len(due) < DUE_AT_ONCE:
                break
        return looked

    def _rollouts(self, batch: Batch, names: Iterable[str]) -> dict[str, _Known]:
        """By name, those that are there. What a name means never changes; its patience may, so the board's word goes
        first."""
        snapshot = self.board.look(batch.now)
        found: dict[str, _Known] = {}
        for name in names:
            row = snapshot.by_name.get(name)
            if row is not None:
                found[name] = _known(row)
            elif (known := self._names.get(name) or self._look_up(batch.w, name)) is not None:
                found[name] = known
        return found

    def _look_up(self, w: Writing, name: str) -> _Known | None:
        row = w.rollout(name) if len(name) <= LONGEST_ID and name.isprintable() else None
        if row is None:
            return None
        known = _known(row)
        self._names.put(name, known)
        return known

    def _committed(
        self, done: list[Received], touched: Mapping[str, list[CourseRow]], stopped: bool, moved: bool
    ) -> None:
        for one in done:
            self.accepted += one.accepted
            self.duplicates += one.duplicates
            self.refused += len(one.refused)
        self.changed(touched)
        if stopped:
            self.board.expire()
        if stopped or moved:
            self.wake(urgent=stopped)


def _stopped(w: Writing, courses: Mapping[str, _About], told: Sequence[Told]) -> set[tuple[int, int]]:
    """The rollouts and devices, by their keys, that a report says to have been stopped, and that were told to be. Where
    the policy tells nobody to stop, nobody was, before a halt or after it. The board may not know of a halt yet: a door
    that looked in the store has told the device to stop before. And a person may have resumed the rollout since: then
    it is who was offered it before the halt."""
    stopped = set[tuple[int, int]]()
    saying: dict[str, set[int]] = defaultdict(set)
    for one in told:
        for event in one.events:
            if event.event == EventKind.CANCELLED:
                saying[event.rollout].add(one.device_key)
    for name, devices in saying.items():
        if (about := courses.get(name)) is None:
            continue
        row = None if about.stopped and about.cancels else w.rollout_by_key(about.key)
        if row is None or (row.state.status in STOPPED and rules_of(row).cancels):
            stopped.update((about.key, device) for device in devices)
        elif rules_of(row).cancels and row.state.attempt > 1 and (halted_at := w.halted_at(about.key)) is not None:
            updates = w.load_updates([(about.key, device) for device in devices])
            stopped.update(each for each, found in updates.items() if found.update.offered_at <= halted_at)
    return stopped


def _known(row: RolloutRow) -> _Known:
    rules = rules_of(row)
    stopped = row.state.status in STOPPED
    return _Known(row.key, row.target_version, rules.silent_after, rules.classes, stopped, rules.cancels)


def _moves(before: Course, after: Course) -> bool:
    """More than how long silence is borne, for a download may fail again and again; and more than whether it goes on,
    for in a rollout that is stopped a device may go on and stop again and again."""
    if after is before:
        return False
    back_and_forth = UpdateStatus.WITHDRAWN in (before.status, after.status)
    status = before.status if back_and_forth else after.status
    return replace(after, deadline_at=before.deadline_at, status=status) != before


def _named(event: ReportedEvent) -> bool:
    return 0 < len(event.id) <= LONGEST_ID and event.id.isprintable()


def _problem(event: ReportedEvent, about: _About | None) -> tuple[str, str]:
    """Kind and sentence of what is wrong with an item that is not taken."""
    if not _named(event):
        return "bad_id", f"An event needs an id of 1 to {LONGEST_ID} printable characters."
    if event.event not in _KINDS:
        return "unknown_event", f"{event.event[:40]!r} is no event; there are {', '.join(_KINDS)}."
    if about is None:
        return "unknown_rollout", f"There is no rollout {event.rollout[:80]!r}."
    if event.target != about.target:
        return "other_target", f"Rollout {event.rollout} brings version {about.target}, not {event.target}."
    return "not_offered", f"Rollout {event.rollout} was never offered to this device."


def _row(device_key: int, event: ReportedEvent, rollout_key: int, received_at: datetime) -> EventRow:
    return EventRow(
        device_key,
        event.id,
        rollout_key,
        event.event,
        received_at,
        None if event.at is None else _plain(event.at, _LONGEST_TIME),
        None if event.code is None else _plain(event.code, LONGEST_CODE),
        None if event.message is None else _plain(event.message, LONGEST_MESSAGE),
    )


def _plain(text: str, longest: int) -> str:
    """Text of a device as the log keeps it: cut, and without the NUL that a database may not take."""
    return text[:longest].replace("\0", "")
