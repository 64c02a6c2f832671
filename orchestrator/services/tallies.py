"""What a batch of reports and check-ins adds up to, written in a few statements at its end.

Each update is saved once, each slice's tallies are added to once, each rollout's bad outcomes entered once, in the
order in which everybody locks: updates, slices, then budgets and monitors. What counted goes to the evidence log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.update import Counts, Step
from orchestrator.services.records import BadOutcome, CountedOutcome, UpdateRow
from orchestrator.services.store import Writing


@dataclass(slots=True)
class Tallies:
    """Gathers steps until ``write``. ``at``: the moment of receipt, for the evidence log. ``renewed``: of the changed
    rows those whose offer is new."""

    at: datetime
    changed: dict[tuple[int, int], UpdateRow] = field(default_factory=dict)
    renewed: set[tuple[int, int]] = field(default_factory=set)
    counts: dict[tuple[int, str, int], list[Counts]] = field(default_factory=dict)
    bad: dict[int, list[BadOutcome]] = field(default_factory=dict)
    logged: list[CountedOutcome] = field(default_factory=list)
    moved: bool = False

    def step(self, row: UpdateRow, step: Step) -> None:
        """Carry out a step on a row that the store has already. ``row.update`` becomes what the step made of it."""
        if not step.changed:
            return
        before, row.update = row.update, step.update
        key = (row.rollout_key, row.device_key)
        self.changed[key] = row
        if step.update.offered_at is not before.offered_at:
            self.renewed.add(key)
        self.count(row, step.counts, before.bad)

    def change(self, row: UpdateRow) -> None:
        """The row must be saved, with what its offer froze."""
        key = (row.rollout_key, row.device_key)
        self.changed[key] = row
        self.renewed.add(key)

    def count(self, row: UpdateRow, counts: Counts, earlier: frozenset[OutcomeClass] = frozenset()) -> None:
        if not counts:
            return
        self.moved = True
        if not row.excluded:
            self.counts.setdefault((row.rollout_key, row.wave, row.slice), []).append(counts)
        if counts.confirmed > 0:
            self._log(row, "confirmed")
        if counts.left > 0:
            self._log(row, "left")
        for outcome in counts.bad:
            self._log(row, outcome.value)
            found = BadOutcome(outcome, row.wave, *row.places, earlier, row.device_key, row.slice, row.segments)
            self.bad.setdefault(row.rollout_key, []).append(found)
            earlier = earlier | {outcome}

    def write(self, w: Writing) -> list[int]:
        """Write all of it; the rollouts that have new bad outcomes. What is gathered afterwards is written by the next
        call."""
        if self.renewed:
            w.save_updates([self.changed.pop(key) for key in sorted(self.renewed)])
        if self.changed:
            w.save_progress(self.changed.values())
        if self.counts:
            w.add_counts({key: Counts.total(many) for key, many in self.counts.items()})
        if self.logged:
            w.log_outcomes(self.logged)
        stained = sorted(self.bad)
        for key in stained:
            w.add_bad(key, self.bad[key])
        self.changed, self.renewed, self.counts, self.bad = {}, set(), {}, {}
        self.logged = []
        return stained

    def _log(self, row: UpdateRow, outcome: str) -> None:
        self.logged.append(
            CountedOutcome(
                row.rollout_key, row.device_key, self.at, outcome, row.wave, row.slice, row.places[0], row.places[1]
            )
        )
