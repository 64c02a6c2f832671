"""The integer staircase that halts: *the k-th bad device, by place, is among the first b_k*.

Answers for: the mixture e-process of one monitor (``facts/evidence.md`` §3.2), its limits and their inverse.
Does not answer for: which places are bad (``crossing``), how much allowance a monitor has (``allowance``).

With ``bad`` among ``places``, under the hypothesis that each device is bad with at most the tolerance p0 given the
devices before it::

    E(places, bad) = sum_j w_j * (p_j / p0)**bad * ((1 - p_j) / (1 - p0))**(places - bad)

is a non-negative supermartingale that starts at 1, so by Ville's inequality it ever reaches 1/alpha with probability
at most alpha, however often one looks and whenever one stops. E grows with ``bad`` and falls with ``places``, which
is why the rule collapses to one integer limit per bad count.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from orchestrator.errors import InvalidInput

GRID_POINTS: Final = 12
"""Alternatives the mixture bets on."""
GRID_FROM: Final = 1.5
"""The mildest alternative, as a multiple of the tolerance."""
GRID_TO: Final = 0.95
"""The worst alternative, a failure probability."""
GRID_DECAY: Final = 0.8
"""Each alternative weighs this much of the one before it: more on the mild ones."""
AMBER: Final = 5.0
"""A monitor is amber from this fraction of its halting evidence on: a fifth."""

LEAST_TOLERANCE: Final = 1e-6
"""One in a million: below it, neither any fleet nor double precision could tell a limit from its neighbour."""
MOST_TOLERANCE: Final = 1.0 - 1e-6
LEAST_ALPHA: Final = 1e-100
"""Far below any share of an allowance that a rollout could hand out."""

_SLACK: Final = 2
"""Steps by which a bracket found in closed form is widened, so that rounding cannot exclude the answer."""


@dataclass(frozen=True, slots=True)
class _Term:
    """One alternative p_j of the mixture, in natural logarithms."""

    weight: float
    """log w_j, at most 0."""
    per_bad: float
    """log(p_j / p0), above 0."""
    per_good: float
    """log((1 - p_j) / (1 - p0)), below 0."""


@dataclass(frozen=True, slots=True)
class Staircase:
    """The limits of one monitor: ``tolerance`` is p0 in (0, 1), ``alpha`` its own part of the allowance, in (0, 1).

    Immutable and comparable by these two. Take it from :func:`staircase`, which keeps the ones in use.
    Raises ``InvalidInput`` for a tolerance outside one in a million to all but one in a million (0 % and 100 % have no
    staircase), and for an alpha that is not a probability above 0 and below 1.
    """

    tolerance: float
    alpha: float
    first: int = field(init=False, repr=False, compare=False)
    """The smallest bad count that can halt at all: that many bad in a row from the first place on do."""
    _terms: tuple[_Term, ...] = field(init=False, repr=False, compare=False)
    _threshold: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not LEAST_TOLERANCE <= self.tolerance <= MOST_TOLERANCE:
            raise InvalidInput(
                f"A tolerance of {self.tolerance:g} cannot be watched: it must lie between"
                f" {LEAST_TOLERANCE:g} and {MOST_TOLERANCE:g}.",
                remedy="To tolerate nothing use a budget of 1, to tolerate everything answer with `count`.",
            )
        if not LEAST_ALPHA <= self.alpha < 1.0:
            raise InvalidInput(
                f"An allowance of {self.alpha:g} for false alarms is not a probability above 0 and below 1."
            )
        object.__setattr__(self, "_terms", _mixture(self.tolerance))
        object.__setattr__(self, "_threshold", -math.log(self.alpha))
        object.__setattr__(self, "first", self._find_first())

    def log_evidence(self, places: int, bad: int) -> float:
        """Natural logarithm of E(``places``, ``bad``); 0.0 before anything is seen.

        Raises ``InvalidInput`` unless ``0 <= bad <= places``.
        """
        if not 0 <= bad <= places:
            raise InvalidInput(f"{bad} bad among {places} places cannot be: counts run from 0 to the places there are.")
        return self._log(places, bad)

    def reaches(self, place: int, bad: int) -> bool:
        """Is the ``bad``-th bad device at ``place`` within its limit? The same as ``limit(bad) >= place``, cheaper."""
        return bad >= self.first and self._log(place, bad) >= self._threshold

    def limit(self, bad: int) -> int:
        """b_k for k = ``bad``: the largest number of places among which ``bad`` bad ones halt; 0 when none is.

        Rises strictly from ``first`` on.
        """
        return _limit(self, bad)

    def limits(self, count: int) -> tuple[int, ...]:
        """b_1 … b_count."""
        return tuple(self.limit(bad) for bad in range(1, count + 1))

    def need(self, place: int) -> int:
        """The smallest k with ``limit(k) >= place``: how many bad up to ``place`` halt. Inverse of :meth:`limit`.

        Raises ``InvalidInput`` unless ``place`` is 1 or more.
        """
        return _need(self, place)

    def amber(self, places: int, bad: int) -> bool:
        """Is there a fifth of the evidence that halts, or more? Never so before the first bad device.

        It needs no error control: it only slows down, and goes away by itself.
        """
        return bad > 0 and self.log_evidence(places, bad) >= self._threshold - math.log(AMBER)

    def _log(self, places: int, bad: int) -> float:
        good = places - bad
        exponents = [term.weight + bad * term.per_bad + good * term.per_good for term in self._terms]
        top = max(exponents)
        return top + math.log(math.fsum(math.exp(exponent - top) for exponent in exponents))

    def _find_first(self) -> int:
        at_most = min((self._threshold - term.weight) / term.per_bad for term in self._terms)
        candidates = range(1, math.ceil(at_most) + _SLACK)
        return candidates[bisect_left(candidates, True, key=lambda bad: self._log(bad, bad) >= self._threshold)]


@lru_cache(maxsize=4_096)
def staircase(tolerance: float, alpha: float) -> Staircase:
    """The staircase of one tolerance and one alpha; the 4,096 used last are kept, several live rollouts with 500
    monitors each. Raises as :class:`Staircase`."""
    return Staircase(tolerance, alpha)


@lru_cache(maxsize=256)
def _mixture(tolerance: float) -> tuple[_Term, ...]:
    """The grid: geometric from 1.5 p0 to 0.95, weights proportional to 0.8**j.

    For a tolerance so high that this would leave (p0, 1) or shrink to a point, the mildest alternative is at most half
    way from p0 to the worst, and the worst at least half way from p0 to 1. The theorem holds for any grid above p0.
    """
    worst = max(GRID_TO, tolerance + (1.0 - tolerance) / 2)
    mildest = min(GRID_FROM * tolerance, tolerance + (worst - tolerance) / 2)
    step = (worst / mildest) ** (1 / (GRID_POINTS - 1))
    whole = math.fsum(GRID_DECAY**j for j in range(GRID_POINTS))
    alternatives = [mildest * step**j for j in range(GRID_POINTS - 1)] + [worst]
    return tuple(
        _Term(
            weight=math.log(GRID_DECAY**j / whole),
            per_bad=math.log1p((alternative - tolerance) / tolerance),
            per_good=math.log1p((tolerance - alternative) / (1.0 - tolerance)),
        )
        for j, alternative in enumerate(alternatives)
    )


# Both searches start from a bracket in closed form. The weights sum to 1, so E >= 1/alpha needs one alternative whose
# own ratio reaches 1/alpha, and has it when one does even times its weight. What is left to bisect is narrow.


@lru_cache(maxsize=65_536)
def _limit(stairs: Staircase, bad: int) -> int:
    if bad < stairs.first:
        return 0
    terms, threshold = stairs._terms, stairs._threshold
    at_least = max((term.weight + bad * term.per_bad - threshold) / -term.per_good for term in terms)
    at_most = max((bad * term.per_bad - threshold) / -term.per_good for term in terms)
    places = range(bad + max(0, math.floor(at_least) - _SLACK), bad + math.ceil(at_most) + _SLACK)
    return places[0] - 1 + bisect_left(places, True, key=lambda n: stairs._log(n, bad) < threshold)


@lru_cache(maxsize=16_384)
def _need(stairs: Staircase, place: int) -> int:
    if place < 1:
        raise InvalidInput(f"Places count from 1; {place} is none.")
    if place <= stairs.first:
        return stairs.first
    terms, threshold = stairs._terms, stairs._threshold
    at_least = min((threshold - place * term.per_good) / (term.per_bad - term.per_good) for term in terms)
    at_most = min((threshold - term.weight - place * term.per_good) / (term.per_bad - term.per_good) for term in terms)
    counts = range(max(stairs.first, math.floor(at_least) - _SLACK), math.ceil(at_most) + _SLACK)
    return counts[0] + bisect_left(counts, True, key=lambda bad: stairs._log(place, bad) >= threshold)
