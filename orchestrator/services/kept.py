"""What the device path remembers of a device, and what it answers one that was heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import nan
from typing import Final, NamedTuple

from orchestrator.core.fleet import Device
from orchestrator.core.offers import Earlier
from orchestrator.core.position import SPACE
from orchestrator.core.protocols import NOTHING_SPOKEN, Spoken
from orchestrator.core.update import Update, UpdateStatus
from orchestrator.services.board import Snapshot
from orchestrator.services.check_in import filled, unchanged
from orchestrator.services.messages import CheckIn, Offer
from orchestrator.services.offering import STANDS
from orchestrator.services.records import DeviceRow

AWAITED: Final = STANDS | {UpdateStatus.APPLIED}
"""Devices whose update stands so are waited for."""


@dataclass(slots=True)
class Kept:
    """A device in memory: what it said last, what it has had of which rollout (and at which version of that), and the
    last verdict: *none* as long as the snapshot is this one and ``until`` has not come. ``register``: the mark under
    which it was read. ``spread``: see ``spread_of``; nan until it is asked for."""

    person: DeviceRow
    register: object
    said: CheckIn | None
    had: dict[int, tuple[Earlier, int]]
    seen_at: datetime | None
    usual_gap: timedelta
    snapshot: Snapshot | None = None
    until: datetime | None = None
    spoken: Spoken = NOTHING_SPOKEN
    spread: float = nan

    @property
    def outstanding(self) -> bool:
        # most have had none
        return bool(self.had) and any(earlier.update.status in STANDS for earlier, _ in self.had.values())

    def place_in_jitter(self) -> float:
        if self.spread != self.spread:
            self.spread = spread_of(self.person.device)
        return self.spread


class Heard(NamedTuple):
    """What came of a check-in: the offer that stands, in how many seconds the device shall ask again, what it has had,
    by rollout key, and the device as it is now."""

    offer: Offer | None
    check_in_after: float
    had: Mapping[int, tuple[Earlier, int]]
    device: Device

    def update(self, rollout_key: int) -> Update | None:
        """How far its update in that rollout is."""
        found = self.had.get(rollout_key)
        return None if found is None else found[0].update


def spread_of(device: Device) -> float:
    """Where in the jitter a device lies, from -1 to 1: its own fixed part, so that a fleet spreads."""
    return 2 * device.member.hash.low / SPACE - 1


def awaited(had: Mapping[int, tuple[Earlier, int]]) -> bool:
    """Whether decisions wait for what this device says next."""
    return bool(had) and any(earlier.update.status in AWAITED for earlier, _ in had.values())


def nothing_new(kept: Kept, said: CheckIn) -> bool:
    """Whether a check-in says what it said before, or what is stored where nothing was heard in this process."""
    return unchanged(kept.person.device, said) if kept.said is None else filled(said, kept.said) == kept.said
