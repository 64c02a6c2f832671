"""How many events of one device are kept in the log: a bound, so that no device fills the store.

Counted beside the writer, in memory, for every update that is heard of; the store is asked only when one has had more
than devices ever need, so a usual report costs no look. What is forgotten, or lost with the process, is counted anew
from nothing, and by the store soon after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestrator.services.records import EventRow
from orchestrator.services.remembered import Remembered
from orchestrator.services.store import Writing
from orchestrator.services.writer import Batch

MOST_KEPT: Final = 1_000
"""Events of one device on one rollout that are kept whatever they say, and as many on none."""

LOOK_AFTER: Final = 100
"""Events that a process has heard of an update when it asks the store how many there are; devices need about ten."""

MOST_REMEMBERED: Final = 100_000

Of = tuple[int, int | None]
"""Device and rollout, by their keys."""


@dataclass(slots=True)
class Room:
    """Used by the writer alone."""

    _heard: Remembered[Of, int] = field(default_factory=lambda: Remembered(MOST_REMEMBERED))

    def left(self, batch: Batch, rows: Sequence[EventRow], fresh: Sequence[bool]) -> dict[Of, int]:
        """How many of these, which have just been logged, may be kept whatever they say; those that all may are left
        out. Remembered once the batch is committed."""
        heard = self._heard
        new = Counter((row.device_key, row.rollout_key) for row, each in zip(rows, fresh, strict=True) if each)
        after: dict[Of, int] = {}
        left: dict[Of, int] = {}
        for of, many in new.items():
            before = heard.get(of) or 0
            total = before + many
            if before <= LOOK_AFTER < total:
                total = batch.w.count_events(*of, most=MOST_KEPT + many)
            if total > MOST_KEPT:
                left[of] = max(0, many - (total - MOST_KEPT))
                total = MOST_KEPT
            after[of] = total
        batch.after.append(lambda: self._remember(after))
        return left

    def _remember(self, after: dict[Of, int]) -> None:
        for of, total in after.items():
            self._heard.put(of, total)


def takes(left: dict[Of, int], row: EventRow) -> bool:
    """Whether there is room for this one, which then is taken."""
    of = (row.device_key, row.rollout_key)
    room = left.get(of)
    if room is None:
        return True
    if room:
        left[of] = room - 1
    return room > 0


def drop(w: Writing, rows: Sequence[EventRow]) -> None:
    """Take them out of the log again."""
    ids: dict[int, list[str]] = {}
    for row in rows:
        ids.setdefault(row.device_key, []).append(row.event_id)
    for device_key in sorted(ids):
        w.drop_events(device_key, ids[device_key])
