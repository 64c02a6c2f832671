"""Monitors and budgets counted once more from the evidence log, outcome by outcome, with the same crossing.

Answers for: what each of them would have said after each outcome. Does not answer for: where the log comes from, what
is decided by it (``services.replaying``).

Memory grows with the bad places of monitors that have not crossed, never with the log. Only where a monitor or budget
pools several classes, which small fleets have, it is remembered which devices were bad already.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.crossing import Node, NodeKey, add, first_crossing, path, recount
from orchestrator.core.evidence.left_out import NOBODY, LeftOut, Seat
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.evidence.log import Line
from orchestrator.core.facts import BudgetFacts, MonitorFacts, WaveFacts
from orchestrator.core.outcomes import OutcomeClass

BAD = frozenset(outcome.value for outcome in OutcomeClass)
"""Words of the log for outcomes that count as bad."""


class CountedMonitor:
    """One monitor from its ``from_place`` on. ``crossed_at``: the (count, place) of its first crossing."""

    def __init__(self, spec: MonitorSpec, from_place: int = 0) -> None:
        self.spec, self.from_place = spec, from_place
        self.bad = 0
        self.crossed_at: tuple[int, int] | None = None
        self.crossings: list[tuple[int, int]] = []
        self._crossed_when = 0
        self._staircase = staircase(spec.tolerance, spec.alpha)
        self._places = array("q")
        self._nodes: dict[NodeKey, Node] = {}

    def count(
        self, outcome: OutcomeClass, earlier: frozenset[OutcomeClass], seat: Seat, at: int, rest: LeftOut
    ) -> bool:
        """One more bad outcome; whether it is in this monitor's population, of its classes and new to it. ``rest``:
        whom the excluded segments leave out."""
        if outcome not in self.spec.outcomes or earlier.intersection(self.spec.outcomes):
            return False
        place = rest.place(self.spec, self.from_place, seat)
        if place is None:
            return False
        self.bad += 1
        if self.crossed_at is None or at == self._crossed_when:
            self._add(place, at)
        return True

    def begin_again(self) -> None:
        """Forget everything: a segment was excluded, and all is counted anew without it."""
        self.bad, self.crossed_at, self.crossings = 0, None, []
        self._places, self._nodes, self._crossed_when = array("q"), {}, 0

    def end_again(self) -> None:
        """All has been counted anew: what counts as the crossing is the one that there is now, not the first."""
        if self.crossed_at is not None:
            found = recount(self._places, self._staircase)
            self.crossed_at = None if found is None else (found.bad, found.place)
            self.crossings = [] if self.crossed_at is None else [self.crossed_at]

    def _add(self, place: int, at: int) -> None:
        """What came in one transaction was looked at once, at its end: ``crossings`` are those that may have been
        found at that moment, the one after this outcome and those after each that came with it."""
        bucket = self._staircase.need(place)
        added = add({key: self._nodes[key] for key in path(bucket) if key in self._nodes}, (bucket,))
        self._nodes.update(added.changed)
        insort(self._places, place)
        if added.crossed:
            bad = first_crossing(self._nodes.get)
            assert bad is not None
            self.crossings.append((bad, self._places[bad - 1]))
            if self.crossed_at is None:
                self.crossed_at, self._crossed_when = self.crossings[0], at

    def facts(self, waves: Iterable[WaveFacts]) -> MonitorFacts:
        """As a look sees it. ``waves`` have the places given so far; those of segments are not in them."""
        spec, stairs = self.spec, self._staircase
        given = 0
        if spec.segment is None:
            given = sum(wave.members for wave in waves if spec.wave in (None, wave.wave))
        places = max(0, given - self.from_place)
        return MonitorFacts(
            monitor=spec.key,
            outcomes=spec.outcomes,
            wave=spec.wave,
            tolerance=spec.tolerance,
            alpha=spec.alpha,
            answer=spec.answer,
            places=places,
            bad=self.bad,
            next_limit=stairs.limit(self.bad + 1),
            crossed_at=self.crossed_at,
            amber=stairs.amber(max(places, self.bad), self.bad),
            segment=spec.segment,
            devices=spec.devices,
        )


class Recount:
    """All monitors and budgets of a rollout, and the bad outcomes of each slice."""

    def __init__(self) -> None:
        self.monitors: dict[str, CountedMonitor] = {}
        self.budgets: dict[str, BudgetFacts] = {}
        self.slices: dict[tuple[str, int], dict[OutcomeClass, int]] = {}
        self.rest = NOBODY
        self._earlier: dict[int, frozenset[OutcomeClass]] | None = None

    def watch(self, monitors: Sequence[CountedMonitor], budgets: Sequence[BudgetFacts]) -> None:
        """From now on these count. One that counted before goes on; a budget keeps what it has counted."""
        kept = {}
        for each in monitors:
            before = self.monitors.get(each.spec.key)
            goes_on = before is not None and (before.spec, before.from_place) == (each.spec, each.from_place)
            kept[each.spec.key] = before if before is not None and goes_on else each
        self.monitors = kept
        self.budgets = {
            each.name: replace(each, bad=known.bad) if (known := self.budgets.get(each.name)) else each
            for each in budgets
        }
        pools = [len(each.spec.outcomes) for each in kept.values()] + [len(each.outcomes) for each in budgets]
        if max(pools, default=1) > 1 and self._earlier is None:
            self._earlier = {}

    def without(self, rest: LeftOut, bad: Iterable[tuple[Line, Seat]]) -> None:
        """Segments were excluded, or taken back in: from now on ``rest`` says whom that leaves out, and what has been
        counted so far (``bad``, from the beginning) is counted anew."""
        self.rest = rest
        for monitor in self.monitors.values():
            monitor.begin_again()
        earlier: dict[int, frozenset[OutcomeClass]] = {}
        for line, seat in bad:
            outcome, before = OutcomeClass(line.outcome), frozenset[OutcomeClass]()
            if self._earlier is not None:
                before = earlier.get(line.device_key, before)
                earlier[line.device_key] = before | {outcome}
            for monitor in self.monitors.values():
                monitor.count(outcome, before, seat, line.at, rest)
        for monitor in self.monitors.values():
            monitor.end_again()

    def count(self, line: Line, seat: Seat) -> bool:
        """The next bad outcome of the log; whether any monitor or budget has moved by it."""
        outcome = OutcomeClass(line.outcome)
        bad = self.slices.setdefault((line.wave, line.slice), {})
        bad[outcome] = bad.get(outcome, 0) + 1
        earlier: frozenset[OutcomeClass] = frozenset()
        if self._earlier is not None:
            earlier = self._earlier.get(line.device_key, earlier)
            self._earlier[line.device_key] = earlier | {outcome}
        moved = False
        for monitor in self.monitors.values():
            moved = monitor.count(outcome, earlier, seat, line.at, self.rest) or moved
        for name, budget in self.budgets.items():
            if outcome in budget.outcomes and not earlier.intersection(budget.outcomes):
                self.budgets[name] = replace(budget, bad=budget.bad + 1)
                moved = True
        return moved

    def waves(self, seen: Iterable[WaveFacts]) -> tuple[WaveFacts, ...]:
        """The waves as seen, with the bad outcomes counted here."""
        return tuple(
            replace(
                wave,
                slices=tuple(
                    replace(piece, bad=_known(self.slices.get((wave.wave, piece.number), {}))) for piece in wave.slices
                ),
            )
            for wave in seen
        )


def _known(bad: Mapping[OutcomeClass, int]) -> dict[OutcomeClass, int]:
    return {outcome: bad[outcome] for outcome in OutcomeClass if outcome in bad}
