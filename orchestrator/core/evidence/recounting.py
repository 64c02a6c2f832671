"""Monitors and budgets counted once more from the evidence log, outcome by outcome, with the same crossing.

Answers for: what each of them would have said after each outcome. Does not answer for: where the log comes from, what
is decided by it (``services.replaying``).

Memory grows with the bad places of monitors that have not crossed, never with the log: when somebody is left out its
beginning is read again. Only where a monitor or budget pools several classes, which small fleets have, it is remembered
which devices were bad already.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.crossing import Node, NodeKey, add, first_crossing, path, recount
from orchestrator.core.evidence.left_out import NOBODY, LeftOut, Seat
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.evidence.log import Line
from orchestrator.core.facts import BudgetFacts, MonitorFacts, WaveFacts
from orchestrator.core.monitors import monitor_facts
from orchestrator.core.outcomes import NOT_BAD, Outcome, OutcomeClass, in_order
from orchestrator.core.slices import Slice


class Bad(NamedTuple):
    """A bad outcome as it was counted, at a moment in microseconds."""

    at: int
    seat: Seat
    outcome: Outcome
    earlier: frozenset[Outcome]


Seats = Callable[[Line], Seat]
"""Where the device of a row of the log stands, its segments and position included."""


Past = Callable[[int], Iterable[tuple[Line, Seat]]]
"""The bad outcomes of the log up to the row of this ``seq``, with where their devices stand."""


def seat_in_log(line: Line) -> Seat:
    """As much of it as the log says: enough where nothing is watched or left out by segment."""
    return Seat(line.wave, line.slice, 0, line.rollout_place, line.wave_place)


class CountedMonitor:
    """One monitor from its ``from_place`` on. ``crossed_at``: the (count, place) of its first crossing."""

    def __init__(self, spec: MonitorSpec, from_place: int = 0) -> None:
        self.spec, self.from_place = spec, from_place
        self._staircase = staircase(spec.tolerance, spec.alpha)
        self._begin()

    def _begin(self) -> None:
        self.bad = 0
        self.crossed_at: tuple[int, int] | None = None
        self.crossings: list[tuple[int, int]] = []
        self._crossed_when = 0
        self._places = array("q")
        self._nodes: dict[NodeKey, Node] = {}

    def count(
        self, at: int, seat: Seat, outcome: Outcome, earlier: frozenset[Outcome], left_out: LeftOut = NOBODY
    ) -> bool:
        """One more bad outcome; whether it is in this monitor's population, of its classes and new to it."""
        spec = self.spec
        if outcome not in spec.outcomes or earlier.intersection(spec.outcomes):
            return False
        since = left_out.place(spec, self.from_place, seat)
        if since is None:
            return False
        self.bad += 1
        if self.crossed_at is None or at == self._crossed_when:
            self._add(since, at)
        return True

    def again(self) -> None:
        """Everything anew, because other segments are left out."""
        self._begin()

    def counted_again(self) -> None:
        """What crossed when everything was counted anew is the crossing of a recount."""
        self._crossed_when = 0
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

    def facts(self, waves: Iterable[WaveFacts], opened: Iterable[Slice] = ()) -> MonitorFacts:
        """As a look sees it. ``waves`` have the places given so far; ``opened`` those of segments, of these slices and
        perhaps more."""
        seen = {(wave.wave, piece.number): piece for wave in waves for piece in wave.slices}
        given = {}
        if (segment := self.spec.segment) is not None:
            ranks = [piece.ranks.get(segment) for piece in opened if (piece.wave, piece.number) in seen]
            given[segment] = sum(each.members for each in ranks if each)
        return monitor_facts(
            self.spec,
            bad=self.bad,
            crossed_at=self.crossed_at,
            opened=sorted(
                ((wave, piece) for (wave, _), piece in seen.items()), key=lambda opening: opening[1].opened_at
            ),
            segments=given,
            from_place=self.from_place,
        )


