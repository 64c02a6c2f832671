"""What stops a rollout, what people say to it, and the sentences about both.

Each story runs in ``tests/core/world.py``: the machine decides by ``decide``, people and devices as told.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.core.decisions import (
    EnsureDeltas,
    HaltRollout,
    HoldRollout,
    OpenSlice,
)
from orchestrator.core.evidence.clock import Checkpoint, Clock, ClockFacts, Learnt, Seen, Untouched
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.facts import BudgetFacts, Facts
from orchestrator.core.outcomes import Answer, OutcomeClass, Tolerance
from orchestrator.core.reasons import clock_plan, clock_state, ordinal, words
from orchestrator.core.rules import WaveRules
from orchestrator.core.safety import clock_stop
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, WaveStatus
from orchestrator.core.window import Window
from orchestrator.errors import WrongState
from tests.core.world import DAY, fresh_state, go_through, monitor, slices, world

FAILED, SILENT = OutcomeClass.FAILED, OutcomeClass.SILENT
WEEKDAYS = Window.parse({"days": "mon-thu", "hours": "09:00-16:00", "timezone": "Europe/Berlin"})


# ------------------------------------------------------------------------------------------------- what stops it


def test_a_monitor_that_crosses_halts_and_an_accepted_resume_opens_the_wave_again() -> None:
    """Hour 2: the fifth device fails: halted. A week passes: halted. Ann accepts and resumes: lab is open again."""
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",)), devices=160)
    told.monitors = {"rollout/failed": monitor(tolerance=0.02, alpha=0.05, next_limit=4)}
    told.tick()
    told.offer("lab")
    told.turn_bad("lab", FAILED, 4)
    told.tick()
    sentence = (
        "4 failed within the first 4 places of the rollout: 4 within the first 33 are more than a tolerance of 2 %"
        " explains."
    )
    assert told.decided(HaltRollout) == [sentence]
    assert told.state.status is RolloutStatus.HALTED
    assert told.status("lab") is WaveStatus.FAILED
    assert told.why() == [(ReasonKind.MONITOR, sentence)]
    for _ in range(7):
        told.pass_time(DAY)
        assert told.tick().decisions == ()
    told.accept_and_resume()
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN
    assert told.state.attempt == 2
    assert told.state.wave("lab").hold is None, "its slice has all its time anew"


def test_a_class_that_holds_holds() -> None:
    told = world(WaveRules("lab"), devices=160)
    told.monitors = {"rollout/silent": monitor(Answer.HOLD, outcomes=(SILENT,), tolerance=0.05, next_limit=4)}
    told.tick()
    told.offer("lab")
    told.turn_bad("lab", SILENT, 4)
    told.tick()
    assert told.decided(HoldRollout) == [
        "4 silent within the first 4 places of the rollout: 4 within the first 14 are more than a tolerance of 5 %"
        " explains."
    ]
    assert told.state.status is RolloutStatus.HELD
    assert told.status("lab") is WaveStatus.OPEN
    assert told.state.standing.by == "policy"


def test_a_budget_is_checked_before_the_monitors() -> None:
    told = world(WaveRules("lab"), devices=160)
    told.monitors = {"rollout/failed": monitor(next_limit=3)}
    told.budgets = (BudgetFacts((FAILED,), 3, 0),)
    told.tick()
    told.offer("lab")
    told.turn_bad("lab", FAILED, 3)
    told.tick()
    assert told.decided(HaltRollout) == ["3 devices counted as failed: the budget of 3 is used up."]
    told.accept_and_resume()
    told.offer("lab")
    told.turn_bad("lab", FAILED, 3)
    told.tick()
    assert told.decided(HaltRollout)[-1] == (
        "6 devices counted as failed, 3 of them accepted before: the budget of 3 is used up."
    )


def test_a_halt_goes_before_a_hold_and_reaches_what_is_held_or_paused() -> None:
    for order in (RolloutStatus.PAUSED, None):
        told = world(WaveRules("lab"))
        told.tick()
        if order is not None:
            told.order(order)
        else:
            told.monitors = {"hold": monitor(Answer.HOLD, crossed_at=(4, 20), bad=4)}
            told.tick()
            assert told.state.status is RolloutStatus.HELD
        told.monitors["halt"] = monitor(Answer.HALT, crossed_at=(4, 20), bad=4)
        told.tick()
        assert told.state.status is RolloutStatus.HALTED


def test_a_pause_is_not_ended_by_a_hold() -> None:
    told = world(WaveRules("lab"))
    told.tick()
    told.order(RolloutStatus.PAUSED)
    told.monitors = {"hold": monitor(Answer.HOLD, crossed_at=(4, 20), bad=4)}
    told.tick()
    assert told.why() == [(ReasonKind.ORDERED, "paused by ann.")]
    told.order(RolloutStatus.RUNNING)
    told.tick()
    assert told.state.status is RolloutStatus.HELD


def test_in_a_small_fleet_the_first_bad_device_of_a_small_wave_holds() -> None:
    """Fifty devices, a lab of five: one fails, held. Accepted; a second one fails: held again, and said so."""
    told = world(WaveRules("lab"), devices=5, fleet=50)
    told.tick()
    told.offer("lab")
    told.turn_bad("lab", FAILED, 1)
    told.tick()
    assert told.decided(HoldRollout) == [
        "The first bad device in lab, which began with fewer than 10: a fleet this small cannot tell chance from cause."
    ]
    told.accept_and_resume()
    told.tick()
    assert told.state.status is RolloutStatus.RUNNING
    told.turn_bad("lab", FAILED, 1)
    told.tick()
    assert told.decided(HoldRollout)[-1] == (
        "One more bad device, after 1 accepted, in lab, which began with fewer than 10: a fleet this small"
        " cannot tell chance from cause."
    )


def test_a_small_wave_that_grows_does_not_hide_the_next_small_one() -> None:
    """Two bad in lab are accepted; lab grows to fifteen. One bad in canary is news all the same."""
    told = world(WaveRules("lab"), WaveRules("canary"), devices=6, fleet=50)
    told.tick()
    told.offer("lab")
    told.turn_bad("lab", FAILED, 2)
    told.tick()
    told.accept_and_resume()
    told.confirm("lab")
    told.come("lab", 9)
    for _ in range(3):
        told.tick()
        told.go_well("lab")
    assert sum(slices(told, "lab")) == 15
    told.offer("canary")
    told.turn_bad("canary", FAILED, 1)
    told.tick()
    assert told.state.status is RolloutStatus.HELD


def test_a_frozen_house_opens_nothing() -> None:
    told = world(WaveRules("lab"))
    told.frozen = Reason(ReasonKind.FROZEN, "The network is down.")
    told.tick()
    assert told.why("lab") == [(ReasonKind.FROZEN, "Everything is frozen: The network is down.")]
    told.frozen = None
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN
    told.frozen = Reason(ReasonKind.FROZEN, "The network is down.")
    told.offer("lab")
    told.come("lab", 5)
    assert told.tick().decisions == ()
    assert slices(told, "lab") == [20]


def test_a_completed_rollout_still_halts_and_holds() -> None:
    for answer, status in ((Answer.HALT, RolloutStatus.HALTED), (Answer.HOLD, RolloutStatus.HELD)):
        told = world(WaveRules("lab"))
        told.tick()
        go_through(told, "lab")
        assert told.state.status is RolloutStatus.COMPLETED
        told.monitors = {"late": monitor(answer, crossed_at=(4, 20), bad=4)}
        told.tick()
        assert told.state.status is status
        told.accept_and_resume()
        told.tick()
        assert told.state.status is RolloutStatus.COMPLETED


# ------------------------------------------------------------------------------------------------- people's words


def test_completed_early_serves_all_who_are_left_at_once() -> None:
    """Lab is open with 20 of 100 devices; ann completes the rollout: all the others may come, canary's too."""
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",)), WaveRules("out", after=("lab",)), devices=100)
    told.tick()
    told.move("out", WaveStatus.CANCELLED)
    told.complete()
    told.tick()
    assert slices(told, "lab") == [20, 80]
    assert slices(told, "canary") == [100]
    assert slices(told, "out") == []
    assert told.decided(OpenSlice, "canary") == ["The rollout is completed: all that are left may come."]
    told.come("canary", 7)
    told.tick()
    assert slices(told, "canary") == [100, 7]
    assert told.state.status is RolloutStatus.COMPLETED


