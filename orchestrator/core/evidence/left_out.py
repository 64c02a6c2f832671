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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


_Counting = Callable[[int], int]
"""How many members of a segment stand at a position of a slice or before."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The ``excluded`` segments among the ``slices`` of a rollout, all of them in the order of their opening. Without
    excluded segments no slice is looked at, and none need be given."""

    slices: Sequence[Slice] = ()
    excluded: frozenset[str] = frozenset()
    _own: dict[tuple[str, int], dict[str, list[_Counting]]] = field(default_factory=dict, repr=False, compare=False)
    """Of each slice how its excluded segments are counted, by dimension."""
    _before: dict[tuple[str | None, int], dict[tuple[str, int], dict[str, int]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Members left out in earlier slices: by wave (None: rollout) and the place counted from, then by slice, then by
    dimension."""

    def holds(self, segments: Iterable[str]) -> bool:
        """Whether a device of these segments is left out."""
        return not self.excluded.isdisjoint(segments)

    def place(self, spec: MonitorSpec, from_place: int, seat: Seat) -> int | None:
        """The place, from 1, of a device in a monitor that began after ``from_place``; None when it is not among those
        whom the monitor counts."""
        return self.placing(spec, from_place)(seat)

    def placing(self, spec: MonitorSpec, from_place: int) -> Callable[[Seat], int | None]:
        """``place`` of one monitor, for many devices."""
        wave, segment, excluded = spec.wave, spec.segment, self.excluded

        def in_segment(seat: Seat) -> int | None:
            place = seat.segments.get(segment or "")
            if place is None or (segment not in excluded and not excluded.isdisjoint(seat.segments)):
                return None
            return place_since(place, from_place)

        def in_the_rest(seat: Seat) -> int | None:
            if (wave is not None and wave != seat.wave) or not excluded.isdisjoint(seat.segments):
                return None
            place = place_since(seat.rollout_place if wave is None else seat.wave_place, from_place)
            if place is None or not excluded:
                return place
            return max(1, place - self._at_or_below(wave, from_place, seat))

        return in_the_rest if segment is None else in_segment

    def members(self, piece: Slice, *, nobody_changes: bool = False) -> int:
        """How many members of a slice are left out, as far as its opening tells; never more than are."""
        known = self.excluded & piece.ranks.keys() if nobody_changes else self._settled(piece)
        return _most({segment: piece.ranks[segment].members for segment in known})

    def _settled(self, piece: Slice) -> Iterator[str]:
        """The excluded segments of which it is known who of a slice is in them."""
        return (segment for segment in self.excluded & piece.ranks.keys() if settled(segment))

    def _at_or_below(self, wave: str | None, from_place: int, seat: Seat) -> int:
        if not self._own:
            self._own.update({(piece.wave, piece.number): self._counted(piece) for piece in self.slices})
        where = (seat.wave, seat.slice)
        before = self._before.get((wave, from_place))
        if before is None:
            before = self._before[wave, from_place] = self._earlier(wave, from_place)
        # Every slice begins with what there was before it, in each dimension.
        position, own, most = seat.position, self._own.get(where, {}), 0
        for dimension, many in before.get(where, {}).items():
            for counting in own.get(dimension, ()):
                many += counting(position)
            most = max(most, many)
        return most

    def _counted(self, piece: Slice) -> dict[str, list[_Counting]]:
        found: dict[str, list[_Counting]] = {}
        for segment in sorted(self._settled(piece)):
            found.setdefault(dimension_of(segment), []).append(piece.ranks[segment].counting())
        return found

    def _earlier(self, wave: str | None, from_place: int) -> dict[tuple[str, int], dict[str, int]]:
        """For each slice of the wave, or of all: the members left out in those before it that count."""
        found: dict[tuple[str, int], dict[str, int]] = {}
        given, so_far = 0, {dimension_of(segment): 0 for segment in sorted(self.excluded) if settled(segment)}
        for piece in self.slices:
            if wave not in (None, piece.wave):
                continue
            where = (piece.wave, piece.number)
            found[where] = dict(so_far)
            if given >= from_place:
                for segment in self._settled(piece):
                    so_far[dimension_of(segment)] += piece.ranks[segment].members
            given += piece.members
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
