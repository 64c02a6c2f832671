"""Which hardware id carries the silence that makes the clock cross, where one does.

Answers for: whether the darkness is one board's and nobody else's. Does not answer for: what is done then (``safety``).

A board carries it when two things hold: the board alone has so much evidence that one of all the boards seen could have
it by chance in a part of the clock's alpha only (the threshold times their number), and what was seen of the others is
not even amber. So within the tolerance the chance that any board is taken for a carrier is at most the clock's alpha,
whichever others are dark; and of a release that is dark everywhere no board is one, because then the others are too.
"""

from __future__ import annotations

import math
from dataclasses import replace

from orchestrator.core.evidence.clock import ClockFacts, ClockReading, reading


def carrier(clock: ClockFacts) -> ClockReading | None:
    """Of a clock that has crossed: what the board that carries it says by itself; None when it is not one board's."""
    boards = sorted({each.hardware_id for each in clock.seen if each.silent + each.reported})
    for board in boards:
        alone = reading(replace(clock, seen=tuple(each for each in clock.seen if each.hardware_id == board)))
        others = reading(replace(clock, seen=tuple(each for each in clock.seen if each.hardware_id != board)))
        stands_out = alone is not None and alone.evidence >= alone.threshold + math.log(len(boards))
        if stands_out and (others is None or not others.amber):
            return alone
    return None


def seen_beside(clock: ClockFacts, found: ClockReading) -> bool:
    """Whether devices of another board than the one that was read have passed a checkpoint too."""
    mine = {each.hardware_id for each in found.seen}
    return any(each.hardware_id not in mine and each.silent + each.reported for each in clock.seen)