def test_a_wave_that_a_person_lets_pass_before_its_turn_is_served_slice_by_slice() -> None:
    told = world(
        WaveRules("lab"), WaveRules("canary", after=("lab",)), WaveRules("rest", after=("canary",)), devices=100
    )
    told.tick()
    told.move("rest", WaveStatus.PASSED)
    told.tick()
    assert told.decided(EnsureDeltas, "rest") == ["It passed before its turn: its devices are looked at."]
    assert told.decided(OpenSlice, "rest") == ["The first slice: it passed without having opened."]
    assert slices(told, "rest") == [20]


def test_what_comes_after_a_cancelled_wave_waits_until_it_is_skipped() -> None:
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",)), WaveRules("rest", after=("canary",)))
    told.tick()
    go_through(told, "lab")
    told.move("canary", WaveStatus.CANCELLED)
    told.tick()
    assert told.why("canary") == [(ReasonKind.ORDERED, "cancelled by ann.")]
    assert told.why("rest") == [
        (ReasonKind.CANCELLED_BEFORE, "canary was cancelled: `wave skip` lets what comes after it go on.")
    ]
    told.pass_time(30 * DAY)
    told.tick()
    assert told.status("rest") in (WaveStatus.PENDING, WaveStatus.PREPARING)
    told.move("canary", WaveStatus.SKIPPED)
    told.tick()
    assert told.status("rest") is WaveStatus.OPEN


