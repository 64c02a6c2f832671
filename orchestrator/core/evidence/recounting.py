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

from orchestrator.core.evidence.allowance import ROLLOUT, MonitorSpec
from orchestrator.core.evidence.crossing import Node, NodeKey, add, first_crossing, path, place_since
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.evidence.log import Line
from orchestrator.core.facts import BudgetFacts, MonitorFacts, WaveFacts
from orchestrator.core.outcomes import OutcomeClass

BAD = frozenset(outcome.value for outcome in OutcomeClass)
"""Words of the log for outcomes that count as bad."""


def recountable(spec: MonitorSpec) -> bool:
    """Whether the log alone says where an outcome stands in the monitor's population."""
    return spec.scope == ROLLOUT or spec.wave is not None


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

    def count(self, line: Line, outcome: OutcomeClass, earlier: frozenset[OutcomeClass]) -> bool:
        """One more bad outcome; whether it is in this monitor's population, of its classes and new to it."""
        spec = self.spec
        if outcome not in spec.outcomes or earlier.intersection(spec.outcomes):
            return False
        place = line.rollout_place if spec.scope == ROLLOUT else line.wave_place if spec.wave == line.wave else None
        since = None if place is None else place_since(place, self.from_place)
        if since is None:
            return False
        self.bad += 1
        if self.crossed_at is None or line.at == self._crossed_when:
            self._add(since, line.at)
        return True

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
        """As a look sees it. ``waves`` have the places given so far."""
        spec, stairs = self.spec, self._staircase
        given = sum(wave.members for wave in waves if spec.scope == ROLLOUT or wave.wave == spec.wave)
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
        )


class Recount:
    """All monitors and budgets of a rollout, and the bad outcomes of each slice."""

    def __init__(self) -> None:
        self.monitors: dict[str, CountedMonitor] = {}
        self.budgets: dict[str, BudgetFacts] = {}
        self.slices: dict[tuple[str, int], dict[OutcomeClass, int]] = {}
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

    def count(self, line: Line) -> bool:
        """The next row of the log; whether any monitor or budget has moved by it."""
        if line.outcome not in BAD:
            return False
        outcome = OutcomeClass(line.outcome)
        bad = self.slices.setdefault((line.wave, line.slice), {})
        bad[outcome] = bad.get(outcome, 0) + 1
        earlier: frozenset[OutcomeClass] = frozenset()
        if self._earlier is not None:
            earlier = self._earlier.get(line.device_key, earlier)
            self._earlier[line.device_key] = earlier | {outcome}
        moved = False
        for monitor in self.monitors.values():
            moved = monitor.count(line, outcome, earlier) or moved
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
