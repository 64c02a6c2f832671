"""What holds of every decision, whatever the rollout, its facts and the hour (DESIGN 4, P1 to P8)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import FrameType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.core import transitions
from orchestrator.core.approvals import start_lacks, wave_lacks
from orchestrator.core.decide import LOOK_AGAIN, decide
from orchestrator.core.decisions import (
    CompleteRollout,
    Decision,
    EnsureDeltas,
    ExcludeSegment,
    HaltRollout,
    HoldRollout,
    OpenSlice,
    OpenWave,
    PassWave,
    Plan,
    PrepareWave,
    StartBake,
)
from orchestrator.core.evidence.budgets import chance_of_reaching
from orchestrator.core.evidence.clock import explained, reading
from orchestrator.core.facts import Facts, MonitorFacts, RolloutState, SliceFacts, WaveFacts
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.policy import OnSegment, Otherwise
from orchestrator.core.rules import Rules
from orchestrator.core.safety import heeded
from orchestrator.core.states import DONE_WAVE, ReasonKind, RolloutStatus, WaveStatus
from tests.core.strategies import Given, given_to_decide
from tests.core.world import DAY, HOUR

many = settings(max_examples=500)

RUNNING = (RolloutStatus.RUNNING,)
STANDING_STILL = (
    RolloutStatus.DRAFT,
    RolloutStatus.PAUSED,
    RolloutStatus.HELD,
    RolloutStatus.HALTED,
    RolloutStatus.CANCELLED,
)
running = given_to_decide(statuses=RUNNING, calm=True)
minutes = st.integers(1, 60 * 24 * 400)


def carried_out(state: RolloutState, facts: Facts, plan: Plan, now: datetime) -> tuple[RolloutState, Facts]:
    """The record, and the facts as the plan's own transaction leaves them: slices open, looks are only asked for."""
    opened = {decision.wave: decision for decision in plan.decisions if isinstance(decision, OpenSlice)}
    waves = []
    for wave in facts.waves:
        if wave.wave in opened:
            size, number = opened[wave.wave].size, len(wave.slices) + 1
            there = wave.waiting if wave.slices else 50
            members = there if size is None else min(size, there)
            piece = SliceFacts(number, now, members, there - members)
            wave = replace(wave, slices=(*wave.slices, piece), late=False)
        waves.append(wave)
    return transitions.apply_all(state, plan.decisions, now), replace(facts, waves=tuple(waves))


def at_rest(state: RolloutState, facts: Facts, rules: Rules, now: datetime) -> tuple[RolloutState, Facts, Plan]:
    """After one plan; a segment that is excluded is left out first, and each of them once."""
    plan = decide(state, facts, rules, now)
    for _ in range(len(facts.monitors)):
        if not any(isinstance(decision, ExcludeSegment) for decision in plan.decisions):
            break
        state, facts = carried_out(state, facts, plan, now)
        plan = decide(state, facts, rules, now)
    state, facts = carried_out(state, facts, plan, now)
    return state, facts, decide(state, facts, rules, now)


def named(decisions: tuple[Decision, ...], kind: type[OpenWave | OpenSlice | PassWave]) -> set[str]:
    return {decision.wave for decision in decisions if isinstance(decision, kind)}


def opened_by(plan: Plan) -> set[tuple[str, str]]:
    """Everything in a plan that lets a device be offered, or brings that nearer."""
    kinds = (OpenWave, OpenSlice, StartBake, PassWave, CompleteRollout)
    return {(type(d).__name__, getattr(d, "wave", "")) for d in plan.decisions if isinstance(d, kinds)}


# ------------------------------------------------------------------------------------------------- P1


@many
@given(given_to_decide())
def test_p1_every_valid_input_gives_a_plan_and_twice_the_same(given_: Given) -> None:
    state, facts, rules, now = given_
    plan = decide(state, facts, rules, now)
    assert plan == decide(state, facts, rules, now)
    assert plan.decisions or plan.reasons
    transitions.apply_all(state, plan.decisions, now)  # and every plan can be carried out


