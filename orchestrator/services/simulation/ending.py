"""What a simulated rollout came to, read off its state when nothing more is to be played."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.core.facts import WaveState
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.services.simulation.conduct import HOUR, Fate
from orchestrator.services.simulation.setting import START, Ending, Exclusion, Played, WavePlayed

if TYPE_CHECKING:
    from orchestrator.services.simulation.play import Run

FAILING = frozenset({Fate.FAILED, Fate.ROLLED_BACK})
"""What devices under way can be bound to come to that is known before their time is over."""


def came_of_it(run: Run) -> Played:
    """The run as it stands."""
    state, machine = run.state, run.machine
    reason, ended_at = state.standing.reason, run.now
    holds = [wave.hold for wave in state.waves if wave.hold is not None]
    if state.status is RolloutStatus.HALTED:
        ending = Ending.HALTED
    elif run.completed_at is not None:
        ending, ended_at = Ending.COMPLETED, run.completed_at
    elif state.status is RolloutStatus.HELD:
        ending, ended_at = Ending.HELD, run.stopped_at or run.now
    elif holds:
        first = min(holds, key=lambda hold: hold.since)
        ending, reason, ended_at = Ending.HELD, first.reason, int((first.since - START).total_seconds())
    else:
        ending = Ending.UNFINISHED
    stopped = ending in (Ending.HALTED, Ending.HELD)
    updates = {device: machine.standings[standing] for device, standing in run.standing.items()}
    return Played(
        run=run.number,
        ending=ending,
        hours=ended_at / HOUR,
        failed=sum(not update.bad.isdisjoint(run.halting) for update in updates.values()),
        doomed=sum(not update.resolved and run.fate[device] in FAILING for device, update in updates.items()),
        exposed=run.exposed,
        cause=run.evidence.cause(reason) if stopped else "",
        sentence=reason.sentence if stopped else "",
        bad=dict(run.evidence.bad),
        waves=tuple(_wave_played(run, wave) for wave in state.waves),
        excluded=tuple(run.excluded),
        last_start=run.last_start / HOUR,
        begun=run.begun,
    )


def exclusion(run: Run, segment: str) -> Exclusion:
    """A segment at the moment in which it is left out."""
    mine = [member.device for member in run.member.values() if segment in member.segments]
    resolved = [not run.machine.unresolved(run.standing[device]) for device in mine if device in run.standing]
    bad, places = run.evidence.crossing(segment)
    return Exclusion(segment, run.now / HOUR, bad, places, sum(resolved), len(resolved) - sum(resolved))


def _wave_played(run: Run, wave: WaveState) -> WavePlayed:
    held = run.evidence.holds.get(wave.wave)
    return WavePlayed(
        wave.wave,
        run.evidence.waves[wave.wave].members,
        _hours(wave.opened_at),
        _hours(wave.baking_at),
        _hours(wave.standing.since) if wave.status is WaveStatus.PASSED else None,
        None if held is None else held.kind.value,
    )


def _hours(at: datetime | None) -> float | None:
    return None if at is None else (at - START).total_seconds() / HOUR
