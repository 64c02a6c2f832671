"""What a batch of reports and check-ins adds up to, written in a few statements at its end.

Each update is saved once, each slice's tallies are added to once, each rollout's bad outcomes entered once, in the
order in which everybody locks: updates, slices, then budgets and monitors. What counted goes to the evidence log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from orchestrator.core.course import Course, UpdateStatus
from orchestrator.core.outcomes import APART, Outcome
from orchestrator.core.update import Counts, Step, Taken
from orchestrator.services.records import (
    BadOutcome,
    CountedOutcome,
    CourseRow,
    Places,
    SliceOf,
    UpdateRow,
    decode_places,
)
from orchestrator.services.store import Writing

_NOTHING_BAD: Final[frozenset[Outcome]] = frozenset()


_UNHEARD: Final = frozenset({UpdateStatus.INSTALLING, UpdateStatus.APPLIED, UpdateStatus.SILENT})
"""Here nothing has been heard of a device since it began to install, but that it did."""


class _Counted(NamedTuple):
    """An outcome for the log. ``bad``: its class, where it is a bad one that counts; ``earlier``: those counted
    before."""

    row: CourseRow
    outcome: str
    bad: Outcome | None = None
    earlier: frozenset[Outcome] = _NOTHING_BAD


@dataclass(slots=True)
class Tallies:
    """Gathers steps until ``write``. ``at``: the moment of receipt, for the evidence log. ``moved``: something
    counted."""

    at: datetime
    changed: dict[tuple[int, int], CourseRow] = field(default_factory=dict)
    counts: dict[SliceOf, list[Counts]] = field(default_factory=dict)
    counted: list[_Counted] = field(default_factory=list)
    clocked: dict[int, tuple[set[int], set[int]]] = field(default_factory=dict)
    moved: bool = False

    def step(self, row: CourseRow, step: Step[Taken]) -> bool:
        """Carry out a step on a row that the store has already: ``row.update`` becomes what the step made of it.
        Whether it is the first that changes this row."""
        if not step.changed:
            return False
        before, row.update = row.update, step.update
        key = (row.rollout_key, row.device_key)
        first = key not in self.changed
        self.changed[key] = row
        if before.status is not step.update.status:
            self._clock(row, before, step.update)
        self.count(row, step.counts, before.bad)
        return first

    def _clock(self, row: CourseRow, before: Course, after: Course) -> None:
        """For the clock of silence: it begins to install; it comes to an outcome, or is not waited for any more. Who
        stands apart is not listened for."""
        if row.apart:
            return
        began = after.installing_at is not None and before.installing_at is None
        heard = before.installing_at is not None and after.status not in _UNHEARD
        if began or heard:
            starting, speaking = self.clocked.setdefault(row.rollout_key, (set(), set()))
            if began:
                starting.add(row.device_key)
            if heard:
                speaking.add(row.device_key)

    def change(self, row: UpdateRow) -> None:
        """The row must be saved, with what its offer froze."""
        self.changed[row.rollout_key, row.device_key] = row

    def count(self, row: CourseRow, counts: Counts, earlier: frozenset[Outcome] = _NOTHING_BAD) -> None:
        if not counts:
            return
        self.moved = True
        if not row.excluded:
            self.counts.setdefault((row.rollout_key, row.wave, row.slice, row.apart), []).append(counts)
        if counts.confirmed > 0:
            self.counted.append(_Counted(row, "confirmed"))
        if counts.left > 0:
            self.counted.append(_Counted(row, "left"))
        for outcome in counts.bad:
            self.counted.append(_Counted(row, str(outcome), None if row.apart else outcome, earlier))
            earlier = earlier | {outcome}

    def write(self, w: Writing) -> list[int]:
        """Write all of it; the rollouts that have new bad outcomes. What is gathered afterwards is written by the next
        call."""
        whole = [row for row in self.changed.values() if isinstance(row, UpdateRow)]
        if whole:
            w.save_updates(whole)
        if len(whole) < len(self.changed):
            w.save_courses(row for row in self.changed.values() if not isinstance(row, UpdateRow))
        if self.counts:
            w.add_counts({key: Counts.total(many) for key, many in self.counts.items()})
        for key, (began, heard) in sorted(self.clocked.items()):
            w.add_to_clock(key, began, heard, now=self.at)
        stained = self._enter(w) if self.counted else []
        self.changed, self.counts, self.counted, self.clocked = {}, {}, [], {}
        return stained

    def _enter(self, w: Writing) -> list[int]:
        """Outcomes into the evidence log, the bad ones also into the evidence of their rollouts."""
        devices: dict[int, set[int]] = defaultdict(set)
        for one in self.counted:
            devices[one.row.rollout_key].add(one.row.device_key)
        places = {key: w.places(key, devices[key]) for key in sorted(devices)}
        w.log_outcomes([_logged(one, places, self.at) for one in self.counted])
        bad: dict[int, list[BadOutcome]] = defaultdict(list)
        for row, _, outcome, earlier in self.counted:
            if outcome is not None:
                where = places[row.rollout_key][row.device_key]
                segments = decode_places(where.segments)
                found = BadOutcome(
                    outcome, row.wave, where.rollout, where.wave, earlier, row.device_key, row.slice, segments
                )
                bad[row.rollout_key].append(found)
        for key in sorted(bad):
            w.add_bad(key, bad[key])
        return sorted(bad)


def _logged(one: _Counted, places: Mapping[int, Mapping[int, Places]], at: datetime) -> CountedOutcome:
    row = one.row
    where = places[row.rollout_key][row.device_key]
    outcome = f"{APART}{one.outcome}" if row.apart else one.outcome
    return CountedOutcome(row.rollout_key, row.device_key, at, outcome, row.wave, row.slice, where.rollout, where.wave)
