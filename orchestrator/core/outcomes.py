"""What an update can come to, and what a policy may answer to the bad ones.

A class is known by its name: the built-in ones are listed here, those of the operator's own are whatever the policy
calls them (``core.codes`` says which failure counts in which). So a class of the operator's own is a plain text
wherever outcomes are counted, and nothing has to be translated before a person reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias


class OutcomeClass(StrEnum):
    """The bad outcomes that evidence is gathered for. A device adds at most one of each to a rollout."""

    __hash__ = str.__hash__

    FAILED = "failed"
    """It said that it could not install, or that the new software does not work."""
    VERIFY_FAILED = "verify_failed"
    """What it had fetched or written was not what it should be. Counted as ``failed`` by a policy that does not name
    it."""
    ROLLED_BACK = "rolled_back"
    """It ran, or tried to run, the Target and went back to what it had."""
    SILENT = "silent"
    """It was given the offer and nothing that counts was heard within the policy's time."""
    IGNORED = "ignored"
    """It came back three times after the offer and never started, or said that it will not."""
    DOWNLOAD_FAILED = "download_failed"
    """It could not fetch the content: often the network's fault and not the release's."""


Outcome: TypeAlias = str
"""The name of a class: one of ``OutcomeClass``, or of the operator's own."""

NOT_BAD: Final = ("confirmed", "left")
"""The other words of the evidence log."""

APART: Final = "apart/"
"""Begins the words of the evidence log for outcomes of devices that were unhealthy before and are left out of the
count."""

_PLACES: Final = {outcome.value: place for place, outcome in enumerate(OutcomeClass)}


def in_order(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Each once, as they are shown: the built-in ones as listed, then the operator's own by name."""
    return tuple(sorted(set(outcomes), key=lambda each: (_PLACES.get(each, len(_PLACES)), each)))


def word(outcome: Outcome) -> str:
    """The class as people say it: ``rolled back``. Names of the operator's own stay as they were given."""
    return outcome.replace("_", " ") if outcome in _PLACES else outcome


class Answer(StrEnum):
    """What a monitor does when its class goes over the tolerance."""

    HALT = "halt"
    HOLD = "hold"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The probability of one bad outcome that is still acceptable, in (0, 1), and the answer above it."""

    at_most: float
    then: Answer = Answer.HALT

    def over(self, dark: float) -> Tolerance:
        """The same on top of a probability in [0, 1) with which it happens anyway, for another reason."""
        return Tolerance(1.0 - (1.0 - self.at_most) * (1.0 - dark), self.then) if dark else self
