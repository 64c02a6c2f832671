"""The states of a rollout and of a wave, who may move them, and the sentences people read.

Every change of status goes through ``move_rollout`` or ``move_wave``; the graphs in README are drawn from the tables
here (``state_graphs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from orchestrator.errors import WrongState


class RolloutStatus(StrEnum):
    DRAFT = "draft"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    HELD = "held"
    HALTED = "halted"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class WaveStatus(StrEnum):
    PENDING = "pending"
    PREPARING = "preparing"
    OPEN = "open"
    BAKING = "baking"
    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Actor(StrEnum):
    """Who may make a move: the machine by policy, or a person."""

    MACHINE = "machine"
    PERSON = "person"


ROLLOUT_MEANING: Final[Mapping[RolloutStatus, str]] = {
    RolloutStatus.DRAFT: "Applied, nothing offered; a person starts it.",
    RolloutStatus.SCHEDULED: "Started, waiting for its start time.",
    RolloutStatus.RUNNING: "Waves open and pass by policy; when every wave is done it completes.",
    RolloutStatus.PAUSED: "A person asked for quiet: no new offer, nothing opens; a person resumes it.",
    RolloutStatus.HELD: "A rule asks for a person: no new offer, nothing opens; a person resumes or ends it.",
    RolloutStatus.HALTED: "Stopped for safety: offers not started are withdrawn; a person accepts or cancels.",
    RolloutStatus.COMPLETED: (
        "Generally available: devices of the tag are offered the Target, newcomers too; those of cancelled waves not."
    ),
    RolloutStatus.CANCELLED: "Ended early: nothing more is offered, updated devices stay.",
}

UNFINISHED: Final = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING, WaveStatus.OPEN, WaveStatus.BAKING})
"""Waves that a cancelled rollout leaves as they stood."""

WAVE_MEANING: Final[Mapping[WaveStatus, str]] = {
    WaveStatus.PENDING: "Waits for the waves before it to open.",
    WaveStatus.PREPARING: "Its deltas are being made; opens when what it comes after has passed.",
    WaveStatus.OPEN: "Its devices are offered the Target, slice by slice.",
    WaveStatus.BAKING: "Its devices have the offer; their reports are watched.",
    WaveStatus.PASSED: "What comes after it may open; who is left of it is still offered.",
    WaveStatus.FAILED: "Was open when the rollout halted: no offers; only an accepted resume opens it again.",
    WaveStatus.CANCELLED: "A person ended it: no offers; what comes after waits until a person skips it.",
    WaveStatus.SKIPPED: "A person let what comes after go on without it; served when the rollout completes.",
}

_M, _P = frozenset({Actor.MACHINE}), frozenset({Actor.PERSON})
_BOTH = _M | _P

_R = RolloutStatus
ROLLOUT_MOVES: Final[Mapping[tuple[RolloutStatus, RolloutStatus], frozenset[Actor]]] = {
    (_R.DRAFT, _R.SCHEDULED): _P,
    (_R.DRAFT, _R.RUNNING): _P,
    (_R.SCHEDULED, _R.RUNNING): _BOTH,
    (_R.RUNNING, _R.PAUSED): _P,
    (_R.PAUSED, _R.RUNNING): _P,
    (_R.RUNNING, _R.HELD): _M,
    (_R.COMPLETED, _R.HELD): _M,
    (_R.HELD, _R.RUNNING): _P,
    (_R.HELD, _R.COMPLETED): _P,
    (_R.RUNNING, _R.HALTED): _BOTH,
    (_R.HELD, _R.HALTED): _BOTH,
    (_R.PAUSED, _R.HALTED): _BOTH,
    (_R.COMPLETED, _R.HALTED): _BOTH,
    (_R.HALTED, _R.RUNNING): _P,
    (_R.HALTED, _R.COMPLETED): _P,
    (_R.RUNNING, _R.COMPLETED): _BOTH,
    (_R.PAUSED, _R.COMPLETED): _P,
    (_R.DRAFT, _R.CANCELLED): _P,
    (_R.SCHEDULED, _R.CANCELLED): _P,
    (_R.RUNNING, _R.CANCELLED): _P,
    (_R.PAUSED, _R.CANCELLED): _P,
    (_R.HELD, _R.CANCELLED): _P,
    (_R.HALTED, _R.CANCELLED): _P,
    (_R.COMPLETED, _R.CANCELLED): _P,
}

_W = WaveStatus
WAVE_MOVES: Final[Mapping[tuple[WaveStatus, WaveStatus], frozenset[Actor]]] = {
    (_W.PENDING, _W.PREPARING): _M,
    (_W.PREPARING, _W.OPEN): _M,
    (_W.OPEN, _W.BAKING): _M,
    (_W.BAKING, _W.PASSED): _BOTH,
    (_W.PENDING, _W.PASSED): _P,
    (_W.PREPARING, _W.PASSED): _BOTH,
    (_W.OPEN, _W.PASSED): _P,
    (_W.OPEN, _W.FAILED): _M,
    (_W.BAKING, _W.FAILED): _M,
    (_W.FAILED, _W.OPEN): _P,
    (_W.FAILED, _W.PASSED): _P,
    (_W.PENDING, _W.CANCELLED): _P,
    (_W.PREPARING, _W.CANCELLED): _P,
    (_W.OPEN, _W.CANCELLED): _P,
    (_W.BAKING, _W.CANCELLED): _P,
    (_W.FAILED, _W.CANCELLED): _P,
    (_W.PENDING, _W.SKIPPED): _P,
    (_W.PREPARING, _W.SKIPPED): _P,
    (_W.CANCELLED, _W.SKIPPED): _P,
    (_W.FAILED, _W.SKIPPED): _P,
}

OFFERING_ROLLOUT: Final = frozenset({_R.RUNNING, _R.COMPLETED})
"""RULES 1.1: the statuses in which a rollout gives new offers."""

OFFERING_WAVE: Final = frozenset({_W.OPEN, _W.BAKING, _W.PASSED})
"""RULES 1.1: the statuses in which a wave's devices are offered the Target, stragglers of a passed wave included."""

