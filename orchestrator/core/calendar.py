"""When waves open and end, worked out before anything is done (``wave plan``): the earliest, the likely and the latest.

* The **earliest**: all is ready, and every device comes and confirms at once. Only floors and windows take time.
* The **likely**: all goes well, deltas take as long as estimated, and devices come and report as :class:`Habits` say.
* The **latest**: every wait lasts until its ceiling. There the wave goes on, or it holds for a person: without one it
  never takes longer.

Answers for: these three moments of each wave, under its windows. Does not answer for: what people take for their own
word (a promotion, a resume), halts, freezes, monitors that are amber, and work that a wave gets after it has ended. A
wave without devices takes no time. None: its window does not open within 400 days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple

from orchestrator.core.decide import OFFERED_ENOUGH, SLICE_REPORTED
from orchestrator.core.durations import span_text
from orchestrator.core.reasons import percent
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.window import Window

COMES: Final = timedelta(hours=1)
"""How often a device checks in, as long as nobody knows."""
REPORTS: Final = timedelta(minutes=30)
"""How long a device takes from its offer to running the Target, as long as nobody knows."""
FEW: Final = 20
"""Fewer samples than this are not history."""

_THINNED: Final = 100
_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True)
class Habits:
    """How a fleet comes and reports, as samples: ``comes`` the usual gaps between a device's check-ins, ``reports`` the
    times from an offer to running the Target. Fewer than 20 samples of one: it is assumed (:data:`COMES`,
    :data:`REPORTS`)."""

    comes: tuple[timedelta, ...] = ()
    reports: tuple[timedelta, ...] = ()

    @property
    def knows_comes(self) -> bool:
        return len(self.comes) >= FEW

    @property
    def knows_reports(self) -> bool:
        return len(self.reports) >= FEW

    def until_come(self, share: float) -> timedelta:
        """Until this share of the devices has checked in: each comes at any moment of its gap."""
        gaps = _seconds(self.comes if self.knows_comes else (COMES,))
        return _until(share, max(gaps), lambda at: _come(at, gaps))

    def until_reported(self, share: float) -> timedelta:
        """Until this share of the devices has come, and run the Target."""
        gaps = _seconds(self.comes if self.knows_comes else (COMES,))
        takes = _seconds(self.reports if self.knows_reports else (REPORTS,))
        return _until(
            share,
            max(gaps) + max(takes),
            lambda at: sum(_come(at - each, gaps) for each in takes) / len(takes),
        )


def habits_sentence(habits: Habits) -> str:
    """What the likely times of a plan rest on."""
    part = float(SLICE_REPORTED)
    come = "as they have come lately" if habits.knows_comes else "assumed: how often they come is not known"
    report = "as in past rollouts" if habits.knows_reports else "assumed: no past rollout tells"
    return (
        f"Likely: {percent(part)} of the devices come within {span_text(habits.until_come(part))} ({come}) and run the"
        f" Target within {span_text(habits.until_reported(part))} ({report})."
    )


class Moments(NamedTuple):
    """One event, three ways. None: never."""

    earliest: datetime | None
    likely: datetime | None
    latest: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """When a wave opens and when it has ended: passed, or at the latest held for a person."""

    opens: Moments
    ends: Moments


@dataclass(frozen=True, slots=True)
class Work:
    """What a wave has to do. ``slices``: their sizes; ``building``: how long its deltas take, as estimated;
    ``offering``: the least time in which its rate lets enough devices come; ``quickest``: the least time from the first
    offer to passing (None: the bake's floor)."""

    slices: tuple[int, ...]
    building: timedelta = timedelta(0)
    offering: timedelta = timedelta(0)
    quickest: timedelta | None = None


def calendar(rules: Rules, work: Mapping[str, Work], start: datetime, habits: Habits) -> dict[str, Due]:
    """Each wave's times when the rollout starts at ``start``. ``work`` has every wave of ``rules``."""
    spans = _Spans(rules, habits)
    due: dict[str, Due] = {}
    for wave in rules.waves:
        before = [due[name] for name in wave.after]
        opens, ends = zip(*(_wave(way, wave, work[wave.wave], before, start, spans) for way in Way), strict=True)
        due[wave.wave] = Due(Moments(*opens), Moments(*ends))
    return due


def whole(due: Mapping[str, Due]) -> Moments:
    """When the last wave has ended; never when one never does."""
    return Moments(*(_last([each.ends[way] for each in due.values()]) for way in Way))


class Way(IntEnum):
    """How it goes. In the order of :class:`Moments`."""

    AT_ONCE = 0
    LIKELY = 1
    AT_THE_LATEST = 2


class _Spans:
    """The lengths of a wave's waits, each way; what is asked of the habits is worked out once."""

    def __init__(self, rules: Rules, habits: Habits) -> None:
        self.rules = rules
        self._habits = habits
        self._reported: dict[float, timedelta] = {}
        self._offered: timedelta | None = None

    def reported(self, share: float) -> timedelta:
        if share not in self._reported:
            self._reported[share] = self._habits.until_reported(share)
        return self._reported[share]

    def offered(self) -> timedelta:
        if self._offered is None:
            self._offered = self._habits.until_come(float(OFFERED_ENOUGH))
        return self._offered


def _wave(
    way: Way, wave: WaveRules, work: Work, before: Sequence[Due], start: datetime, spans: _Spans
) -> tuple[datetime | None, datetime | None]:
    """When it opens and ends, one of the three ways."""
    prepared = _last([start, *(each.opens[way] for each in before)])
    turn = _last([start, *(each.ends[way] for each in before)])
    if prepared is None or turn is None:
        return None, None
    if not work.slices:
        opens = _open_at(wave.window, turn)
        return opens, opens
    match way:
        case Way.AT_ONCE:
            ready = prepared
        case Way.LIKELY:
            ready = prepared + work.building
        case Way.AT_THE_LATEST:
            ready = prepared + wave.within
    opens = _open_at(wave.window, max(turn, ready))
    if opens is None:
        return None, None
    return opens, _open_at(wave.window, _baked(way, wave, work, opens, spans))


def _baked(way: Way, wave: WaveRules, work: Work, opens: datetime, spans: _Spans) -> datetime | None:
    """When its bake is over."""
    rules, slices = spans.rules, work.slices
    match way:
        case Way.AT_ONCE:
            offers = _open_at(rules.offer_window, opens)
            return None if offers is None else offers + (wave.at_least if work.quickest is None else work.quickest)
        case Way.LIKELY:
            return _baked_by_habit(wave, work, opens, spans)
        case Way.AT_THE_LATEST:
            # The bake begins when the last slice is open and all the time for offers is over, whichever is later.
            return opens + max((len(slices) - 1) * rules.slice_at_most, rules.open_at_most) + wave.at_most


def _baked_by_habit(wave: WaveRules, work: Work, opens: datetime, spans: _Spans) -> datetime | None:
    """Slice after slice, each open as soon as enough of the one before have reported, and then the bake."""
    rules, slices, part = spans.rules, work.slices, spans.reported(float(SLICE_REPORTED))
    at_once = min((limit for limit in (rules.in_flight, wave.in_flight) if limit is not None), default=max(slices))
    begun = offers = opens
    for number, size in enumerate(slices, start=1):
        at = _open_at(rules.offer_window, begun)
        if at is None:
            return None
        offers = at + (-(-size // at_once) - 1) * part  # those before the last who may be at it at once
        if number < len(slices):
            begun = min(offers + part, begun + rules.slice_at_most)
    offered = max(offers + spans.offered(), opens + work.offering)
    bakes = min(offered, max(begun, opens + rules.open_at_most))
    return min(max(bakes + wave.at_least, offers + spans.reported(wave.reports)), bakes + wave.at_most)


def _last(moments: Sequence[datetime | None]) -> datetime | None:
    known = [at for at in moments if at is not None]
    return max(known) if known and len(known) == len(moments) else None


def _open_at(window: Window | None, at: datetime | None) -> datetime | None:
    return at if at is None or window is None else window.next_open(at)


def _seconds(samples: Sequence[timedelta]) -> list[float]:
    """In order, and thinned evenly to at most a hundred."""
    ordered = sorted(max(1.0, each.total_seconds()) for each in samples)
    many = min(len(ordered), _THINNED)
    return [ordered[(2 * number + 1) * len(ordered) // (2 * many)] for number in range(many)]


def _come(at: float, gaps: Sequence[float]) -> float:
    """The share of devices that have come by ``at`` seconds."""
    return sum(min(at / gap, 1.0) for gap in gaps) / len(gaps) if at > 0.0 else 0.0


def _until(share: float, longest: float, done: Callable[[float], float]) -> timedelta:
    """The first moment, to the second, at which ``done`` reaches ``share``; it never falls, and is 1 at ``longest``."""
    low, high = 0.0, longest
    for _ in range(_HALVINGS):
        if high - low <= 0.5:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if done(middle) >= share else (middle, high)
    return timedelta(seconds=round(high))
