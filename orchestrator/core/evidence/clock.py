"""The clock test for silence: do the devices of this rollout stay dark for longer than those of earlier releases did?

Answers for: the curve learnt from earlier releases, the checkpoints it is looked at, what a device's clock says, the
evidence of silence and its threshold, and whether the darkness of untouched devices explains it.
Does not answer for: the hard stop after ``silent_after``, which is a matter of the update itself, nor for what the
monitors and the door make of the darkness (``Policy.tolerances_over``).

* **Curve**: of past devices of one hardware id (or, where it has fewer than 200, of the whole fleet) how many had not
  been heard of so many minutes after installing began. Without 200 in the fleet there is no clock.
* **Checkpoints**: up to six moments after the start of installing at which a device is looked at: those by which given
  parts of the past devices were heard of, made longer by the slack (2: a release may take twice as long to report)
  and never before the floor of 10 minutes. At each the tolerated chance of being silent still is
  ``eps + (1 - eps) * S0(t / slack)``; ``eps`` is what the policy tolerates on top of the darkness that was always
  there, and S0 the upper end of what the past devices say, so that a short history does not halt by its own luck.
* **Evidence** at checkpoint k: of the devices that have passed it, in whatever order and of whatever hardware id, each
  was heard of or not, which under the tolerance has a chance of at most q of "not". With a share d of the release's
  devices dark on top, it is ``d + (1 - d) q``. ``log E = logsumexp_d(log w_d + sum(silent * log((1 - d) + d / q) +
  reported * log(1 - d)))``: a mixture over d, in which the hardware ids add up. The clock crosses when one of the K
  checkpoints has ``E >= K / alpha``.

* **Darkness**: how many of the past devices were not heard of at the hard stop either. What a policy says of silence is
  on top of it, for the clock and for everything else that counts silent devices.

Each checkpoint is a test of its own, of whether a device was heard of *by then*: so all it asks of a tolerable release
is to be no later than the slack and no darker than the tolerance. Were the checkpoints multiplied into one process
of what happens *between* them, a release that reports sooner than the slack allows would look bad later, because those
of it that are left are the slow ones.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from orchestrator.core.evidence.budgets import chance_of_reaching
from orchestrator.core.evidence.darkness import Darkness, darkness, most_silent
from orchestrator.core.outcomes import Answer
from orchestrator.errors import InvalidInput

CLOCK: Final = "clock/silent"
"""By which name a person accepts what the clock says."""
FLEET: Final = ""
"""In the place of a hardware id: the curve of the whole fleet."""
SLACK: Final = 2
"""So many times as long as before may a release take to report, without being suspected of silence."""
FLOOR: Final = 10
"""Minutes: no device is looked at sooner."""
LEARNT_FROM: Final = 200
"""Past devices that a curve needs."""
LEARNT_AT_MOST: Final = 2_000
"""Past devices of a hardware id that its curve is made of, the newest; five times as many make the fleet's."""
LEFT: Final = (0.7, 0.6, 0.45, 0.3, 0.15, 0.05)
"""A checkpoint where so many of those past devices that were ever heard of were still to come."""
LEARNING_PART: Final = 0.1
"""Of the clock's alpha: the chance that the past devices were luckier than the truth, at any checkpoint or at the hard
stop."""
DARK: Final = ((1.0, 0.30), (0.75, 0.15), (0.5, 0.20), (0.25, 0.15), (0.1, 0.12), (0.05, 0.08))
"""Shares of devices that a bad release makes dark, with their weights."""
AMBER_PART: Final = 5.0
"""Amber at a fifth of the evidence that crosses."""

VETO_FROM: Final = 20
"""Untouched devices below which their darkness says nothing."""
VETO_CHANCE: Final = 0.01
"""So unlikely must their darkness be within the tolerance before it counts as dark."""

