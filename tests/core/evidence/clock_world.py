"""Releases that report late, hardly or not at all, for the clock test: a virtual fleet of delays in minutes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from orchestrator.core.evidence.clock import (
    LEFT,
    Clock,
    ClockFacts,
    Cohort,
    Curve,
    Delay,
    Mark,
    bind_clock,
    learn,
    minute_of,
    reading,
    tally,
)
from orchestrator.core.outcomes import Answer

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAY = timedelta(hours=24)
Fate = Callable[[Random], float]
"""Minutes from the start of installing to the first outcome; infinite: never."""


def usual(rng: Random, dark: float = 0.01) -> float:
    """Seven in ten report within some minutes, two in ten within the hour or two, one in ten at night, 1 % never."""
    which = rng.random()
    if which < dark:
        return math.inf
    if which < 0.71:
        return 6 * math.exp(rng.gauss(0, 0.4))
    return 60 * math.exp(rng.gauss(0, 0.3)) if which < 0.91 else 300 + 600 * rng.random()


def slower(times: float, more_dark: float = 0.0) -> Fate:
    """The usual one, so many times as slow and with so much more darkness."""
    return lambda rng: math.inf if rng.random() < more_dark else times * usual(rng)


def dead(rng: Random) -> float:
    return math.inf


def past(devices: int, seed: int = 1, hardware_id: str = "rpi4", fate: Fate = usual) -> list[Delay]:
    rng = Random(f"past {seed} {hardware_id}")
    return [
        Delay(hardware_id, number, None if math.isinf(took := fate(rng)) else timedelta(minutes=took))
        for number in range(devices)
    ]


def curves(devices: int = 2_000, seed: int = 1, fate: Fate = usual) -> dict[str, Curve]:
    return learn(past(devices, seed, fate=fate))


def clock(
    learnt: dict[str, Curve] | None = None,
    *,
    tolerance: float = 0.02,
    alpha: float = 0.009,
    answer: Answer = Answer.HALT,
    silent_after: timedelta = DAY,
) -> Clock:
    found = bind_clock(
        curves() if learnt is None else learnt,
        tolerance=tolerance,
        alpha=alpha,
        answer=answer,
        silent_after=silent_after,
    )
    assert found is not None
    return found


Device = tuple[str, datetime, float]
"""Hardware id, start of installing, minutes to its first outcome."""


def fleet(
    devices: int, fate: Fate, seed: int, *, every: float = 0.0, hardware_id: str = "rpi4", at: datetime = NINE
) -> list[Device]:
    """So many devices, one beginning ``every`` so many minutes."""
    rng = Random(f"fleet {seed}")
    return [(hardware_id, at + timedelta(minutes=number * every), fate(rng)) for number in range(devices)]


def cohorts(of: Clock, devices: Iterable[Device], now: datetime) -> list[Cohort]:
    """The counters as they stand at ``now``."""
    found: dict[tuple[str, int], Cohort] = {}
    for hardware_id, started, took in devices:
        if started > now:
            continue
        mark = Mark(minute_of(started))
        cohort = found.setdefault((hardware_id, mark.minute), Cohort(hardware_id, mark.minute))
        cohort.installed += 1
        if not math.isinf(took) and started + timedelta(minutes=took) <= now:
            interval = mark.heard(started + timedelta(minutes=took), of.of(hardware_id)).interval
            if interval <= len(LEFT):
                cohort.heard[interval - 1] += 1
    return list(found.values())


def looks(of: Clock, devices: Sequence[Device]) -> Iterator[tuple[datetime, ClockFacts]]:
    """What a decision sees at every moment at which it could see something new, until nothing is left to see."""
    now = min(started for _, started, _ in devices)
    ends = max(started for _, started, _ in devices) + timedelta(minutes=of.longest + 2)
    times = sorted(
        {
            each
            for _, started, _ in devices
            for point in range(len(of.learnt[""].checkpoints))
            for each in [
                NINE + timedelta(minutes=minute_of(started) - minute_of(NINE) + of.of("rpi4")[point].minutes + 1)
            ]
            if now <= each <= ends
        }
    )
    for now in times:
        yield now, tally(of, cohorts(of, devices, now), now=now)


def crossed_at(of: Clock, devices: Sequence[Device]) -> datetime | None:
    """When the clock crosses; None: never."""
    for now, facts in looks(of, devices):
        found = reading(facts)
        if found is not None and found.crossed:
            return now
    return None
