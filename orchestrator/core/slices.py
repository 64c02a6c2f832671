"""Slices and places: who may be offered so far, and every device's rank among them.

A wave is opened in slices (RULES 3.1). A slice takes the next devices by position and is at most as large as all the
wave has had before (``growth: 2``), so what is at risk is never more than what has been seen. Membership of a slice and
the places in it are pure functions of the device and the slice table: no row and no counter per device.

* ``since`` of a device is the moment from which it has been reachable and unchanged (first seen, seen again after more
  than ``reach``, moved by group, label, tag or hardware id, let go by a person who held it, or eligible again by what
  it runs; by another version only where its slice could not tell). A slice holds the devices whose ``since`` is not
  after its opening, whose position is below its ``upto``, and that no earlier slice of the wave holds.
* A **place** is a rank by position, in each population a device belongs to: the members of all slices opened before,
  in the order of their opening, plus the rank among this slice's members of that population (RULES 3.2). Whom a slice
  did not count in a segment has no place there: two devices never share one because of it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import partial
from itertools import accumulate
from typing import Final

from orchestrator.core.position import SPACE

EXACT_RANKS: Final = 1_000
"""Up to so many members ranks are exact; above they are interpolated (positions are uniform)."""

BINS: Final = 256
"""Stretches, equally long, in which members are counted for interpolation."""

ROLLOUT: Final = "rollout"
"""The population of all devices of the rollout."""


def wave_population(wave: str) -> str:
    return f"wave:{wave}"


def segment_population(dimension: str, value: str) -> str:
    """For example ``hardware_id=rpi4``, ``source_version=41``, ``label:region=emea``."""
    return f"{dimension}={value}"


def is_segment(population: str) -> bool:
    """Whether a population is that of a segment. The names of waves have no ``=``."""
    return "=" in population


def dimension_of(segment: str) -> str:
    """``hardware_id`` of ``hardware_id=rpi4``. Segments of one dimension share no device."""
    return segment.partition("=")[0]


UNCOUNTED: Final = 0
"""The place in a segment of a device that its slice did not count there: before all that any monitor counts."""

WANDERING: Final = "source_version"
"""The dimension in which a device may change and keep its slice: between the slice's opening and the offer another
update may reach it. With another hardware id or label it is in a later slice (``since``)."""


def settled(segment: str) -> bool:
    """Whether who had a place in this segment when a slice opened is in it still, or is in the slice no more."""
    return dimension_of(segment) != WANDERING


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of one slice's members of one population: exact positions, or counts by stretch of position.

    Exactly one of the two is given: ``positions`` ascending, or ``counts`` of length BINS over the stretches of
    ``[low, upto)``. The closer these bounds lie around the members, the closer the ranks: in a large fleet an early
    slice is narrower than one 256th of all positions.
    """

    positions: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    low: int = 0
    upto: int = SPACE

    @property
    def members(self) -> int:
        return sum(self.counts) if self.counts else len(self.positions)

    def counts_in(self, position: int) -> bool:
        """Whether a member stands at this position; above 1,000 members that is not known, and taken as given."""
        if self.counts:
            return True
        at = bisect_left(self.positions, position)
        return at < len(self.positions) and self.positions[at] == position

    def rank(self, position: int) -> int:
        """The rank from 1 of a member at this position; never above ``members``, whoever asks."""
        if not self.counts:
            return max(1, min(len(self.positions), bisect_right(self.positions, position)))
        width = self.upto - self.low
        scaled = min(max(position - self.low, 0), width - 1) * BINS
        stretch = scaled // width
        here = self.counts[stretch]
        below = sum(self.counts[:stretch])
        within = here * (scaled - stretch * width) // width
        return max(1, min(below + within + 1, self.members))

    def at_or_below(self, position: int) -> int:
        """How many members stand there or before, whoever asks; above 1,000 members rounded down."""
        return self.counting()(position)

    def counting(self) -> Callable[[int], int]:
        """``at_or_below`` for many positions."""
        if not self.counts:
            return partial(bisect_right, self.positions)
        low, upto, width, members, counts = self.low, self.upto, self.upto - self.low, self.members, self.counts
        before = (0, *accumulate(counts))

        def at_or_below(position: int) -> int:
            if position < low:
                return 0
            if position >= upto:
                return members
            scaled = (position - low) * BINS
            stretch = scaled // width
            return before[stretch] + counts[stretch] * (scaled - stretch * width) // width

        return at_or_below