_MINUTE: Final = timedelta(minutes=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTERVALS: Final = 16
_LATER: Final = _INTERVALS - 1


# ------------------------------------------------------------------------------------------------- what was learnt


class Delay(NamedTuple):
    """How long a past device took from the start of installing to its first outcome; None: it was never heard of."""

    hardware_id: str
    device: int
    delay: timedelta | None


@dataclass(frozen=True, slots=True)
class Curve:
    """What ``devices`` past devices did: ``heard`` are the whole minutes within which each one that was ever heard of
    was, in rising order."""

    devices: int
    heard: tuple[int, ...]

    def silent(self, minutes: int) -> int:
        """Of the past devices those not heard of within so many minutes."""
        return self.devices - bisect_right(self.heard, minutes)

    def minute(self, left: float) -> int:
        """The first minute at which at most that part of those ever heard of was still to come."""
        ahead = math.floor(left * len(self.heard))
        return self.heard[len(self.heard) - ahead - 1] if self.heard else 0


def learn(past: Iterable[Delay]) -> dict[str, Curve]:
    """The curves of the hardware ids with 200 past devices or more, and of the fleet under ``""``. ``past`` has the
    newest first, and a device counts once, where it comes first."""
    delays: dict[str, list[int | None]] = defaultdict(list)
    seen: set[int] = set()
    for hardware_id, device, delay in past:
        if device not in seen:
            seen.add(device)
            took = None if delay is None else max(0, math.ceil(delay / _MINUTE))
            for of, most in ((hardware_id, LEARNT_AT_MOST), (FLEET, 5 * LEARNT_AT_MOST)):
                if len(delays[of]) < most:
                    delays[of].append(took)
    return {
        hardware_id: Curve(len(these), tuple(sorted(took for took in these if took is not None)))
        for hardware_id, these in sorted(delays.items())
        if len(these) >= LEARNT_FROM
    }


class Checkpoint(NamedTuple):
    """``minutes`` after a device's start it is looked at. ``usual``: of the past devices so many, as a share, were
    silent still; ``tolerated``: the chance of it that is still tolerable."""

    minutes: int
    usual: float
    tolerated: float

    def under(self, tolerance: float, before: float) -> Checkpoint:
        """The same with another tolerance on top of what was learnt than ``before``."""
        learnt = (self.tolerated - before) / (1.0 - before)
        return self._replace(tolerated=tolerance + (1.0 - tolerance) * learnt)


def checkpoints(
    curve: Curve, *, tolerance: float, risk: float, at_most: int, slack: int = SLACK, floor: int = FLOOR
) -> tuple[Checkpoint, ...]:
    """One for each part of ``LEFT``, none after ``at_most`` minutes. ``risk``: the chance with which each may take the
    past devices for more talkative than the truth."""
    found = []
    for left in LEFT:
        minutes = min(max(floor, slack * curve.minute(left)), at_most)
        before = most_silent(curve.silent(minutes // slack), curve.devices, risk)
        found.append(Checkpoint(minutes, curve.silent(minutes) / curve.devices, tolerance + (1.0 - tolerance) * before))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Learnt:
    """The checkpoints of a hardware id, and from how many past devices they were learnt."""

    devices: int
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of a rollout, bound to it at its start. ``learnt`` by hardware id, with the fleet's under ``""``; all
    have the same number of checkpoints, of which those with one number belong together. ``tolerance``: what the policy
    says of silence, on top of what was learnt. ``halts``: the alpha with which it also halts, where its answer is to
    hold and an edit has made that a halt."""

    tolerance: float
    alpha: float
    answer: Answer
    learnt: Mapping[str, Learnt] = field(default_factory=dict)
    dark: Darkness = field(default_factory=Darkness)
    halts: float | None = None

    def of(self, hardware_id: str) -> tuple[Checkpoint, ...]:
        """Its own checkpoints, or the fleet's."""
        return (self.learnt.get(hardware_id) or self.learnt[FLEET]).checkpoints

    def under(self, *, tolerance: float, alpha: float, answer: Answer) -> Clock:
        """What was learnt, under another tolerance and answer."""

        learnt = {
            name: Learnt(each.devices, tuple(point.under(tolerance, self.tolerance) for point in each.checkpoints))
            for name, each in self.learnt.items()
        }
        return Clock(tolerance, alpha, answer, learnt, self.dark)

    @property
    def devices(self) -> int:
        """Past devices it was learnt from."""
        return self.learnt[FLEET].devices

    @property
    def longest(self) -> int:
        """Minutes after which no device is looked at any more."""
        return max(each.checkpoints[-1].minutes for each in self.learnt.values())


def _last_look(silent_after: timedelta) -> int:
    return math.ceil(silent_after / _MINUTE) - 2  # a cohort is looked at within two minutes more


def too_short(silent_after: timedelta) -> bool:
    """Whether the hard stop comes before any checkpoint could."""
    return _last_look(silent_after) < FLOOR


def bind_clock(
    curves: Mapping[str, Curve], *, tolerance: float, alpha: float, answer: Answer, silent_after: timedelta
) -> Clock | None:
    """The clock of a rollout; None without a curve of the fleet, without an alpha, when the class is only counted, or
    when the hard stop comes before any checkpoint could."""
    at_most = _last_look(silent_after)
    if FLEET not in curves or alpha <= 0.0 or answer is Answer.COUNT or too_short(silent_after):
        return None
    if not 0.0 < tolerance < 1.0:
        raise InvalidInput(f"A tolerance of {tolerance:g} for silence is none: it lies above 0 % and below 100 %.")
    risk = alpha * LEARNING_PART / ((len(LEFT) + 1) * len(curves))  # each checkpoint's, and the darkness's
    found = {
        name: checkpoints(curve, tolerance=tolerance, risk=risk, at_most=at_most) for name, curve in curves.items()
    }
    # Where the floor or the hard stop makes two of them one for every curve, one of the two is enough.
    kept = [
        number
        for number in range(len(LEFT))
        if not number or any(these[number].minutes != these[number - 1].minutes for these in found.values())
    ]
    learnt = {
        name: Learnt(curves[name].devices, tuple(these[number] for number in kept)) for name, these in found.items()
    }
    at_the_end = {name: (curve.silent(silent_after // _MINUTE), curve.devices) for name, curve in curves.items()}
    dark = darkness(at_the_end.pop(FLEET), at_the_end.values(), risk=risk)
    return Clock(tolerance, alpha, answer, learnt, dark)


# ------------------------------------------------------------------------------------------------- a device's clock


def minute_of(at: datetime) -> int:
    """The whole minutes since 1970: devices that begin to install within one minute are looked at together."""
    return (at - _EPOCH) // _MINUTE


def moment_of(minute: int) -> datetime:
    """When that minute begins."""
    return _EPOCH + minute * _MINUTE


class Mark(NamedTuple):
    """What is known of a device: the ``minute`` it began to install in, and the ``interval`` it was first heard of in:
    1 up to the first checkpoint, 2 up to the second …; 0 not yet, 15 after the last."""

    minute: int
    interval: int = 0

    @property
    def packed(self) -> int:
        return self.minute * _INTERVALS + self.interval

    @classmethod
    def unpacked(cls, packed: int) -> Mark:
        return cls(*divmod(packed, _INTERVALS))

    def heard(self, at: datetime, of: Sequence[Checkpoint]) -> Mark:
        """Its first outcome came. A device is looked at when the minute after its own has gone as far as the
        checkpoint."""
        took = minute_of(at) - self.minute
        return Mark(self.minute, next((n for n, each in enumerate(of, 1) if took <= each.minutes), _LATER))


def passed(now: datetime, checkpoint: Checkpoint) -> int:
    """The last minute whose devices have all passed the checkpoint at ``now``."""
    return minute_of(now) - checkpoint.minutes - 1


def passes_at(minute: int, checkpoint: Checkpoint) -> datetime:
    """When the devices of a minute have passed the checkpoint."""
    return moment_of(minute + checkpoint.minutes + 1)


# ------------------------------------------------------------------------------------------------- evidence


class Seen(NamedTuple):
    """Devices of one hardware id that have passed a checkpoint: ``number`` is the checkpoint's, from 1."""

    hardware_id: str
    number: int
    checkpoint: Checkpoint
    silent: int
    reported: int


@dataclass(frozen=True, slots=True)
class Untouched:
    """Devices of the tag without an update in the rollout that were due within the ``minutes`` before: ``dark`` of
    ``devices`` were not seen."""

    devices: int
    dark: int
    minutes: int


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """The clock as a decision sees it. ``seen``: by checkpoint and hardware id; ``next_at``: when the next devices
    pass one without having been heard of; ``dark``: the fleet's darkness at the hard stop. Looked at only when it has
    crossed: ``untouched``, and ``boards``, the hardware ids that are watched as segments, with their devices. ``halts``
    as of the clock."""

    tolerance: float
    alpha: float
    answer: Answer
    devices: int
    checkpoints: int
    seen: tuple[Seen, ...] = ()
    next_at: datetime | None = None
    untouched: Untouched | None = None
    dark: float = 0.0
    boards: tuple[tuple[str, int], ...] = ()
    halts: float | None = None

    def under(self, *, tolerance: float, alpha: float, answer: Answer) -> ClockFacts:
        """What was seen, under another tolerance and answer."""
        seen = tuple(each._replace(checkpoint=each.checkpoint.under(tolerance, self.tolerance)) for each in self.seen)
        return replace(self, tolerance=tolerance, alpha=alpha, answer=answer, seen=seen, halts=None)


@dataclass(slots=True)
class Cohort:
    """Devices of one hardware id that began to install within one ``minute``: how many, and of how many the first
    outcome came in each interval, from the first."""

    hardware_id: str
    minute: int
    installed: int = 0
    heard: list[int] = field(default_factory=lambda: [0] * len(LEFT))

    def silent(self, number: int) -> int:
        """Those not heard of by a checkpoint."""
        return self.installed - sum(self.heard[:number])


def tally(clock: Clock, cohorts: Iterable[Cohort], *, now: datetime, since: int = 0) -> ClockFacts:
    """The facts of a clock from its cohorts: what the store adds up by itself. ``since``: the first minute that
    counts."""
    counts: dict[tuple[int, str], list[int]] = {}
    times = []
    for cohort in cohorts:
        for number, each in enumerate(clock.of(cohort.hardware_id), 1):
            silent = cohort.silent(number)
            if cohort.minute < since:
                continue
            if cohort.minute <= passed(now, each):
                mine = counts.setdefault((number, cohort.hardware_id), [0, 0])
                mine[0], mine[1] = mine[0] + silent, mine[1] + cohort.installed - silent
            elif silent:
                times.append(passes_at(cohort.minute, each))
    return clock_facts(clock, counts, min(times, default=None))


def clock_facts(
    clock: Clock,
    counts: Mapping[tuple[int, str], Sequence[int]],
    next_at: datetime | None,
    untouched: Untouched | None = None,
) -> ClockFacts:
    """The facts of a clock. ``counts``: by checkpoint and hardware id the silent and the reported that have passed."""
    seen = tuple(
        Seen(hardware_id, number, clock.of(hardware_id)[number - 1], silent, reported)
        for (number, hardware_id), (silent, reported) in sorted(counts.items())
        if silent or reported
    )
    many = len(clock.learnt[FLEET].checkpoints)
    own = (clock.tolerance, clock.alpha, clock.answer, clock.devices)
    return ClockFacts(*own, many, seen, next_at, untouched, clock.dark.fleet, halts=clock.halts)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What one checkpoint says: ``evidence`` is log E, ``threshold`` what it crosses at."""

    number: int
    seen: tuple[Seen, ...]
    evidence: float
    threshold: float

    @property
    def silent(self) -> int:
        return sum(each.silent for each in self.seen)

    @property
    def devices(self) -> int:
        return sum(each.silent + each.reported for each in self.seen)

    @property
    def minutes(self) -> int:
        return max(each.checkpoint.minutes for each in self.seen)

    @property
    def usual(self) -> float:
        """So many of these devices would have been silent in earlier releases."""
        return math.fsum((each.silent + each.reported) * each.checkpoint.usual for each in self.seen)

    @property
    def crossed(self) -> bool:
        return self.evidence >= self.threshold

    @property
    def amber(self) -> bool:
        return self.evidence >= self.threshold - math.log(AMBER_PART)


def reading(facts: ClockFacts, *, darkness: float = 0.0) -> ClockReading | None:
    """The checkpoint with the most evidence; None before any device has passed one. ``darkness``: a share of devices
    that is dark for another reason, tolerated on top."""
    return _reading(facts.seen, facts.checkpoints, facts.alpha, darkness)


@lru_cache(maxsize=256)
def _reading(seen: tuple[Seen, ...], checkpoints: int, alpha: float, darkness: float) -> ClockReading | None:
    # One decision asks several times, and between two decisions often nothing has passed.
    by_number: dict[int, list[Seen]] = defaultdict(list)
    for each in seen:
        if each.silent + each.reported:
            by_number[each.number].append(each)
    threshold = math.log(checkpoints / (alpha * (1.0 - LEARNING_PART)))
    readings = [
        ClockReading(number, tuple(these), log_evidence(these, darkness=darkness), threshold)
        for number, these in sorted(by_number.items())
    ]
    return max(readings, key=lambda each: each.evidence, default=None)


def log_evidence(seen: Iterable[Seen], *, darkness: float = 0.0) -> float:
    """log E of the devices that have passed one checkpoint. Never NaN and never +inf, for any counts."""
    vectors = []
    reported = 0
    for each in seen:
        q = 1.0 - (1.0 - min(1.0, each.checkpoint.tolerated)) * (1.0 - min(1.0, darkness))
        vectors.append((each.silent, q))
        reported += each.reported
    terms = []
    for dark, weight in DARK:
        if dark == 1.0 and reported:
            continue
        silence = math.fsum(silent * math.log1p(dark * (1.0 / q - 1.0)) for silent, q in vectors if silent)
        terms.append(math.log(weight) + silence + (reported * math.log1p(-dark) if reported else 0.0))
    largest = max(terms)
    return largest + math.log(math.fsum(math.exp(term - largest) for term in terms))


def limit(found: ClockReading) -> int | None:
    """So many silent among these devices would cross, shared out over the hardware ids as the devices are; None when
    not even all of them would."""
    if not _with_silent(found, found.devices) >= found.threshold:
        return None
    low, high = 0, found.devices
    while low < high:
        middle = (low + high) // 2
        if _with_silent(found, middle) >= found.threshold:
            high = middle
        else:
            low = middle + 1
    return high


def _with_silent(found: ClockReading, silent: int) -> float:
    seen, left = [], silent
    total = found.devices
    for each in sorted(found.seen, key=lambda one: one.silent + one.reported):
        mine = each.silent + each.reported
        share = left * mine // total if total else 0
        total, left = total - mine, left - share
        seen.append(each._replace(silent=share, reported=mine - share))
    return log_evidence(seen)


# ------------------------------------------------------------------------------------------------- the veto


def explained(facts: ClockFacts) -> bool:
    """Whether something that also darkened untouched devices explains the silence of the updated ones.

    Two things must hold. At least 20 untouched devices were due, and that so many of them are dark has a chance of at
    most 1 % by the exact binomial test at the policy's tolerance for silence. And with their share of darkness
    tolerated on top of what is tolerated anyway, the clock does not cross: an outage of a tenth of the fleet does not
    excuse a release that darkens all of its devices.
    """
    untouched = facts.untouched
    if untouched is None or untouched.devices < VETO_FROM or not untouched.dark:
        return False
    if chance_of_reaching(untouched.devices, facts.tolerance, untouched.dark) > VETO_CHANCE:
        return False
    found = reading(facts, darkness=untouched.dark / untouched.devices)
    return found is None or not found.crossed