def test_a_person_who_halts_stands_beside_the_waves_that_failed_with_it() -> None:
    told = world(WaveRules("lab"))
    told.tick()
    told.halt()
    assert told.state.wave("lab").standing.by == "ann"
    assert told.state.standing.reason.sentence == "Halted by ann."
    told.complete()
    assert told.state.attempt == 2


def test_a_wave_that_is_not_held_cannot_be_resumed() -> None:
    told = world(WaveRules("lab"))
    told.tick()
    with pytest.raises(WrongState, match=r"Wave lab is not held; it is open."):
        told.resume_wave("lab")


# ------------------------------------------------------------------------------------------------- silence


def silence(answer: Answer = Answer.HALT, *, silent: int = 18, untouched: Untouched | None = None) -> ClockFacts:
    """20 devices have come to their look at 12 minutes; of earlier releases one in twenty was silent then."""
    seen = (Seen("rpi4", 1, Checkpoint(12, 0.05, 0.2), silent, 20 - silent),)
    return ClockFacts(0.02, 0.009, answer, 2_000, 1, seen, untouched=untouched)


def test_silence_above_the_clock_halts_or_holds_as_the_policy_says_and_stays_so() -> None:
    told = world(WaveRules("lab"), devices=300)
    told.tick()
    told.clock = silence()
    told.tick()
    (sentence,) = told.decided(HaltRollout)
    assert sentence == (
        "18 of 20 devices were not heard of 12 min after installing began; in earlier releases 1 of 20 (limit 12)."
        " No untouched device was due in that time, so nothing else explains it."
    )
    assert told.why() == [(ReasonKind.SILENCE, sentence)]
    told = world(WaveRules("lab"), devices=300)
    told.tick()
    told.clock = silence(Answer.HOLD)
    told.tick()
    assert told.state.status is RolloutStatus.HELD
    told.clock = silence(Answer.COUNT)
    assert clock_stop(told.state, told.facts) is None


def test_a_clock_that_held_and_is_to_halt_does_both_by_all_that_it_has_seen() -> None:
    """It holds as before; with so much more evidence as its part of the reserve asks for it halts."""
    edited = replace(silence(Answer.HOLD, silent=11), halts=1e-6)
    limits = [clock_stop(fresh_state(["lab"]), Facts(300, (), clock=edited)) for edited in _more_silent(edited)]
    assert [type(each).__name__ for each in limits] == ["NoneType", "HoldRollout", "HoldRollout", "HaltRollout"]
    told = world(WaveRules("lab"), devices=300)
    told.tick()
    for told.clock in _more_silent(edited):
        told.tick()
    assert told.state.status is RolloutStatus.HALTED, "also while it is held for its silence"


