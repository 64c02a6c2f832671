"""What must stop a rollout now, whatever else: budgets first, then monitors and the clock that halt, then what holds.

``decide`` asks it before everything, and the transaction that counts a report asks it at once (RULES 1.4).
"""

from __future__ import annotations

from typing import Final

from orchestrator.core.decisions import HaltRollout, HoldRollout
from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW
from orchestrator.core.evidence.clock import explained, reading
from orchestrator.core.facts import BudgetFacts, Facts, MonitorFacts, RolloutState, WaveFacts
from orchestrator.core.outcomes import Answer
from orchestrator.core.reasons import (
    budget_sentence,
    clock_sentence,
    environment_sentence,
    first_bad_sentence,
    monitor_sentence,
)
from orchestrator.core.rules import Rules
from orchestrator.core.states import WATCHED_ROLLOUT, Reason, ReasonKind, RolloutStatus

SMALL_WAVE: Final = 10
"""In a small fleet, the first bad device of a wave of fewer devices holds the rollout."""

FIRST_BAD: Final = "small-wave/first_bad"
"""By which name a person accepts that."""


def safety(state: RolloutState, facts: Facts, rules: Rules) -> HaltRollout | HoldRollout | None:
    """What must stop the rollout now, whatever else: the most severe first. None when nothing does."""
    if state.status not in WATCHED_ROLLOUT:
        return None
    reached = [budget for budget in facts.budgets if budget.reached]
    crossed = [monitor for monitor in facts.monitors if monitor.crossed_at is not None and not monitor.accepted]
    if (reason := _stopping(reached, crossed, Answer.HALT)) is not None:
        return HaltRollout(reason)
    clock = clock_stop(state, facts)
    if isinstance(clock, HaltRollout):
        return clock
    if state.status in (RolloutStatus.HELD, RolloutStatus.PAUSED):
        return None
    if (reason := _stopping(reached, crossed, Answer.HOLD)) is not None:
        return HoldRollout(reason)
    if clock is not None:
        return clock
    accepted = state.first_bad_accepted
    if facts.devices < SMALL_FLEET_BELOW and (wave := small_wave_with_bad(facts, rules, accepted)):
        return HoldRollout(Reason(ReasonKind.FIRST_BAD, first_bad_sentence(wave, accepted)))
    return None


def clock_stop(state: RolloutState, facts: Facts) -> HaltRollout | HoldRollout | None:
    """What the clock test for silence asks for: its class's answer; a hold where untouched devices have gone dark too.

    A rollout that is held for that is not halted by the same darkness when the others are back: those that were not
    heard of in time stay so, and who resumes it begins the clock anew."""
    if facts.clock is None or facts.clock.answer is Answer.COUNT:
        return None
    if state.status is RolloutStatus.HELD and state.standing.reason.kind is ReasonKind.ENVIRONMENT:
        return None
    found = reading(facts.clock)
    if found is None or not found.crossed:
        return None
    if explained(facts.clock):
        return HoldRollout(Reason(ReasonKind.ENVIRONMENT, environment_sentence(facts.clock, found)))
    reason = Reason(ReasonKind.SILENCE, clock_sentence(facts.clock, found))
    return HaltRollout(reason) if facts.clock.answer is Answer.HALT else HoldRollout(reason)


def _stopping(budgets: list[BudgetFacts], monitors: list[MonitorFacts], answer: Answer) -> Reason | None:
    """The first cause with this answer: budgets before monitors."""
    for budget in budgets:
        if budget.answer is answer:
            return Reason(ReasonKind.BUDGET, budget_sentence(budget))
    for monitor in monitors:
        if monitor.answer is answer:
            return Reason(ReasonKind.MONITOR, monitor_sentence(monitor))
    return None


def bad_in_small_waves(facts: Facts, rules: Rules) -> int:
    """Bad outcomes, of classes that halt, in waves that began with fewer than ten devices. It never falls."""
    return sum(_halting_bad(wave, rules) for wave in facts.waves if _small(wave))


def small_wave_with_bad(facts: Facts, rules: Rules, accepted: int) -> str | None:
    """A small wave with a bad device, when there are more than a person has accepted; else None."""
    if bad_in_small_waves(facts, rules) <= accepted:
        return None
    return next(wave.wave for wave in facts.waves if _small(wave) and _halting_bad(wave, rules))


def _small(wave: WaveFacts) -> bool:
    """As it was when its first slice with a device opened: a wave that grows later stays what it was, and so do the
    bad devices of it that a person has accepted."""
    first = next((piece for piece in wave.slices if piece.members), None)
    return first is not None and first.members + first.waiting < SMALL_WAVE


def _halting_bad(wave: WaveFacts, rules: Rules) -> int:
    return sum(wave.bad(outcome) for outcome, tolerance in rules.tolerate.items() if tolerance.then is Answer.HALT)
