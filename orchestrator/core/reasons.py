"""Sentences about evidence that people read in ``status``, ``explain``, the journal and messages."""

from __future__ import annotations

from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts, MonitorFacts
from orchestrator.core.outcomes import OutcomeClass


def words(outcomes: tuple[OutcomeClass, ...]) -> str:
    """The classes as people say them: ``failed``, ``failed or rolled back``."""
    names = [outcome.replace("_", " ") for outcome in outcomes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 22nd."""
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _where(monitor: MonitorFacts) -> str:
    return f"of wave {monitor.wave}" if monitor.wave else "of the rollout"


def monitor_sentence(monitor: MonitorFacts) -> str:
    """A crossed monitor: what was seen, and the limit."""
    if monitor.crossed_at is None:
        return monitor_state(monitor)
    count, place = monitor.crossed_at
    limit = staircase(monitor.tolerance, monitor.alpha).limit(count)
    return (
        f"{count} {words(monitor.outcomes)} within the first {place} places {_where(monitor)}: {count} within the first"
        f" {limit} are more than a tolerance of {100 * monitor.tolerance:g} % explains."
    )


def monitor_state(monitor: MonitorFacts) -> str:
    """A monitor in one line, for ``explain``."""
    seen = f"{monitor.bad} {words(monitor.outcomes)} among {monitor.places} places {_where(monitor)}"
    tolerance = f"tolerance {100 * monitor.tolerance:g} %"
    if monitor.accepted:
        return f"{seen}: accepted by a person; {tolerance}"
    if monitor.crossed_at is not None:
        return f"{seen}: crossed; {tolerance}"
    if monitor.next_limit < 1:
        return f"{seen}; one more decides nothing yet; {tolerance}"
    verb = "halts" if monitor.answer == "halt" else "holds"
    return f"{seen}; {ordinal(monitor.bad + 1)} within the first {monitor.next_limit} {verb}; {tolerance}"


def budget_sentence(budget: BudgetFacts) -> str:
    """A budget that is reached."""
    accepted = f" ({budget.base} were accepted before)" if budget.base else ""
    return f"{budget.bad} devices {words(budget.outcomes)}{accepted}: the budget of {budget.limit} is used up."


def first_bad_sentence(wave: str) -> str:
    return f"The first bad device in {wave}, a wave of fewer than 10: a fleet this small cannot tell chance from cause."
