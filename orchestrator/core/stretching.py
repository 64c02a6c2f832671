"""How far the interval between check-ins stretches while the server is under pressure, and how it goes back.

Pressure is a part of 1: how full the queue of what waits to be written is, or how late the server gets round to its
work, whichever is more. It is followed quickly upwards and slowly downwards, so that a fleet which was sent away does
not come back all at once. Up to ``EASY`` nothing stretches; from there the interval grows evenly in its logarithm and
reaches its longest at 1: no step anywhere, so no part of a fleet is moved together.
"""

from __future__ import annotations

from datetime import timedelta
from math import exp
from typing import Final

EASY: Final = 0.2
"""Pressure that changes nothing."""

LATE: Final = timedelta(seconds=1)
"""A server that gets round to its work so late is under full pressure."""

RISES_IN: Final = timedelta(seconds=5)
FALLS_IN: Final = timedelta(minutes=2)
"""In such a time 63 % of the way to what is seen now are made."""


def pressure(*, waiting: int, most_waiting: int, late: timedelta) -> float:
    """What is seen now, from 0 to 1."""
    return min(1.0, max(0.0, waiting / most_waiting, late / LATE))


def followed(before: float, seen: float, *, elapsed: timedelta) -> float:
    """The pressure that counts, after some time in which ``seen`` was there."""
    pace = RISES_IN if seen > before else FALLS_IN
    return before + (seen - before) * (1 - exp(-max(0.0, elapsed / pace)))


def stretched(every: timedelta, at_most: timedelta, counts: float) -> timedelta:
    """The interval under a pressure: ``every`` at first, ``at_most`` in the end, and ``every`` where that is longer."""
    if at_most <= every or counts <= EASY:
        return every
    longer: float = (at_most / every) ** min(1.0, (counts - EASY) / (1 - EASY))
    return every * longer
