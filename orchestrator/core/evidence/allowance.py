"""How the allowance for false halts is shared out over the monitors of a rollout (``RULES.md`` 4.2, 4.3, 4.7).

Answers for: which monitors a rollout has, with which tolerance and which alpha each.
Does not answer for: segments (``false_exclude`` is an allowance of its own), budgets (outside ``false_halt``), which
classes a policy watches and how they default.

By the union bound the probability that any halting monitor ever halts a rollout within its tolerances is at most the
sum of the alphas handed out here, which never exceeds ``false_halt``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import Answer, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

OVERALL_PART: Final = 0.60
"""Of the pool: monitors over the whole rollout."""
LATE_WAVES_PART: Final = 0.20
"""Of the pool: monitors that start anew at a wave, so that trouble which begins late is not drowned by good history."""
SILENCE_CLOCK_PART: Final = 0.20
"""Of the pool: the clock test for silence, when there is a curve to test by."""
RESERVE_PART: Final = 0.10
"""Of an allowance: kept back for classes, tolerances and segments that are added after the start."""
LATE_WAVE_PLACES_BEFORE: Final = 100
"""Places before a wave from which on starting anew pays."""
SMALL_FLEET_BELOW: Final = 200
"""Devices below which a rollout has one pooled monitor."""
SMALL_FLEET_PART: Final = 0.5
"""Of the allowance: the pooled monitor; the exact budget stands for the other half."""

ROLLOUT: Final = "rollout"
"""The scope of a monitor over the whole rollout."""
POOLED: Final = "bad"
"""What a monitor over several classes is called in its key."""


@dataclass(frozen=True, slots=True)
class WaveSize:
    """A wave as planned: its ``places`` and the places of the rollout that are given before it opens."""

    name: str
    places: int
    places_before: int


@dataclass(frozen=True, slots=True)
class MonitorSpec:
    """One monitor: what it counts, where, and what it is allowed.

    ``outcomes`` has one class, or those pooled: a pooled monitor counts a device once, at its first bad outcome of any
    of them. ``scope`` is ``rollout`` (places of the rollout) or ``wave:NAME`` (places of that wave, from 1).
    ``tolerance`` and ``alpha`` are those of its staircase. ``key`` is unique in a rollout and stays the same for the
    same monitor: ``rollout/failed``, ``wave:emea/failed``, ``rollout/bad``.
    """

    key: str
    outcomes: tuple[OutcomeClass, ...]
    scope: str
    tolerance: float
    alpha: float
    answer: Answer

    @property
    def wave(self) -> str | None:
        """The wave at which it starts anew; None for a monitor over the whole rollout."""
        return None if self.scope == ROLLOUT else self.scope.removeprefix("wave:")


def allot(
    *,
    tolerate: Mapping[OutcomeClass, Tolerance],
    false_halt: float,
    waves: Sequence[WaveSize],
    devices: int,
    clock: bool = False,
) -> tuple[MonitorSpec, ...]:
    """The monitors of a rollout of ``devices`` eligible devices, those over the whole rollout first.

    * A tenth of ``false_halt`` is the reserve (:func:`newcomer_alpha`). The rest is the pool.
    * Of the pool 20 % go to late waves: those with 100 places or more before them, in equal parts. The overall
      monitors have what is left: 60 %, what no late wave can use, and the clock test's 20 % unless ``clock`` says that
      it runs (:func:`clock_alpha`).
    * Each part is split equally over the classes that halt. A monitor that can never fire, because its wave has fewer
      places than its first limit needs, gets nothing.
    * Classes that **hold** cannot cause a halt and so do not eat of its allowance: they share out the same figure
      once more, as the probability of a false hold, by the same rules. Classes that are only counted have no monitor.
    * Below 200 devices the halting classes are pooled into one monitor, ``rollout/bad``, with the sum of their
      tolerances and half of ``false_halt``; classes that hold keep a monitor each and share half of theirs; there is
      no reserve and no wave has a monitor.

    Raises ``InvalidInput`` when ``false_halt`` or a tolerance is not between 0 and 1 (exclusive), or when the pooled
    tolerance of a small fleet reaches 100 %.
    """
    if not 0.0 < false_halt < 1.0:
        raise InvalidInput(f"`false_halt` is {false_halt:g}; it is a probability above 0 % and below 100 %.")
    specs: list[MonitorSpec] = []
    for answer in (Answer.HALT, Answer.HOLD):
        classes = {
            outcome: tolerate[outcome].at_most
            for outcome in OutcomeClass
            if outcome in tolerate and tolerate[outcome].then is answer
        }
        if not classes:
            continue
        if devices < SMALL_FLEET_BELOW:
            specs += _small_fleet(classes, false_halt * SMALL_FLEET_PART, answer)
        else:
            to_clock = clock and OutcomeClass.SILENT in classes
            overall = OVERALL_PART if to_clock else OVERALL_PART + SILENCE_CLOCK_PART
            specs += _fleet(classes, false_halt * (1.0 - RESERVE_PART), answer, waves, overall)
    return tuple(sorted(specs, key=lambda spec: spec.wave is not None))


def clock_alpha(*, false_halt: float, devices: int) -> float:
    """Alpha of the clock test for silence in a rollout of ``devices``: its part of the pool that its class's answer
    draws on. 0 below 200 devices, where one pooled monitor and the budget have all there is."""
    return 0.0 if devices < SMALL_FLEET_BELOW else false_halt * (1.0 - RESERVE_PART) * SILENCE_CLOCK_PART


def newcomer_alpha(allowance: float, newcomer: int) -> float:
    """Alpha of the ``newcomer``-th monitor (from 1) added after the start, from the reserve of ``allowance``.

    6/(pi² k²) of it: whatever their number, together they never spend more than the reserve.
    Raises ``InvalidInput`` when ``newcomer`` is below 1.
    """
    if newcomer < 1:
        raise InvalidInput(f"Monitors added later are numbered from 1; {newcomer} is none.")
    return allowance * RESERVE_PART * 6.0 / (math.pi * newcomer) ** 2


def _small_fleet(classes: Mapping[OutcomeClass, float], allowance: float, answer: Answer) -> list[MonitorSpec]:
    if answer is Answer.HOLD:
        return [
            _spec(ROLLOUT, (outcome,), tolerance, allowance / len(classes), answer)
            for outcome, tolerance in classes.items()
        ]
    pooled = math.fsum(classes.values())
    if pooled >= 1.0:
        raise InvalidInput(
            f"Below {SMALL_FLEET_BELOW} devices the tolerances are watched together, and they sum to {pooled:.0%}.",
            remedy="Lower them, or let some classes `hold` or `count`.",
        )
    return [_spec(ROLLOUT, tuple(classes), pooled, allowance, answer, POOLED)]


def _fleet(
    classes: Mapping[OutcomeClass, float], pool: float, answer: Answer, waves: Sequence[WaveSize], overall_part: float
) -> list[MonitorSpec]:
    late = [wave for wave in waves if wave.places_before >= LATE_WAVE_PLACES_BEFORE]
    specs: list[MonitorSpec] = []
    for outcome, tolerance in classes.items():
        overall, late_part = pool * overall_part / len(classes), pool * LATE_WAVES_PART / len(classes)
        firing = _able_to_fire(late, tolerance, late_part)
        if not firing:
            overall += late_part
        specs.append(_spec(ROLLOUT, (outcome,), tolerance, overall, answer))
        specs += [_spec(f"wave:{wave.name}", (outcome,), tolerance, late_part / len(firing), answer) for wave in firing]
    return specs


def _able_to_fire(waves: Sequence[WaveSize], tolerance: float, allowance: float) -> list[WaveSize]:
    """Those of ``waves``, in their order, that can fire when they share ``allowance`` equally.

    The smallest is left out first: what it gives up may be just what the next one lacks.
    """
    able = list(waves)
    while able:
        smallest = min(able, key=lambda wave: wave.places)
        if smallest.places >= staircase(tolerance, allowance / len(able)).first:
            break
        able.remove(smallest)
    return able


def _spec(
    scope: str,
    outcomes: tuple[OutcomeClass, ...],
    tolerance: float,
    alpha: float,
    answer: Answer,
    name: str | None = None,
) -> MonitorSpec:
    staircase(tolerance, alpha)  # refuses here what could not be watched later
    return MonitorSpec(
        key=f"{scope}/{name or outcomes[0].value}",
        outcomes=outcomes,
        scope=scope,
        tolerance=tolerance,
        alpha=alpha,
        answer=answer,
    )