@many
@given(given_to_decide())
def test_every_reason_is_a_sentence(given_: Given) -> None:
    state, facts, rules, now = given_
    plan = decide(state, facts, rules, now)
    for reason in [each.reason for each in (*plan.decisions, *plan.reasons)]:
        assert reason.sentence[0].isupper() or reason.sentence[0].isdigit() or reason.sentence[0] == "w", reason
        assert reason.sentence.endswith("."), reason
        assert not re.search(r"  |\.\.|None(?! of)|Standing|datetime", reason.sentence), reason


# ------------------------------------------------------------------------------------------------- P2, P3


@many
@given(running)
def test_p2_no_wave_opens_unless_all_it_comes_after_are_done(given_: Given) -> None:
    state, facts, rules, now = given_
    plan = decide(state, facts, rules, now)
    passed = named(plan.decisions, PassWave)
    for name in named(plan.decisions, OpenWave):
        for before in rules.wave(name).after:
            assert state.wave(before).status in DONE_WAVE or before in passed


@many
@given(running)
def test_p3_no_wave_opens_while_a_required_delta_is_missing_and_the_policy_does_not_say_otherwise(
    given_: Given,
) -> None:
    state, facts, rules, now = given_
    plan = decide(state, facts, rules, now)
    for name in named(plan.decisions, OpenWave):
        bound = rules.wave(name)
        deltas = next(wave.deltas for wave in facts.waves if wave.wave == name)
        assert deltas is not None
        assert now - deltas.computed_at < LOOK_AGAIN
        prepared_at = state.wave(name).prepared_at or now
        in_time = now < prepared_at + bound.within
        if deltas.covered < bound.cover * deltas.devices:
            assert bound.otherwise is not Otherwise.HOLD
            assert not in_time


@many
@given(running)
def test_a_wave_that_awaits_promotion_or_its_window_neither_opens_nor_passes_by_itself(given_: Given) -> None:
    state, facts, rules, now = given_
    plan = decide(state, facts, rules, now)
    for name in named(plan.decisions, OpenWave):
        assert state.wave(name).promoted or not rules.wave(name).awaits_promotion
        assert facts.frozen is None
        assert wave_lacks(state, rules.wave(name)) is None
    if start_lacks(state, rules) is not None:
        assert not named(plan.decisions, OpenWave) | named(plan.decisions, OpenSlice)
    for name in named(plan.decisions, OpenWave) | named(plan.decisions, PassWave):
        window = rules.wave(name).window
        assert window is None or window.is_open(now)
    if facts.frozen is not None:
        assert not named(plan.decisions, OpenSlice)


# ------------------------------------------------------------------------------------------------- P4


@many
@given(given_to_decide(statuses=STANDING_STILL), minutes)
def test_p4_what_stands_still_is_left_only_by_a_person_however_long_it_takes(given_: Given, later: int) -> None:
    state, facts, rules, now = given_
    plan = decide(state, facts, rules, now + timedelta(minutes=later))
    assert all(isinstance(decision, HaltRollout | ExcludeSegment) for decision in plan.decisions)
    if state.status in (RolloutStatus.HALTED, RolloutStatus.CANCELLED, RolloutStatus.DRAFT):
        assert plan.decisions == ()


@many
@given(running, minutes)
def test_p4_a_held_wave_does_nothing_but_look_until_a_person_lets_it_go_on(given_: Given, later: int) -> None:
    state, facts, rules, now = given_
    plan = decide(state, facts, rules, now + timedelta(minutes=later))
    for wave in state.waves:
        if wave.hold is not None:
            about = [decision for decision in plan.decisions if getattr(decision, "wave", None) == wave.wave]
            assert all(isinstance(decision, EnsureDeltas) for decision in about)
            assert any(each.wave == wave.wave and each.reason == wave.hold.reason for each in plan.reasons)


# ------------------------------------------------------------------------------------------------- P5


def turned(facts: Facts, draw: Callable[[Any], Any], turn: Callable[[SliceFacts], Iterator[SliceFacts]]) -> Facts:
    """The same facts with one slice worse, where one can be."""
    worse = [
        (wave, number, piece) for wave in facts.waves for number, old in enumerate(wave.slices) for piece in turn(old)
    ]
    assume(worse)
    wave, number, piece = draw(st.sampled_from(worse))
    slices = (*wave.slices[:number], piece, *wave.slices[number + 1 :])
    return replace(facts, waves=tuple(replace(w, slices=slices) if w is wave else w for w in facts.waves))


