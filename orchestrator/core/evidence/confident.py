"""The early door: is it proven that fewer than the tolerated part of the devices are bad? (``RULES.md`` 5.3)

The mirror of ``limits``: a mixture e-process (``facts/evidence.md`` §3.5) against the hypothesis that each device is
bad with probability ``rate`` or more, given the devices before it. With ``bad`` among ``places``::

    A(places, bad) = sum_j v_j * (q_j / rate)**bad * ((1 - q_j) / (1 - rate))**(places - bad)

for rates q_j below ``rate`` (0 is one of them and is out of it with the first bad device). It ever reaches 1/BETA with
probability at most BETA while the hypothesis holds, however often one looks, at whichever prefix of places.

Every place that is not known to be good counts as bad: pending, silent, ignored, not come yet. A falls with ``bad``, so
silence can only keep the door shut.

Answers for: whether a wave is confident, and how many confirmed devices that takes. Does not answer for: the other
conditions of the door, which no confidence lifts (``door``).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

BETA: Final = 0.05
"""The chance of passing early a wave whose devices are bad at ``rate``."""

_ALTERNATIVES: Final = ((0.0, 0.40), (1 / 16, 0.15), (1 / 8, 0.15), (1 / 4, 0.15), (1 / 2, 0.15))
"""Each as a part of ``rate``, with its weight."""

_THRESHOLD: Final = -math.log(BETA)


class Boundary(NamedTuple):
    """The first ``places`` of a wave, of which ``good`` are known to be good."""

    places: int
    good: int


def rate_of(tolerate: Mapping[Outcome, Tolerance]) -> float:
    """What must be refuted: the sum of the tolerances of the classes that halt, without that of silence, for which
    nothing is granted: whoever was not heard of counts as bad already. 0 when none does."""
    return math.fsum(
        each.at_most
        for outcome, each in tolerate.items()
        if each.then is Answer.HALT and outcome != OutcomeClass.SILENT
    )


def log_confidence(places: int, bad: int, rate: float) -> float:
    """Natural logarithm of A(``places``, ``bad``); 0.0 before anything is seen.

    Raises ``InvalidInput`` unless ``0 <= bad <= places`` and 0 < ``rate`` < 1.
    """
    if not 0 <= bad <= places or not 0.0 < rate < 1.0:
        raise InvalidInput(f"There is no confidence for {bad} bad among {places} at a rate of {rate:g}.")
    return _log(places, bad, rate)


def confident(boundaries: Iterable[Boundary], rate: float) -> Boundary | None:
    """The boundary with the most evidence that fewer than ``rate`` are bad, if that is enough; else None.

    ``boundaries`` are prefixes of one sequence of places. Of a ``rate`` outside (0, 1) nothing can be proven: None.
    """
    if not 0.0 < rate < 1.0:
        return None
    found = [each for each in boundaries if each.places > 0]
    best = max(found, key=lambda each: _boundary(each, rate), default=None)
    return best if best is not None and _boundary(best, rate) >= _THRESHOLD else None


def good_needed(places: int, rate: float) -> int | None:
    """How many of the first ``places`` must be good to be confident by them; None when not even all are enough."""
    if not 0.0 < rate < 1.0 or places < reports_needed(0, rate):
        return None
    return places + 1 - bisect_left(range(places + 1), True, key=lambda bad: _log(places, bad, rate) < _THRESHOLD)


@lru_cache(maxsize=1_024)
def reports_needed(bad: int, rate: float) -> int:
    """The fewest places among which ``bad`` bad ones still make confident. Raises as :func:`log_confidence`."""
    log_confidence(bad, bad, rate)
    upper = bad + 1
    while _log(upper, bad, rate) < _THRESHOLD:
        upper *= 2
    return bisect_left(range(upper), True, key=lambda places: places >= bad and _log(places, bad, rate) >= _THRESHOLD)


def _boundary(each: Boundary, rate: float) -> float:
    good = max(0, min(each.good, each.places))
    return _log(each.places, each.places - good, rate)


def _log(places: int, bad: int, rate: float) -> float:
    exponents = [
        math.log(weight)
        + (bad * math.log(part) if bad else 0.0)
        + (places - bad) * (math.log1p(-part * rate) - math.log1p(-rate))
        for part, weight in _ALTERNATIVES
        if part > 0.0 or not bad
    ]
    top = max(exponents)
    return top + math.log(math.fsum(math.exp(exponent - top) for exponent in exponents))
