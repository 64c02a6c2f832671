"""What the store keeps and gives back: frozen rows, with the keys that they have inside a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.facts import RolloutState
from orchestrator.core.fleet import Device, DeviceStatus, Scope
from orchestrator.core.outcomes import Outcome
from orchestrator.core.protocols import DeviceProtocol
from orchestrator.core.update import Course, Update
from orchestrator.services.delta_provider import DeltaPair

SliceOf = tuple[int, str, int, bool]
"""Whose tallies: rollout key, wave and number of a slice, and whether those of the devices that stand apart."""

decode_places: Final = msgspec.json.Decoder(dict[str, int]).decode
"""Places by population, from JSON text."""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device with its key and the digest of its token (SHA-256; tokens have 256 random bits), None before it has
    one."""

    key: int
    device: Device
    token_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """A rollout with its key, its bound files and its version for the check on writing.

    ``spec`` and ``policy`` are the canonical JSON of both files as bound; ``salt`` seeds positions; ``scope`` is None
    until it starts (bounds are fixed then). ``devices``: eligible devices at the start.
    ``journal_seq``/``journal_hash``: the journal's head. ``clock``: what was learnt of silence at the start, as
    ``services.clocks`` writes it; None where there was nothing to learn.
    """

    key: int
    version: int
    state: RolloutState
    spec: str
    policy: str
    spec_digest: str
    policy_digest: str
    salt: str
    tag: str
    target_version: int
    created_at: datetime
    scope: Scope | None = None
    devices: int = 0
    journal_seq: int = 0
    journal_hash: str = ""
    clock: str | None = None


@dataclass(slots=True)
class CourseRow:
    """As much of one device's update as reports and the clock need. ``usual_gap`` as it was at the offer; ``excluded``:
    it is left out of its slice's tallies, with its segment; ``apart``: it was unhealthy before its offer, and nothing
    of it is counted but what is shown apart."""

    rollout_key: int
    device_key: int
    update: Course
    wave: str
    slice: int
    usual_gap: timedelta = timedelta(0)
    excluded: bool = False
    apart: bool = False


@dataclass(slots=True, kw_only=True)
class UpdateRow(CourseRow):
    """One device's update with what the offer froze (RULES 3.6). ``places``: in the rollout's and the wave's
    population; ``segment_places`` by population, as JSON text."""

    update: Update = field(kw_only=False)
    places: tuple[int, int]
    segment_places: str = "{}"
    hardware_id: str = ""
    from_version: int | None = None
    unhealthy_before: bool = False
    by_delta: bool | None = None

    @property
    def segments(self) -> dict[str, int]:
        """Its place in each of the segments that the offer froze."""
        return decode_places(self.segment_places)


class Places(NamedTuple):
    """Where a device stands: in the rollout's, the wave's and, as JSON text, each segment's population."""

    rollout: int
    wave: int
    segments: str


class EventRow(NamedTuple):
    """One item of a report for the evidence log. ``event_id`` is unique for its device."""

    device_key: int
    event_id: str
    rollout_key: int | None
    kind: str
    received_at: datetime
    device_at: str | None
    code: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as read back. ``seq`` grows with each row of the log."""

    seq: int
    device: str
    rollout: str | None
    event_id: str
    kind: str
    received_at: datetime
    device_at: str | None
    code: str | None
    message: str | None


class BadOutcome(NamedTuple):
    """A bad outcome that enters the evidence of a rollout: its class, its device and where that stands, in segments
    too.

    ``earlier``: the classes counted for this device before. A monitor or budget that pools several classes counts a
    device once, so it leaves out an outcome whose ``earlier`` holds one of its classes.
    """

    outcome: Outcome
    wave: str
    rollout_place: int
    wave_place: int
    earlier: frozenset[Outcome] = frozenset()
    device_key: int = 0
    slice: int = 0
    segments: Mapping[str, int] = MappingProxyType({})


class CountedOutcome(NamedTuple):
    """One row of the evidence log: an outcome that counted. ``outcome``: as in
    ``core.evidence.log.Line``."""

    rollout_key: int
    device_key: int
    received_at: datetime
    outcome: str
    wave: str
    slice: int
    rollout_place: int
    wave_place: int


@dataclass(frozen=True, slots=True)
class RunningCount:
    """So many devices run this. ``commit`` and ``version`` None: they have not said."""

    hardware_id: str
    commit: str | None
    version: int | None
    devices: int


@dataclass(frozen=True, slots=True)
class WaveCount:
    """One look at the devices of a wave: ``eligible`` (reachable or not), ``reachable`` ones among them,
    ``already_there``, and for the reachable eligible what they run. ``whole``: what those of them run whose protocol
    has no deltas, by protocol."""

    eligible: int
    reachable: int
    already_there: int
    running: tuple[RunningCount, ...]
    whole: Mapping[DeviceProtocol, tuple[RunningCount, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices to list; None asks for nothing. ``text``: part of the id."""

    tag: str | None = None
    group: str | None = None
    hardware_id: str | None = None
    label: tuple[str, str] | None = None
    status: DeviceStatus | None = None
    version: int | None = None
    text: str | None = None


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BuildJob:
    """A delta to be built. ``fence`` grows with each lease: only its present holder may report on it. ``weight``:
    devices it serves times bytes it saves, larger first. ``done``: progress in [0, 1]."""

    key: int
    pair: DeltaPair
    status: JobStatus
    weight: float = 0.0
    fence: int = 0
    owner: str | None = None
    lease_until: datetime | None = None
    attempts: int = 0
    stage: str = ""
    done: float = 0.0
    log: str = ""
    error: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


MOVED_AT_ONCE: Final = 10_000
"""Updates among which those of excluded segments are looked for in one transaction."""


class Moved(NamedTuple):
    """One step of leaving segments out: how many offers it withdrew; ``after``: the update after which the next step
    goes on, None when everything is done."""

    withdrawn: int
    after: int | None


class EffectKind(StrEnum):
    """What the outbox can ask for; each is done idempotently after the commit."""

    WITHDRAW = "withdraw"
    LEAVE_OUT = "leave_out"
    ENSURE_DELTAS = "ensure_deltas"
    ASK_GATES = "ask_gates"


@dataclass(frozen=True, slots=True)
class Effect:
    """One row of the outbox. ``wave`` where it concerns one; ``error``: why the last try failed."""

    kind: EffectKind
    rollout: str
    wave: str | None = None
    key: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DeltaNeed:
    """A required delta of a wave and how many of its reachable devices need it. ``known``: the repository has the
    from commit."""

    pair: DeltaPair
    devices: int
    known: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """Something ``wave db check`` recounted and found other than stored."""

    what: str
    stored: str
    counted: str


@dataclass(frozen=True, slots=True)
class MonitorRow:
    """A monitor as stored. Only places above ``from_place`` of its population count, less ``from_place``.
    ``accepted_at``: a person accepted its crossing and it was closed; the next attempt started anew."""

    key: int
    attempt: int
    spec: MonitorSpec
    from_place: int
    bad: int
    crossed_at: tuple[int, int] | None
    accepted_at: datetime | None