def confirmed_turn_bad(piece: SliceFacts) -> Iterator[SliceFacts]:
    for outcome in OutcomeClass:
        for many in {1, piece.confirmed} - {0} if piece.confirmed else ():
            bad = {**piece.bad, outcome: piece.bad.get(outcome, 0) + many}
            yield replace(piece, confirmed=piece.confirmed - many, bad=bad)


def pending_turn_silent(piece: SliceFacts) -> Iterator[SliceFacts]:
    pending = piece.offered - piece.withdrawn - piece.left - piece.resolved
    for outcome in (OutcomeClass.SILENT, OutcomeClass.IGNORED):
        for many in {1, pending} - {0} if pending else ():
            bad = {**piece.bad, outcome: piece.bad.get(outcome, 0) + many}
            yield replace(piece, resolved=piece.resolved + many, bad=bad)


def assert_opens_no_more(worse: Plan, better: Plan) -> None:
    assert opened_by(worse) <= opened_by(better)


@many
@given(running, st.data())
def test_p5_the_same_outcomes_with_more_of_them_bad_never_open_more(given_: Given, data: st.DataObject) -> None:
    state, facts, rules, now = given_
    worse = turned(facts, data.draw, confirmed_turn_bad)
    assert_opens_no_more(decide(state, worse, rules, now), decide(state, facts, rules, now))


@many
@given(running, st.data())
def test_p5_silence_opens_no_slice_and_starts_no_bake(given_: Given, data: st.DataObject) -> None:
    """At a door silence is an outcome like any other (RULES 5.3), so no wave here is at its door."""
    state, facts, rules, now = given_
    state = replace(
        state,
        waves=tuple(replace(w, status=WaveStatus.OPEN) if w.status is WaveStatus.BAKING else w for w in state.waves),
    )
    rules = replace(rules, waves=tuple(replace(w, at_least=HOUR, at_most=DAY) for w in rules.waves))
    worse = turned(facts, data.draw, pending_turn_silent)
    assert_opens_no_more(decide(state, worse, rules, now), decide(state, facts, rules, now))


@many
@given(running, st.sampled_from([Answer.HALT, Answer.HOLD]))
def test_p5_a_crossing_opens_nothing_at_all(given_: Given, answer: Answer) -> None:
    state, facts, rules, now = given_
    crossed = MonitorFacts("rollout/failed", (OutcomeClass.FAILED,), None, 0.02, 0.02, answer, 50, 4, 52, (4, 30))
    plan = decide(state, replace(facts, monitors=(*facts.monitors, crossed)), rules, now)
    assert opened_by(plan) == set()


@many
@given(running, st.data())
def test_p5_reports_that_stay_out_never_open_more(given_: Given, data: st.DataObject) -> None:
    """Of devices that had reported by a checkpoint, one or all have not."""
    state, facts, rules, now = given_
    assume(facts.clock is not None and any(each.reported for each in facts.clock.seen))
    assert facts.clock is not None
    number = data.draw(st.sampled_from([n for n, each in enumerate(facts.clock.seen) if each.reported]))
    chosen = facts.clock.seen[number]
    many_ = data.draw(st.sampled_from(sorted({1, chosen.reported})))
    dark = chosen._replace(silent=chosen.silent + many_, reported=chosen.reported - many_)
    seen = (*facts.clock.seen[:number], dark, *facts.clock.seen[number + 1 :])
    worse = replace(facts, clock=replace(facts.clock, seen=seen))
    assert_opens_no_more(decide(state, worse, rules, now), decide(state, facts, rules, now))


# ------------------------------------------------------------------------------------------------- P7, P8


@many
@given(given_to_decide())
def test_p7_applying_a_plan_and_deciding_again_at_the_same_moment_decides_nothing(given_: Given) -> None:
    state, facts, rules, now = given_
    assert at_rest(state, facts, rules, now)[2].decisions == ()


