"""What many runs add up to: chances with their confidence intervals, and quantiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from orchestrator.core.evidence.budgets import chance_of_reaching
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.outcomes import Outcome, in_order
from orchestrator.core.rules import bind
from orchestrator.services.simulation.conduct import DRAWN
from orchestrator.services.simulation.setting import Ending, Played, Setting

CONFIDENCE: Final = 0.95
_HALVINGS: Final = 60


class Chance(NamedTuple):
    """``hits`` of ``runs``, and the exact 95 % confidence interval of the probability (Clopper and Pearson)."""

    hits: int
    runs: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.hits / self.runs if self.runs else 0.0


class Quantiles(NamedTuple):
    """Of so many values, those that 10, 50 and 90 of a hundred do not exceed."""

    runs: int
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The runs of one setting together.

    ``false_halts``: whether the release was within the policy's tolerances, so that every halt was a false one.
    ``failed``, ``doomed``, ``exposed`` and ``hours_to_halt`` are of the halted runs, ``hours`` of the completed ones.
    ``causes``: why runs were halted or held, most frequent first. ``not_drawn``: classes that the policy watches and no
    simulated device comes to, so that nothing is said of them. ``taken_for_granted``: what a person or somebody outside
    must say before a wave opens, which is said at once here (``promotion``, ``approval``, ``gate NAME``).
    """

    policy: str
    scenario: str
    fleet: int
    runs: int
    false_halts: bool
    halted: Chance
    held: Chance
    completed: Chance
    unfinished: Chance
    failed: Quantiles | None
    doomed: Quantiles | None
    exposed: Quantiles | None
    hours_to_halt: Quantiles | None
    hours: Quantiles | None
    excluded: tuple[tuple[str, int], ...] = ()
    causes: tuple[tuple[str, int], ...] = ()
    not_drawn: tuple[Outcome, ...] = ()
    taken_for_granted: tuple[str, ...] = ()


def chance(hits: int, runs: int) -> Chance:
    """The exact interval: the probabilities under which so few, or so many, come up in 2.5 % of cases."""
    tail = (1.0 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else _root(lambda p: chance_of_reaching(runs, p, hits) < tail)
    high = 1.0 if hits == runs else _root(lambda p: 1.0 - chance_of_reaching(runs, p, hits + 1) > tail)
    return Chance(hits, runs, low, high)


def _root(below: Callable[[float], bool]) -> float:
    """The probability at which ``below`` ends to hold."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """None of no values. Always a value that came up."""
    if not values:
        return None
    ordered = sorted(values)
    low, median, high = (ordered[max(0, math.ceil(part * len(ordered)) - 1)] for part in (0.1, 0.5, 0.9))
    return Quantiles(len(ordered), low, median, high)


def figure(value: float) -> str:
    """A number of devices, hours or percents, with no more digits than a simulation can know."""
    if value >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def share_words(share: float) -> str:
    """A share in percent; never 100 of less than all."""
    return f"{'over 99' if 99.5 <= 100 * share < 100 else figure(100 * share)} %"


PROMOTION: Final = "promotion"
APPROVAL: Final = "approval"


def granted(setting: Setting) -> Iterator[str]:
    """What the rules of a setting wait for that nobody simulates."""
    rules = bind(setting.spec, setting.policy)
    if any(wave.awaits_promotion for wave in rules.waves):
        yield PROMOTION
    if rules.approve_start or any(wave.approvals for wave in rules.waves):
        yield APPROVAL
    yield from dict.fromkeys(f"gate {gate.gate}" for wave in rules.waves for gate in wave.gates)


def summary(setting: Setting, played: Sequence[Played]) -> Summary:
    """What the runs of a setting add up to."""
    endings = Counter(each.ending for each in played)
    halted = [each for each in played if each.ending is Ending.HALTED]
    stopped = [each for each in played if each.ending in (Ending.HALTED, Ending.HELD)]
    tolerate = setting.policy.tolerances_over(Darkness() if setting.history else None)
    found = {ending: chance(endings[ending], len(played)) for ending in Ending}
    return Summary(
        policy=setting.policy.name,
        scenario=setting.scenario.name,
        fleet=setting.shape.devices,
        runs=len(played),
        false_halts=setting.scenario.harmless(tolerate),
        halted=found[Ending.HALTED],
        held=found[Ending.HELD],
        completed=found[Ending.COMPLETED],
        unfinished=found[Ending.UNFINISHED],
        failed=quantiles([each.failed for each in halted]),
        doomed=quantiles([each.doomed for each in halted]),
        exposed=quantiles([each.exposed for each in halted]),
        hours_to_halt=quantiles([each.hours for each in halted]),
        hours=quantiles([each.hours for each in played if each.ending is Ending.COMPLETED]),
        excluded=tuple(Counter(left_out.segment for each in played for left_out in each.excluded).most_common()),
        causes=tuple(Counter(f"{each.ending} {each.cause}" for each in stopped).most_common()),
        not_drawn=in_order(tolerate.keys() - DRAWN),
        taken_for_granted=tuple(granted(setting)),
    )
