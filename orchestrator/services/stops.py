"""What stops a rollout, by the names a person accepts it with."""

from __future__ import annotations

from orchestrator.core.evidence.clock import CLOCK
from orchestrator.core.facts import BudgetFacts, Facts, RolloutState
from orchestrator.core.outcomes import Answer
from orchestrator.core.reasons import monitor_sentence
from orchestrator.core.safety import FIRST_BAD, clock_stop, watching
from orchestrator.core.states import ReasonKind, RolloutStatus


def budget_key(budget: BudgetFacts) -> str:
    """What a budget is called on the command line: ``budget/failed``."""
    return f"budget/{budget.name}"


def stopping(state: RolloutState, facts: Facts) -> dict[str, str]:
    """What stops a rollout now, by the name a person accepts it with, each with its sentence."""
    standing = state.standing.reason
    found = {
        monitor.monitor: monitor_sentence(monitor)
        for monitor in watching(state, facts.monitors)
        if monitor.crossed_at is not None and monitor.answer is not Answer.COUNT
    }
    for budget in facts.budgets:
        if budget.reached:
            found[budget_key(budget)] = f"{budget.bad} of at most {budget.limit - 1} devices"
    if state.status is RolloutStatus.HELD and standing.kind is ReasonKind.FIRST_BAD:
        found[FIRST_BAD] = standing.sentence
    if state.status in (RolloutStatus.HELD, RolloutStatus.HALTED) and standing.kind is ReasonKind.SILENCE:
        found[CLOCK] = standing.sentence
    elif state.status in (RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.HELD):
        # While it is paused or held for something else, nobody was told yet of a clock that holds.
        stop = clock_stop(state, facts)
        if stop is not None and stop.reason.kind is ReasonKind.SILENCE:
            found[CLOCK] = stop.reason.sentence
    return found
