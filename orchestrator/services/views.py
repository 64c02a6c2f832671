"""What people are shown: frozen views of rollouts, waves, devices, deltas and plans. Values only; rendering is the
CLI's and the console's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.calendar import Moments
from orchestrator.core.evidence.clock import ClockFacts
from orchestrator.core.evidence.crossing import Step
from orchestrator.core.explain import Outlook
from orchestrator.core.facts import NONE_APART, Apart, BudgetFacts, Excluded, MonitorFacts, WaveFacts, WaveState
from orchestrator.core.fleet import Device
from orchestrator.core.outcomes import Outcome
from orchestrator.core.protocols import NOTHING_SPOKEN, Spoken
from orchestrator.core.states import UNFINISHED, Reason, RolloutStatus, Standing, WaveStatus
from orchestrator.services.edition_store import Told
from orchestrator.services.records import DeltaNeed, LoggedEvent, UpdateRow


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """One line of ``wave list``. ``devices``: eligible at the start; ``confirmed``, ``bad``, ``offered``: so far."""

    rollout: str
    status: RolloutStatus
    standing: Standing
    target_version: int
    tag: str
    policy: str
    devices: int
    offered: int
    confirmed: int
    bad: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class WaveView:
    """A wave as it stands. ``waiting``: why nothing more happens to it, and until when at the earliest."""

    state: WaveState
    facts: WaveFacts
    after: tuple[str, ...]
    waiting: tuple[tuple[Reason, datetime | None], ...]
    needs: tuple[DeltaNeed, ...]


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout as it stands, with everything the next decision sees.

    ``outlook``: what would move it; ``steps``: what is missing to cross, by monitor that has seen something bad;
    ``wake_at``: the earliest moment at which the same facts say otherwise; ``problems``: work of the outbox that
    failed, to be tried again; ``excluded``: the segments that are left out; ``clock``: the clock test for silence,
    where there is one; ``pace``: how its offers flow now.
    """

    summary: RolloutSummary
    waves: tuple[WaveView, ...]
    monitors: tuple[MonitorFacts, ...]
    budgets: tuple[BudgetFacts, ...]
    waiting: tuple[tuple[Reason, datetime | None], ...]
    outlook: Outlook
    steps: Mapping[str, Step]
    wake_at: datetime | None
    frozen: Reason | None
    problems: tuple[str, ...]
    spec_digest: str
    policy_digest: str
    attempt: int
    excluded: tuple[Excluded, ...] = ()
    pace: tuple[str, ...] = ()
    clock: ClockFacts | None = None

    def word_of(self, wave: WaveView) -> str:
        """How a wave of it stands, to whoever looks: ``held`` where a person is waited for; one that had not ended went
        with its rollout."""
        if self.summary.status is RolloutStatus.CANCELLED and wave.state.status in UNFINISHED:
            return WaveStatus.CANCELLED.value
        return "held" if wave.state.hold is not None else wave.state.status.value

    @property
    def apart(self) -> Apart:
        """Devices of all waves that were unhealthy before and are left out of the count."""
        return sum((wave.facts.apart for wave in self.waves), NONE_APART)


@dataclass(frozen=True, slots=True)
class WhyNot:
    """What one rollout holds for a device: its wave and place, and why it is offered the Target or not yet.

    ``why_wave``: why it is in that wave, a sentence for each that comes into question; ``waits``: what the wave waits
    for.
    """

    rollout: str
    status: RolloutStatus
    wave: str | None
    wave_status: WaveStatus | None
    position: float | None
    slice: int | None
    place: int | None
    kind: str
    sentence: str
    why_wave: tuple[str, ...]
    waits: tuple[str, ...]
    update: UpdateRow | None


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device, what it is in, its updates and last events, what its protocol lets know, and what it told of
    itself."""

    device: Device
    rollouts: tuple[WhyNot, ...]
    updates: tuple[tuple[str, UpdateRow], ...]
    events: tuple[LoggedEvent, ...]
    spoken: Spoken = NOTHING_SPOKEN
    told: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedDelta:
    """A required delta before it is built. ``state``: ready, whole (no delta is worth it or possible: its devices fetch
    everything, and nobody waits), building, queued, failed, missing, left out, unknown (the repository lacks the from
    commit) or no target (it lacks the Target's, so nobody can be served). Bytes are estimates until it is ready;
    ``loose_bytes`` is what a device fetches without it."""

    from_commit: str | None
    to_commit: str
    from_version: int | None
    hardware_ids: tuple[str, ...]
    devices: int
    bytes: int
    loose_bytes: int
    build_seconds: float
    state: str


@dataclass(frozen=True, slots=True)
class PlannedHalt:
    """How many bad devices of these classes halt while a wave grows: when its first slice has reported (``first``), and
    at its end (``last``). ``own``: counted from the wave's own start, else from the rollout's, with waves side by side
    in the order of the file. 0: none does."""

    outcomes: tuple[Outcome, ...]
    own: bool
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class PlannedGate:
    """A gate before it is asked: which source of the installation, of what ``kind``, what makes its answer a yes
    (``bounds``, of a query), how long one answer may take, and for how long it is asked before ``otherwise`` applies,
    as a policy writes them."""

    gate: str
    asks: str
    kind: str
    query: str | None
    bounds: str
    timeout: str
    at_most: str
    otherwise: str


@dataclass(frozen=True, slots=True)
class PlannedWave:
    """A wave before it starts. ``share`` of the rollout's eligible devices and ``cumulative`` with all waves before
    it in file order; ``slices``: their sizes; ``detectable``: the failure rate it finds with 90 % power, by class
    (None: not even if all fail); ``halts``: how many bad devices halt while it grows; ``opens``, ``ends``: when, as
    ``core.calendar`` says; ``gates``: who is asked before it opens."""

    wave: str
    after: tuple[str, ...]
    devices: str
    eligible: int
    reachable: int
    already_there: int
    share: float
    cumulative: float
    slices: tuple[int, ...]
    deltas: tuple[PlannedDelta, ...]
    detectable: Mapping[Outcome, float | None]
    halts: tuple[PlannedHalt, ...]
    word: str
    opens: Moments
    ends: Moments
    promotion: bool
    approvals: int
    early: str = ""
    gates: tuple[PlannedGate, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedMonitor:
    """A monitor before it starts. ``limits``: the steps of its staircase, ``(bad, places)``: the first, as far as its
    population reaches."""

    monitor: str
    outcomes: tuple[Outcome, ...]
    scope: str
    tolerance: float
    alpha: float
    answer: str
    limits: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PlannedBudget:
    """A budget before it starts, with the chance that a release at its tolerance, and at half of it, reaches it by
    mistake."""

    budget: str
    limit: int
    answer: str
    chance_at_tolerance: float
    chance_at_half: float


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What ``wave plan`` shows; making it changes nothing. ``in_flight_risk``: devices that may still fail after a
    stop, at most. ``assumes``: what the likely times rest on."""

    rollout: str
    target_version: int
    tag: str
    policy: str
    hardware_ids: tuple[str, ...]
    devices: int
    in_no_wave: int
    waves: tuple[PlannedWave, ...]
    monitors: tuple[PlannedMonitor, ...]
    budgets: tuple[PlannedBudget, ...]
    build_minutes: float
    bytes_with: int
    bytes_without: int
    in_flight_risk: int
    earliest_end: datetime | None
    likely_end: datetime | None
    latest_end: datetime | None
    assumes: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    pace: tuple[str, ...] = ()
