"""The part of the store's port that holds what the console asks for and nobody else: pages of lists, tallies of many
rollouts at once, failed devices by place, deltas by pairs, and the census.

No statement here reads more than its limit, whatever the number of devices; only ``count_fleet`` reads them all, and no
page calls it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from orchestrator.core.outcomes import Outcome
from orchestrator.core.states import RolloutStatus
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.records import BuildJob, DeltaNeed, DeviceRow, RolloutRow, RunningCount

SILENT_FOR: Final = (timedelta(days=1), timedelta(days=7), timedelta(days=30))
"""How long a device has not been heard of to be counted as silent: a day, a week, a month."""

QUIETEST: Final = 100
"""Devices that a census names because nobody has heard of them for longest."""


class Tallied(NamedTuple):
    """What a rollout's slices add up to, in devices."""

    members: int = 0
    offered: int = 0
    resolved: int = 0
    confirmed: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class Stain:
    """A device with a bad outcome that counts. ``places``: where it stands in each open monitor that counts it, by the
    monitor's name."""

    device: str
    outcomes: tuple[Outcome, ...]
    wave: str
    slice: int
    places: Mapping[str, int]


class JournalLine(NamedTuple):
    """An entry of a journal without its facts and hashes."""

    seq: int
    at: datetime
    event: str
    by: str
    sentence: str
    wave: str | None


class NeededBy(NamedTuple):
    """A live rollout's wave that needs a delta: ``ROLLOUT/WAVE``, so many reachable devices of it, and whether the
    repository knows the from commit, as of the last look."""

    wave: str
    devices: int
    known: bool


class Made(NamedTuple):
    """What is known of a commit from the Targets that have it: versions, newest first, and hardware ids."""

    versions: tuple[int, ...]
    hardware_ids: frozenset[str]


class Running(NamedTuple):
    """So many devices of a tag ran this when they were counted."""

    tag: str
    hardware_id: str
    commit: str | None
    version: int | None
    devices: int

    @property
    def counted(self) -> RunningCount:
        return RunningCount(self.hardware_id, self.commit, self.version, self.devices)


@dataclass(frozen=True, slots=True)
class Census:
    """The fleet as it was counted. ``statuses``, ``groups``: devices by name; ``silent``: active devices that had not
    been heard of for so long; ``quietest``: those unheard of for longest, by key, with when they were seen last."""

    at: datetime
    running: tuple[Running, ...]
    statuses: Mapping[str, int]
    groups: Mapping[str, int]
    silent: Mapping[timedelta, int]
    quietest: tuple[tuple[int, datetime | None], ...]

    @property
    def devices(self) -> int:
        return sum(self.statuses.values())


class ReadsConsole(Protocol):
    """Part of a snapshot."""

    def rollout_page(
        self, statuses: Collection[RolloutStatus] | None, *, offset: int, limit: int
    ) -> Sequence[RolloutRow]:
        """Newest first."""

    def rollout_statuses(self) -> Mapping[RolloutStatus, int]:
        """How many rollouts there are in each status."""

    def tallied(self, rollout_keys: Collection[int]) -> Mapping[int, Tallied]:
        """By key, in one statement."""

    def stains(self, row: RolloutRow, *, limit: int) -> Sequence[Stain]:
        """Devices with a bad outcome that counts; at most ``limit``, in no order."""

    def journal_lines(self, rollout_key: int, *, after: int, limit: int) -> Sequence[JournalLine]:
        """Oldest first."""

    def segments_placed(self, rollout_key: int, *, limit: int) -> Sequence[tuple[str, int]]:
        """Segments with the places given in them, the most first."""

    def needs_of(self, rollout_key: int) -> Mapping[str, Sequence[DeltaNeed]]:
        """What the last looks found, by wave: as ``needs`` of each, in one statement."""

    def needed_now(self) -> Mapping[DeltaPair, Sequence[NeededBy]]:
        """What waves of rollouts that may offer need, but for those that are cancelled or skipped; the newest rollout
        first."""

    def made_of(self, commits: Collection[str]) -> Mapping[str, Made]:
        """Of those of these commits that a Target has."""

    def deltas_of(self, pairs: Collection[DeltaPair]) -> Mapping[DeltaPair, DeltaRecord]:
        """As ``delta`` of each."""

    def jobs_of(self, pairs: Collection[DeltaPair]) -> Mapping[DeltaPair, BuildJob]:
        """As ``job`` of each, without their logs."""

    def unsettled(self, *, limit: int) -> Sequence[BuildJob]:
        """The newest job of each pair that has no delta, unless it is done; without their logs, newest first."""

    def delta_page(self, *, offset: int, limit: int) -> Sequence[DeltaRecord]:
        """The deltas that are recorded, newest first."""

    def count_deltas(self) -> int:
        """How many are recorded."""

    def device_ids(self, prefix: str, *, after: str | None, limit: int) -> Sequence[DeviceRow]:
        """Devices whose id begins so, by id."""

    def in_group(self, group: str, *, after: int, limit: int) -> Sequence[DeviceRow]:
        """Devices of a group by key, those with a key above ``after``."""

    def devices_at(self, keys: Collection[int]) -> Sequence[DeviceRow]:
        """Those of these keys that there are."""

    def census_at(self) -> datetime | None:
        """When the newest was taken."""

    def census(self) -> Census | None:
        """The newest."""

    def versions_since(self, since: datetime) -> Sequence[tuple[datetime, Mapping[int | None, int]]]:
        """Active devices by version, of every census since then, oldest first."""

    def count_fleet(self, now: datetime) -> Census:
        """Reads every device: for the census, and for no page."""


class WritesConsole(ReadsConsole, Protocol):
    """Part of a transaction."""

    def keep_census(self, found: Census, *, every: timedelta) -> bool:
        """False, and nothing is kept, when another was taken less than ``every`` before it. What is older than two days
        is thinned to one a day."""
