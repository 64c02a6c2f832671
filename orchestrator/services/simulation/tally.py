"""The evidence of one simulated rollout, kept in memory: tallies by slice, places, monitors and budgets, and the facts
that a decision sees, all by the core's own rules.

Answers for: what the store's tables answer for in an installation, without one. Each part is made anew only when it
changed.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import networkx as nx

from orchestrator.core.evidence.allowance import ROLLOUT as ROLLOUT_SCOPE
from orchestrator.core.evidence.allowance import MonitorSpec, WaveSize, allot
from orchestrator.core.evidence.budgets import default_budgets
from orchestrator.core.evidence.crossing import Node, NodeKey, add, first_crossing
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts, DeltaFacts, Facts, MonitorFacts, SliceFacts, WaveFacts
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.position import SPACE
from orchestrator.core.reasons import monitor_sentence
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.slices import BINS, EXACT_RANKS, ROLLOUT, Slice, coarse_ranks, exact_ranks, wave_population
from orchestrator.core.states import Reason, ReasonKind
from orchestrator.services.simulation.machine import COUNTED, Taken

_NUMBERS = len(COUNTED)


@dataclass(slots=True)
class SliceTally:
    """One opened slice and what its devices came to."""

    piece: Slice
    waiting: int
    numbers: list[int] = field(default_factory=lambda: [0] * _NUMBERS)
    bad: dict[OutcomeClass, int] = field(default_factory=dict)
    _facts: SliceFacts | None = None

    def gain(self, taken: Taken) -> None:
        for number, gain in taken.gains:
            self.numbers[number] += gain
        for outcome in taken.bad:
            self.bad[outcome] = self.bad.get(outcome, 0) + 1
        self._facts = None

    def facts(self) -> SliceFacts:
        if self._facts is None:
            piece = self.piece
            self._facts = SliceFacts(
                number=piece.number,
                opened_at=piece.opened_at,
                members=piece.members,
                waiting=self.waiting,
                bad=dict(self.bad),
                **dict(zip(COUNTED, self.numbers, strict=True)),
            )
        return self._facts


@dataclass(slots=True)
class Monitor:
    """One monitor: its tree in memory, the places counted in it and its first crossing."""

    spec: MonitorSpec
    nodes: dict[NodeKey, Node] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    crossed_at: tuple[int, int] | None = None
    _facts: MonitorFacts | None = None

    def add(self, place: int) -> None:
        """Count one more bad device at this place."""
        stairs = staircase(self.spec.tolerance, self.spec.alpha)
        added = add(self.nodes, (stairs.need(place),))
        self.nodes |= added.changed
        insort(self.places, place)
        self._facts = None
        if self.crossed_at is None and added.crossed:
            bad = first_crossing(self.nodes.get)
            assert bad is not None
            self.crossed_at = (bad, self.places[bad - 1])

    @property
    def last_facts(self) -> MonitorFacts:
        """As they were when they were last asked for."""
        return self._facts or self.facts(len(self.places))

    def facts(self, population: int) -> MonitorFacts:
        bad = len(self.places)
        if self._facts is None or self._facts.places != population:
            spec = self.spec
            stairs = staircase(spec.tolerance, spec.alpha)
            self._facts = MonitorFacts(
                monitor=spec.key,
                outcomes=spec.outcomes,
                wave=spec.wave,
                tolerance=spec.tolerance,
                alpha=spec.alpha,
                answer=spec.answer,
                places=population,
                bad=bad,
                next_limit=stairs.limit(bad + 1),
                crossed_at=self.crossed_at,
                amber=stairs.amber(max(population, bad), bad),
            )
        return self._facts


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
    """All of it. ``devices``: those of the rollout at its start."""

    devices: int
    waves: Mapping[str, WaveTally]
    monitors: Sequence[Monitor]
    budgets: list[BudgetFacts]
    given: dict[str, int] = field(default_factory=dict)
    bad: dict[OutcomeClass, int] = field(default_factory=dict)
    in_flight: int = 0
    wave_in_flight: dict[str, int] = field(default_factory=dict)
    holds: dict[str, Reason] = field(default_factory=dict)
    """Waves that waited for a person, and why."""
    _monitors: tuple[MonitorFacts, ...] | None = None

    def opened(self, piece: Slice, waiting: int) -> SliceTally:
        """A slice was opened; its members have their places from now on."""
        for population, ranks in piece.ranks.items():
            self.given[population] = self.given.get(population, 0) + ranks.members
        self._monitors = None
        tally = SliceTally(piece, waiting)
        wave = self.waves[piece.wave]
        wave.slices.append(tally)
        wave.late, wave.changed = False, True
        return tally

    def count(self, tally: SliceTally, taken: Taken, position: int) -> bool:
        """Enter a step of a member at this position; whether it brought a bad outcome."""
        wave = tally.piece.wave
        self.waves[wave].changed = True
        tally.gain(taken)
        flying = taken.flying
        if flying:
            self.in_flight += flying
            self.wave_in_flight[wave] = self.wave_in_flight.get(wave, 0) + flying
        if not taken.bad:
            return False
        places = tally.piece.places(position, (ROLLOUT, wave_population(wave)))
        self._monitors = None
        earlier = taken.earlier
        for outcome in taken.bad:
            self.bad[outcome] = self.bad.get(outcome, 0) + 1
            self._enter(outcome, earlier, wave, places)
            earlier = earlier | {outcome}
        return True

    def _enter(
        self, outcome: OutcomeClass, earlier: frozenset[OutcomeClass], wave: str, places: Mapping[str, int]
    ) -> None:
        for number, budget in enumerate(self.budgets):
            if outcome in budget.outcomes and not earlier.intersection(budget.outcomes):
                self.budgets[number] = BudgetFacts(
                    budget.outcomes, budget.limit, budget.bad + 1, budget.base, budget.answer
                )
        for monitor in self.monitors:
            spec = monitor.spec
            if outcome not in spec.outcomes or earlier.intersection(spec.outcomes):
                continue
            if spec.scope == ROLLOUT_SCOPE:
                monitor.add(places[ROLLOUT])
            elif spec.wave == wave:
                monitor.add(places[wave_population(wave)])

    def cause(self, reason: Reason) -> str:
        """The name of what gave this reason: a monitor, a budget, or the kind of reason."""
        if reason.kind is ReasonKind.MONITOR:
            crossed = [each for each in self.monitors if each.crossed_at is not None]
            return next((each.spec.key for each in crossed if monitor_sentence(each.last_facts) == reason.sentence), "")
        if reason.kind is ReasonKind.BUDGET:
            return next((f"budget:{each.name}" for each in self.budgets if each.reached), "")
        return reason.kind.value

    def facts(self, now: datetime) -> Facts:
        """What a decision sees at ``now``."""
        if self._monitors is None:
            given = self.given
            self._monitors = tuple(
                each.facts(given.get(ROLLOUT if each.spec.wave is None else wave_population(each.spec.wave), 0))
                for each in self.monitors
            )
        return Facts(
            devices=self.devices,
            waves=tuple(wave.facts() for wave in self.waves.values()),
            monitors=self._monitors,
            budgets=tuple(self.budgets),
        )


def begun(spec: RolloutFile, policy: Policy, sizes: Mapping[str, int], *, budgets: bool) -> Evidence:
    """The evidence of a rollout at its start, with its monitors, and its budgets unless they are left out."""
    devices = sum(sizes.values())
    planned = [
        WaveSize(name, sizes[name], sum(sizes[before] for before in nx.ancestors(spec.graph, name)))
        for name in spec.topological_order
    ]
    specs = allot(tolerate=policy.tolerances, false_halt=policy.false_halt, waves=planned, devices=devices)
    return Evidence(
        devices=devices,
        waves={wave.name: WaveTally(wave.name) for wave in spec.waves},
        monitors=tuple(map(Monitor, specs)),
        budgets=_budgets(policy, devices) if budgets else [],
    )


def _budgets(policy: Policy, devices: int) -> list[BudgetFacts]:
    own = {outcome: limit for outcome in OutcomeClass if (limit := policy.budget.limit(outcome)) is not None}
    found = [BudgetFacts((outcome,), limit.devices(devices), 0) for outcome, limit in own.items()]
    for default in default_budgets(tolerate=policy.tolerances, devices=devices):
        if len(default.outcomes) > 1 or default.outcomes[0] not in own:
            found.append(BudgetFacts(default.outcomes, default.count, 0, answer=default.answer))
    return found


def opened_slice(
    wave: str,
    number: int,
    members: Sequence[tuple[int, int]],
    left: int,
    segments: Callable[[int], Sequence[str]],
    given: Mapping[str, int],
    now: datetime,
) -> Slice:
    """The slice of a wave's next ``members`` (position and device, by rising position) while ``left`` more wait, with
    the places of all populations: exact ranks up to a thousand members, counts by stretch above, as the store."""
    whole = (ROLLOUT, wave_population(wave))
    upto = members[-1][0] + 1 if left else SPACE
    places: dict[str, list[int]] = {name: [] for name in whole} if members else {}
    for position, device in members:
        for name in whole:
            places[name].append(position)
        for name in segments(device):
            places.setdefault(name, []).append(position)
    ranks = {
        name: exact_ranks(found)
        if len(members) <= EXACT_RANKS
        else coarse_ranks(Counter(position * BINS // SPACE for position in found))
        for name, found in places.items()
    }
    return Slice(wave, number, upto, now, dict(given), ranks)
