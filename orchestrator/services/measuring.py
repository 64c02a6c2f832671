"""What ``/metrics`` says of rollouts, read when it is asked for: from the counters that decisions are made from.

Rollouts that may still offer something, waves, monitors that nobody has accepted; a rollout drops out once it offers
no more. It costs the same for a hundred devices and for ten million; rollouts, and monitors over segments, are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.core.decide import decide
from orchestrator.core.evidence.crossing import Step
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts, MonitorFacts, WaveFacts, WaveState
from orchestrator.core.states import LIVE_ROLLOUT, ReasonKind, RolloutStatus
from orchestrator.services.chronicle import rules_of
from orchestrator.services.notice_store import Unsent
from orchestrator.services.records import JobStatus, RolloutRow
from orchestrator.services.store import Reading, Store

MOST_ROLLOUTS: Final = 100
"""Rollouts that are measured at once, the live ones first."""

MOST_SEGMENTS: Final = 20
"""Monitors over segments that are measured of one rollout, those with most evidence first."""

NEWEST_JOBS: Final = 10_000
"""Builds among which those of each status are counted."""

MOST_EFFECTS: Final = 1_000
"""What waits in the outbox is counted up to this."""


AWAITED: Final = frozenset({ReasonKind.AWAITING_PROMOTION, ReasonKind.AWAITING_APPROVAL})
"""What only a person's word ends."""

MOST_MESSAGES: Final = 10_000
"""Messages that did not arrive are counted up to this."""


@dataclass(frozen=True, slots=True)
class MonitorFigures:
    """A monitor. ``evidence``: of the evidence that makes it act the part it has, in logarithms: 0 before anything is
    seen, 1 where it acts. ``margin``: how many more bad devices make it act, at the worst places; 0 where it has."""

    facts: MonitorFacts
    evidence: float
    margin: int


@dataclass(frozen=True, slots=True)
class WaveFigures:
    """``awaited``: it waits for a person's word, to promote or to approve."""

    state: WaveState
    facts: WaveFacts
    awaited: bool


@dataclass(frozen=True, slots=True)
class RolloutFigures:
    name: str
    tag: str
    target: int
    status: RolloutStatus
    devices: int
    since: datetime
    waves: tuple[WaveFigures, ...]
    monitors: tuple[MonitorFigures, ...]
    budgets: tuple[BudgetFacts, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """``left_out``: rollouts above what is measured. ``effects``: what waits in the outbox, by kind; ``failing``: how
    many of those failed when they were tried last; ``messages``: those to people that did not arrive."""

    rollouts: tuple[RolloutFigures, ...]
    left_out: int
    builds: Mapping[JobStatus, int]
    effects: Mapping[str, int]
    failing: int
    frozen: bool
    messages: Unsent


@dataclass(frozen=True, slots=True)
class Measuring:
    store: Store
    clock: Callable[[], datetime]

    def figures(self) -> Figures:
        """One consistent snapshot. Raises StoreUnavailable, Busy."""
        now = self.clock()
        with self.store.reading() as r:
            rows = sorted(r.offering(), key=lambda row: row.state.status not in LIVE_ROLLOUT)
            effects: dict[str, int] = {}
            failing = 0
            for effect in r.effects(limit=MOST_EFFECTS):
                effects[effect.kind] = effects.get(effect.kind, 0) + 1
                failing += effect.error is not None
            return Figures(
                rollouts=tuple(_rollout(r, row, now) for row in rows[:MOST_ROLLOUTS]),
                left_out=max(0, len(rows) - MOST_ROLLOUTS),
                builds=r.job_counts(newest=NEWEST_JOBS),
                effects=effects,
                failing=failing,
                frozen=r.frozen() is not None,
                messages=r.unsent_notices(most=MOST_MESSAGES),
            )


def _rollout(r: Reading, row: RolloutRow, now: datetime) -> RolloutFigures:
    facts = r.facts(row, now=now)
    by_wave = {wave.wave: wave for wave in facts.waves}
    plan = decide(row.state, facts, rules_of(row), now)
    awaited = {each.wave for each in plan.reasons if each.reason.kind in AWAITED}
    return RolloutFigures(
        name=row.state.rollout,
        tag=row.tag,
        target=row.target_version,
        status=row.state.status,
        devices=facts.devices,
        since=row.state.standing.since,
        waves=tuple(WaveFigures(wave, by_wave[wave.wave], wave.wave in awaited) for wave in row.state.waves),
        monitors=_monitors([each for each in facts.monitors if not each.accepted], r.next_steps(row.key)),
        budgets=facts.budgets,
    )


def _monitors(found: list[MonitorFacts], steps: Mapping[str, Step]) -> tuple[MonitorFigures, ...]:
    figures = [monitor_figures(each, steps.get(each.monitor)) for each in found]
    segments = sorted((each for each in figures if each.facts.segment is not None), key=lambda each: -each.evidence)
    return (*(each for each in figures if each.facts.segment is None), *segments[:MOST_SEGMENTS])


def monitor_figures(facts: MonitorFacts, step: Step | None) -> MonitorFigures:
    """``step``: what is missing to cross, where something bad was counted and it has not."""
    if facts.crossed_at is not None:
        return MonitorFigures(facts, 1.0, 0)
    stairs = staircase(facts.tolerance, facts.alpha)
    seen = stairs.log_evidence(max(facts.places, facts.bad), facts.bad) / -math.log(facts.alpha)
    more = step.more if step is not None else max(1, stairs.first - facts.bad)
    return MonitorFigures(facts, min(1.0, max(0.0, seen)), more)
