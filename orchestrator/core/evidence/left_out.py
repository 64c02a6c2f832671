"""The rest without its excluded segments: who is left out of a monitor, and which place everybody else then has.

Answers for: the place of a bad outcome in a monitor, whatever is excluded (``RULES.md`` 3.2, 4.4). Used when a report
is counted, when a segment is excluded and everything is counted again, and when the store is recounted: one function,
so that all three agree. Does not answer for: which segments are excluded (``safety``), the limits (``limits``).

Monitors over the rollout and the waves leave out the devices of every excluded segment, and each place becomes the
rank among the others: the place less the excluded members at or below that position. Members are known by segment and
not by overlaps of two: over several segments of one dimension, which share nobody, it is their sum, over several
dimensions the largest of the sums. It is never more than were excluded, so a place is never less than the true rank
and the guarantee holds. A monitor over another segment leaves the excluded devices out and keeps its places.

A slice knows its members by segment as they were when it opened; the offer freezes a device's segments later. What runs
another version by then stays, so for versions nothing is taken off (``slices.settled``): in the slices that were open
already a place may then be larger than the rank among the rest, which only delays a halt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.crossing import place_since
from orchestrator.core.slices import Slice, dimension_of, settled


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a device stands, as its offer froze it: wave, slice, ``position`` in the wave, its places in the rollout
    and in the wave, and in each of its ``segments``."""

    wave: str
    slice: int
    position: int
    rollout_place: int
    wave_place: int
    segments: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The ``excluded`` segments among the ``slices`` of a rollout, all of them in the order of their opening. Without
    excluded segments no slice is looked at, and none need be given."""

    slices: Sequence[Slice] = ()
    excluded: frozenset[str] = frozenset()
    _before: dict[tuple[str | None, int], dict[tuple[str, int], dict[str, int]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Members left out in earlier slices: by wave (None: rollout) and the place counted from, then by slice, then by
    segment."""

    def holds(self, segments: Iterable[str]) -> bool:
        """Whether a device of these segments is left out."""
        return not self.excluded.isdisjoint(segments)

    def place(self, spec: MonitorSpec, from_place: int, seat: Seat) -> int | None:
        """The place, from 1, of a device in a monitor that began after ``from_place``; None when it is not among those
        whom the monitor counts."""
        if spec.segment is not None:
            place = seat.segments.get(spec.segment)
            if place is None or (spec.segment not in self.excluded and self.holds(seat.segments)):
                return None
            return place_since(place, from_place)
        if spec.wave not in (None, seat.wave) or self.holds(seat.segments):
            return None
        place = place_since(seat.rollout_place if spec.wave is None else seat.wave_place, from_place)
        if place is None or not self.excluded:
            return place
        return max(1, place - self._at_or_below(spec.wave, from_place, seat))

    def members(self, piece: Slice, *, nobody_changes: bool = False) -> int:
        """How many members of a slice are left out, as far as its opening tells; never more than are."""
        known = self.excluded & piece.ranks.keys() if nobody_changes else self._settled(piece)
        return _most({segment: piece.ranks[segment].members for segment in known})

    def _settled(self, piece: Slice) -> Iterator[str]:
        """The excluded segments of which it is known who of a slice is in them."""
        return (segment for segment in self.excluded & piece.ranks.keys() if settled(segment))

    def _at_or_below(self, wave: str | None, from_place: int, seat: Seat) -> int:
        found = dict(self._earlier(wave, from_place).get((seat.wave, seat.slice), {}))
        for piece in self.slices:
            if (piece.wave, piece.number) == (seat.wave, seat.slice):
                for segment in self._settled(piece):
                    found[segment] = found.get(segment, 0) + piece.ranks[segment].at_or_below(seat.position)
        return _most(found)

    def _earlier(self, wave: str | None, from_place: int) -> dict[tuple[str, int], dict[str, int]]:
        """For each slice of the wave, or of all: the members left out in those before it that count."""
        known = self._before.get((wave, from_place))
        if known is not None:
            return known
        found: dict[tuple[str, int], dict[str, int]] = {}
        given, so_far = 0, dict.fromkeys(self.excluded, 0)
        for piece in self.slices:
            if wave not in (None, piece.wave):
                continue
            found[piece.wave, piece.number] = dict(so_far)
            if given >= from_place:
                for segment in self._settled(piece):
                    so_far[segment] += piece.ranks[segment].members
            given += piece.members
        self._before[wave, from_place] = found
        return found


NOBODY = LeftOut()
"""Nothing is excluded."""


def _most(members: Mapping[str, int]) -> int:
    """The largest sum over the segments of one dimension."""
    sums: dict[str, int] = {}
    for segment, count in members.items():
        dimension = dimension_of(segment)
        sums[dimension] = sums.get(dimension, 0) + count
    return max(sums.values(), default=0)
