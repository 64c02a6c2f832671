"""Whether enough other people have approved. Pure.

Whoever wrote, edited or started the rollout is no other person, nor is who is asked twice. An edit voids what was
approved before (``services.editing``), a new halt what was approved for the one before, and who may approve no more
takes along what has not been carried out yet (``undone``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from orchestrator.core.approving import Approval, Deed
from orchestrator.core.facts import Facts, RolloutState
from orchestrator.core.roles import folded
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, WaveStatus

_SHUT: Final = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING, WaveStatus.SKIPPED, WaveStatus.CANCELLED})
"""Waves that no approval has opened, unless they were open before."""


def given(state: RolloutState, deed: Deed, wave: str | None = None, *, but: Iterable[str] = ()) -> tuple[str, ...]:
    """Who has approved that, in their order; ``but``: those who do not count for it besides the authors."""
    left_out = {folded(each) for each in (*state.authors, *but)}
    found: list[str] = []
    for each in state.approvals:
        same = (each.deed, each.wave) == (deed, wave) and (deed is not Deed.RESUME or each.epoch == state.epoch)
        if same and folded(each.by) not in left_out:
            left_out.add(folded(each.by))
            found.append(each.by)
    return tuple(found)


def nothing_opens(state: RolloutState, facts: Facts, rules: Rules) -> Reason | None:
    """Why neither a wave nor a slice opens, whatever the waves say."""
    if facts.frozen is not None:
        return Reason(ReasonKind.FROZEN, f"Everything is frozen: {facts.frozen.sentence}")
    return start_lacks(state, rules)


def start_lacks(state: RolloutState, rules: Rules) -> Reason | None:
    """Why nothing of the rollout opens yet."""
    return _lacks("", rules.approve_start, given(state, Deed.START), f"`wave approve {state.rollout}`")


def wave_lacks(state: RolloutState, rules: WaveRules) -> Reason | None:
    """Why this wave does not open yet."""
    have = given(state, Deed.OPEN, rules.wave)
    return _lacks(" of this wave", rules.approvals, have, f"`wave approve {state.rollout} --wave {rules.wave}`")


def resume_lacks(state: RolloutState, rules: Rules, by: str) -> Reason | None:
    """Why ``by`` may not let it go on after its halt yet."""
    have = given(state, Deed.RESUME, but=[by])
    return _lacks(" of going on", rules.approve_resume, have, f"`wave approve {state.rollout}`")


def undone(state: RolloutState, rules: Rules, by: str) -> tuple[Approval, ...]:
    """What this person has approved and nobody has acted upon: the rollout while it lacks others, or has opened
    nothing; a wave that has not opened; going on from a halt that lasts."""
    if state.status in (RolloutStatus.COMPLETED, RolloutStatus.CANCELLED):
        return ()
    shut = {each.wave for each in state.waves if each.status in _SHUT and each.opened_at is None}
    waiting = len(shut) == len(state.waves) or start_lacks(state, rules) is not None
    halted = state.status is RolloutStatus.HALTED
    return tuple(
        each
        for each in state.approvals
        if folded(each.by) == folded(by)
        and {
            Deed.START: waiting,
            Deed.OPEN: each.wave in shut,
            Deed.RESUME: halted and each.epoch == state.epoch,
        }[each.deed]
    )


def lower(before: Rules, after: Rules, waves: Collection[str]) -> Iterator[str]:
    """Where an edit would ask for fewer approvals than it was started with; ``waves``: those that there were."""
    for key, one, other in (
        ("start", before.approve_start, after.approve_start),
        ("open", before.approve_open, after.approve_open),
        ("resume", before.approve_resume, after.approve_resume),
    ):
        if other < one:
            yield f"`approve.{key}` is {one} and would be {other}."
    kept = {rules.wave: rules.approvals for rules in after.waves}
    for rules in before.waves:
        if rules.wave in waves and kept.get(rules.wave, rules.approvals) < rules.approvals:
            yield f"`approve.open` of wave {rules.wave} is {rules.approvals} and would be {kept[rules.wave]}."


def _lacks(what: str, needed: int, have: tuple[str, ...], how: str) -> Reason | None:
    if len(have) >= needed:
        return None
    who = f"; {', '.join(have)} did" if have else ""
    more = needed - len(have)
    people = "another person" if more == 1 else f"{more} other people"
    sentence = f"It waits for approval{what} by {people}, who did not write or start it{who}: {how}."
    return Reason(ReasonKind.AWAITING_APPROVAL, sentence)