@many
@given(given_to_decide(), st.data())
def test_p8_the_wake_up_lies_ahead_and_nothing_is_decided_before_it(given_: Given, data: st.DataObject) -> None:
    state, facts, rules, now = given_
    state, facts, plan = at_rest(state, facts, rules, now)
    assert plan.wake_at is None or plan.wake_at > now
    until = plan.wake_at or now + 300 * DAY
    room = (until - now) // timedelta(seconds=1) - 1
    for _ in range(3):
        moment = now + timedelta(seconds=data.draw(st.integers(0, max(0, room))))
        assert decide(state, facts, rules, moment).decisions == ()
    if plan.wake_at is not None:
        assert decide(state, facts, rules, plan.wake_at - timedelta(microseconds=1)).decisions == ()
    for each in plan.reasons:
        assert each.until is None or (each.until > now and plan.wake_at is not None and plan.wake_at <= each.until)


# ------------------------------------------------------------------------------------------------- safety


def too_silent(state: RolloutState, facts: Facts) -> bool:
    """The clock halts, without those that are excluded, and nothing else explains the silence."""
    clock = heeded(state, facts)
    if clock is None or clock.answer is not Answer.HALT or explained(clock):
        return False
    found = reading(clock)
    return found is not None and found.crossed


@many
@given(given_to_decide())
def test_safety_comes_alone_and_first(given_: Given) -> None:
    state, facts, rules, now = given_
    decisions = decide(state, facts, rules, now).decisions
    if any(isinstance(decision, HaltRollout | ExcludeSegment | HoldRollout) for decision in decisions):
        assert len(decisions) == 1
    watched = (RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.HELD, RolloutStatus.COMPLETED)
    crossed = [m for m in facts.monitors if m.crossed_at and not m.accepted and m.answer is Answer.HALT]
    halting = [m for m in crossed if m.segment is None]
    segments = [m for m in crossed if m.segment is not None and m.segment not in state.excluded_segments]
    used_up = [b for b in facts.budgets if b.reached and b.answer is Answer.HALT]
    must_stop = state.status in watched and bool(halting or used_up or segments or too_silent(state, facts))
    assert any(isinstance(decision, HaltRollout | ExcludeSegment) for decision in decisions) == must_stop
    if must_stop:
        whole = bool(halting or used_up or too_silent(state, facts))
        kind = ReasonKind.BUDGET if used_up else ReasonKind.MONITOR if halting else ReasonKind.SILENCE
        assert decisions[0].reason.kind is (kind if whole else ReasonKind.SEGMENT)
        if whole:
            assert isinstance(decisions[0], HaltRollout)


@many
@given(given_to_decide())
def test_no_more_of_the_fleet_is_excluded_by_itself_than_the_policy_says(given_: Given) -> None:
    state, facts, rules, now = given_
    for decision in decide(state, facts, rules, now).decisions:
        if isinstance(decision, ExcludeSegment):
            assert rules.on_segment is OnSegment.EXCLUDE
            after = transitions.apply(state, decision, now)
            assert sum(each.devices for each in after.excluded) <= rules.escalate_over * facts.devices
            assert after.excluded[:-1] == state.excluded
            assert (after.status, after.waves) == (state.status, state.waves)
            assert after.epoch > state.epoch


@many
@given(running)
def test_an_empty_or_unreported_wave_never_passes(given_: Given) -> None:
    state, facts, rules, now = given_
    counts = {wave.wave: wave for wave in facts.waves}
    for decision in decide(state, facts, rules, now).decisions:
        if isinstance(decision, PassWave):
            wave = counts[decision.wave]
            if decision.reason.kind is ReasonKind.ALREADY_THERE:
                assert wave.eligible == 0 and wave.already_there > 0
            else:
                assert decision.reason.kind is ReasonKind.DOOR
                since = state.wave(decision.wave).baking_at or now
                since = since if state.wave(decision.wave).status is WaveStatus.BAKING else now
                baked = [piece for piece in wave.slices if piece.opened_at <= since]
                confirmed = sum(piece.confirmed for piece in baked)
                assert confirmed > 0
                assert confirmed >= min(20, 0.8 * sum(max(0, piece.members - piece.excluded) for piece in baked))


