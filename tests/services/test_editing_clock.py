"""Editing what is tolerated of silence while the clock of a rollout runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.evidence.allowance import newcomer_alpha
from orchestrator.core.evidence.clock import CLOCK, minute_of
from orchestrator.core.outcomes import Answer
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, Standing
from orchestrator.errors import Refused
from orchestrator.services.clocks import as_text, from_text
from tests.core.evidence.clock_world import clock
from tests.services.fleet_world import World
from tests.services.test_editing import NAME, POLICY, applied, files, holds, running

__all__ = ["running"]
TOLERATE = POLICY["tolerate"]


@pytest.fixture
def timed(running: World) -> World:
    """The rollout, with a clock, as if there were history."""
    row = running.row()
    with running.store.writing() as w:
        w.save_rollout(replace(row, clock=as_text(clock())))
    return running


def test_what_is_learnt_stays_and_the_clock_begins_anew_under_the_new_word(timed: World) -> None:
    before = from_text(timed.row().clock or "")
    policy = {**POLICY, "tolerate": {**TOLERATE, "silent": {"at_most": "5%", "then": "hold"}}}
    found = applied(timed, *files(policy=policy), allow_wider=["canary"], reason="x").edited
    assert found is not None and CLOCK in found.begins and CLOCK in found.closes
    row = timed.row()
    after = from_text(row.clock or "")
    assert (after.tolerance, after.answer) == (0.05, Answer.HOLD)
    assert after.alpha == newcomer_alpha(0.05, row.state.newcomers)
    assert row.state.clock_from == minute_of(timed.now) + 1
    assert (after.devices, after.dark) == (before.devices, before.dark)
    for old, new in zip(before.of("rpi4"), after.of("rpi4"), strict=True):
        assert (new.minutes, new.usual) == (old.minutes, old.usual)
        assert (new.tolerated - 0.05) / 0.95 == pytest.approx((old.tolerated - 0.02) / 0.98)


def test_a_lower_tolerance_of_silence_leaves_the_clock_what_it_has_seen(timed: World) -> None:
    before = timed.row()
    silent = {"at_most": "1%", "then": "halt"}
    found = applied(timed, *files(policy={**POLICY, "tolerate": {**TOLERATE, "silent": silent}})).edited
    assert found is not None and CLOCK not in found.begins + found.closes
    assert (timed.row().clock, timed.row().state.clock_from) == (before.clock, 0)


def test_a_hold_that_becomes_a_halt_leaves_the_clock_what_it_has_seen(timed: World) -> None:
    """It goes on to hold with the alpha it has, and halts beside that by a part of the reserve."""

    def silent(then: str) -> dict[str, object]:
        return {**POLICY, "tolerate": {**TOLERATE, "silent": {"at_most": "2%", "then": then}}}

    applied(timed, *files(policy=silent("hold")), allow_wider=["canary"], reason="x")
    before, held = timed.row(), from_text(timed.row().clock or "")
    timed.later(timedelta(hours=1))
    found = applied(timed, *files(policy=silent("halt"))).edited
    assert found is not None and CLOCK not in found.begins + found.closes
    row = timed.row()
    after = from_text(row.clock or "")
    assert row.state.clock_from == before.state.clock_from
    assert after == replace(held, halts=newcomer_alpha(0.05, row.state.newcomers))
    applied(timed, *files(policy={**silent("halt"), "budget": {"failed": 20}}))
    assert from_text(timed.row().clock or "") == after
    holds(timed)


def test_another_edit_leaves_the_clock_alone(timed: World) -> None:
    before = timed.row()
    applied(timed, *files(policy={**POLICY, "budget": {"failed": 20}}))
    assert (timed.row().clock, timed.row().state.clock_from) == (before.clock, 0)


def test_what_it_finds_during_a_pause_is_not_edited_away_either(timed: World) -> None:
    """Nobody was told of it yet, because a pause is not held: resuming would. Nine that began are never heard of."""
    silent = {"at_most": "2%", "then": "hold"}
    policy = {**POLICY, "tolerate": {**TOLERATE, "silent": silent}}
    applied(timed, *files(policy=policy), allow_wider=["canary"], reason="x")
    timed.later(timedelta(minutes=2))
    key = timed.row().key
    with timed.store.reading() as r:
        pending = [each for each, update in r.list_updates(key, limit=100) if not update.update.resolved]
    for device in pending:
        timed.report(device, "installing")
    timed.rollouts.pause(NAME, by="bo")
    timed.later(timedelta(hours=20))
    assert timed.row().state.status is RolloutStatus.PAUSED
    for then in ("hold", "count"):
        looser = {**policy, "tolerate": {**TOLERATE, "silent": {"at_most": "60%", "then": then}}}
        with pytest.raises(Refused) as refused:
            applied(timed, *files(policy=looser), allow_wider=["canary"], reason="x")
        assert f"--accept {CLOCK}" in (refused.value.remedy or "")
    with pytest.raises(Refused, match=CLOCK):
        timed.rollouts.resume(NAME, by="bo")
    timed.rollouts.resume(NAME, by="bo", accept=[CLOCK], reason="they are in a tunnel")
    assert applied(timed, *files(policy=looser), allow_wider=["canary"], reason="x").written
    assert timed.row().state.status is RolloutStatus.RUNNING


def test_what_it_has_found_is_not_edited_away(timed: World) -> None:
    row = timed.row()
    standing = Standing(Reason(ReasonKind.SILENCE, "18 of 20 were not heard of."), timed.now, "policy")
    with timed.store.writing() as w:
        w.save_rollout(replace(row, state=replace(row.state, status=RolloutStatus.HELD, standing=standing)))
    policy = {**POLICY, "tolerate": {**TOLERATE, "silent": {"at_most": "50%", "then": "count"}}}
    with pytest.raises(Refused) as refused:
        applied(timed, *files(policy=policy), allow_wider=["canary"], reason="x")
    assert f"--accept {CLOCK}" in (refused.value.remedy or "")
    assert timed.row().clock == row.clock
    assert NAME in refused.value.message
