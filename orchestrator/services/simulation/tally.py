"""The evidence of one simulated rollout, kept in memory: tallies by slice, places, monitors and budgets, and the facts
that a decision sees, all by the core's own rules.

Answers for: what the store's tables answer for in an installation, without one. Each part is made anew only when it
changed.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from orchestrator.core.evidence.allowance import ROLLOUT as ROLLOUT_SCOPE
from orchestrator.core.evidence.allowance import SEGMENT, WAVE, MonitorSpec
from orchestrator.core.evidence.clock import ClockFacts
from orchestrator.core.evidence.crossing import Node, NodeKey, add, first_crossing, recount
from orchestrator.core.evidence.left_out import NOBODY, LeftOut, Seat
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts, DeltaFacts, Facts, MonitorFacts, SliceFacts, WaveFacts
from orchestrator.core.monitors import monitor_facts
from orchestrator.core.outcomes import Outcome
from orchestrator.core.reasons import monitor_sentence
from orchestrator.core.slices import ROLLOUT, Slice, segment_population, wave_population
from orchestrator.core.states import Reason, ReasonKind
from orchestrator.services.simulation.machine import COUNTED, Taken
from orchestrator.services.simulation.silence import Silence

_NUMBERS = len(COUNTED)


@dataclass(slots=True)
class Member:
    """A device with a place: its position, its slice and the segments it is in."""

    device: int
    position: int
    tally: SliceTally
    segments: tuple[str, ...]
    excluded: bool = False


@dataclass(slots=True)
class SliceTally:
    """One opened slice and what its devices came to."""

    piece: Slice
    waiting: int
    numbers: list[int] = field(default_factory=lambda: [0] * _NUMBERS)
    bad: dict[Outcome, int] = field(default_factory=dict)
    excluded: int = 0
    _facts: SliceFacts | None = None

    def leave_out(self, gains: Iterable[tuple[int, int]], bad: Iterable[Outcome]) -> None:
        """What a member of an excluded segment has added is not of this slice any more."""
        for number, gain in gains:
            self.numbers[number] -= gain
        for outcome in bad:
            self.bad[outcome] -= 1
        self._facts = None

    def gain(self, taken: Taken) -> None:
        for number, gain in taken.gains:
            self.numbers[number] += gain
        for outcome in taken.bad:
            self.bad[outcome] = self.bad.get(outcome, 0) + 1
        self._facts = None

    def facts(self) -> SliceFacts:
        if self._facts is None:
            piece = self.piece
            counts: dict[str, Any] = dict(zip(COUNTED, self.numbers, strict=True))
            self._facts = SliceFacts(
                number=piece.number,
                opened_at=piece.opened_at,
                members=piece.members,
                waiting=self.waiting,
                bad={outcome: many for outcome, many in self.bad.items() if many},
                excluded=self.excluded,
                **counts,
            )
        return self._facts


@dataclass(slots=True)
class Monitor:
    """One monitor: its tree in memory, the places counted in it and its first crossing."""

    spec: MonitorSpec
    nodes: dict[NodeKey, Node] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    crossed_at: tuple[int, int] | None = None
    last_facts: MonitorFacts | None = None
    """As they were when they were last asked for; None when they have changed since."""
    _places: int = -1
    _slices: int = -1

    def add(self, place: int) -> None:
        """Count one more bad device at this place."""
        stairs = staircase(self.spec.tolerance, self.spec.alpha)
        added = add(self.nodes, (stairs.need(place),))
        self.nodes |= added.changed
        insort(self.places, place)
        self.last_facts = None
        if self.crossed_at is None and added.crossed:
            bad = first_crossing(self.nodes.get)
            assert bad is not None
            self.crossed_at = (bad, self.places[bad - 1])

    def count_again(self, places: Sequence[int]) -> None:
        """From nothing, with these places."""
        stairs = staircase(self.spec.tolerance, self.spec.alpha)
        crossing = recount(places, stairs)
        self.nodes = dict(add({}, [stairs.need(place) for place in places]).changed)
        self.places = sorted(places)
        self.crossed_at = (crossing.bad, crossing.place) if crossing else None
        self.last_facts = None

    def facts(self, opened: Sequence[tuple[str, SliceFacts]], segments: Mapping[str, int]) -> MonitorFacts:
        """As a decision sees it; made anew only where something can have changed it."""
        places = segments.get(self.spec.segment, 0) if self.spec.segment is not None else -1
        if (
            self.last_facts is None
            or self._places != places
            or (places < 0 and (self.places or self._slices != len(opened)))
        ):
            self.last_facts = monitor_facts(
                self.spec, bad=len(self.places), crossed_at=self.crossed_at, opened=opened, segments=segments
            )
            self._places, self._slices = places, len(opened)
        return self.last_facts


@dataclass(slots=True)
class WaveTally:
    """A wave's slices, and what the last look at its devices found."""

    wave: str
    slices: list[SliceTally] = field(default_factory=list)
    deltas: DeltaFacts | None = None
    eligible: int | None = None
    late: bool = False
    newcomers: int = 0
    changed: bool = True
    _facts: WaveFacts | None = None

    @property
    def members(self) -> int:
        return sum(each.piece.members for each in self.slices)

    def nobody_waits(self) -> None:
        """Whoever was left when the last slice opened has gone."""
        last = self.slices[-1]
        last.waiting, last._facts, self.late, self.changed = 0, None, False, True

    def facts(self) -> WaveFacts:
        if self._facts is None or self.changed:
            self._facts = WaveFacts(
                wave=self.wave,
                eligible=self.eligible,
                deltas=self.deltas,
                slices=tuple(each.facts() for each in self.slices),
                late=self.late,
            )
            self.changed = False
        return self._facts


