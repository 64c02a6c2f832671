"""The update machine of the core, its steps remembered.

A simulated device takes the same few paths as all the others, so each step of ``core.update`` is taken once, at a fixed
moment, and remembered as a number: what an update counts depends on its standing, not on when it got there. When a
silence is due is the caller's to know; whether it counts is the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple, assert_never

from orchestrator.core.course import Counts, UpdateStatus, counted
from orchestrator.core.outcomes import Outcome
from orchestrator.core.update import (
    EventKind,
    Patience,
    Step,
    Update,
    offer,
    offer_again,
    on_check_in,
    on_deadline,
    on_event,
    retry,
    withdraw,
)

_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PATIENCE: Final = Patience(timedelta(hours=1))
_OLD: Final = "0" * 64
_NEW: Final = "1" * 64


class Happening(IntEnum):
    """What can happen to an update."""

    INSTALLING = 0
    APPLIED = 1
    FAILED = 2
    ROLLED_BACK = 3
    DOWNLOAD_FAILED = 4
    ON_TARGET = 5
    """A check-in that runs the Target."""
    ON_OLD = 6
    """A check-in that runs what it ran."""
    DEADLINE = 7
    """Its time without a word is over."""
    WITHDRAWN = 8
    RETRIED = 9
    OFFERED_AGAIN = 10


HEARD: Final = frozenset(
    {Happening.FAILED, Happening.ROLLED_BACK, Happening.ON_TARGET, Happening.DOWNLOAD_FAILED, Happening.WITHDRAWN}
)
"""What ends the waiting of the clock for a device that began to install."""

COUNTED: Final = ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "left", "retired")
"""The tallies of a slice, in the order of ``Taken.gains``."""


class Taken(NamedTuple):
    """A step: the standing after it, which tallies gain how much (by their number in COUNTED), which bad outcomes are
    counted, those counted before, and how many more are under way, as ``WaveFacts.in_flight`` has it."""

    standing: int
    gains: tuple[tuple[int, int], ...]
    bad: tuple[Outcome, ...]
    earlier: frozenset[Outcome]
    flying: int


@dataclass(slots=True)
class Machine:
    """Numbers for standings; ``offered`` is the one right after an offer. Grows as new ones are met."""

    standings: list[Update] = field(default_factory=list)
    offered: int = 0
    first: Taken = field(init=False)
    _numbers: dict[Update, int] = field(default_factory=dict)
    _taken: dict[int, Taken] = field(default_factory=dict)

    def __post_init__(self) -> None:
        step = offer(from_commit=_OLD, to_commit=_NEW, patience=_PATIENCE, now=_AT)
        self.offered = self._number(step.update)
        self.first = Taken(self.offered, _gains(step.counts), (), frozenset(), flying(step.counts))

    def step(self, standing: int, happening: Happening) -> Taken:
        """What ``happening`` makes of an update in this standing."""
        key = standing << 4 | happening
        found = self._taken.get(key)
        if found is None:
            before = self.standings[standing]
            step = _STEPS[happening](before)
            found = Taken(
                self._number(step.update), _gains(step.counts), step.counts.bad, before.bad, flying(step.counts)
            )
            self._taken[key] = found
        return found

    def unresolved(self, standing: int) -> bool:
        """Whether silence would still count: no outcome has been."""
        return not self.standings[standing].resolved

    def whole(self, standing: int) -> tuple[tuple[tuple[int, int], ...], tuple[Outcome, ...]]:
        """All that an update in this standing has added to its slice."""
        counts = counted(self.standings[standing])
        return _gains(counts), counts.bad

    def withdrawn(self, standing: int) -> bool:
        return self.standings[standing].status is UpdateStatus.WITHDRAWN

    def waits(self, standing: int) -> bool:
        """Whether the offer stands and nothing was begun."""
        return not self.standings[standing].started

    def _number(self, update: Update) -> int:
        number = self._numbers.get(update)
        if number is None:
            number = self._numbers[update] = len(self.standings)
            self.standings.append(update)
        return number


def _gains(counts: Counts) -> tuple[tuple[int, int], ...]:
    return tuple((n, gain) for n, name in enumerate(COUNTED) if (gain := getattr(counts, name)))


def flying(counts: Counts) -> int:
    """How many more are under way by a step: offered, and no outcome yet, as ``WaveFacts.in_flight`` has it."""
    return counts.offered - counts.withdrawn - counts.left - counts.retired - counts.resolved


def _event(kind: EventKind) -> Callable[[Update], Step[Update]]:
    return lambda update: on_event(update, kind, patience=_PATIENCE, now=_AT)


def _check_in(running: str) -> Callable[[Update], Step[Update]]:
    return lambda update: on_check_in(update, running=running, patience=_PATIENCE, now=_AT)


def _deadline(update: Update) -> Step[Update]:
    """Due, and nothing was heard meanwhile."""
    at = update.deadline_at or _AT
    return on_deadline(update, last_seen_at=None, patience=_PATIENCE, now=at)


def _steps(happening: Happening) -> Callable[[Update], Step[Update]]:
    match happening:
        case Happening.INSTALLING:
            return _event(EventKind.INSTALLING)
        case Happening.APPLIED:
            return _event(EventKind.APPLIED)
        case Happening.FAILED:
            return _event(EventKind.FAILED)
        case Happening.ROLLED_BACK:
            return _event(EventKind.ROLLED_BACK)
        case Happening.DOWNLOAD_FAILED:
            return _event(EventKind.DOWNLOAD_FAILED)
        case Happening.ON_TARGET:
            return _check_in(_NEW)
        case Happening.ON_OLD:
            return _check_in(_OLD)
        case Happening.DEADLINE:
            return _deadline
        case Happening.WITHDRAWN:
            return withdraw
        case Happening.RETRIED:
            return lambda update: retry(update, patience=_PATIENCE, now=_AT)
        case Happening.OFFERED_AGAIN:
            return lambda update: offer_again(update, from_commit=_OLD, patience=_PATIENCE, now=_AT)
        case _:
            assert_never(happening)


_STEPS: Final[Mapping[Happening, Callable[[Update], Step[Update]]]] = {each: _steps(each) for each in Happening}