class Recount:
    """All monitors and budgets of a rollout, and the bad outcomes of each slice; ``apart`` those of devices that are
    left out of the count.

    ``classes``: those that are told apart; whatever the log says beside them counts as failed. None: as logged.
    """

    def __init__(
        self,
        seats: Seats = seat_in_log,
        opened: Sequence[Slice] = (),
        classes: Collection[Outcome] | None = None,
        past: Past = lambda upto: (),
    ) -> None:
        self.classes = classes
        self.monitors: dict[str, CountedMonitor] = {}
        self.budgets: dict[str, BudgetFacts] = {}
        self.slices: dict[tuple[str, int], dict[Outcome, int]] = {}
        self.apart: dict[tuple[str, int], dict[Outcome, int]] = {}
        self.opened = opened
        self._earlier: dict[int, frozenset[Outcome]] | None = None if classes is None else {}
        self._seats = seats
        self._left_out = NOBODY
        self._past = past
        self._last = 0
        self._rest: dict[frozenset[str], dict[tuple[str, int], dict[Outcome, int]]] = {}
        """The bad outcomes of slices without those of the segments that were left out at some time."""

    def leave_out(self, excluded: frozenset[str]) -> None:
        """From now on these segments are left out, and were from the beginning."""
        if excluded == self._left_out.excluded:
            return
        self._left_out = LeftOut(self.opened, excluded)
        rest = self._rest[excluded] = {}
        for monitor in self.monitors.values():
            monitor.again()
        earlier: dict[int, frozenset[Outcome]] | None = None if self._earlier is None else {}
        for line, seat in self._past(self._last):
            bad = self._bad(line, seat, earlier)
            if bad is not None and not line.apart:
                _enter(rest, excluded, bad)
                for monitor in self.monitors.values():
                    monitor.count(bad.at, seat, bad.outcome, bad.earlier, self._left_out)
        for monitor in self.monitors.values():
            monitor.counted_again()

    def facts(self, waves: Sequence[WaveFacts]) -> tuple[MonitorFacts, ...]:
        return tuple(monitor.facts(waves, self.opened) for monitor in self.monitors.values())

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
        if line.bad in NOT_BAD:
            return False
        self._last = line.seq
        seat = self._seats(line)
        one = self._bad(line, seat, self._earlier)
        if one is None:
            return False
        outcome, earlier = one.outcome, one.earlier
        counted = self.apart if line.apart else self.slices
        bad = counted.setdefault((line.wave, line.slice), {})
        bad[outcome] = bad.get(outcome, 0) + 1
        if line.apart:
            return False
        moved = False
        for excluded, rest in self._rest.items():
            _enter(rest, excluded, one)
        for monitor in self.monitors.values():
            moved = monitor.count(line.at, seat, outcome, earlier, self._left_out) or moved
        for name, budget in self.budgets.items():
            if outcome in budget.outcomes and not earlier.intersection(budget.outcomes):
                self.budgets[name] = replace(budget, bad=budget.bad + 1)
                moved = True
        return moved

    def _bad(self, line: Line, seat: Seat, known: dict[int, frozenset[Outcome]] | None) -> Bad | None:
        """The bad outcome that a row tells of; None when the device has had it. ``known``: what devices had, where that
        is asked; it learns this one."""
        outcome = line.bad if self.classes is None or line.bad in self.classes else OutcomeClass.FAILED.value
        earlier: frozenset[Outcome] = frozenset()
        if known is not None:
            earlier = known.get(line.device_key, earlier)
            known[line.device_key] = earlier | {outcome}
            if outcome in earlier:
                return None
        return Bad(line.at, seat, outcome, earlier)

    def waves(self, seen: Iterable[WaveFacts]) -> tuple[WaveFacts, ...]:
        """The waves as seen, with the bad outcomes counted here."""
        return tuple(
            replace(
                wave,
                slices=tuple(
                    replace(
                        piece,
                        bad=_shown(self.slices.get((wave.wave, piece.number), {})),
                        apart=replace(piece.apart, bad=_shown(self.apart.get((wave.wave, piece.number), {}))),
                    )
                    for piece in wave.slices
                ),
            )
            for wave in seen
        )

    def bad_left_in(self, wave: str, number: int, excluded: frozenset[str]) -> dict[Outcome, int]:
        """Bad outcomes of a slice without those of these segments, which were left out at some time."""
        return _shown(self._rest.get(excluded, {}).get((wave, number), {}))


def _enter(rest: dict[tuple[str, int], dict[Outcome, int]], excluded: frozenset[str], bad: Bad) -> None:
    """Into the slices' counts, when its device is in none of these segments."""
    if excluded.isdisjoint(bad.seat.segments):
        counts = rest.setdefault((bad.seat.wave, bad.seat.slice), {})
        counts[bad.outcome] = counts.get(bad.outcome, 0) + 1


def _shown(bad: Mapping[Outcome, int]) -> dict[Outcome, int]:
    return {outcome: bad[outcome] for outcome in in_order(bad)}
