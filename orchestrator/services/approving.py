"""Approvals, and the orders that need them: a second person's word where the policy asks for it.

Waves that wait for it are the machine's business (``core.decide``). Here is who may give it, and what a person cannot
order without: going on after a halt, completing, passing or skipping a wave that nobody approved. All of it happens in
the order's own transaction, so of two who approve at once each counts once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from orchestrator.core.approvals import given, resume_lacks, start_lacks, undone, wave_lacks
from orchestrator.core.approving import Approval, Deed, files_of
from orchestrator.core.facts import RolloutState, WaveState
from orchestrator.core.roles import Role, folded, may
from orchestrator.core.rules import Rules
from orchestrator.core.states import Reason, RolloutStatus, WaveStatus
from orchestrator.errors import Conflict, Forbidden, Refused, WrongState
from orchestrator.services.chronicle import order, rules_of
from orchestrator.services.locking import lock_all
from orchestrator.services.people_store import PersonRow
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Reading, Writing

NOT_OPENED = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING})

WITHDRAWN: Final = "approval_withdrawn"
"""The journal's word for approvals of somebody who may give none any more."""

_GOING = frozenset(RolloutStatus) - {RolloutStatus.COMPLETED, RolloutStatus.CANCELLED}


def approved(
    r: Reading, row: RolloutRow, wave: WaveState | None, *, by: str, files: str | None, now: datetime
) -> tuple[RolloutState, Approval, int]:
    """The record with one more approval: of the wave's opening; without one, of going on after a halt, or of the
    rollout; and how many are lacking still.

    Raises Forbidden for whoever wrote, edited or started it, or is known here and may approve nothing, Conflict when
    ``files`` is not what is bound, WrongState when it is too late, Refused when nothing asks for it or the same
    person has said so before.
    """
    state, rules = row.state, rules_of(row)
    bound = files_of(row.spec_digest, row.policy_digest)
    if files is not None and files != bound:
        raise Conflict(f"Rollout {state.rollout} was changed meanwhile: look at it again before you approve it.")
    person = r.person(by)
    if person is not None and not may_approve(person):
        raise Forbidden(f"{person.name} may approve nothing{' and is disabled' if person.disabled_at else ''}.")
    deed, needed, what = _deed(state, rules, wave)
    if needed == 0:
        raise Refused(f"The policy asks nobody to approve {what}.")
    if folded(by) in {folded(each) for each in state.authors}:
        raise Forbidden(f"{by} wrote or started {state.rollout}: somebody else approves it.")
    name = None if wave is None else wave.wave
    before = given(state, deed, name)
    if folded(by) in {folded(each) for each in before}:
        raise Refused(f"{by} has approved {what} already: everybody counts once.")
    epoch = state.epoch if deed is Deed.RESUME else 0
    fresh = Approval(deed, by, now, bound, name, epoch)
    return replace(state, approvals=(*state.approvals, fresh)), fresh, max(0, needed - len(before) - 1)


def what_of(approval: Approval) -> str:
    """What was approved, in words."""
    match approval.deed:
        case Deed.OPEN:
            return f"The opening of wave {approval.wave}"
        case Deed.RESUME:
            return "Going on after the halt"
        case _:
            return "The rollout"


def may_approve(person: PersonRow) -> bool:
    return person.disabled_at is None and may(person.roles, Role.APPROVER)


def withdraw_approvals(w: Writing, before: PersonRow, after: PersonRow, *, by: str, now: datetime) -> None:
    """Who may approve no more, from this change of them on, has approved nothing that was not carried out yet: it is
    taken back in the transaction of the change, with an entry in each rollout's journal."""
    if not may_approve(before) or may_approve(after):
        return
    lock_all(w, _GOING)
    for row in w.rollouts(_GOING):
        state = row.state
        if not any(folded(each.by) == folded(before.name) for each in state.approvals):
            continue
        gone = undone(state, rules_of(row), before.name)
        if not gone:
            continue
        why = f"{by} {'disabled' if after.disabled_at else 'took the role from'} {before.name}"
        each = ", ".join(what_of(one)[0].lower() + what_of(one)[1:] for one in gone)
        order(
            w,
            row,
            replace(state, approvals=tuple(one for one in state.approvals if one not in gone)),
            event=WITHDRAWN,
            by=by,
            sentence=f"The word of {before.name} counts no more, as {why}: {each}.",
            now=now,
        )


def refuse_unapproved_resume(row: RolloutRow, by: str) -> None:
    """Raises Refused while too few others have approved that a halted rollout goes on."""
    if row.state.status is RolloutStatus.HALTED:
        _refuse(row, resume_lacks(row.state, rules_of(row), by))


def refuse_unapproved_completion(row: RolloutRow) -> None:
    """Completing opens everything: raises Refused while something of it is not approved."""
    rules = rules_of(row)
    _refuse(row, start_lacks(row.state, rules))
    for wave in row.state.waves:
        if wave.serves_when_completed() and (wave.status in NOT_OPENED or wave.status is WaveStatus.SKIPPED):
            _refuse(row, wave_lacks(row.state, rules.wave(wave.wave)))


def refuse_unapproved_wave(row: RolloutRow, wave: WaveState, status: WaveStatus) -> None:
    """Devices of a wave that passes, or is skipped, are offered the Target in the end: raises Refused for one that
    nobody approved."""
    if wave.status in NOT_OPENED and status in (WaveStatus.PASSED, WaveStatus.SKIPPED):
        rules = rules_of(row)
        _refuse(row, start_lacks(row.state, rules))
        _refuse(row, wave_lacks(row.state, rules.wave(wave.wave)))


def _refuse(row: RolloutRow, lacks: Reason | None) -> None:
    if lacks is not None:
        raise Refused(f"Rollout {row.state.rollout} cannot do that yet. {lacks.sentence}")


def _deed(state: RolloutState, rules: Rules, wave: WaveState | None) -> tuple[Deed, int, str]:
    name = state.rollout
    if state.status in (RolloutStatus.CANCELLED, RolloutStatus.COMPLETED):
        raise WrongState(f"Rollout {name} is {state.status}: there is nothing to approve.")
    if wave is not None:
        if wave.status not in NOT_OPENED:
            raise WrongState(f"Wave {wave.wave} is {wave.status}: only one that has not opened can be approved.")
        return Deed.OPEN, rules.wave(wave.wave).approvals, f"the opening of wave {wave.wave}"
    if state.status is RolloutStatus.HALTED:
        return Deed.RESUME, rules.approve_resume, f"that {name} goes on after its halt"
    return Deed.START, rules.approve_start, f"rollout {name} as a whole"
