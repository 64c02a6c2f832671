"""What a decision, or a person's order, makes of a rollout's record. Pure; every move goes through the tables of
``states``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from orchestrator.core.decisions import (
    AskGates,
    CompleteRollout,
    Decision,
    EnsureDeltas,
    ExcludeSegment,
    HaltRollout,
    HoldRollout,
    HoldWave,
    OpenSlice,
    OpenWave,
    PassWave,
    PrepareWave,
    StartBake,
    StartRollout,
)
from orchestrator.core.evidence.clock import minute_of
from orchestrator.core.facts import Excluded, RolloutState, WaveState
from orchestrator.core.slices import segment_population
from orchestrator.core.states import (
    POLICY,
    Actor,
    Reason,
    RolloutStatus,
    Standing,
    WaveStatus,
    move_rollout,
    move_wave,
)
from orchestrator.errors import WrongState


def apply(state: RolloutState, decision: Decision, now: datetime) -> RolloutState:
    """The record after the machine's decision. Raises WrongState for a move that the tables forbid."""
    match decision:
        case StartRollout():
            return to_status(state, RolloutStatus.RUNNING, decision.reason, now, POLICY)
        case HaltRollout():
            return halt(state, decision.reason, now, POLICY)
        case ExcludeSegment():
            return exclude(state, decision.segment, decision.devices, decision.reason, now, POLICY)
        case HoldRollout():
            return to_status(state, RolloutStatus.HELD, decision.reason, now, POLICY)
        case CompleteRollout():
            return to_status(state, RolloutStatus.COMPLETED, decision.reason, now, POLICY)
        case PrepareWave():
            wave = _moved(state.wave(decision.wave), WaveStatus.PREPARING, decision.reason, now, POLICY)
            return with_wave(state, replace(wave, prepared_at=now, asked_at=now))
        case OpenWave():
            wave = _moved(state.wave(decision.wave), WaveStatus.OPEN, decision.reason, now, POLICY)
            return with_wave(state, replace(wave, opened_at=now))
        case StartBake():
            wave = _moved(state.wave(decision.wave), WaveStatus.BAKING, decision.reason, now, POLICY)
            return with_wave(state, replace(wave, baking_at=now))
        case PassWave():
            return with_wave(state, _moved(state.wave(decision.wave), WaveStatus.PASSED, decision.reason, now, POLICY))
        case HoldWave():
            wave = state.wave(decision.wave)
            return with_wave(state, replace(wave, hold=Standing(decision.reason, now, POLICY)))
        case EnsureDeltas():
            return with_wave(state, replace(state.wave(decision.wave), asked_at=now))
        case AskGates():
            return with_wave(state, replace(state.wave(decision.wave), gates_asked_at=now))
        case OpenSlice():
            return state
        case _:
            assert_never(decision)


def apply_all(state: RolloutState, decisions: Iterable[Decision], now: datetime) -> RolloutState:
    """The record after a whole plan."""
    for decision in decisions:
        state = apply(state, decision, now)
    return state


def to_status(state: RolloutState, status: RolloutStatus, reason: Reason, now: datetime, by: str) -> RolloutState:
    """Move the rollout. The epoch grows, so that no offer prepared before it can be given after it."""
    actor = Actor.MACHINE if by == POLICY else Actor.PERSON
    after = move_rollout(state.status, status, actor)
    completed = state.completed or after is RolloutStatus.COMPLETED
    return replace(state, status=after, standing=Standing(reason, now, by), epoch=state.epoch + 1, completed=completed)


def halt(state: RolloutState, reason: Reason, now: datetime, by: str) -> RolloutState:
    """The safety stop: waves that were open fail with it."""
    state = to_status(state, RolloutStatus.HALTED, reason, now, by)
    for wave in state.waves:
        if wave.status in (WaveStatus.OPEN, WaveStatus.BAKING):
            failed = _moved(wave, WaveStatus.FAILED, reason, now, POLICY)
            # Only the machine fails a wave; at whose word it did stands beside it.
            state = with_wave(state, replace(failed, standing=Standing(reason, now, by)))
    return state


