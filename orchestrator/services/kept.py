"""What the device path remembers of a device, and what it answers one that was heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from orchestrator.core.offers import Earlier
from orchestrator.core.protocols import NOTHING_SPOKEN, Spoken
from orchestrator.core.update import Update
from orchestrator.services.board import Snapshot
from orchestrator.services.check_in import filled, unchanged
from orchestrator.services.messages import CheckIn, Offer
from orchestrator.services.offering import STANDS
from orchestrator.services.records import DeviceRow


@dataclass(slots=True)
class Kept:
    """A device in memory: what it said last, what it has had of which rollout (and at which version of that), and the
    last verdict: *none* as long as the snapshot is this one and ``until`` has not come."""

    person: DeviceRow
    register: object
    said: CheckIn | None
    had: dict[int, tuple[Earlier, int]]
    seen_at: datetime | None
    usual_gap: timedelta
    snapshot: Snapshot | None = None
    until: datetime | None = None
    spoken: Spoken = NOTHING_SPOKEN

    @property
    def outstanding(self) -> bool:
        return any(earlier.update.status in STANDS for earlier, _ in self.had.values())


class Heard(NamedTuple):
    """What came of a check-in: the offer that stands, in how many seconds the device shall ask again, and what it has
    had, by rollout key."""

    offer: Offer | None
    check_in_after: float
    had: Mapping[int, tuple[Earlier, int]]

    def update(self, rollout_key: int) -> Update | None:
        """How far its update in that rollout is."""
        found = self.had.get(rollout_key)
        return None if found is None else found[0].update


def nothing_new(kept: Kept, said: CheckIn) -> bool:
    """Whether a check-in says what it said before, or what is stored where nothing was heard in this process."""
    return unchanged(kept.person.device, said) if kept.said is None else filled(said, kept.said) == kept.said