@dataclass(slots=True)
class Evidence:
    """All of it. ``devices``: those of the rollout at its start. ``bad``: devices by class, whatever is excluded."""

    devices: int
    waves: Mapping[str, WaveTally]
    monitors: Sequence[Monitor]
    budgets: list[BudgetFacts]
    given: dict[str, int] = field(default_factory=dict)
    bad: dict[Outcome, int] = field(default_factory=dict)
    in_flight: int = 0
    wave_in_flight: dict[str, int] = field(default_factory=dict)
    holds: dict[str, Reason] = field(default_factory=dict)
    """Waves that waited for a person, and why."""
    left_out: LeftOut = NOBODY
    silence: Silence | None = None
    slices: list[SliceTally] = field(default_factory=list)
    """Of all waves, in the order of their opening."""
    _seats: dict[int, tuple[Seat, set[Outcome]]] = field(default_factory=dict)
    _by_scope: dict[str, list[Monitor]] = field(default_factory=dict)
    _monitors: tuple[MonitorFacts, ...] | None = None

    def __post_init__(self) -> None:
        for monitor in self.monitors:
            self._by_scope.setdefault(monitor.spec.scope, []).append(monitor)

    def opened(self, piece: Slice, waiting: int) -> SliceTally:
        """A slice was opened; its members have their places from now on."""
        for population, ranks in piece.ranks.items():
            self.given[population] = self.given.get(population, 0) + ranks.members
        self._monitors = None
        tally = SliceTally(piece, waiting)
        wave = self.waves[piece.wave]
        wave.slices.append(tally)
        self.slices.append(tally)
        if self.left_out.excluded:
            self.left_out = LeftOut([each.piece for each in self.slices], self.left_out.excluded)
        wave.late, wave.changed = False, True
        return tally

    def count(self, member: Member, taken: Taken) -> bool:
        """Enter a step of a member; whether it brought a bad outcome."""
        tally = member.tally
        wave = tally.piece.wave
        if not member.excluded:
            self.waves[wave].changed = True
            tally.gain(taken)
            self._monitors = None
        flying = taken.flying
        if flying:
            self.in_flight += flying
            self.wave_in_flight[wave] = self.wave_in_flight.get(wave, 0) + flying
        if not taken.bad:
            return False
        self._monitors = None
        earlier = taken.earlier
        for outcome in taken.bad:
            self.bad[outcome] = self.bad.get(outcome, 0) + 1
            self._enter(outcome, earlier, member)
            earlier = earlier | {outcome}
        return True

    def _enter(self, outcome: Outcome, earlier: frozenset[Outcome], member: Member) -> None:
        for number, budget in enumerate(self.budgets):
            if outcome in budget.outcomes and not earlier.intersection(budget.outcomes):
                self.budgets[number] = BudgetFacts(
                    budget.outcomes, budget.limit, budget.bad + 1, budget.base, budget.answer
                )
        seat, outcomes = self._seat(member)
        outcomes.add(outcome)
        for monitor in self._of(seat):
            spec = monitor.spec
            if outcome in spec.outcomes and not earlier.intersection(spec.outcomes):
                place = self.left_out.place(spec, 0, seat)
                if place is not None:
                    monitor.add(place)

    def _seat(self, member: Member) -> tuple[Seat, set[Outcome]]:
        found = self._seats.get(member.device)
        if found is None:
            piece = member.tally.piece
            wave = wave_population(piece.wave)
            places = piece.places(member.position, (ROLLOUT, wave, *member.segments))
            mine = places.pop(ROLLOUT), places.pop(wave)
            seat = Seat(piece.wave, piece.number, member.position, *mine, places)
            found = self._seats[member.device] = (seat, set())
        return found

    def _of(self, seat: Seat) -> list[Monitor]:
        """The monitors that could count a device."""
        scopes = (ROLLOUT_SCOPE, f"{WAVE}{seat.wave}", *(f"{SEGMENT}{segment}" for segment in seat.segments))
        return [monitor for scope in scopes for monitor in self._by_scope.get(scope, ())]

    def leave_out(self, excluded: frozenset[str]) -> None:
        """These segments are left out from now on: all is counted again without them (RULES 4.4). The tallies of their
        members are the caller's to take back."""
        self.left_out = LeftOut([each.piece for each in self.slices], excluded)
        for tally in self.slices:
            tally.excluded, tally._facts = self.left_out.members(tally.piece, nobody_changes=True), None
        for wave in self.waves.values():
            wave.changed = True
        places: dict[int, list[int]] = {id(monitor): [] for monitor in self.monitors}
        for seat, outcomes in self._seats.values():
            for monitor in self._of(seat):
                if not outcomes.isdisjoint(monitor.spec.outcomes):
                    place = self.left_out.place(monitor.spec, 0, seat)
                    if place is not None:
                        places[id(monitor)].append(place)
        for monitor in self.monitors:
            monitor.count_again(places[id(monitor)])
        self._monitors = None

    def crossing(self, segment: str) -> tuple[int, int]:
        """How many bad devices a segment's monitor had found, and among how many first places, when it crossed."""
        crossed = [each.crossed_at for each in self._by_scope.get(f"{SEGMENT}{segment}", ()) if each.crossed_at]
        return min(crossed, default=(0, 0))

    def cause(self, reason: Reason) -> str:
        """The name of what gave this reason: a monitor, a budget, or the kind of reason."""
        if reason.kind in (ReasonKind.MONITOR, ReasonKind.SEGMENT):
            seen = [each.last_facts for each in self.monitors if each.last_facts is not None]
            crossed = [each for each in seen if each.crossed_at is not None]
            return next((each.monitor for each in crossed if monitor_sentence(each) in reason.sentence), "")
        if reason.kind is ReasonKind.BUDGET:
            return next((f"budget:{each.name}" for each in self.budgets if each.reached), "")
        return reason.kind.value

    def facts(self, now: datetime) -> Facts:
        """What a decision sees at ``now``."""
        if self._monitors is None:
            opened = [(each.piece.wave, each.facts()) for each in self.slices]
            self._monitors = tuple(
                each.facts(opened, self.given) for each in self.monitors if each.spec.segment is None or each.places
            )
        return Facts(
            devices=self.devices,
            waves=tuple(wave.facts() for wave in self.waves.values()),
            monitors=self._monitors,
            budgets=tuple(self.budgets),
            clock=self._clock(now),
        )

    def _clock(self, now: datetime) -> ClockFacts | None:
        """What the clock of silence has seen; once it has crossed, with the boards that are watched."""
        found = None if self.silence is None else self.silence.facts(now)
        if found is None or found.untouched is None:
            return found
        begins = segment_population("hardware_id", "")
        watched = {
            each.spec.segment.removeprefix(begins): max(each.spec.devices, self.given.get(each.spec.segment, 0))
            for each in self.monitors
            if each.spec.segment is not None and each.spec.segment.startswith(begins)
        }
        return replace(found, boards=tuple(sorted(watched.items())))