def exclude(state: RolloutState, segment: str, devices: int, reason: Reason, now: datetime, by: str) -> RolloutState:
    """Leave a segment out, whatever the status. The epoch grows as with every move. Raises WrongState when it is left
    out already, and when the rollout has no devices yet or has ended.

    The clock of silence counts by hardware id and minute: a hardware id leaves it by name (``safety.heeded``); after
    any other segment it begins anew, because nobody knows which of those who are under way belong to it."""
    _excludes(state)
    if segment in state.excluded_segments:
        raise WrongState(f"Segment {segment} is excluded already.")
    left_out = Excluded(segment, Standing(reason, now, by), devices)
    by_name = segment.startswith(segment_population("hardware_id", ""))
    clock_from = state.clock_from if by_name else minute_of(now) + 1
    return replace(state, excluded=(*state.excluded, left_out), epoch=state.epoch + 1, clock_from=clock_from)


def include(state: RolloutState, segment: str) -> RolloutState:
    """A person takes a segment back in: a new attempt. Raises WrongState when it is not excluded."""
    _excludes(state)
    if segment not in state.excluded_segments:
        known = ", ".join(each.segment for each in state.excluded) or "none"
        raise WrongState(f"Segment {segment} is not excluded; excluded: {known}.")
    kept = tuple(each for each in state.excluded if each.segment != segment)
    return replace(state, excluded=kept, epoch=state.epoch + 1, attempt=state.attempt + 1)


def _excludes(state: RolloutState) -> None:
    if state.status in (RolloutStatus.DRAFT, RolloutStatus.SCHEDULED, RolloutStatus.CANCELLED):
        raise WrongState(f"Rollout {state.rollout} is {state.status}: no segment of it is offered anything now.")


def resume(state: RolloutState, reason: Reason, now: datetime, by: str) -> RolloutState:
    """Leave a pause, a hold or a halt, to where it came from: what was completed is completed again, for nothing else
    would ever complete it when a wave of it was cancelled."""
    status = RolloutStatus.COMPLETED if state.completed else RolloutStatus.RUNNING
    return to_status(state, status, reason, now, by)


def resume_halted(state: RolloutState, reason: Reason, now: datetime, by: str) -> RolloutState:
    """A person accepted what halted it: a new attempt; failed waves are open again, all their time anew (RULES 2)."""
    state = resume(state, reason, now, by)
    for wave in state.waves:
        if wave.status is WaveStatus.FAILED:
            opened = _moved(wave, WaveStatus.OPEN, reason, now, by)
            state = with_wave(state, replace(opened, hold=None, baking_at=None, granted_at=now))
    return replace(state, attempt=state.attempt + 1)


def release_wave(state: RolloutState, name: str, now: datetime) -> RolloutState:
    """End a wave's latched wait; whatever time was over is granted once more, from now on (RULES 2.1)."""
    wave = state.wave(name)
    if wave.hold is None:
        raise WrongState(f"Wave {name} is not held; it is {wave.status}.")
    return with_wave(state, replace(wave, hold=None, granted_at=now))


def move(state: RolloutState, name: str, status: WaveStatus, reason: Reason, now: datetime, by: str) -> RolloutState:
    """A person's word about one wave."""
    wave = _moved(state.wave(name), status, reason, now, by)
    withheld = status is WaveStatus.CANCELLED or (wave.withheld and status is WaveStatus.SKIPPED)
    return with_wave(state, replace(wave, hold=None, withheld=withheld))


def complete(state: RolloutState, reason: Reason, now: datetime, by: str, *, serve_whole: bool) -> RolloutState:
    """A person makes the Target generally available: every wave that nobody cancelled or skipped passes; skipped
    ones are served with them (RULES 7.2).

    Out of a halt it is a new attempt, as every way that accepts what halted it.
    """
    attempt = state.attempt + (1 if state.status is RolloutStatus.HALTED else 0)
    state = to_status(state, RolloutStatus.COMPLETED, reason, now, by)
    ended = {WaveStatus.PASSED, WaveStatus.CANCELLED, WaveStatus.SKIPPED}
    for wave in state.waves:
        if wave.status not in ended:
            state = move(state, wave.wave, WaveStatus.PASSED, reason, now, by)
    return replace(state, serve_whole=serve_whole, attempt=attempt)


def with_wave(state: RolloutState, wave: WaveState) -> RolloutState:
    return replace(state, waves=tuple(wave if each.wave == wave.wave else each for each in state.waves))


def _moved(wave: WaveState, status: WaveStatus, reason: Reason, now: datetime, by: str) -> WaveState:
    actor = Actor.MACHINE if by == POLICY else Actor.PERSON
    return replace(wave, status=move_wave(wave.status, status, actor), standing=Standing(reason, now, by))