@many
@given(running)
def test_a_slice_is_never_larger_than_all_the_wave_has_had(given_: Given) -> None:
    state, facts, rules, now = given_
    counts = {wave.wave: wave for wave in facts.waves}
    decisions = decide(state, facts, rules, now).decisions
    everybody = any(isinstance(decision, CompleteRollout) for decision in decisions)
    sizes = [decision for decision in decisions if isinstance(decision, OpenSlice)]
    assert len({decision.wave for decision in sizes}) == len(sizes), "two slices of one wave at once"
    for decision in sizes:
        wave = counts[decision.wave]
        if decision.size is None:
            assert everybody
        elif wave.reachable:
            assert decision.size <= wave.reachable
            last = wave.slices[-1]
            bad_news = last.bad.get(OutcomeClass.SILENT, 0) + last.bad.get(OutcomeClass.IGNORED, 0)
            reported = max(last.confirmed, last.resolved - bad_news)
            left = last.members - last.excluded
            assert 4 * reported >= 3 * left or 2 * last.confirmed >= left
        else:
            assert decision.size == rules.first_slice


# ------------------------------------------------------------------------------------------------- cost


def calls_of(given_: Given) -> int:
    """How many functions of ours one decision calls."""
    count = 0

    def seen(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call" and "orchestrator" in frame.f_code.co_filename

    sys.setprofile(seen)
    try:
        decide(*given_)
    finally:
        sys.setprofile(None)
    return count


def wide(waves: int, monitors: int, devices: int) -> Given:
    from tests.benchmarks.deciding import rollout  # the benchmark's own rollout

    return rollout(waves=waves, monitors=monitors, devices=devices)


@pytest.mark.parametrize("devices", [10_000, 1_000_000, 10_000_000])
def test_a_fleet_a_thousand_times_larger_costs_only_its_few_more_slices(devices: int) -> None:
    """A wave of a million devices has seventeen slices, one of a hundred four."""
    pieces = [sum(len(wave.slices) for wave in wide(10, 40, size)[1].waves) for size in (1_000, devices)]
    assert calls_of(wide(10, 40, devices)) - calls_of(wide(10, 40, 1_000)) <= 20 * (pieces[1] - pieces[0])


def test_the_cost_grows_with_waves_and_monitors_and_no_faster() -> None:
    small, large = calls_of(wide(10, 40, 10_000)), calls_of(wide(40, 160, 10_000))
    assert large < 4 * small * 1.3


def test_facts_hold_counts_and_never_a_list_of_devices() -> None:
    """Whatever is repeated in facts is repeated by wave, slice, monitor, budget or gate."""
    assert {f.name for f in Facts.__dataclass_fields__.values() if "tuple" in str(f.type)} == {
        "waves",
        "monitors",
        "budgets",
    }
    assert {f.name for f in WaveFacts.__dataclass_fields__.values() if "tuple" in str(f.type)} == {"slices", "gates"}
    assert not any("tuple" in str(f.type) for f in SliceFacts.__dataclass_fields__.values())


def test_deltas_are_looked_at_once_and_not_at_every_tick(  # a look asked for is under way until it answers
) -> None:
    from tests.core.strategies import OFFICE  # noqa: F401
    from tests.core.world import fresh_state

    rules = wide(1, 0, 1_000)[2]
    state = fresh_state([rules.waves[0].wave])
    now = state.standing.since
    facts = Facts(100, (WaveFacts(rules.waves[0].wave),))
    asked = 0
    for _ in range(60):
        plan = decide(state, facts, rules, now)
        asked += sum(isinstance(d, PrepareWave | EnsureDeltas) for d in plan.decisions)
        state = transitions.apply_all(state, plan.decisions, now)
        now += timedelta(minutes=1)
    assert asked == 4  # at first, and each quarter of an hour while nobody answers


@many
@given(st.integers(0, 3_000), st.floats(1e-6, 1 - 1e-6))
def test_a_class_with_no_more_bad_than_its_mean_never_keeps_a_door_shut(outcomes: int, tolerance: float) -> None:
    """The median of a binomial lies at its mean rounded up or down, so the tail from there is half or more."""
    assert chance_of_reaching(outcomes, tolerance, int(outcomes * tolerance)) >= 0.49
