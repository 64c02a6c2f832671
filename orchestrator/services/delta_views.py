"""What people see of a delta: its state, its size, whom it serves and which waves need it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Self

from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.states import WaveStatus
from orchestrator.services.delta_provider import DeltaEstimate, DeltaPair, DeltaRecord
from orchestrator.services.records import BuildJob, DeviceFilter, JobStatus, RunningCount
from orchestrator.services.store import Reading

_PAGE: Final = 1000
_MOST_JOBS: Final = 10_000


class DeltaState(StrEnum):
    """READY: verified, published, recorded. MISSING: required, and nobody builds it. UNKNOWN: required, but the
    repository does not have the from commit."""

    READY = "ready"
    BUILDING = "building"
    QUEUED = "queued"
    FAILED = "failed"
    MISSING = "missing"
    UNKNOWN = "unknown"

    @property
    def can_be_queued(self) -> bool:
        return self in (DeltaState.FAILED, DeltaState.MISSING)


def state_of(record: DeltaRecord | None, job: BuildJob | None) -> DeltaState:
    """What store and queue say of a pair whose commits are there."""
    if record is not None:
        return DeltaState.READY
    match job.status if job else None:
        case JobStatus.RUNNING:
            return DeltaState.BUILDING
        case JobStatus.QUEUED:
            return DeltaState.QUEUED
        case JobStatus.FAILED:
            return DeltaState.FAILED
        case _:
            return DeltaState.MISSING


@dataclass(frozen=True, slots=True)
class DeltaView:
    """One delta. ``from_versions`` and ``to_versions``: versions with those commits, newest first. ``devices``: those
    that run the from commit and whose hardware id has a Target with the other. ``waves``: ``ROLLOUT/WAVE`` of live
    rollouts that need it. ``waiting_devices``: reachable devices in these waves that need it, as of the last looks."""

    pair: DeltaPair
    state: DeltaState
    from_versions: tuple[int, ...]
    to_versions: tuple[int, ...]
    devices: int
    waves: tuple[str, ...]
    waiting_devices: int
    record: DeltaRecord | None = None
    job: BuildJob | None = None
    estimate: DeltaEstimate | None = None

    @property
    def state_text(self) -> str:
        """``ready``, ``building 43 %``, ``queued``, ``failed`` …"""
        if self.state is DeltaState.BUILDING and self.job is not None:
            if self.job.stage.startswith("waiting"):
                return self.job.stage
            return f"building {round(self.job.done * 100)} %"
        return str(self.state)

    @property
    def bytes(self) -> int | None:
        """What a device downloads with it, fallback objects included; None before it is built."""
        return self.record.bytes + self.record.fallback_bytes if self.record else None

    @property
    def error(self) -> str | None:
        return self.job.error if self.job and self.state is DeltaState.FAILED else None

    def with_estimate(self, estimate: DeltaEstimate | None) -> DeltaView:
        return replace(self, estimate=estimate)


@dataclass(frozen=True, slots=True)
class Usage:
    """Who uses deltas now. ``on``: devices by (commit, hardware id), the held included; ``to``: hardware ids by the
    commits their Targets have; ``needed``: devices and waves of live rollouts by pair."""

    on: Mapping[tuple[str, str], int]
    to: Mapping[str, frozenset[str]]
    versions: Mapping[str, tuple[int, ...]]
    needed: Mapping[DeltaPair, tuple[tuple[str, int, bool], ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, r: Reading) -> Self:
        """Reads every device."""
        held = Counter(_held(r))
        return cls.of(r, [*r.running(), *(RunningCount(each[1], each[0], None, many) for each, many in held.items())])

    @classmethod
    def of(cls, r: Reading, running: Iterable[RunningCount]) -> Self:
        """By what devices run as far as it was counted: no device is read."""
        on: dict[tuple[str, str], int] = defaultdict(int)
        for count in running:
            if count.commit is not None:
                on[count.commit, count.hardware_id] += count.devices
        to: dict[str, set[str]] = defaultdict(set)
        versions: dict[str, set[int]] = defaultdict(set)
        for target in r.targets():
            to[target.commit].update(target.hardware_ids)
            versions[target.commit].add(target.version)
        needed: dict[DeltaPair, list[tuple[str, int, bool]]] = defaultdict(list)
        for row in r.offering():
            for wave in row.state.waves:
                if wave.status in (WaveStatus.CANCELLED, WaveStatus.SKIPPED):
                    continue
                for need in r.needs(row.key, wave.wave):
                    needed[need.pair].append((f"{row.state.rollout}/{wave.wave}", need.devices, need.known))
        return cls(
            dict(on),
            {commit: frozenset(ids) for commit, ids in to.items()},
            {commit: tuple(sorted(found, reverse=True)) for commit, found in versions.items()},
            {pair: tuple(found) for pair, found in needed.items()},
        )

    def devices_on(self, pair: DeltaPair) -> int:
        """Devices that could use it: on its from commit, of a hardware id that has a Target with its to commit."""
        if pair.from_commit is None:
            return 0
        hardware_ids = self.to.get(pair.to_commit)
        if hardware_ids is None:
            return 0
        return sum(self.on.get((pair.from_commit, hardware_id), 0) for hardware_id in hardware_ids)

    def waves_of(self, pair: DeltaPair) -> tuple[str, ...]:
        return tuple(wave for wave, _, _ in self.needed.get(pair, ()))

    def used(self, pair: DeltaPair) -> bool:
        """A live rollout needs it, or some device could use it."""
        return pair in self.needed or self.devices_on(pair) > 0


def views(r: Reading, usage: Usage | None = None) -> Sequence[DeltaView]:
    """Every delta that is recorded, has a job, or is needed by a live rollout. Without ``usage`` every device is
    read."""
    usage = usage or Usage.read(r)
    records = {record.pair: record for record in r.deltas()}
    jobs: dict[DeltaPair, BuildJob] = {}
    for job in r.jobs(limit=_MOST_JOBS):
        if job.pair not in jobs or job.key > jobs[job.pair].key:
            jobs[job.pair] = job
    shown = {pair for pair, job in jobs.items() if job.status is not JobStatus.DONE}
    found = []
    for pair in records.keys() | shown | usage.needed.keys():
        needs = usage.needed.get(pair, ())
        state = state_of(records.get(pair), jobs.get(pair))
        if state is DeltaState.MISSING and not any(known for _, _, known in needs):
            state = DeltaState.UNKNOWN
        found.append(
            DeltaView(
                pair=pair,
                state=state,
                from_versions=usage.versions.get(pair.from_commit or "", ()),
                to_versions=usage.versions.get(pair.to_commit, ()),
                devices=usage.devices_on(pair),
                waves=usage.waves_of(pair),
                waiting_devices=sum(devices for _, devices, _ in needs),
                record=records.get(pair),
                job=jobs.get(pair),
            )
        )
    return sorted(found, key=order_of)


_RANK: Final = {
    DeltaState.BUILDING: 0,
    DeltaState.QUEUED: 1,
    DeltaState.FAILED: 2,
    DeltaState.MISSING: 3,
    DeltaState.READY: 4,
    DeltaState.UNKNOWN: 5,
}


def order_of(view: DeltaView) -> tuple[int, float, int, str, str]:
    """What is under way first, then by who waits most."""
    weight = view.job.weight if view.job and view.state is DeltaState.QUEUED else 0.0
    return _RANK[view.state], -weight, -view.devices, view.pair.to_commit, view.pair.from_commit or ""


def _held(r: Reading) -> Iterable[tuple[str, str]]:
    """Commit and hardware id of devices a person holds: they will want a delta when they are let go."""
    after: str | None = None
    while True:
        rows = r.devices(DeviceFilter(status=DeviceStatus.HELD), after=after, limit=_PAGE)
        for row in rows:
            if row.device.commit is not None:
                yield row.device.commit, row.device.hardware_id
        if len(rows) < _PAGE:
            return
        after = rows[-1].device.id
