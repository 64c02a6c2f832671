"""How simulated devices behave: what each will come to, and how long everything takes.

Drawn from one source of chance, so that a run is the same whenever it is played. Times are whole seconds since the
start of the rollout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from random import Random
from statistics import NormalDist
from typing import Final

from orchestrator.core.outcomes import Outcome, OutcomeClass, Tolerance
from orchestrator.services.simulation.fleet import Fleet, Habit
from orchestrator.services.simulation.scenarios import Order, Outage, Scenario

HOUR: Final = 3_600
DAY: Final = 24 * HOUR
NIGHT_BEGINS: Final = 15 * HOUR
"""After the start, which is in the morning."""
NIGHT_LASTS: Final = 6 * HOUR
OFFLINE_DAYS: Final = 4.0
"""The mean length of a spell without a connection: as long behind a device as it is before it."""

_QUANTILES: Final = 1_024


class Fate(IntEnum):
    """What a device will come to once it is offered the Target."""

    CONFIRMED = 0
    FAILED = 1
    ROLLED_BACK = 2
    SILENT = 3
    IGNORED = 4


FATE_OF: Final[Mapping[Outcome, Fate]] = {
    OutcomeClass.FAILED: Fate.FAILED,
    OutcomeClass.ROLLED_BACK: Fate.ROLLED_BACK,
    OutcomeClass.SILENT: Fate.SILENT,
    OutcomeClass.IGNORED: Fate.IGNORED,
}

DRAWN: Final = frozenset(FATE_OF) | {OutcomeClass.DOWNLOAD_FAILED}
"""The classes that devices here come to. They say no error codes and verify nothing, so never another."""


@dataclass(slots=True)
class Conduct:
    """One run's chances. ``waves``: the names, in file order, by which a scenario counts."""

    fleet: Fleet
    scenario: Scenario
    tolerate: Mapping[Outcome, Tolerance]
    waves: Sequence[str]
    rng: Random
    _edges: dict[tuple[int, str], tuple[tuple[float, Fate], ...]] = field(default_factory=dict)
    _downloads: dict[tuple[int, str], float] = field(default_factory=dict)
    _delays: list[list[int]] = field(init=False)
    """Quantiles of the time to an outcome, by kind of device."""

    def __post_init__(self) -> None:
        self._delays = [_quantiles(kind.habit, self.scenario.slower) for kind in self.fleet.kinds]

    def fate(self, device: int, wave: str) -> Fate:
        """What a device of this wave will come to."""
        key = (self.fleet.kind_of[device], wave)
        edges = self._edges.get(key)
        if edges is None:
            edges = self._learn(key)
        drawn = self.rng.random()
        for edge, fate in edges:
            if drawn < edge:
                return fate
        return Fate.CONFIRMED

    def download_fails(self, device: int, wave: str) -> bool:
        """Whether its first try to fetch the content fails."""
        share = self._downloads.get((self.fleet.kind_of[device], wave), 0.0)
        return share > 0.0 and self.rng.random() < share

    def strikes(self, kind: int, wave: str) -> bool:
        """Whether the scenario's trouble is for devices of this kind in this wave."""
        scenario = self.scenario
        begins = scenario.from_wave if scenario.from_wave >= 0 else len(self.waves) + scenario.from_wave
        if self.waves.index(wave) < begins:
            return False
        return scenario.dimension is None or self.fleet.kinds[kind].value(scenario.dimension) == scenario.value

    def _learn(self, key: tuple[int, str]) -> tuple[tuple[float, Fate], ...]:
        rates = self.scenario.rates(self.tolerate, struck=self.strikes(*key))
        self._downloads[key] = rates.get(OutcomeClass.DOWNLOAD_FAILED, 0.0)
        edges: list[tuple[float, Fate]] = []
        for outcome, fate in FATE_OF.items():
            if (rate := rates.get(outcome, 0.0)) > 0.0:
                edges.append((rate + (edges[-1][0] if edges else 0.0), fate))
        self._edges[key] = tuple(edges)
        return self._edges[key]

    # ------------------------------------------------------------------------------------------ times

    def gap(self, device: int, fate: Fate) -> int:
        """Seconds between two check-ins of a device that nothing hinders."""
        gap = self.habit(device).gap
        if fate is not Fate.CONFIRMED and self.scenario.eager > 1:
            return max(1, gap // self.scenario.eager)
        return gap

    def habit(self, device: int) -> Habit:
        return self.fleet.kinds[self.fleet.kind_of[device]].habit

    def begins(self, device: int, offered: int) -> int:
        """When a device that has the offer begins to install: at once, or in the next night."""
        if not self.habit(device).nightly:
            return offered
        into_night = (offered - NIGHT_BEGINS) % DAY
        if into_night < NIGHT_LASTS:
            return offered + int(self.rng.random() * (NIGHT_LASTS - into_night))
        return offered - into_night + DAY + int(self.rng.random() * NIGHT_LASTS)

    def takes(self, device: int, fate: Fate) -> int:
        """Seconds from the start of installing to the outcome."""
        usual = self._delays[self.fleet.kind_of[device]][int(self.rng.random() * _QUANTILES)]
        return in_order(self.scenario.order, usual, good=fate is Fate.CONFIRMED)

    def offline(self, share: float) -> dict[int, tuple[int, int]]:
        """Devices without a connection when the rollout starts: when each was last seen (before the start, so
        negative), and when it is back. Spells end as they began: by chance, after four days in the mean."""
        if share <= 0.0:
            return {}
        rng, mean = self.rng, OFFLINE_DAYS * DAY
        found = {}
        for device in range(self.fleet.devices):
            if rng.random() < share:
                found[device] = (-int(rng.expovariate(1 / mean)) - 1, int(rng.expovariate(1 / mean)) + 1)
        return found

    def last_seen(self, outage: Outage | None, spell: tuple[int, int] | None, device: int, now: int) -> int:
        """When a device without the offer was last seen: within its gap, unless it has no connection."""
        before = now
        if spell is not None and now < spell[1]:
            return spell[0]
        if outage is not None and self.within(outage, device, now) is not None:
            before = int(outage.after * HOUR)
        return before - int(self.rng.random() * self.habit(device).gap)

    def within(self, outage: Outage | None, device: int, at: int) -> int | None:
        """When a device can be heard again that is within an outage at this time; None when it is in none."""
        if outage is None:
            return None
        begins = int(outage.after * HOUR)
        ends = begins + int(outage.hours * HOUR)
        if not begins <= at < ends:
            return None
        if self.fleet.kinds[self.fleet.kind_of[device]].labels.get(outage.label) != outage.value:
            return None
        return ends + int(self.rng.random() * self.habit(device).gap)


def in_order(order: Order, usual: int, *, good: bool) -> int:
    """Seconds to an outcome that usually takes ``usual``, where reports come in this order."""
    match order:
        case Order.MIXED:
            return usual
        case Order.FAILURES_FIRST:
            return max(usual, HOUR // 4) if good else 60
        case Order.SUCCESSES_FIRST:
            return min(usual, HOUR // 6) if good else HOUR


def usual_time(habit: Habit, rng: Random) -> int:
    """Seconds that a device of this habit takes from the start of installing to its outcome."""
    return _quantiles(habit, 1.0)[int(rng.random() * _QUANTILES)]


@lru_cache(maxsize=64)
def _quantiles(habit: Habit, slower: float) -> list[int]:
    normal = NormalDist(math.log(habit.median * slower), habit.spread)
    return [max(1, round(math.exp(normal.inv_cdf((n + 0.5) / _QUANTILES)))) for n in range(_QUANTILES)]
