"""The band around a failure rate: shown to people, and its upper end paces offers (``core.admission``).

A beta-binomial confidence sequence with Jeffreys' prior (a = b = 1/2; ``facts/evidence.md`` §3.2): the true rate lies
in all bands ever shown, at every moment together, with probability 1 - alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from orchestrator.errors import InvalidInput

_PRIOR: Final = 0.5
_HALVINGS: Final = 1_100
"""Enough to halve any bracket of doubles down to two neighbours, tiny numbers included; far fewer are made."""


class Interval(NamedTuple):
    """Bounds of a failure rate, 0 <= ``low`` <= ``high`` <= 1."""

    low: float
    high: float


def interval(bad: int, places: int, alpha: float, *, halvings: int = _HALVINGS) -> Interval:
    """The band after ``bad`` bad outcomes among ``places`` decided devices, at confidence 1 - ``alpha``. With 30
    ``halvings`` its ends are found to a billionth, which is enough to look at.

    All of [0, 1] before anything is seen. Raises ``InvalidInput`` unless ``0 <= bad <= places`` and 0 < alpha < 1.
    """
    if not 0 <= bad <= places or not 0.0 < alpha < 1.0:
        raise InvalidInput(f"There is no band for {bad} bad among {places} at an alpha of {alpha:g}.")
    good = places - bad
    mixture = _log_beta(_PRIOR + bad, _PRIOR + good) - _log_beta(_PRIOR, _PRIOR)
    threshold = -math.log(alpha)

    def excluded(rate: float) -> bool:
        if (rate <= 0.0 and bad) or (rate >= 1.0 and good):
            return True
        likelihood = (bad * math.log(rate) if bad else 0.0) + (good * math.log1p(-rate) if good else 0.0)
        return mixture - likelihood >= threshold

    seen = bad / places if places else 0.5
    low = 0.0 if not excluded(0.0) else _edge(0.0, seen, excluded, halvings)
    high = 1.0 if not excluded(1.0) else _edge(1.0, seen, excluded, halvings)
    return Interval(low, high)


@lru_cache(maxsize=4_096)
def upper(bad: int, places: int, alpha: float) -> float:
    """The upper end of :func:`interval`. The boundaries of slices that have come to rest are asked for again and again.
    Raises as it."""
    return interval(bad, places, alpha).high


def _edge(outside: float, inside: float, excluded: Callable[[float], bool], halvings: int) -> float:
    """The last excluded rate between ``outside``, which is excluded, and ``inside``, which never is."""
    for _ in range(halvings):
        middle = (outside + inside) / 2
        if middle in (outside, inside):
            break
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
