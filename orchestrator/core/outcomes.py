"""What an update can come to, and what a policy may answer to the bad ones."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OutcomeClass(StrEnum):
    """The bad outcomes that evidence is gathered for. A device adds at most one of each to a rollout."""

    __hash__ = str.__hash__

    FAILED = "failed"
    """It said that it could not install, or that the new software does not work."""
    ROLLED_BACK = "rolled_back"
    """It ran, or tried to run, the Target and went back to what it had."""
    SILENT = "silent"
    """It was given the offer and nothing that counts was heard within the policy's time."""
    IGNORED = "ignored"
    """It came back three times after the offer and never started."""
    DOWNLOAD_FAILED = "download_failed"
    """It could not fetch the content: often the network's fault and not the release's."""


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
