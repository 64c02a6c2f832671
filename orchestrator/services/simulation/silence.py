"""The clock of a simulated rollout: learnt from a release before it, and what it sees of this one.

The curve, the checkpoints and the evidence are the core's (``core.evidence.clock``); here are the past devices it
learns from, the cohorts of this rollout, and the untouched devices beside it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Final

from orchestrator.core.evidence.clock import (
    LEFT,
    Clock,
    ClockFacts,
    Cohort,
    Curve,
    Delay,
    Mark,
    Untouched,
    bind_clock,
    clock_facts,
    learn,
    minute_of,
    moment_of,
    reading,
)
from orchestrator.services.simulation.conduct import in_order, usual_time
from orchestrator.services.simulation.fleet import ShapeKey, made
from orchestrator.services.simulation.scenarios import Order
from orchestrator.services.simulation.setting import Setting

if TYPE_CHECKING:
    from orchestrator.services.simulation.play import Run

NATURAL: Final = 0.01
"""Of the devices of an earlier release those never heard of again: the darkness that was always there."""

PASTS: Final = 16
"""So many different histories the runs of a setting have: each is learnt once."""

LOOKED_AT: Final = 500
"""Untouched devices that are looked at."""


def learnt(setting: Setting, alpha: float, run: int) -> Clock | None:
    """The clock that this run's rollout would have after an earlier release to the setting's ``history`` of devices,
    which took their usual time and reported in the scenario's order; None without history, or where the policy leaves
    it nothing to say."""
    policy = setting.policy
    silent = policy.tolerate.silence(learnt=True)
    seed = f"{setting.seed}/{run % PASTS}"
    return bind_clock(
        _curves(ShapeKey(setting.shape), setting.history, seed, setting.scenario.order),
        tolerance=silent.at_most,
        alpha=alpha,
        answer=silent.then,
        silent_after=policy.silent_after,
    )


@lru_cache(maxsize=64)
def _curves(key: ShapeKey, history: int, seed: str, order: Order) -> dict[str, Curve]:
    fleet = made(key.shape)
    rng = Random(f"past of {seed}")
    past = []
    for device in rng.sample(range(fleet.devices), min(history, fleet.devices)):
        kind = fleet.kinds[fleet.kind_of[device]]
        usual = usual_time(kind.habit, rng)
        took = None if rng.random() < NATURAL else timedelta(seconds=in_order(order, usual, good=True))
        past.append(Delay(kind.hardware_id, device, took))
    return learn(past)


def untouched(run: Run, minutes: int) -> Untouched:
    """Devices without the offer that are seen at least twice in so many minutes, and were when these began."""
    began, gap = run.now - 60 * minutes, 30 * minutes
    outage, found, dark = run.setting.scenario.outage, 0, 0
    for device in range(0, run.fleet.devices, max(1, run.fleet.devices // LOOKED_AT)):
        usual = run.conduct.habit(device).gap
        if device in run.standing or usual > gap:
            continue
        seen = run.conduct.last_seen(outage, run.dark.get(device), device, run.now)
        found += seen >= began - 2 * usual
        dark += began - 2 * usual <= seen < began
    return Untouched(found, dark, minutes)


@dataclass(slots=True)
class Silence:
    """What the clock of one rollout has seen. ``untouched``: looks at the devices without an update; asked only when
    the clock has crossed."""

    clock: Clock
    untouched: Callable[[int], Untouched]
    _cohorts: dict[tuple[str, int], Cohort] = field(default_factory=dict)
    _marks: dict[int, tuple[str, Mark]] = field(default_factory=dict)
    _counts: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    """By checkpoint and hardware id the silent and the reported of cohorts that have passed it."""
    _waiting: list[tuple[int, str, int, int]] = field(default_factory=list)
    """Of cohorts with somebody not heard of: the minute in which they pass a checkpoint, hardware id, their own minute,
    the checkpoint's number. A heap."""
    _heard: list[tuple[int, str, int, int]] = field(default_factory=list)
    """The same of cohorts of which all were heard of in time."""
    _facts: ClockFacts | None = None

    def installs(self, device: int, hardware_id: str, at: datetime) -> None:
        """A device began to install."""
        if device in self._marks:
            return
        minute = minute_of(at)
        self._marks[device] = (hardware_id, Mark(minute))
        cohort = self._cohorts.get((hardware_id, minute))
        if cohort is None:
            cohort = self._cohorts[hardware_id, minute] = Cohort(hardware_id, minute)
            for number, each in enumerate(self.clock.of(hardware_id), 1):
                heapq.heappush(self._waiting, (minute + each.minutes + 1, hardware_id, minute, number))
        cohort.installed += 1
        self._facts = None

    def hears(self, device: int, at: datetime) -> None:
        """The first that is heard of a device after it began to install."""
        found = self._marks.get(device)
        if found is None or found[1].interval:
            return
        hardware_id, mark = found
        after = mark.heard(at, self.clock.of(hardware_id))
        self._marks[device] = (hardware_id, after)
        cohort = self._cohorts.get((hardware_id, mark.minute))
        if cohort is not None and after.interval <= len(LEFT):
            cohort.heard[after.interval - 1] += 1

    def facts(self, now: datetime) -> ClockFacts:
        """As a decision sees it at ``now``."""
        minute = minute_of(now)
        for heap in (self._waiting, self._heard):
            while heap and heap[0][0] <= minute:
                self._pass(*heapq.heappop(heap)[1:])
        while self._waiting and self._waiting[0][2] < minute and not self._silent(self._waiting[0]):
            heapq.heappush(self._heard, heapq.heappop(self._waiting))
        next_at = moment_of(self._waiting[0][0]) if self._waiting else None
        if self._facts is None or self._facts.next_at != next_at:
            self._facts = clock_facts(self.clock, self._counts, next_at)
        found = reading(self._facts)
        if found is None or not found.crossed:
            return self._facts
        return replace(self._facts, untouched=self.untouched(found.minutes))

    def _silent(self, waiting: tuple[int, str, int, int]) -> int:
        _, hardware_id, minute, number = waiting
        return self._cohorts[hardware_id, minute].silent(number)

    def _pass(self, hardware_id: str, minute: int, number: int) -> None:
        """A cohort passes a checkpoint: who was not heard of by then is silent there for good."""
        cohort = self._cohorts[hardware_id, minute]
        mine = self._counts.setdefault((number, hardware_id), [0, 0])
        silent = cohort.silent(number)
        mine[0], mine[1] = mine[0] + silent, mine[1] + cohort.installed - silent
        self._facts = None