def _more_silent(clock: ClockFacts) -> list[ClockFacts]:
    """With 11, 12, 15 and 19 of 20."""
    (seen,) = clock.seen
    return [replace(clock, seen=(seen._replace(silent=many, reported=20 - many),)) for many in (11, 12, 15, 19)]


def test_darkness_of_the_untouched_holds_and_is_not_held_against_the_release_when_it_is_over() -> None:
    """Nineteen in twenty of the untouched are dark: held. Then they are back: what was missed halts nothing."""
    told = world(WaveRules("lab"), devices=300)
    told.tick()
    told.clock = silence(untouched=Untouched(200, 190, 12))
    told.tick()
    (sentence,) = told.decided(HoldRollout)
    assert "But 190 of 200 devices that were due and not updated have gone dark in the same 12 min" in sentence
    assert told.why() == [(ReasonKind.ENVIRONMENT, sentence)]
    told.clock = silence(untouched=Untouched(200, 0, 12))
    assert told.tick().decisions == ()
    assert told.state.status is RolloutStatus.HELD


def test_it_says_why_the_untouched_explain_nothing() -> None:
    few = clock_stop(fresh_state(["lab"]), Facts(300, (), clock=silence(untouched=Untouched(7, 7, 12))))
    some = clock_stop(fresh_state(["lab"]), Facts(300, (), clock=silence(untouched=Untouched(200, 12, 12))))
    assert isinstance(few, HaltRollout) and isinstance(some, HaltRollout)
    assert few.reason.sentence.endswith("Of 7 untouched devices that were due, 7 went dark: too few devices to tell.")
    assert some.reason.sentence.endswith("devices that were due, 12 went dark: that does not explain it.")


def test_the_clock_reads_well() -> None:
    assert clock_state(silence(silent=3)) == (
        "3 of 20 devices were not heard of 12 min after installing began; in earlier releases 1 of 20; 12 halts; learnt"
        " from 2000 devices of earlier releases"
    )
    nobody = replace(silence(), seen=())
    assert clock_state(nobody).startswith("no device has come to its first look yet; learnt from")
    holds = Tolerance(0.05, Answer.HOLD)
    assert clock_plan(None, holds, DAY, small=False) == (
        "Silence: no history: only the hard stop speaks, silent_after (1d); above 5 % it holds."
    )
    assert "first time only after 10 min: only the hard stop" in clock_plan(None, holds, DAY / 1440, small=False)
    learnt = Learnt(400, (Checkpoint(12, 0.1, 0.2), Checkpoint(20, 0.1, 0.2)))
    told = Clock(0.02, 0.009, Answer.HOLD, {"": learnt, "rpi4": replace(learnt, devices=250)}, Darkness(0.05, 0.1))
    assert clock_plan(told, Tolerance(0.069, Answer.HOLD), DAY, small=False) == (
        "Silence: learnt from 400 devices of earlier releases (rpi4 250); looked at 12, 20 min after installing began,"
        " it holds. The hard stop is silent_after (1d): up to 5 % of those stayed dark, 2 % more are tolerated;"
        " above 6.9 % it holds."
    )


# ------------------------------------------------------------------------------------------------- words


def test_words_read_well() -> None:
    assert words((FAILED, OutcomeClass.ROLLED_BACK, SILENT)) == "failed, rolled back or silent"
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111)] == (
        "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 101st 111th".split()
    )


def test_epochs_grow_so_that_no_offer_prepared_before_can_be_given_after() -> None:
    told = world(WaveRules("lab"))
    epochs = [told.state.epoch]
    for step in (
        lambda: told.order(RolloutStatus.PAUSED),
        lambda: told.order(RolloutStatus.RUNNING),
        told.halt,
        told.accept_and_resume,
        told.complete,
    ):
        step()
        epochs.append(told.state.epoch)
    assert all(before < after for before, after in pairwise(epochs))
