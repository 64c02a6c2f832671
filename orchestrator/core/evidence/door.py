"""The bake door: may this wave pass? (``RULES.md`` 5.3)

Answers for: the conditions and the sentence for each that is not met. Missing evidence is "wait", never "pass".
Does not answer for: the ceiling ``at_most`` (the wave then holds), when the bake clock starts, who is confident
(``confident``): that lifts the conditions of ``LIFTED_EARLY`` and no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from orchestrator.core.durations import span_text
from orchestrator.core.evidence.budgets import chance_of_reaching
from orchestrator.core.outcomes import Answer, Outcome, Tolerance, in_order, word
from orchestrator.errors import InvalidInput

CONFIRMED_ENOUGH: Final = 20
"""So many confirmed devices are enough for any wave."""
CONFIRMED_PART: Final = Fraction(4, 5)
"""Of the reachable: what must be confirmed in a wave too small for twenty."""
UNLIKELY: Final = 0.05
"""A class passes while a release at its tolerance would show so many bad with more than this probability."""


class Condition(StrEnum):
    """What the door asks for."""

    TIME = "time"
    """``at_least`` has passed since the bake clock started."""
    REPORTS = "reports"
    """Enough of those that were given the offer have an outcome."""
    CONFIRMED = "confirmed"
    """Enough devices run the Target and said so."""
    CLASS = "class"
    """No class has more bad outcomes than its tolerance explains."""
    AMBER = "amber"
    """No monitor has a fifth of the evidence that halts."""


LIFTED_EARLY: Final = frozenset({Condition.TIME, Condition.REPORTS})
"""What ``early: confident`` need not wait for."""


class Unmet(NamedTuple):
    """One condition that keeps the door shut. ``subject`` is the class or monitor it is about, else empty."""

    condition: Condition
    sentence: str
    subject: str = ""


def door(
    *,
    baked: timedelta,
    at_least: timedelta,
    offers: int,
    outcomes: int,
    reports: float,
    confirmed: int,
    reachable: int,
    bad: Mapping[Outcome, int],
    tolerate: Mapping[Outcome, Tolerance],
    amber: Sequence[str] = (),
) -> tuple[Unmet, ...]:
    """Every condition that is not met, in the order of RULES 5.3; empty when the door opens.

    ``baked`` is the time on the bake clock; ``offers`` those of this wave that were not withdrawn, ``outcomes`` how
    many of them have one of any kind, ``confirmed`` how many are confirmed; ``reachable`` the wave's reachable members;
    ``reports`` the part of the offers that must have an outcome, in [0, 1]; ``bad`` the wave's bad outcomes by class
    (absent is none); ``amber`` the keys of amber monitors. Classes that are only counted keep no door shut.

    At least one confirmed device is needed however small the wave is: a wave nobody reported from never passes.
    Tallies that contradict each other (more bad than outcomes) keep it shut or leave it as it is, never open it.
    Raises ``InvalidInput`` for a negative count or a ``reports`` outside [0, 1].
    """
    if min(offers, outcomes, confirmed, reachable, *bad.values()) < 0:
        raise InvalidInput("A wave's tally is negative: it was counted wrongly.")
    unmet: list[Unmet] = []
    if baked < at_least:
        so_far = f"It has baked for {span_text(baked)} of at least {span_text(at_least)}"
        unmet.append(Unmet(Condition.TIME, f"{so_far}: {span_text(at_least - baked)} more."))
    if outcomes < (needed := _part(reports, offers)):
        have = f"{outcomes} of {offers} {_has(outcomes)} reported"
        sentence = f"{have}; {_percent(reports)} are needed: {needed - outcomes} more."
        unmet.append(Unmet(Condition.REPORTS, sentence))
    if confirmed < (needed := confirmed_needed(reachable)):
        sentence = f"{confirmed} {_has(confirmed)} confirmed; {needed} {_is(needed)} needed: {needed - confirmed} more."
        unmet.append(Unmet(Condition.CONFIRMED, sentence))
    for outcome in in_order(tolerate):
        count, tolerance = bad.get(outcome, 0), tolerate[outcome]
        if tolerance.then is Answer.COUNT:
            continue
        chance = chance_of_reaching(outcomes, tolerance.at_most, count)
        if chance <= UNLIKELY:
            sentence = (
                f"{count} of {outcomes} outcomes {_is(count)} {word(outcome)}; at the tolerance of"
                f" {_percent(tolerance.at_most)} so many come up in {_percent(chance)} of cases, and more than"
                f" {_percent(UNLIKELY)} is needed."
            )
            unmet.append(Unmet(Condition.CLASS, sentence, str(outcome)))
    unmet += [
        Unmet(Condition.AMBER, f"Monitor {key} is amber: it has a fifth or more of the evidence that halts.", key)
        for key in sorted(amber)
    ]
    return tuple(unmet)


def confirmed_needed(reachable: int) -> int:
    """How many confirmed devices a wave with ``reachable`` members needs: min(20, 80 %, rounded up), and at least 1."""
    return max(1, min(CONFIRMED_ENOUGH, _rounded_up(CONFIRMED_PART, reachable)))


def _part(part: float, whole: int) -> int:
    """``part`` of ``whole``, rounded up, with ``part`` taken as the decimal it was written as: 95 % of 20 is 19."""
    if not 0.0 <= part <= 1.0:
        raise InvalidInput(f"`reports` is {part:g}; it is a share from 0 % to 100 %.")
    return _rounded_up(_as_written(part), whole)


@lru_cache(maxsize=64)
def _as_written(part: float) -> Fraction:
    return Fraction(str(part))


def _rounded_up(part: Fraction, whole: int) -> int:
    return -(-part.numerator * whole // part.denominator)


def _percent(share: float) -> str:
    """A share as people write it: ``95 %``, ``0.5 %``, ``0.03 %``; two digits below one per cent."""
    percent = 100.0 * share
    return f"{percent:.3g} %" if percent >= 1.0 else f"{percent:.2g} %" if percent >= 0.0001 else "under 0.0001 %"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
