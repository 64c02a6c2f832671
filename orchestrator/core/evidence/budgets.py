"""Hard budgets a policy does not name, and what a budget would do to a good release (``RULES.md`` 4.5, 4.7).

Answers for: exact binomial tails, the default budgets.
Does not answer for: budgets people write, and their enforcement. Budgets lie outside ``false_halt``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW
from orchestrator.core.outcomes import Answer, Outcome, Tolerance, in_order
from orchestrator.errors import InvalidInput

DEFAULT_CHANCE: Final = 0.001
"""A release exactly at its tolerance reaches a default budget with at most this probability."""
SMALL_FLEET_CHANCE: Final = 0.025
"""The same for the one pooled budget of a small fleet: the half of 5 % that its monitor leaves."""
WARN_ABOVE: Final = 0.01
"""``plan`` warns when a release at its tolerance reaches a budget with more than this probability."""

_NEGLIGIBLE: Final = 1e-18
"""A term this small beside the sum so far no longer changes it."""


@dataclass(frozen=True, slots=True)
class DefaultBudget:
    """Stop at ``count`` devices with any of ``outcomes`` (each device once). Above the fleet's size it never stops."""

    outcomes: tuple[Outcome, ...]
    count: int
    answer: Answer


def default_budgets(*, tolerate: Mapping[Outcome, Tolerance], devices: int) -> tuple[DefaultBudget, ...]:
    """The budgets of a rollout of ``devices`` whose policy names none.

    One for each class that halts or holds; below 200 devices one for all that halt together, at the sum of their
    tolerances and 2.5 %. Raises ``InvalidInput`` as :func:`default_budget`.
    """
    halting = tuple(outcome for outcome in in_order(tolerate) if tolerate[outcome].then is Answer.HALT)
    holding = tuple(outcome for outcome in in_order(tolerate) if tolerate[outcome].then is Answer.HOLD)
    budgets: list[DefaultBudget] = []
    if devices < SMALL_FLEET_BELOW and halting:
        pooled = math.fsum(tolerate[outcome].at_most for outcome in halting)
        budgets.append(DefaultBudget(halting, default_budget(devices, pooled, SMALL_FLEET_CHANCE), Answer.HALT))
        halting = ()
    budgets += [
        DefaultBudget((outcome,), default_budget(devices, tolerate[outcome].at_most), tolerate[outcome].then)
        for outcome in halting + holding
    ]
    return tuple(budgets)


@lru_cache(maxsize=4_096)
def default_budget(devices: int, tolerance: float, chance: float = DEFAULT_CHANCE) -> int:
    """The smallest c with P(Bin(``devices``, ``tolerance``) >= c) at most ``chance``; ``devices`` + 1 if none is less.

    Raises ``InvalidInput`` as :func:`chance_of_reaching`, and for a ``chance`` not above 0.
    """
    if not chance > 0.0:
        raise InvalidInput("A budget that a good release never reaches is no number of devices: allow it some chance.")
    counts = range(devices + 1)
    return bisect_left(counts, True, key=lambda count: chance_of_reaching(devices, tolerance, count) <= chance)


@lru_cache(maxsize=65_536)
def chance_of_reaching(devices: int, probability: float, budget: int) -> float:
    """P(Bin(``devices``, ``probability``) >= ``budget``), to seven digits or better at ten million devices.

    Always summed away from the mode, so a small tail is never the difference of two large numbers; the work is that of
    a few standard deviations. Raises ``InvalidInput`` for a negative count or a probability outside 0 … 1.
    """
    if devices < 0 or not 0.0 <= probability <= 1.0:
        raise InvalidInput(f"{devices} devices, each bad with probability {probability:g}: there is no such fleet.")
    if budget <= 0:
        return 1.0
    if budget > devices or probability == 0.0:
        return 0.0
    if probability == 1.0:
        return 1.0
    if budget > devices * probability:
        return _sum_away(devices, probability, budget)
    return 1.0 - _sum_away(devices, 1.0 - probability, devices - budget + 1)


def log_chance_of_exactly(devices: int, probability: float, bad: int) -> float:
    """log P(Bin(``devices``, ``probability``) = ``bad``), for a probability inside (0, 1) and a possible count."""
    return (
        math.lgamma(devices + 1)
        - math.lgamma(bad + 1)
        - math.lgamma(devices - bad + 1)
        + bad * math.log(probability)
        + (devices - bad) * math.log1p(-probability)
    )


def _sum_away(devices: int, probability: float, at_least: int) -> float:
    """The upper tail from ``at_least``, which lies above the mean: from there on the terms fall."""
    term = first = math.exp(log_chance_of_exactly(devices, probability, at_least))
    total = 0.0
    odds = probability / (1.0 - probability)
    for bad in range(at_least, devices + 1):
        total += term
        term *= (devices - bad) / (bad + 1) * odds
        if term <= _NEGLIGIBLE * first:
            break
    return min(1.0, total)