DONE_WAVE: Final = frozenset({_W.PASSED, _W.SKIPPED})
"""What lets the waves after it open."""

WATCHED_ROLLOUT: Final = frozenset({_R.RUNNING, _R.PAUSED, _R.HELD, _R.COMPLETED})
"""Where a crossing still halts."""

LIVE_ROLLOUT: Final = frozenset({_R.SCHEDULED, _R.RUNNING, _R.PAUSED, _R.HELD, _R.HALTED})
"""Statuses that claim devices: no other live rollout may claim the same ones (RULES 7.1)."""


class ReasonKind(StrEnum):
    """The bounded word beside every reason's sentence."""

    APPLIED = "applied"
    STARTED = "started"
    START_AT = "start_at"
    ORDERED = "ordered"
    AFTER = "after"
    DELTAS = "deltas"
    DELTAS_LATE = "deltas_late"
    WINDOW = "window"
    AWAITING_PROMOTION = "awaiting_promotion"
    GATE = "gate"
    GATE_NO = "gate_no"
    GATE_LATE = "gate_late"
    AWAITING_APPROVAL = "awaiting_approval"
    EMPTY = "empty"
    ALREADY_THERE = "already_there"
    SLICE = "slice"
    SLICE_INCONCLUSIVE = "slice_inconclusive"
    AMBER = "amber"
    OFFERING = "offering"
    BAKE = "bake"
    BAKE_INCONCLUSIVE = "bake_inconclusive"
    DOOR = "door"
    MONITOR = "monitor"
    BUDGET = "budget"
    SEGMENT = "segment"
    FIRST_BAD = "first_bad"
    SILENCE = "silence"
    ENVIRONMENT = "environment"
    HALTED = "halted"
    FROZEN = "frozen"
    WAVES_DONE = "waves_done"
    CANCELLED_BEFORE = "cancelled_before"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a bounded kind and one sentence for people."""

    kind: ReasonKind
    sentence: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A status is never without reason, since when and by whom (``by``: a user's name, or ``policy``)."""

    reason: Reason
    since: datetime
    by: str


POLICY: Final = "policy"
"""Who, when the machine decided."""


def _refused(what: str, before: StrEnum, after: StrEnum, moves: Mapping[Any, frozenset[Actor]], actor: Actor) -> str:
    """Why a move is refused, and what is allowed instead."""
    allowed = sorted(to for (origin, to), who in moves.items() if origin == before and actor in who)
    if allowed:
        instead = f"{', '.join(allowed[:-1])} or {allowed[-1]}" if allowed[1:] else allowed[0]
        rest = f"it can become {instead}"
    elif any(origin == before for origin, _ in moves):
        rest = "only a person moves it on" if actor is Actor.MACHINE else "only the policy moves it on"
    else:
        rest = "it has ended"
    return f"{'An' if before[0] in 'aeiou' else 'A'} {before} {what} cannot become {after}: {rest}."


def move_rollout(before: RolloutStatus, after: RolloutStatus, actor: Actor) -> RolloutStatus:
    """The one door for rollouts. Raises WrongState, naming what is allowed from here."""
    if actor not in ROLLOUT_MOVES.get((before, after), frozenset()):
        raise WrongState(_refused("rollout", before, after, ROLLOUT_MOVES, actor))
    return after


def move_wave(before: WaveStatus, after: WaveStatus, actor: Actor) -> WaveStatus:
    """The one door for waves. Raises WrongState, naming what is allowed from here."""
    if actor not in WAVE_MOVES.get((before, after), frozenset()):
        raise WrongState(_refused("wave", before, after, WAVE_MOVES, actor))
    return after
