"""How far one device's update has come, and what that counts.

What an update counts is a function of its course as it stands (``counted``): the tallies of a slice are the sum over
its updates, and a step adds the ``difference``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Final, Self

from orchestrator.core.outcomes import Outcome, in_order


class UpdateStatus(StrEnum):
    __hash__ = str.__hash__  # as equal texts have, and not by the name, which takes a call for each look into a table

    OFFERED = "offered"
    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    APPLIED = "applied"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SILENT = "silent"
    IGNORED = "ignored"
    LEFT = "left"
    WITHDRAWN = "withdrawn"
    RETIRED = "retired"


UPDATE_MEANING: Final[Mapping[UpdateStatus, str]] = {
    UpdateStatus.OFFERED: "Told of the Target, not started.",
    UpdateStatus.DOWNLOADING: "Fetching the content.",
    UpdateStatus.INSTALLING: "Writing it.",
    UpdateStatus.APPLIED: "Written, waiting for the reboot.",
    UpdateStatus.CONFIRMED: "Runs the Target and says so.",
    UpdateStatus.FAILED: "Said that it could not.",
    UpdateStatus.ROLLED_BACK: "Went back to what it had.",
    UpdateStatus.SILENT: "Nothing that counts was heard in time.",
    UpdateStatus.IGNORED: "Came back three times and never started, or said that it will not.",
    UpdateStatus.LEFT: "Runs something that is neither the old nor the new commit.",
    UpdateStatus.WITHDRAWN: "The offer was taken back before it started, or it stopped when it was told to.",
    UpdateStatus.RETIRED: "Its device was retired before it came to an outcome.",
}

UNDER_WAY: Final = frozenset({UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING, UpdateStatus.APPLIED})
"""Started and not come to an end."""


@dataclass(slots=True, unsafe_hash=True)
class Course:
    """How far an update has come: what reports and the clock go by, and all that it counts.

    ``bad`` holds the classes already counted; ``resolved`` whether an outcome was counted; ``confirmed_at`` when it was
    first seen running the Target in this try; ``deadline_at`` when silence counts, None when it no longer can;
    ``ended`` whether it came to a bad end, in this try or one before.

    Its fields are final for the type checker only: made ``frozen`` it takes ten times as long to make, and every report
    makes two.
    """

    status: Final[UpdateStatus]
    deadline_at: Final[datetime | None]
    started_at: Final[datetime | None] = None
    installing_at: Final[datetime | None] = None
    confirmed_at: Final[datetime | None] = None
    resolved: Final[bool] = False
    recovered_at: Final[datetime | None] = None
    bad: Final[frozenset[Outcome]] = frozenset()
    ended: Final[bool] = False

    @property
    def started(self) -> bool:
        return self.started_at is not None

    @property
    def under_way(self) -> bool:
        """Started, and neither at an end nor gone elsewhere: nothing else is offered to the device meanwhile."""
        return self.status in UNDER_WAY

    @property
    def counts_as_confirmed(self) -> bool:
        """Confirmed, and nothing bad known of it but failed downloads."""
        return self.confirmed_at is not None and not self.ended

    @property
    def bad_outcome(self) -> bool:
        """Whether it has come to a bad end; a failed download alone is no end, the device may try again."""
        return self.ended

    def come_to(self, course: Course) -> Self:
        """The same update with another course."""
        return course  # type: ignore[return-value]  # a course alone is nothing more


course_values: Final = attrgetter(
    "status", "deadline_at", "started_at", "installing_at", "confirmed_at", "resolved", "recovered_at", "bad", "ended"
)
"""The fields of a course, in their order."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a step adds to the tallies of the update's slice; a negative number takes back.

    ``applied``: written, and either waiting for the reboot or confirmed.
    """

    offered: int = 0
    withdrawn: int = 0
    started: int = 0
    applied: int = 0
    resolved: int = 0
    confirmed: int = 0
    left: int = 0
    bad: tuple[Outcome, ...] = ()
    retired: int = 0

    def __bool__(self) -> bool:
        return bool(self.started or self.applied or self.resolved) or (self is not NOTHING and self != NOTHING)

    def __add__(self, other: Counts) -> Counts:
        return Counts.total((self, other))

    @classmethod
    def total(cls, many: Sequence[Counts]) -> Counts:
        """The sum of many."""
        offered, withdrawn, started, applied, resolved, confirmed, left, retired = (
            sum(map(one, many)) for one in _NUMBERS
        )
        bad = tuple(chain.from_iterable(each.bad for each in many))
        return cls(offered, withdrawn, started, applied, resolved, confirmed, left, bad, retired)


NOTHING: Final = Counts()
"""Of what counts nothing, and nearly every step."""

_NUMBERS: Final = tuple(
    map(attrgetter, ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "left", "retired"))
)

_Counting = tuple[UpdateStatus, bool, bool, bool, bool, frozenset[Outcome]]


def counted(update: Course) -> Counts:
    """What an update as it stands has added in all: the tallies of a slice are the sum over its updates."""
    withdrawn, started, applied, resolved, confirmed, left, retired = _marks(_counting(update))
    return Counts(1, withdrawn, started, applied, resolved, confirmed, left, in_order(update.bad), retired)


def difference(before: Course, after: Course) -> Counts:
    """What the tallies must gain when one becomes the other."""
    return _gained(_counting(before), _counting(after))


def _counting(update: Course) -> _Counting:
    """All that the tallies depend on: few values, however many updates."""
    started, confirmed = update.started_at is not None, update.confirmed_at is not None
    return update.status, started, confirmed, update.resolved, update.ended, update.bad


def _marks(counting: _Counting) -> tuple[int, ...]:
    """Whether it is withdrawn, started, applied, resolved, confirmed, left, retired, as the tallies mean it."""
    status, started, confirmed, resolved, ended_badly, _ = counting
    ended = () if resolved else (status,)
    return (
        int(UpdateStatus.WITHDRAWN in ended),
        int(started),
        int(confirmed or status is UpdateStatus.APPLIED),
        int(resolved),
        int(confirmed and not ended_badly),
        int(UpdateStatus.LEFT in ended),
        int(UpdateStatus.RETIRED in ended),
    )


@lru_cache(maxsize=1_024)
def _gained(was: _Counting, now: _Counting) -> Counts:
    withdrawn, started, applied, resolved, confirmed, left, retired = (
        b - a for a, b in zip(_marks(was), _marks(now), strict=True)
    )
    bad = in_order(now[-1] - was[-1])
    gained = Counts(0, withdrawn, started, applied, resolved, confirmed, left, bad, retired)
    return gained if gained else NOTHING
