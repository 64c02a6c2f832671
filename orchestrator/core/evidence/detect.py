"""What a monitor can see at all in a number of places: for ``plan``, and for the honest word to small fleets.

Answers for: the probability that a staircase halts at a given failure rate, and the rate it finds with 90 %.
Does not answer for: how fast it finds it, budgets, several monitors together.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from operator import mul
from typing import Final

from orchestrator.core.evidence.budgets import chance_of_reaching, log_chance_of_exactly
from orchestrator.core.evidence.limits import Staircase

POWER: Final = 0.9
"""A rate counts as detectable when it halts with this probability."""
EXACT_LIMITS: Final = 64
"""Limits followed one by one. A wave that has more is looked at once more at its end: a lower bound of the truth."""
DEEPEST_FIRST: Final = 512
"""A staircase whose first limit needs more bad devices than this is looked at only at the end."""

_RATE_STEPS: Final = 1_000
"""A detectable rate is found to this part of the gap between what one look at the end finds, and the tolerance."""
_NEGLIGIBLE: Final = 1e-18

_SMALL_NUMBERS: Final = "no one two three four five six seven eight nine ten".split()


def halting_probability(staircase: Staircase, places: int, rate: float) -> float:
    """P(halt within ``places``) when each device is bad with probability ``rate``, all heard of, independently.

    Exact (dynamic programming over the bad count at each limit) while at most 64 limits lie within ``places``; beyond
    that at most what it really is: the first 64 limits, and the count at the end. At most about 64² · 64 products.
    """
    if rate <= 0.0 or places < staircase.first:
        return 0.0
    if rate >= 1.0:
        return 1.0
    undecided, looked = [1.0], 0
    if staircase.first <= DEEPEST_FIRST:
        for bad in range(staircase.first, staircase.first + EXACT_LIMITS):
            limit = staircase.limit(bad)
            if limit >= places:
                break
            undecided, looked = _advance(undecided, limit - looked, rate, bad), limit
    needed = staircase.need(places)
    missed = (
        chance * (1.0 - chance_of_reaching(places - looked, rate, needed - bad)) for bad, chance in enumerate(undecided)
    )
    return min(1.0, max(0.0, 1.0 - math.fsum(missed)))


@lru_cache(maxsize=1_024)
def detectable_rate(staircase: Staircase, places: int, power: float = POWER) -> float | None:
    """The smallest failure rate that halts within ``places`` with probability ``power``, rounded up to a thousandth.

    None when ``places`` are so few that not even failing everywhere halts. Beyond 64 limits at least what it really is,
    as :func:`halting_probability`.
    """
    if places < staircase.first:
        return None
    needed, floor = staircase.need(places), staircase.tolerance
    highest = _smallest(floor, 1.0, lambda rate: chance_of_reaching(places, rate, needed) >= power)
    return _smallest(floor, highest, lambda rate: halting_probability(staircase, places, rate) >= power)


def plain_word(staircase: Staircase, places: int) -> str:
    """What so few devices can say, for people (``RULES.md`` 4.7). A sentence without a full stop."""
    count = _SMALL_NUMBERS[places] if 0 <= places < len(_SMALL_NUMBERS) else str(places)
    devices, say, fail = ("device", "says", "it fails") if places == 1 else ("devices", "say", "all fail")
    rate = detectable_rate(staircase, places)
    if rate is None:
        return f"{count} {devices} cannot halt by evidence, even if {fail}; advancing rests on you"
    return f"{count} {devices} {say} nothing below a failure rate of {100 * rate:.2g} %; advancing rests on you"


def _smallest(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """The smallest of a thousand even steps from ``low`` to ``high`` that holds; ``high`` if none below does."""
    step = (high - low) / _RATE_STEPS
    return low + step * bisect_left(range(_RATE_STEPS), True, key=lambda number: holds(low + step * number))


def _advance(undecided: list[float], places: int, rate: float, bad: int) -> list[float]:
    """Chances of 0 … ``bad`` - 1 bad devices after ``places`` more; what reaches ``bad`` has halted and is gone."""
    kernel: list[float] = []
    for arrived in range(min(places, bad - 1) + 1):
        kernel.append(math.exp(log_chance_of_exactly(places, rate, arrived)))
        if arrived > places * rate and kernel[-1] < _NEGLIGIBLE:
            break
    kernel.reverse()
    span = len(kernel)
    padded = [0.0] * (span - 1) + undecided + [0.0] * (bad - len(undecided))
    return [sum(map(mul, kernel, padded[count : count + span])) for count in range(bad)]