def exact_ranks(positions: Iterable[int]) -> Ranks:
    return Ranks(positions=tuple(sorted(positions)))


def coarse_ranks(counts: Mapping[int, int], *, low: int = 0, upto: int = SPACE) -> Ranks:
    """From members counted by stretch: ``(position - low) * BINS // (upto - low)``."""
    return Ranks(counts=tuple(counts.get(stretch, 0) for stretch in range(BINS)), low=low, upto=upto)


@dataclass(frozen=True, slots=True)
class Slice:
    """One opened slice of a wave.

    ``number`` counts from 1 within its wave; ``before`` says for each population how many places were given in slices
    opened earlier (of all waves); ``ranks`` holds this slice's members by population.
    """

    wave: str
    number: int
    upto: int
    opened_at: datetime
    before: Mapping[str, int]
    ranks: Mapping[str, Ranks]

    @property
    def members(self) -> int:
        ranks = self.ranks.get(wave_population(self.wave))
        return ranks.members if ranks else 0

    def holds(self, position: int, since: datetime) -> bool:
        """Whether a device of the wave is below the slice's bound and was there when it opened."""
        return position < self.upto and since <= self.opened_at

    def takes_anyone(self, segment: str) -> bool:
        """Whether whoever has come into the segment since would be taken for one of those counted in it."""
        ranks = self.ranks.get(segment)
        return ranks is not None and bool(ranks.counts)

    def places(self, position: int, populations: Iterable[str]) -> dict[str, int]:
        """The places, from 1, of a member at this position; UNCOUNTED in a segment of which it was none when the slice
        opened: the device has changed since, or nobody watched the segment then."""
        return {name: self._place(position, name) for name in populations}

    def _place(self, position: int, population: str) -> int:
        ranks = self.ranks.get(population)
        if is_segment(population) and (ranks is None or not ranks.counts_in(position)):
            return UNCOUNTED
        return self.before.get(population, 0) + (1 if ranks is None else ranks.rank(position))


def slice_of(slices: Sequence[Slice], position: int, since: datetime) -> Slice | None:
    """The first of a wave's slices, in the order of their opening, that holds the device; None when it must wait."""
    return next((piece for piece in slices if piece.holds(position, since)), None)


@dataclass(frozen=True, slots=True)
class Staircase:
    """What earlier slices of a wave hold, as few steps: ``(opened_at, upto)`` with falling ``upto``.

    A device is in an earlier slice exactly when some step has ``since <= opened_at`` and ``position < upto``; a step
    that a later and higher one covers is left out.
    """

    steps: tuple[tuple[datetime, int], ...]


def covered(slices: Iterable[tuple[datetime, int]]) -> Staircase:
    """From ``(opened_at, upto)`` of slices in the order of their opening."""
    steps: list[tuple[datetime, int]] = []
    for opened_at, upto in slices:
        while steps and steps[-1][1] <= upto:
            steps.pop()
        steps.append((opened_at, upto))
    return Staircase(tuple(steps))


def next_size(given: int, *, first: int, growth: float, at_most: int | None = None) -> int:
    """How many devices the next slice may hold when the wave has given ``given`` places so far: the ``first`` as many
    as the policy says, each later one ``at_most`` so many.

    ``growth`` is taken as the decimal it was written as: 1.9 times 20 leaves 18 for the next, not 17.
    """
    if given == 0:
        return first
    size = max(1, int(given * (Fraction(repr(growth)) - 1)))
    return size if at_most is None else min(size, at_most)


def sizes(devices: int, *, first: int, growth: float, at_most: int | None = None) -> tuple[int, ...]:
    """The sizes of the slices of a wave of so many devices, for ``plan``."""
    found: list[int] = []
    while (given := sum(found)) < devices:
        found.append(min(next_size(given, first=first, growth=growth, at_most=at_most), devices - given))
    return tuple(found)


def cut(waiting: Mapping[int, int], size: int, *, low: int = 0) -> int:
    """The bound below which about ``size`` waiting devices stand, from their counts by stretch; SPACE when all fit.

    A stretch is ``position * BINS // SPACE``. Nobody waits below ``low``: where earlier slices of the wave end.
    """
    if size >= sum(waiting.values()):
        return SPACE
    below = 0
    for stretch in sorted(waiting):
        here = waiting[stretch]
        if below + here >= size:
            begin, end = (-(-edge * SPACE // BINS) for edge in (stretch, stretch + 1))
            begin = min(max(begin, low), end)
            return begin + (size - below) * (end - begin) // max(here, 1)
        below += here
    return SPACE
