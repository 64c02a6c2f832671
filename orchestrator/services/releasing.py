"""A person lets waves go on that were held."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core import transitions
from orchestrator.core.facts import RolloutState
from orchestrator.core.harmless import reason_given
from orchestrator.core.states import ReasonKind
from orchestrator.errors import WrongState
from orchestrator.services.records import JobStatus, RolloutRow
from orchestrator.services.store import Writing


def release(
    state: RolloutState, wave: str | None, by: str, reason: str | None, now: datetime
) -> tuple[RolloutState, str]:
    """End the hold of one wave, or of all that are held; and the sentence that says so. Raises WrongState."""
    held = [each.wave for each in state.waves if each.hold is not None]
    if wave is None and not held:
        raise WrongState(f"Rollout {state.rollout} is {state.status} and none of its waves is held.")
    for each in [wave] if wave is not None else held:
        state = transitions.release_wave(state, each, now)
    names = wave or ", ".join(held)
    head = f"Wave {names} goes on, by {by}"
    said = reason_given(reason)
    return state, f"{head}: {said}" if said else f"{head}."


def build_again(w: Writing, row: RolloutRow, after: RolloutState, now: datetime) -> None:
    """A wave that deltas kept from opening has as long again: whatever build was given up is tried once more."""
    for before, wave in zip(row.state.waves, after.waves, strict=True):
        if before.hold is None or wave.hold is not None or before.hold.reason.kind is not ReasonKind.DELTAS_LATE:
            continue
        jobs = [w.job(need.pair) for need in w.needs(row.key, wave.wave) if need.known]
        given_up = {job.pair: job.weight for job in jobs if job is not None and job.status is JobStatus.FAILED}
        w.queue_builds(given_up, now=now, again=True)
