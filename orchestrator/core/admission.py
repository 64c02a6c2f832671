"""How many may be at it, by what has been seen so far: evidence-paced admission and amber (``RULES.md`` 5.3).

``U`` is the upper end of a 95 % confidence sequence for the failure rate, the smallest over the boundaries of slices,
with every place that has not confirmed counted as failed: pending, silent, ignored, not come yet. So silence never lets
more in. A stake of 20 lets ``20 / U`` be at it: before anything is known that is 20, after a thousand confirmations
thousands. A monitor that is amber, with a fifth or more of the evidence that halts, stakes a single device: offers slow
to a trickle, and slices with them, until confirmations have calmed it.

Pure, from counters; the rollout's own prefix counts for what concerns the rollout, a wave's for what concerns a wave.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, chain
from typing import Final

from orchestrator.core.evidence import interval
from orchestrator.core.evidence.clock import CLOCK
from orchestrator.core.evidence.confident import Boundary, confident, good_needed, rate_of
from orchestrator.core.facts import MonitorFacts, SliceFacts, WaveFacts
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.core.pace import Paced
from orchestrator.core.reasons import confident_sentence, not_confident_sentence
from orchestrator.core.rules import SLICE_OF_AT_ONCE, Rules

ALPHA: Final = 0.05
"""One less the confidence of the sequence whose upper end paces."""

AMBER_STAKE: Final = 1

_STAYS_AT_IT: Final = {OutcomeClass.DOWNLOAD_FAILED}
"""Counted, and no end: the device tries again."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A rollout's or a wave's offers as they flow now.

    ``in_flight``: offers without an outcome; ``upper``: U; ``amber``: the keys of the amber monitors that slow it;
    ``spent_until``: of its rate (``pace.Rate``).
    """

    in_flight: int = 0
    upper: float = 1.0
    amber: tuple[str, ...] = ()
    spent_until: datetime | None = None


def boundaries(slices: Iterable[SliceFacts], tolerate: Mapping[Outcome, Tolerance]) -> list[Boundary]:
    """The prefixes that end where a slice ends, ``slices`` in the order of their opening.

    Good is who has confirmed and has no bad outcome of a class that halts: a device whose download failed may confirm
    all the same, and is counted bad here where failed downloads halt. What is counted in a class of the operator's own
    may be such a download. The retired keep their places: whoever retires a broken device proves nothing by it. Members
    of excluded segments are left out, with all that they came to, and so are those apart.
    """
    ends = frozenset(OutcomeClass) - {OutcomeClass.DOWNLOAD_FAILED}
    stains = [outcome for outcome, each in tolerate.items() if each.then is Answer.HALT and outcome not in ends]
    counts = [
        (
            piece.counted,
            max(0, piece.confirmed - sum(piece.bad.get(outcome, 0) for outcome in stains)),
        )
        for piece in slices
    ]
    places = accumulate(members for members, _ in counts)
    good = accumulate(min(members, good) for members, good in counts)
    return [Boundary(*each) for each in zip(places, good, strict=True)]


def in_order(waves: Iterable[Sequence[SliceFacts]]) -> list[SliceFacts]:
    """The slices of several waves in the order of their opening; those of one moment in the order of the waves."""
    return sorted(chain.from_iterable(waves), key=lambda piece: piece.opened_at)


def upper(found: Iterable[Boundary]) -> float:
    """U, in (0, 1]; 1 before anything is known."""
    return min((interval.upper(each.places - each.good, each.places, ALPHA) for each in found), default=1.0)


def bearable(stake: int, upper: float) -> int:
    """How many may be at it so that at most about ``stake`` of them fail, were the rate ``upper``; at least one."""
    return max(1, math.floor(stake / upper))


def early_door(slices: Iterable[SliceFacts], tolerate: Mapping[Outcome, Tolerance]) -> tuple[str, bool]:
    """What is to be said of a wave's early door, with a blank before it, and whether it is open: the wave is confident
    by the boundary that says most."""
    rate, found = rate_of(tolerate), boundaries(slices, tolerate)
    if not 0.0 < rate < 1.0:
        return "", False  # a policy that asks for it is refused
    proof = confident(found, rate)
    if proof is not None:
        return f" {confident_sentence(proof, rate)}", True
    last = found[-1] if found else Boundary(0, 0)
    return f" {not_confident_sentence(last, good_needed(last.places, rate), rate)}", False


def ambers(monitors: Iterable[MonitorFacts], wave: str | None) -> tuple[str, ...]:
    """The amber monitors over the rollout (None) or one wave alone, by key. One that a person accepted is none, and one
    over a segment slows nobody down: it excludes its segment when it must."""
    return tuple(each.monitor for each in _ambers(monitors, wave))


def slowing(monitors: Iterable[MonitorFacts], wave: str | None) -> tuple[str, ...]:
    """Those of ``ambers`` that slow offers to a trickle: not one over failed downloads alone. Such a device has nothing
    new and stays at it, so the trickle would dry up, and the monitor never come to its answer."""
    return tuple(each.monitor for each in _ambers(monitors, wave) if set(each.outcomes) != _STAYS_AT_IT)


def _ambers(monitors: Iterable[MonitorFacts], wave: str | None) -> Iterator[MonitorFacts]:
    return (
        each for each in monitors if each.amber and not each.accepted and each.segment is None and each.wave == wave
    )


def most_in_slice(wave: str, waves: Iterable[WaveFacts], rules: Rules, monitors: Sequence[MonitorFacts]) -> int | None:
    """How many devices the next slice of a wave may have at most, for so many may be at it at once: by the fixed paces,
    by stakes, and at a trickle while one of ``monitors`` is amber. None: as many as it has had so far."""
    own = rules.wave(wave)
    of_all, of_wave = slowing(monitors, None), slowing(monitors, wave)
    stakes = [each for each in (rules.stake, AMBER_STAKE if of_all else None) if each is not None]
    own_stakes = [each for each in (own.stake, AMBER_STAKE if of_wave else None) if each is not None]
    most = [each for each in (rules.most_in_slice(wave),) if each is not None]
    if stakes or own_stakes:
        slices = {each.wave: each.slices for each in waves}
        for these, seen in ((stakes, in_order(slices.values())), (own_stakes, slices.get(wave, ()))):
            if these:
                at_once = bearable(min(these), upper(boundaries(seen, rules.tolerate)))
                most.append(SLICE_OF_AT_ONCE * at_once)
    return min(most, default=None)


def amber_at_door(monitors: Iterable[MonitorFacts], wave: str, *, silence: bool) -> tuple[str, ...]:
    """What keeps a wave's door shut as amber: monitors over the rollout, its segments or the wave, and the clock of
    ``silence``."""
    keys = [each.monitor for each in monitors if each.amber and not each.accepted and each.wave in (None, wave)]
    return (*keys, CLOCK) if silence else tuple(keys)


def calmed_by(places: int, bad: int, confirmed: int) -> int:
    """Among how many places a monitor's ``bad`` are looked at for amber: those known to be good or bad. Who is pending
    calms nothing, so amber comes as early as failures do, and goes as confirmations come; nor does who fell silent."""
    return max(bad, min(places, confirmed + bad))


def admit(flow: Flow, paced: Paced, now: datetime) -> Flow:
    """The flow after one more offer."""
    spent = flow.spent_until if paced.rate is None else paced.rate.spend(flow.spent_until, now)
    return replace(flow, in_flight=flow.in_flight + 1, spent_until=spent)


def confirmed_since(from_place: int, slices: Iterable[SliceFacts]) -> int:
    """How many have confirmed of those slices, in the order of their opening, that lie behind the first ``from_place``
    places."""
    given = confirmed = 0
    for piece in slices:
        confirmed += piece.confirmed if given >= from_place else 0
        given += piece.members
    return confirmed


def flow(
    waves: Sequence[WaveFacts],
    monitors: Iterable[MonitorFacts],
    tolerate: Mapping[Outcome, Tolerance],
    *,
    wave: str | None,
    paced: Paced,
    spent_until: datetime | None,
) -> Flow:
    """The flow of a rollout (``wave`` None) or of one of its waves. U is worked out only where it is asked for."""
    these = waves if wave is None else [each for each in waves if each.wave == wave]
    amber = slowing(monitors, wave)
    asked = amber or paced.stake is not None
    return Flow(
        in_flight=sum(each.in_flight for each in these),
        upper=upper(boundaries(in_order(each.slices for each in these), tolerate)) if asked else 1.0,
        amber=amber,
        spent_until=spent_until,
    )
