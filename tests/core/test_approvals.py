"""Whether enough other people have approved, and that nothing opens before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.core.approvals import given, lower, resume_lacks, start_lacks, undone, wave_lacks
from orchestrator.core.approving import Approval, Deed
from orchestrator.core.document import InvalidDocument
from orchestrator.core.facts import RolloutState
from orchestrator.core.policy import Policy
from orchestrator.core.rules import Rules, WaveRules, by_itself
from orchestrator.core.states import ReasonKind, RolloutStatus, WaveStatus
from orchestrator.core.wave_policy import WaveOverride, policy_for
from tests.core.world import World, go_through, world

AT = datetime(2026, 5, 4, tzinfo=UTC)


def said(told: World, deed: Deed, by: str, wave: str | None = None, epoch: int = 0) -> None:
    more = Approval(deed, by, AT, "a-b", wave, epoch)
    told.state = replace(told.state, approvals=(*told.state.approvals, more))


def test_nothing_opens_before_the_rollout_is_approved_and_the_deltas_are_made_meanwhile() -> None:
    told = world(WaveRules("lab"), approve_start=2)
    told.state = replace(told.state, authors=("ann", "ben"))
    told.tick()
    assert told.status("lab") is WaveStatus.PREPARING
    for by in ("ann", "Ben", "cem", "CEM"):
        said(told, Deed.START, by)
    told.tick()
    ((kind, sentence),) = told.why("lab")
    assert kind is ReasonKind.AWAITING_APPROVAL
    assert sentence == (
        "It waits for approval by another person, who did not write or start it; cem did: `wave approve lmp-42`."
    )
    said(told, Deed.START, "dai")
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN


def test_a_wave_waits_for_its_own_approval() -> None:
    told = world(WaveRules("lab"), WaveRules("rest", after=("lab",), approvals=1))
    told.tick()
    said(told, Deed.START, "cem")
    said(told, Deed.OPEN, "cem", "lab")
    go_through(told, "lab")
    assert told.status("lab") is WaveStatus.PASSED
    assert told.why("rest")[0][0] is ReasonKind.AWAITING_APPROVAL
    said(told, Deed.OPEN, "cem", "rest")
    told.tick()
    assert told.status("rest") is WaveStatus.OPEN


def test_an_approval_that_an_edit_has_voided_opens_no_further_slice() -> None:
    told = world(WaveRules("lab"), devices=100, approve_start=1)
    said(told, Deed.START, "cem")
    told.tick()
    assert len(told.pools["lab"].slices) == 1
    told.state = replace(told.state, approvals=())
    for _ in range(3):
        told.go_well("lab")
        told.tick()
    assert len(told.pools["lab"].slices) == 1
    assert ReasonKind.AWAITING_APPROVAL in [kind for kind, _ in told.why("lab")]
    said(told, Deed.START, "cem")
    told.tick()
    assert len(told.pools["lab"].slices) == 2


def state(*approvals: Approval, authors: tuple[str, ...] = ("ann",), epoch: int = 7) -> RolloutState:
    return replace(world(WaveRules("lab")).state, approvals=approvals, authors=authors, epoch=epoch)


def test_going_on_is_approved_for_one_halt_and_by_others_than_who_orders_it() -> None:
    rules = Rules((WaveRules("lab"),), approve_resume=1)
    told = state(Approval(Deed.RESUME, "cem", AT, "a-b", epoch=7), Approval(Deed.RESUME, "dai", AT, "a-b", epoch=6))
    assert resume_lacks(told, rules, "ben") is None
    assert resume_lacks(told, rules, "CEM") is not None
    assert resume_lacks(replace(told, epoch=8), rules, "ben") is not None
    assert resume_lacks(told, Rules(rules.waves), "cem") is None


def test_what_was_approved_counts_for_that_alone() -> None:
    told = state(Approval(Deed.OPEN, "cem", AT, "a-b", "lab"), Approval(Deed.START, "ann", AT, "a-b"))
    assert given(told, Deed.OPEN, "lab") == ("cem",)
    assert given(told, Deed.OPEN, "rest") == given(told, Deed.START) == given(told, Deed.RESUME) == ()
    assert start_lacks(told, Rules(())) is None
    assert start_lacks(told, Rules((), approve_start=1)) is not None
    assert wave_lacks(told, WaveRules("lab", approvals=1)) is None
    assert wave_lacks(told, WaveRules("lab", approvals=2)) is not None


def test_an_edit_that_asks_for_less_is_seen_wherever_it_does() -> None:
    before = Rules((WaveRules("lab", approvals=2),), approve_start=1, approve_open=1, approve_resume=1)
    assert list(lower(before, before, ["lab"])) == []
    assert len(list(lower(before, by_itself(before), ["lab"]))) == 4
    assert list(lower(by_itself(before), before, ["lab"])) == []
    gone = replace(before, waves=(WaveRules("rest", approvals=1),))
    assert list(lower(before, gone, ["lab"])) == []


def test_a_wave_may_ask_for_more_than_the_policy_and_not_for_less() -> None:
    policy = Policy.parse({"policy": "p", "approve": {"open": 1}})
    more = WaveOverride.parse({"approve": {"open": 2}})
    assert policy_for(policy, more).approvals.open == 2
    assert policy_for(policy, WaveOverride.parse({"approve": {}})).approvals.open == 1
    with pytest.raises(InvalidDocument, match="a wave may only ask for more"):
        policy_for(policy, WaveOverride.parse({"approve": {"open": 0}}))


@pytest.mark.parametrize("value", [-1, 10, "1", True, 1.5, None])
def test_a_number_of_people_is_a_small_one(value: object) -> None:
    with pytest.raises(InvalidDocument):
        Policy.parse({"policy": "p", "approve": {"start": value}})


def test_a_word_for_going_on_is_undone_only_while_that_halt_lasts() -> None:
    told = world(WaveRules("lab"), approve_resume=1)
    said(told, Deed.RESUME, "cem", epoch=told.state.epoch)
    halted = replace(told.state, status=RolloutStatus.HALTED)
    assert [each.deed for each in undone(halted, told.rules, "CEM")] == [Deed.RESUME]
    assert undone(told.state, told.rules, "cem") == (), "it runs"
    assert undone(replace(halted, epoch=halted.epoch + 1), told.rules, "cem") == (), "another halt"
    assert undone(halted, told.rules, "dai") == ()
    assert undone(replace(halted, status=RolloutStatus.CANCELLED), told.rules, "cem") == ()


def test_a_wave_that_was_open_before_it_was_cancelled_has_been_opened() -> None:
    told = world(WaveRules("lab"), approve_start=1)
    said(told, Deed.START, "cem")
    told.tick()
    gone = replace(told.state, waves=tuple(replace(each, status=WaveStatus.CANCELLED) for each in told.state.waves))
    assert undone(gone, told.rules, "cem") == ()
    never = replace(gone, waves=tuple(replace(each, opened_at=None) for each in gone.waves))
    assert len(undone(never, told.rules, "cem")) == 1


def test_a_word_for_the_rollout_is_undone_until_it_has_opened_something_or_while_it_lacks_others() -> None:
    told = world(WaveRules("lab"), approve_start=1)
    said(told, Deed.START, "cem")
    assert len(undone(told.state, told.rules, "cem")) == 1
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN
    assert undone(told.state, told.rules, "cem") == ()
    assert len(undone(told.state, replace(told.rules, approve_start=2), "cem")) == 1, "asked again, and not enough"
