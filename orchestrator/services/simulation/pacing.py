"""The pace of a simulated rollout: what limits its offers now, by the core's own rules, and who waits for room.

Answers for: the flows that ``core.offers`` asks for, the devices at it by label, the crowd that the pace keeps waiting.
How many may be at it by the evidence is worked out anew with each look at the rollout, not with each offer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from random import Random
from typing import Final

from orchestrator.core.admission import AMBER_STAKE, Flow, admit, bearable, flow, slowing
from orchestrator.core.facts import Facts, RolloutState
from orchestrator.core.fleet import Scope
from orchestrator.core.offers import LabelLimit, NoOffer, Terms, limited
from orchestrator.core.pace import Paced, limits
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.services.simulation.tally import Evidence

_SCOPE: Final = Scope("simulated", "simulated", 1, {}, ())


@dataclass(slots=True)
class Crowd:
    """Devices that asked and found no room, by the seconds between their check-ins; ``invited`` are about to ask."""

    rng: Random
    waiting: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    invited: set[int] = field(default_factory=set)

    def join(self, device: int, gap: int) -> None:
        self.waiting[gap].append(device)

    def invite(self) -> tuple[int, int] | None:
        """Who asks next, and in how many seconds: who asks often does so sooner. None when nobody waits."""
        rates = [(len(found) / gap, gap) for gap, found in self.waiting.items() if found]
        if not rates:
            return None
        found = self.waiting[self.rng.choices([gap for _, gap in rates], [rate for rate, _ in rates])[0]]
        place = int(self.rng.random() * len(found))
        found[place], found[-1] = found[-1], found[place]
        device = found.pop()
        self.invited.add(device)
        return device, int(self.rng.expovariate(sum(rate for rate, _ in rates)))

    def __bool__(self) -> bool:
        return any(self.waiting.values())


@dataclass(slots=True)
class Pacing:
    """The flows of a rollout and of its waves. ``labels``: those that any device of the fleet has."""

    rules: Rules
    evidence: Evidence
    crowd: Crowd
    labels: Collection[str] = ()
    _seen: Facts | None = None
    _flow: Flow = field(default_factory=Flow)
    _waves: dict[str, Flow] = field(default_factory=dict)
    _spent: dict[str | None, datetime | None] = field(default_factory=dict)
    _labels: Counter[LabelLimit] = field(default_factory=Counter)

    by_label: bool = field(init=False)
    """Whether devices that share a label are limited, so that they must be counted."""
    _own: dict[str, WaveRules] = field(init=False)
    _rated: bool = field(init=False)

    def __post_init__(self) -> None:
        self._own = {wave.wave: wave for wave in self.rules.waves}
        paced: list[Paced] = [self.rules, *self.rules.waves]
        asked = {each.per.label for each in paced if each.per is not None}
        self.by_label = not asked.isdisjoint(self.labels)
        self._rated = any(each.rate is not None for each in paced)

    def look(self, facts: Facts) -> None:
        """Work out anew what the evidence bears, when the next device asks."""
        self._seen = facts

    def _flows(self) -> None:
        facts, self._seen = self._seen, None
        if facts is None:
            return
        waves, monitors, tolerate, spent = facts.waves, facts.monitors, self.rules.tolerate, self._spent
        self._flow = flow(waves, monitors, tolerate, wave=None, paced=self.rules, spent_until=spent.get(None))
        self._waves = {
            own.wave: flow(waves, monitors, tolerate, wave=own.wave, paced=own, spent_until=spent.get(own.wave))
            for own in self.rules.waves
            if limits(own) or slowing(monitors, own.wave)
        }

    def stops(self, state: RolloutState, wave: str, labels: Mapping[str, str], now: datetime) -> NoOffer | None:
        """Why a device of this wave with these labels must wait now; None when it may have the offer."""
        self._flows()
        evidence, mine = self.evidence, self._waves.get(wave)
        whole = replace(self._flow, in_flight=evidence.in_flight, spent_until=self._spent.get(None))
        flows = {}
        if mine is not None:
            flying = evidence.wave_in_flight.get(wave, 0)
            flows[wave] = replace(mine, in_flight=flying, spent_until=self._spent.get(wave))
        terms = Terms(state, self.rules, _SCOPE, flow=whole, wave_flows=flows)
        no = limited(terms, wave, now)
        if no is not None or not self.by_label:
            return no
        for limit in self._limits(wave, labels):
            if (no := limit.reached(self._labels[limit])) is not None:
                return no
        return None

    def _limits(self, wave: str, labels: Mapping[str, str]) -> list[LabelLimit]:
        found = []
        for per, of in ((self.rules.per, None), (self._own[wave].per, wave)):
            value = None if per is None else labels.get(per.label)
            if per is not None and value is not None:
                found.append(LabelLimit(per.label, value, per.at_most, of))
        return found

    def offered(self, wave: str, now: datetime) -> None:
        """One more offer was given."""
        if not self._rated:
            return
        for paced, name in ((self.rules, None), (self._own[wave], wave)):
            if paced.rate is not None:
                self._spent[name] = admit(Flow(spent_until=self._spent.get(name)), paced, now).spent_until

    def flies(self, wave: str, labels: Mapping[str, str], change: int) -> None:
        """So many more devices with these labels are at it."""
        for limit in self._limits(wave, labels):
            self._labels[limit] += change

    def room(self) -> int:
        """How many more may be at it in the rollout, those who are about to ask included."""
        self._flows()
        rules, found = self.rules, self._flow
        caps = [] if rules.in_flight is None else [rules.in_flight]
        caps += [] if rules.stake is None else [bearable(rules.stake, found.upper)]
        caps += [bearable(AMBER_STAKE, found.upper)] if found.amber else []
        if not caps:
            return len(self.crowd.waiting)
        return min(caps) - self.evidence.in_flight - len(self.crowd.invited)
