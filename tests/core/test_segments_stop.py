"""A segment that fails is excluded and named while the rest goes on; what is worse than that halts (RULES 4.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core import transitions
from orchestrator.core.decide import decide, safety
from orchestrator.core.decisions import ExcludeSegment, HaltRollout, HoldRollout
from orchestrator.core.evidence.clock import minute_of
from orchestrator.core.facts import BudgetFacts, Facts, MonitorFacts
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.policy import OnSegment
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus
from orchestrator.errors import WrongState
from tests.core.world import DAY_0, TOLERATE, fresh_state, monitor

FAILED = (OutcomeClass.FAILED,)
RULES = Rules((WaveRules("rest"),), tolerate=TOLERATE)
STATE = fresh_state(["rest"])
ORDERED = Reason(ReasonKind.ORDERED, "Segment excluded by ann: dark screens.")


def of(segment: str, *, crossed: bool = True, bad: int = 5, places: int = 40, devices: int = 500) -> MonitorFacts:
    return MonitorFacts(
        f"segment:{segment}/failed",
        FAILED,
        None,
        0.02,
        0.001,
        Answer.HALT,
        places,
        bad,
        0,
        crossed_at=(5, 38) if crossed else None,
        segment=segment,
        devices=devices,
    )


def facts(*monitors: MonitorFacts, budgets: tuple[BudgetFacts, ...] = (), devices: int = 10_000) -> Facts:
    return Facts(devices, (), monitors, budgets)


CM4, V41 = "hardware_id=cm4", "source_version=41"
CROSSED = monitor(crossed_at=(4, 30), bad=4, places=40)


def test_a_segment_that_crosses_is_excluded_named_and_why() -> None:
    stop = safety(STATE, facts(monitor(), of(CM4)), RULES)
    assert isinstance(stop, ExcludeSegment)
    assert (stop.segment, stop.devices, stop.reason.kind) == (CM4, 500, ReasonKind.SEGMENT)
    assert stop.reason.sentence.startswith(
        "Segment hardware_id=cm4 with its 500 devices is excluded; the rest goes on."
        " 5 failed within the first 38 places of hardware_id=cm4: 5 within the first"
    )


def test_of_several_the_one_with_the_most_evidence_goes_first() -> None:
    """All cm4 run version 41, among a thousand others: leave cm4 out, and the others may be fine."""
    stop = safety(STATE, facts(of(V41, bad=20, places=1_000, devices=4_000), of(CM4, bad=19)), RULES)
    assert isinstance(stop, ExcludeSegment) and stop.segment == CM4


def test_its_monitors_say_nothing_more_once_it_is_excluded() -> None:
    state = transitions.exclude(STATE, CM4, 500, ORDERED, DAY_0, "ann")
    assert safety(state, facts(of(CM4)), RULES) is None
    shy = replace(of(CM4, crossed=False), amber=True)
    assert all("amber" not in each.reason.sentence for each in decide(state, facts(shy), RULES, DAY_0).reasons)


def test_a_monitor_over_the_whole_that_crosses_with_it_halts_and_names_it() -> None:
    stop = safety(STATE, facts(CROSSED, of(CM4)), RULES)
    assert isinstance(stop, HaltRollout)
    assert stop.reason.kind is ReasonKind.MONITOR
    assert stop.reason.sentence.endswith("Segment hardware_id=cm4 carries the failures: 5 failed among 40 places.")


def test_a_segment_need_not_have_crossed_to_be_named_but_it_must_stand_out() -> None:
    amber = replace(of(CM4, crossed=False, bad=3, places=9), amber=True)
    named = safety(STATE, facts(CROSSED, amber, of(V41, crossed=False, bad=4, places=40)), RULES)
    assert named is not None and "Segment hardware_id=cm4 carries" in named.reason.sentence
    plain = safety(STATE, facts(CROSSED, of(V41, crossed=False, bad=4, places=40)), RULES)
    assert plain is not None and "Segment" not in plain.reason.sentence


def test_budgets_come_before_segments_and_halt_with_their_name() -> None:
    spent = BudgetFacts(FAILED, 5, 5)
    stop = safety(STATE, facts(of(CM4), budgets=(spent,)), RULES)
    assert isinstance(stop, HaltRollout) and stop.reason.kind is ReasonKind.BUDGET
    assert "Segment hardware_id=cm4 carries the failures" in stop.reason.sentence


def test_a_segment_comes_before_what_only_holds() -> None:
    holding = replace(CROSSED, monitor="rollout/silent", answer=Answer.HOLD)
    assert isinstance(safety(STATE, facts(holding, of(CM4)), RULES), ExcludeSegment)
    assert isinstance(safety(STATE, facts(holding), RULES), HoldRollout)


@pytest.mark.parametrize(("devices", "halts"), [(1_500, False), (1_501, True)])
def test_above_the_share_that_may_be_excluded_the_rollout_halts(devices: int, halts: bool) -> None:
    state = transitions.exclude(STATE, "hardware_id=imx8", 500, ORDERED, DAY_0, "ann")
    stop = safety(state, facts(of(CM4, devices=devices)), RULES)
    assert isinstance(stop, HaltRollout if halts else ExcludeSegment)
    if halts:
        assert stop.reason.kind is ReasonKind.SEGMENT
        assert stop.reason.sentence.endswith(
            "hardware_id=cm4 and hardware_id=imx8, excluded before, would be 2001 of 10000 devices, more than the"
            " 20 % that may be excluded."
        )


def test_the_policy_may_ask_for_a_halt() -> None:
    stop = safety(STATE, facts(of(CM4)), replace(RULES, on_segment=OnSegment.HALT))
    assert isinstance(stop, HaltRollout) and stop.reason.kind is ReasonKind.SEGMENT


def test_a_newcomer_counts_with_the_places_it_has() -> None:
    stop = safety(STATE, facts(of("hardware_id=new", devices=0, places=70)), RULES)
    assert isinstance(stop, ExcludeSegment) and stop.devices == 70


@pytest.mark.parametrize("status", [RolloutStatus.PAUSED, RolloutStatus.HELD, RolloutStatus.COMPLETED])
def test_it_is_excluded_whenever_a_crossing_would_halt(status: RolloutStatus) -> None:
    state = replace(STATE, status=status, completed=status is RolloutStatus.COMPLETED)
    (decision,) = decide(state, facts(of(CM4)), RULES, DAY_0).decisions
    assert isinstance(decision, ExcludeSegment)
    assert transitions.apply(state, decision, DAY_0).status is status


@pytest.mark.parametrize("status", [RolloutStatus.HALTED, RolloutStatus.CANCELLED])
def test_where_nothing_is_watched_nothing_is_excluded(status: RolloutStatus) -> None:
    assert safety(replace(STATE, status=status), facts(of(CM4)), RULES) is None


def test_the_record_has_who_when_and_why() -> None:
    state = transitions.exclude(STATE, CM4, 500, ORDERED, DAY_0, "ann")
    (left_out,) = state.excluded
    assert (left_out.segment, left_out.devices, left_out.standing.by) == (CM4, 500, "ann")
    assert left_out.standing.reason is ORDERED
    assert state.epoch == STATE.epoch + 1
    with pytest.raises(WrongState, match="excluded already"):
        transitions.exclude(state, CM4, 500, ORDERED, DAY_0, "ann")


def test_a_person_takes_it_back_in_as_a_new_attempt() -> None:
    state = transitions.include(transitions.exclude(STATE, CM4, 500, ORDERED, DAY_0, "ann"), CM4)
    assert (state.excluded, state.attempt, state.epoch) == ((), STATE.attempt + 1, STATE.epoch + 2)
    with pytest.raises(WrongState, match="is not excluded; excluded: none"):
        transitions.include(state, CM4)


@pytest.mark.parametrize("status", [RolloutStatus.DRAFT, RolloutStatus.SCHEDULED, RolloutStatus.CANCELLED])
def test_what_has_not_begun_or_has_ended_excludes_nothing(status: RolloutStatus) -> None:
    with pytest.raises(WrongState, match=f"is {status}"):
        transitions.exclude(replace(STATE, status=status), CM4, 500, ORDERED, DAY_0, "ann")


def test_the_clock_of_silence_goes_on_without_a_hardware_id_and_begins_anew_without_any_other_segment() -> None:
    """Its counters know hardware ids alone: of those under way nobody can tell which run version 41."""
    reason = Reason(ReasonKind.SEGMENT, "It fails.")
    by_name = transitions.exclude(STATE, CM4, 500, reason, DAY_0, "policy")
    assert by_name.clock_from == STATE.clock_from
    anew = transitions.exclude(STATE, V41, 500, reason, DAY_0, "policy")
    assert anew.clock_from == minute_of(DAY_0) + 1
