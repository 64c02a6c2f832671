"""Whole rollouts in which anything may happen in any order; what must hold is looked at after every step."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core.decisions import HaltRollout, OpenSlice, OpenWave, PassWave, Plan, StartBake
from orchestrator.core.facts import BudgetFacts
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass
from orchestrator.core.states import DONE_WAVE, WATCHED_ROLLOUT, Reason, ReasonKind, RolloutStatus, WaveStatus
from orchestrator.errors import WrongState
from tests.core.strategies import Dice, rules
from tests.core.world import Pool, World, fresh_state, monitor

R, W = RolloutStatus, WaveStatus
some = st.integers(1, 30)
STOPPED = (R.PAUSED, R.HELD, R.HALTED, R.CANCELLED)


class AnyRollout(RuleBasedStateMachine):
    """The machine ticks after each step, as the real one does; a person or a device acts in between."""

    @initialize(seed=st.integers(0, 2**32), waves=st.integers(1, 6), devices=st.integers(0, 120))
    def begins(self, seed: int, waves: int, devices: int) -> None:
        dice = Dice(seed)
        bound = rules(dice, waves)
        names = [wave.wave for wave in bound.waves]
        pools = {
            name: Pool(
                waiting=dice.choice([0, 3, devices]),
                away=dice.choice([0, 0, 9]),
                there=dice.choice([0, 4]),
                pairs=(pairs := dice.choice([0, 0, 4])),
                ready=dice.randint(0, pairs),
            )
            for name in names
        }
        limit = dice.choice([3, 8, 10_000])
        self.told = World(bound, fresh_state(names), pools, fleet=dice.choice([50, 10_000]))
        self.told.monitors = {
            "rollout/failed": monitor(next_limit=limit),
            "rollout/silent": monitor(Answer.HOLD, outcomes=(OutcomeClass.SILENT,), next_limit=limit),
        }
        self.told.budgets = (BudgetFacts((OutcomeClass.FAILED,), dice.choice([9, 50]), 0),)
        self.names = names
        self.tick()

    # ------------------------------------------------------------------------------------------ the machine

    def tick(self) -> None:
        """One tick, and what must hold of all that it decided."""
        before, decided = self.told.state, len(self.told.plans)
        self.rest = self.told.tick()
        after = self.told.state
        assert after.epoch >= before.epoch
        if before.status in STOPPED and after.status is not before.status:
            assert after.status is R.HALTED and before.status in (R.PAUSED, R.HELD)
        for old, new in zip(before.waves, after.waves, strict=True):
            if old.hold is not None and new.status is not W.FAILED:
                assert new.hold == old.hold and new.status is old.status
            if old.status in (W.PASSED, W.SKIPPED, W.CANCELLED, W.FAILED):
                assert new.status is old.status
        for _, plan in self.told.plans[decided:]:
            self.was_right(plan)

    def was_right(self, plan: Plan) -> None:
        for decision in plan.decisions:
            match decision:
                case OpenWave(wave=name):
                    assert all(self.told.status(each) in DONE_WAVE for each in self.told.rules.wave(name).after)
                case PassWave(wave=name, reason=reason) if reason.kind is ReasonKind.DOOR:
                    assert any(piece.confirmed for piece in self.told.pools[name].slices)
                case HaltRollout():
                    assert plan.decisions == (decision,)
                case OpenSlice() | StartBake():
                    assert self.told.frozen is None or isinstance(decision, StartBake)
                case _:
                    pass

    def may(self, *statuses: RolloutStatus) -> bool:
        return self.told.state.status in statuses

    # ------------------------------------------------------------------------------------------ devices

    @rule(data=st.data(), count=some)
    def devices_come_for_the_offer(self, data: st.DataObject, count: int) -> None:
        self.told.offer(data.draw(st.sampled_from(self.names)), count)
        self.tick()

    @rule(data=st.data(), count=some)
    def devices_confirm(self, data: st.DataObject, count: int) -> None:
        self.told.confirm(data.draw(st.sampled_from(self.names)), count)
        self.tick()

    @rule(data=st.data())
    def a_wave_goes_well(self, data: st.DataObject) -> None:
        self.told.go_well(data.draw(st.sampled_from(self.names)))
        self.tick()

    @rule(data=st.data(), count=some, confirmed=st.booleans(), outcome=st.sampled_from(list(OutcomeClass)))
    def devices_turn_bad(self, data: st.DataObject, count: int, confirmed: bool, outcome: Outcome) -> None:
        if outcome is not OutcomeClass.DOWNLOAD_FAILED:
            self.told.turn_bad(data.draw(st.sampled_from(self.names)), outcome, count, confirmed=confirmed)
        self.tick()

    @rule(data=st.data(), count=some)
    def devices_come_late(self, data: st.DataObject, count: int) -> None:
        self.told.come(data.draw(st.sampled_from(self.names)), count)
        self.tick()

    @rule(data=st.data())
    def a_delta_is_ready(self, data: st.DataObject) -> None:
        pool = self.told.pools[data.draw(st.sampled_from(self.names))]
        pool.ready = min(pool.pairs, pool.ready + 1)
        self.tick()

    # ------------------------------------------------------------------------------------------ time

    @rule(minutes=st.sampled_from([1, 15, 60, 720, 2_880, 12_000]))
    def time_passes(self, minutes: int) -> None:
        before = self.told.state.status
        self.told.pass_time(timedelta(minutes=minutes))
        self.tick()
        if before in STOPPED:
            assert self.told.state.status is before

    @rule()
    def the_machine_wakes_up(self) -> None:
        if self.rest.wake_at is not None:
            self.told.now = self.rest.wake_at
        self.tick()

    # ------------------------------------------------------------------------------------------ people

    @precondition(lambda self: self.may(R.RUNNING))
    @rule()
    def a_person_pauses(self) -> None:
        self.told.order(R.PAUSED)
        self.tick()

    @precondition(lambda self: self.may(R.PAUSED, R.HELD, R.HALTED))
    @rule()
    def a_person_accepts_and_resumes(self) -> None:
        halted, attempt = self.may(R.HALTED), self.told.state.attempt
        self.told.accept_and_resume()
        assert self.told.state.attempt == attempt + halted
        assert not any(wave.status is W.FAILED for wave in self.told.state.waves)
        self.tick()

    @precondition(lambda self: self.may(R.RUNNING, R.PAUSED, R.HELD, R.COMPLETED))
    @rule()
    def a_person_halts(self) -> None:
        self.told.halt()
        self.tick()

    @precondition(lambda self: any(wave.hold for wave in self.told.state.waves))
    @rule(data=st.data())
    def a_person_resumes_a_wave(self, data: st.DataObject) -> None:
        held = [wave.wave for wave in self.told.state.waves if wave.hold]
        self.told.resume_wave(data.draw(st.sampled_from(held)))
        self.tick()

    @rule(data=st.data())
    def a_person_promotes(self, data: st.DataObject) -> None:
        self.told.promote(data.draw(st.sampled_from(self.names)))
        self.tick()

    @precondition(lambda self: self.may(R.RUNNING, R.PAUSED, R.HELD))
    @rule(data=st.data(), status=st.sampled_from([W.PASSED, W.SKIPPED, W.CANCELLED]))
    def a_person_moves_a_wave(self, data: st.DataObject, status: WaveStatus) -> None:
        name = data.draw(st.sampled_from(self.names))
        before = self.told.state
        try:
            self.told.move(name, status)
        except WrongState:
            assert self.told.state == before
        self.tick()

    @precondition(lambda self: self.may(R.RUNNING, R.PAUSED, R.HELD, R.HALTED))
    @rule()
    def a_person_completes(self) -> None:
        self.told.accept()
        self.told.complete()
        self.tick()

    @rule()
    def somebody_freezes_or_thaws(self) -> None:
        self.told.frozen = None if self.told.frozen else Reason(ReasonKind.FROZEN, "Storm.")
        self.tick()

    # ------------------------------------------------------------------------------------------ at all times

    @invariant()
    def it_is_at_rest_and_knows_when_to_look_again(self) -> None:
        assert self.rest.wake_at is None or self.rest.wake_at > self.told.now
        assert self.told.look().decisions == ()

    @invariant()
    def every_wave_that_stands_still_says_why(self) -> None:
        if not self.may(R.RUNNING):
            assert self.rest.reasons
            return
        said = {each.wave for each in self.rest.reasons}
        for wave in self.told.state.waves:
            assert wave.wave in said or wave.status in (W.PASSED, W.SKIPPED), wave

    @invariant()
    def no_wave_is_open_before_its_turn(self) -> None:
        for wave in self.told.state.waves:
            if wave.status in (W.OPEN, W.BAKING, W.FAILED):
                assert all(self.told.status(each) in DONE_WAVE for each in self.told.rules.wave(wave.wave).after)

    @invariant()
    def at_risk_is_never_more_than_the_wave_has_had(self) -> None:
        if any(each.size is None for _, plan in self.told.plans for each in slices_of(plan)):
            return  # somebody, or its last wave, has made it generally available
        for pool in self.told.pools.values():
            given = 0
            for piece in pool.slices:
                assert not given or piece.members <= given
                given += piece.members

    @invariant()
    def a_halted_rollout_has_no_open_wave(self) -> None:
        if self.may(R.HALTED):
            assert not any(wave.status in (W.OPEN, W.BAKING) for wave in self.told.state.waves)

    @invariant()
    def a_watched_rollout_has_not_crossed(self) -> None:
        if self.told.state.status in WATCHED_ROLLOUT:
            halting = [m for m in self.told.monitors.values() if m.answer is Answer.HALT]
            assert not any(m.crossed_at and not m.accepted for m in halting)


def slices_of(plan: Plan) -> list[OpenSlice]:
    return [decision for decision in plan.decisions if isinstance(decision, OpenSlice)]


TestAnyRollout = AnyRollout.TestCase
TestAnyRollout.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
