"""How the allowance for false halts is shared out over the monitors of a rollout (``RULES.md`` 4.2, 4.3, 4.7).

Answers for: which monitors a rollout has, with which tolerance and which alpha each; those of segments too.
Does not answer for: budgets (outside ``false_halt``), which classes a policy watches and how they default.

By the union bound the probability that any halting monitor ever halts a rollout within its tolerances is at most the
sum of the alphas handed out here, which never exceeds ``false_halt``; that a segment within its tolerances is ever
stopped, at most ``false_exclude``.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance, in_order
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

MOST_VALUES: Final = 100
"""Of one dimension: the largest segments, each of which has monitors from the start. More would leave none enough
allowance to find anything, and every look reads them all."""
LEAST_WEIGHED: Final = 0.05
"""Of the rollout's devices: a segment with fewer weighs no more than one of this size, so that a handful of devices do
not take the allowance from all others."""
MOST_NEWCOMERS: Final = 100
"""Segments that appear after the start and are given monitors."""

WAVE: Final = "wave:"
"""Begins the scope of a wave's monitor."""
SEGMENT: Final = "segment:"
"""Begins the scope of a segment's monitor."""
ROLLOUT: Final = "rollout"
"""The scope of a monitor over the whole rollout."""
BESIDE: Final = "@"
"""Before its tolerance in the key of a monitor that began beside another of the same name."""
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
    of them. ``scope`` is ``rollout`` (places of the rollout), ``wave:NAME`` (places of that wave, from 1) or
    ``segment:POPULATION`` (places of that segment). ``tolerance`` and ``alpha`` are those of its staircase.
    ``devices``: of a segment, its eligible devices at the start; 0 of a newcomer and elsewhere. ``key`` is unique in a
    rollout and stays the same for the same monitor: ``rollout/failed``, ``wave:emea/failed``, ``rollout/bad``,
    ``segment:hardware_id=rpi4/failed``; ``rollout/failed@1%`` of one that began beside another with a higher tolerance.
    """

    key: str
    outcomes: tuple[Outcome, ...]
    scope: str
    tolerance: float
    alpha: float
    answer: Answer
    devices: int = 0

    @property
    def wave(self) -> str | None:
        """The wave at which it starts anew; None for any other monitor."""
        return self.scope.removeprefix(WAVE) if self.scope.startswith(WAVE) else None

    @property
    def segment(self) -> str | None:
        """The segment it watches, such as ``hardware_id=rpi4``; None for a monitor over the rollout or a wave."""
        return self.scope.removeprefix(SEGMENT) if self.scope.startswith(SEGMENT) else None


def allot(
    *,
    tolerate: Mapping[Outcome, Tolerance],
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
            outcome: tolerate[outcome].at_most for outcome in in_order(tolerate) if tolerate[outcome].then is answer
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


def allot_segments(
    *,
    tolerate: Mapping[Outcome, Tolerance],
    false_exclude: float,
    sizes: Mapping[str, Mapping[str, int]],
    devices: int,
) -> tuple[MonitorSpec, ...]:
    """The monitors of the segments of a rollout of ``devices`` eligible devices: ``sizes`` has, for each dimension that
    the policy names, the eligible devices at the start of each of its segments (by population).

    * A tenth of ``false_exclude`` is the reserve for newcomers (:func:`allot_newcomer`). The rest is split equally over
      the classes that halt, then over the dimensions; then over the segments that can fire with what they would get, by
      their weight: for each device in it, those that are not. A part more or less costs a segment about as many devices
      whatever its size, which is much of a small one and little of a large one; and what is wrong with nearly all
      devices, the monitor over the rollout finds. One below 5 % of the devices weighs as much as one of 5 %.
    * A segment with fewer devices than its first limit needs gets no monitor, nor does the only segment of a dimension,
      which is the whole rollout once more; a dimension without any leaves its part to the others.
    * Of one dimension the ``MOST_VALUES`` largest segments are watched, ties by name. The others are seen by the
      monitors over the rollout and the waves alone.
    * Below 200 devices there is none.

    A fleet in which every device is a segment of its own has no monitor here, and finding that out costs no more than
    a sort. Raises ``InvalidInput`` when ``false_exclude`` is not between 0 and 1 (exclusive).
    """
    if not 0.0 < false_exclude < 1.0:
        raise InvalidInput(f"`false_exclude` is {false_exclude:g}; it is a probability above 0 % and below 100 %.")
    classes = _halting(tolerate)
    if devices < SMALL_FLEET_BELOW or not classes:
        return ()
    specs: list[MonitorSpec] = []
    largest = {
        dimension: heapq.nsmallest(MOST_VALUES, segments.items(), key=lambda each: (-each[1], each[0]))
        for dimension, segments in sorted(sizes.items())
        if len(segments) > 1
    }
    known = {segment: many for found in largest.values() for segment, many in found}
    for outcome, tolerance in classes.items():
        part = false_exclude * (1.0 - RESERVE_PART) / len(classes)
        shares: dict[str, float] = {}
        dimensions = list(largest)
        while dimensions:
            firing = {name: _firing(largest[name], devices, tolerance, part / len(dimensions)) for name in dimensions}
            if all(firing.values()):
                shares = {segment: alpha for found in firing.values() for segment, alpha in found.items()}
                break
            dimensions = [name for name in dimensions if firing[name]]
        specs += [
            _spec(f"{SEGMENT}{segment}", (outcome,), tolerance, shares[segment], Answer.HALT, devices=known[segment])
            for segment in sorted(shares)
        ]
    return tuple(specs)


def allot_newcomer(
    segment: str, *, tolerate: Mapping[Outcome, Tolerance], false_exclude: float, newcomer: int, places: int
) -> tuple[MonitorSpec, ...]:
    """The monitors of the ``newcomer``-th segment (from 1) that is watched only from some slice on, paid from the
    reserve of ``false_exclude`` and split equally over the classes that halt.

    ``places``: those of the segment so far. Empty while so few could not make every one of them fire, and above
    ``MOST_NEWCOMERS``.
    """
    classes = _halting(tolerate)
    if newcomer > MOST_NEWCOMERS or not classes:
        return ()
    alpha = newcomer_alpha(false_exclude, newcomer) / len(classes)
    if any(places < staircase(tolerance, alpha).first for tolerance in classes.values()):
        return ()
    return tuple(
        _spec(f"{SEGMENT}{segment}", (outcome,), tolerance, alpha, Answer.HALT)
        for outcome, tolerance in classes.items()
    )


def _halting(tolerate: Mapping[Outcome, Tolerance]) -> dict[Outcome, float]:
    return {
        outcome: tolerate[outcome].at_most for outcome in in_order(tolerate) if tolerate[outcome].then is Answer.HALT
    }


def _firing(
    segments: Sequence[tuple[str, int]], devices: int, tolerance: float, allowance: float
) -> Mapping[str, float]:
    """Of ``segments``, largest first, those that can fire when they share ``allowance`` by their weight, with the alpha
    of each. The smallest are left out first, by bisection, because fewer sharers make each of them more able."""
    watched = [(name, size, _weight(size, devices)) for name, size in segments if size < devices]

    def shared(count: int) -> dict[str, float]:
        whole = math.fsum(weight for *_, weight in watched[:count])
        return {name: allowance * weight / whole for name, _, weight in watched[:count]}

    def in_vain(count: int) -> bool:
        alphas = shared(count)
        return any(size < staircase(tolerance, alphas[name]).first for name, size, _ in reversed(watched[:count]))

    return shared(bisect_left(range(1, len(watched) + 1), True, key=in_vain))


def _weight(size: int, devices: int) -> float:
    """For each device of a segment, those of the rollout that are none."""
    return 1.0 / max(size / devices, LEAST_WEIGHED) - 1.0


def newcomer_alpha(allowance: float, newcomer: int) -> float:
    """Alpha of the ``newcomer``-th monitor (from 1) added after the start, from the reserve of ``allowance``.

    6/(pi² k²) of it: whatever their number, together they never spend more than the reserve.
    Raises ``InvalidInput`` when ``newcomer`` is below 1.
    """
    if newcomer < 1:
        raise InvalidInput(f"Monitors added later are numbered from 1; {newcomer} is none.")
    return allowance * RESERVE_PART * 6.0 / (math.pi * newcomer) ** 2


def _small_fleet(classes: Mapping[Outcome, float], allowance: float, answer: Answer) -> list[MonitorSpec]:
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
    classes: Mapping[Outcome, float], pool: float, answer: Answer, waves: Sequence[WaveSize], overall_part: float
) -> list[MonitorSpec]:
    late = [wave for wave in waves if wave.places_before >= LATE_WAVE_PLACES_BEFORE]
    specs: list[MonitorSpec] = []
    for outcome, tolerance in classes.items():
        overall, late_part = pool * overall_part / len(classes), pool * LATE_WAVES_PART / len(classes)
        firing = _able_to_fire(late, tolerance, late_part)
        if not firing:
            overall += late_part
        specs.append(_spec(ROLLOUT, (outcome,), tolerance, overall, answer))
        specs += [
            _spec(f"{WAVE}{wave.name}", (outcome,), tolerance, late_part / len(firing), answer) for wave in firing
        ]
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
    outcomes: tuple[Outcome, ...],
    tolerance: float,
    alpha: float,
    answer: Answer,
    name: str | None = None,
    devices: int = 0,
) -> MonitorSpec:
    staircase(tolerance, alpha)  # refuses here what could not be watched later
    return MonitorSpec(
        key=f"{scope}/{name or str(outcomes[0])}",
        outcomes=outcomes,
        scope=scope,
        tolerance=tolerance,
        alpha=alpha,
        answer=answer,
        devices=devices,
    )
