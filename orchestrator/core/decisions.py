"""What can be decided: small frozen values that ask for an effect and never do it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.states import Reason


@dataclass(frozen=True, slots=True)
class StartRollout:
    """A scheduled rollout's time has come."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class HaltRollout:
    """The safety stop: no offer after it, offers not started are withdrawn, open waves fail."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class ExcludeSegment:
    """Leave a segment out: its ``devices`` are offered nothing more, offers not started are withdrawn, and the rest
    goes on as if they were not there."""

    segment: str
    reason: Reason
    devices: int = 0


@dataclass(frozen=True, slots=True)
class HoldRollout:
    """Wait for a person with everything."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class CompleteRollout:
    """Every wave is done."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class PrepareWave:
    """Look at the wave's devices and begin with its deltas."""

    wave: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class EnsureDeltas:
    """Look again at which deltas the wave's devices need, and have those built that are missing."""

    wave: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class AskGates:
    """Ask the wave's gates whether it may open; their answers come as facts."""

    wave: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class OpenWave:
    """Offer it to the wave's devices; its first slice opens with it."""

    wave: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class OpenSlice:
    """Give places to the wave's next ``size`` waiting devices by position; None: to all that wait."""

    wave: str
    size: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class StartBake:
    """The wave's devices have the offer; the bake clock starts."""

    wave: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class PassWave:
    """The door has opened."""

    wave: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class HoldWave:
    """Latch a wait of this wave that only a person ends."""

    wave: str
    reason: Reason


Decision = (
    StartRollout
    | HaltRollout
    | ExcludeSegment
    | HoldRollout
    | CompleteRollout
    | PrepareWave
    | EnsureDeltas
    | AskGates
    | OpenWave
    | OpenSlice
    | StartBake
    | PassWave
    | HoldWave
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why nothing more happens to the rollout (``wave`` None) or to one of its waves, and until when at the earliest
    (None: not a matter of time)."""

    wave: str | None
    reason: Reason
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one look decided, why nothing more, and the earliest moment at which the same facts would say otherwise."""

    decisions: tuple[Decision, ...] = ()
    reasons: tuple[Waiting, ...] = ()
    wake_at: datetime | None = None
