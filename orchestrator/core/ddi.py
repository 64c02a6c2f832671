"""hawkBit's Direct Device Integration in our words: numbers of actions, and what feedback means for an update.

Its clients know an *action*, a positive number of 31 bits. Here that is one try of one device at one rollout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from orchestrator.core.course import Course, UpdateStatus
from orchestrator.core.update import STOPPABLE, EventKind
from orchestrator.errors import Refused

_TRY_BITS: Final = 6

MOST_TRIES: Final = 2**_TRY_BITS - 1
"""Tries that have a number. ``wave retry`` gives no device more."""

MOST_ROLLOUTS: Final = 2 ** (31 - _TRY_BITS) - 1


def action_of(rollout_key: int, tries: int) -> int:
    """The action that is a device's so-manieth try at a rollout. Raises Refused where the numbers are used up."""
    if not 0 < rollout_key <= MOST_ROLLOUTS or not 0 < tries <= MOST_TRIES:
        raise Refused(
            f"hawkBit's clients have numbers for {MOST_ROLLOUTS:,} rollouts and {MOST_TRIES} tries; they are used up.",
            remedy="Bring the device up to date in another rollout.",
        )
    return rollout_key << _TRY_BITS | tries


def parts_of(action: int) -> tuple[int, int]:
    """Rollout key and try."""
    return action >> _TRY_BITS, action & MOST_TRIES


class Execution(StrEnum):
    """How far an action is, by its device."""

    CLOSED = "closed"
    PROCEEDING = "proceeding"
    CANCELED = "canceled"
    SCHEDULED = "scheduled"
    REJECTED = "rejected"
    RESUMED = "resumed"
    DOWNLOAD = "download"
    DOWNLOADED = "downloaded"


class Finished(StrEnum):
    """How it ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    NONE = "none"


class Said(NamedTuple):
    """One feedback. ``begun``: its progress is above nothing."""

    execution: Execution
    finished: Finished = Finished.NONE
    details: Sequence[str] = ()
    begun: bool = False


_WRONG: Final = re.compile(
    r"checksum (does not match|mismatch|verification failed)|invalid checksum|image invalid or corrupted"
    r"|hash mismatch|signature verification failed",
    re.IGNORECASE,
)
"""What the clients say when what they have is not what it should be."""

_UNFETCHED: Final = re.compile(
    r"\s*(download failed|artifact download failed"
    r"|channel operation returned http error code"
    r"|channel get operation failed \((?!23\))\d+\))",
    re.IGNORECASE,
)
"""And when they could not fetch it, as the first thing they say: later it follows from something else. (23 is curl's
word for an installer that hung up.)"""

_INSTALLING: Final = ("installed chunk.", "all chunks installed.", "installing", "file checksum ok.")
"""Progress by which a client shows that it has the content."""

_SKIPPED: Final = "skipped update."


def event_of(said: Said) -> EventKind:
    """What a feedback on a deployment is among our events."""
    match said.execution:
        case Execution.CLOSED:
            return _end_of(said)
        case Execution.PROCEEDING:
            text = said.details[0].strip().lower() if said.details else ""
            return EventKind.INSTALLING if said.begun or text in _INSTALLING else EventKind.DOWNLOADING
        case Execution.DOWNLOAD | Execution.DOWNLOADED | Execution.SCHEDULED | Execution.RESUMED:
            return EventKind.DOWNLOADING
        case Execution.REJECTED:
            return EventKind.NOTED  # a warning: the action stays open
        case Execution.CANCELED:
            return EventKind.REFUSED  # nobody told it to: that would be a feedback on the cancellation


def _end_of(said: Said) -> EventKind:
    details = [each for each in said.details if each.strip()]
    if said.finished is not Finished.FAILURE:
        skipped = bool(details) and details[0].strip().lower() == _SKIPPED
        return EventKind.NOTED if skipped else EventKind.APPLIED
    if any(_WRONG.search(each) for each in details):
        return EventKind.VERIFY_FAILED
    if details and _UNFETCHED.match(details[0]):
        return EventKind.DOWNLOAD_FAILED
    return EventKind.FAILED


def event_of_cancellation(said: Said) -> EventKind:
    """What a feedback on a cancellation is. ``canceled`` is hawkBit's warning, and some clients' word for done."""
    match said.execution:
        case Execution.CANCELED:
            return EventKind.CANCELLED
        case Execution.CLOSED:
            return EventKind.FAILED if said.finished is Finished.FAILURE else EventKind.CANCELLED
        case _:
            return EventKind.NOTED


class Standing(Enum):
    """What becomes of feedback."""

    TAKEN = "taken"
    LATE = "late"
    """Kept, and it changes nothing; unless it is a repetition the client hears that the action is gone."""
    GONE = "gone"
    """Not kept: the action may not begin any more."""


def standing(update: Course, kind: EventKind, *, stopped: bool) -> Standing:
    """For an action whose update stands so; ``stopped``: its rollout is halted or cancelled."""
    match update.status:
        case UpdateStatus.OFFERED if stopped:
            return Standing.GONE
        case status if status in STOPPABLE:
            return Standing.TAKEN
        case UpdateStatus.APPLIED | UpdateStatus.CONFIRMED:
            # A success that was lost is told again, and what failed after all counts.
            return Standing.LATE if kind in _UNDER_WAY else Standing.TAKEN
        case UpdateStatus.WITHDRAWN:
            # What failed because it was withdrawn says nothing. Who had begun may have finished all the same.
            return Standing.TAKEN if update.started and kind is EventKind.APPLIED else Standing.GONE
        case UpdateStatus.RETIRED:
            return Standing.GONE
        case _:
            return Standing.LATE


_UNDER_WAY: Final = frozenset({EventKind.DOWNLOADING, EventKind.INSTALLING, EventKind.NOTED, EventKind.REFUSED})


def linked(update: Course) -> bool:
    """Whether the deployment is linked in the answer to a poll, as far as the update goes: until its client has closed
    it. A client installs what is linked, and installs it again when it is still linked after the end; one that waits
    for its reboot must find it linked to report how that went."""
    return update.status in STOPPABLE
