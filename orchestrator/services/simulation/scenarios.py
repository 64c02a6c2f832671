"""What happens to a virtual fleet under a release: small named values.

A scenario says how often devices come to each bad outcome, as a multiple of what the policy tolerates or as plain
probabilities where trouble strikes, and how the reports come. Answers for: the shipped scenarios and what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput


class Order(StrEnum):
    """In which order reports come in."""

    MIXED = "mixed"
    """Bad and good outcomes take equally long."""
    FAILURES_FIRST = "failures_first"
    """A failure after a minute, a success after its usual time and at least a quarter of an hour."""
    SUCCESSES_FIRST = "successes_first"
    """A success within ten minutes, a failure after an hour."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Devices with ``label=value`` hear and say nothing for ``hours``, beginning ``after`` hours after the start,
    whether they were touched or not."""

    label: str = "region"
    value: str = "east"
    after: float = 24.5
    hours: float = 36.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """``level``: the probability of each bad outcome everywhere, as a multiple of the policy's tolerance for it;
    ``quiet`` the same for classes that hold or are only counted: the fleet's own faults more than the release's.
    ``trouble``: probabilities that replace these where trouble strikes: everywhere, or only devices with
    ``dimension`` = ``value``, and only in the wave numbered ``from_wave`` (from 0; negative from the end) and later.
    ``slower``: outcomes take so many times their usual time. ``together``: no word of the start before the outcome.
    ``retries``: the part of failed devices that try again by themselves. ``eager``: devices that will turn bad check in
    so many times as often.
    """

    name: str
    sentence: str
    level: float = 0.5
    quiet: float = 0.2
    trouble: Mapping[Outcome, float] = field(default_factory=dict)
    dimension: str | None = None
    value: str | None = None
    from_wave: int = 0
    slower: float = 1.0
    order: Order = Order.MIXED
    together: bool = False
    retries: float = 0.0
    eager: int = 1
    outage: Outage | None = None

    def rates(self, tolerate: Mapping[Outcome, Tolerance], *, struck: bool) -> dict[Outcome, float]:
        """The probability of each bad outcome, for a device that trouble strikes or passes by.

        A device comes to one bad end at most, so the probabilities sum to 1 at most: what trouble brings goes first
        and the rest share what is left. Failed downloads are no end and stand beside.
        """
        found = {
            outcome: (self.level if each.then is Answer.HALT else self.quiet) * each.at_most
            for outcome, each in tolerate.items()
        }
        if struck and self.trouble:
            left = max(0.0, 1.0 - sum(rate for outcome, rate in self.trouble.items() if outcome in _ENDS))
            usual = sum(rate for outcome, rate in found.items() if outcome in _ENDS and outcome not in self.trouble)
            if usual > left:
                found = {outcome: rate * left / usual for outcome, rate in found.items()}
            found |= self.trouble
        return found

    def harmless(self, tolerate: Mapping[Outcome, Tolerance]) -> bool:
        """Whether no class is over its tolerance anywhere, so that a halt would be a false one."""
        rates = self.rates(tolerate, struck=True)
        return all(rates.get(outcome, 0.0) <= each.at_most * (1 + 1e-9) for outcome, each in tolerate.items())

    def failing(self, share: float) -> Scenario:
        """The same with this probability of failure where its trouble strikes."""
        if not 0.0 <= share <= 1.0:
            raise InvalidInput(f"`fail` is a share from 0 % to 100 %, not {share:g}.")
        return replace(self, trouble={**self.trouble, OutcomeClass.FAILED: share})


_ENDS: Final = frozenset(OutcomeClass) - {OutcomeClass.DOWNLOAD_FAILED}

_SHIPPED: Final = (
    Scenario("good", "A good release: half as bad as the policy tolerates."),
    Scenario("tolerated", "Exactly as bad as the policy tolerates, in every class that halts.", level=1.0),
    Scenario("bad", "Bad for all: three in ten devices fail.", trouble={OutcomeClass.FAILED: 0.3}),
    Scenario("broken", "Fails everywhere.", trouble={OutcomeClass.FAILED: 1.0}),
    Scenario(
        "bad-hardware",
        "Bad on one hardware id with 5 % of the fleet, where three in ten fail.",
        trouble={OutcomeClass.FAILED: 0.3},
        dimension="hardware_id",
        value="hw-d",
    ),
    Scenario("slow", "Slow to report: every outcome takes one and a half times as long.", slower=1.5),
    Scenario("bricks", "Every device installs it and is never heard of again.", trouble={OutcomeClass.SILENT: 1.0}),
    Scenario(
        "late",
        "A regression that starts late: from the last wave on every device fails.",
        trouble={OutcomeClass.FAILED: 1.0},
        from_wave=-1,
    ),
    Scenario("outage", "A good release, and a site with a fifth of the fleet goes dark for 36 hours.", outage=Outage()),
)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({each.name: each for each in _SHIPPED})


def scenario(name: str) -> Scenario:
    """The shipped scenario of that name. Raises InvalidInput that names those there are."""
    found = SCENARIOS.get(name)
    if found is None:
        raise InvalidInput(f"There is no scenario {name[:40]!r}.", remedy=f"There are {', '.join(SCENARIOS)}.")
    return found
