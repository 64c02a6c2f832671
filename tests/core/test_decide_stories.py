"""Whole rollouts day by day, with the sentences that people read on the way.

Each story runs in ``tests/core/world.py``: the machine decides by ``decide``, people and devices as told.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import (
    CompleteRollout,
    EnsureDeltas,
    HoldWave,
    OpenSlice,
    OpenWave,
    PassWave,
    PrepareWave,
    StartBake,
    StartRollout,
)
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import FromUnknown, Otherwise
from orchestrator.core.rules import WaveRules
from orchestrator.core.states import ReasonKind, RolloutStatus, WaveStatus
from orchestrator.core.window import Window
from tests.core.world import DAY, DAY_0, HOUR, Pool, World, go_through, slices, world

FAILED, SILENT = OutcomeClass.FAILED, OutcomeClass.SILENT
WEEKDAYS = Window.parse({"days": "mon-thu", "hours": "09:00-16:00", "timezone": "Europe/Berlin"})


# ------------------------------------------------------------------------------------------------- a good release


def test_a_good_release_goes_through_five_waves_two_of_them_side_by_side() -> None:
    """Day 0: lab. Day 0.5: canary. Day 1: emea and americas together. Day 1.5: the rest. Day 2: generally available."""
    told = world(
        WaveRules("lab"),
        WaveRules("canary", after=("lab",)),
        WaveRules("emea", after=("canary",)),
        WaveRules("americas", after=("canary",)),
        WaveRules("rest", after=("emea", "americas")),
    )
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN
    assert told.decided(PrepareWave, "lab") == ["Its turn comes next: its devices are looked at and their deltas made."]
    assert told.decided(OpenWave, "lab") == ["No device of it needs a delta."]
    assert told.decided(OpenSlice, "lab") == ["The first slice: up to 20 devices."]
    # Its deltas are made while the wave before it runs.
    assert told.status("canary") is WaveStatus.PREPARING
    assert told.why("canary") == [(ReasonKind.AFTER, "It waits until lab has passed.")]
    assert told.why("rest") == [(ReasonKind.AFTER, "It waits until emea and americas open.")]
    assert told.why("lab") == [(ReasonKind.OFFERING, "0 of 20 devices have come for the offer; the bake begins at 18.")]

    told.offer("lab", 18)
    told.tick()
    assert told.decided(StartBake, "lab") == ["18 of 20 devices have the offer: the bake begins."]
    told.go_well("lab")
    assert told.why("lab") == [(ReasonKind.BAKE, "It has baked for 0 s of at least 12 h: 12 h more.")]
    told.pass_time(12 * HOUR)
    told.tick()
    assert told.decided(PassWave, "lab") == ["20 of 20 devices are confirmed, none is bad."]
    assert told.decided(OpenWave, "canary") == ["lab has passed. No device of it needs a delta."]
    assert told.why("rest") == [(ReasonKind.AFTER, "It waits until emea and americas open.")]

    go_through(told, "canary")
    assert {told.status("emea"), told.status("americas")} == {WaveStatus.OPEN}
    assert told.status("rest") is WaveStatus.PREPARING
    go_through(told, "emea")
    assert told.why("rest") == [(ReasonKind.AFTER, "It waits until americas has passed.")]
    go_through(told, "americas")
    assert told.decided(OpenWave, "rest") == ["emea and americas have passed. No device of it needs a delta."]
    go_through(told, "rest")
    assert told.decided(CompleteRollout) == ["Every wave has passed: the Target is generally available."]
    assert told.state.status is RolloutStatus.COMPLETED
    assert told.why() == [(ReasonKind.WAVES_DONE, "Every wave has passed: the Target is generally available.")]


def test_a_rollout_starts_at_its_time_and_prepares_its_first_wave_at_once() -> None:
    """Day 0: applied, then started for day 1. Day 1: it runs."""
    told = world(WaveRules("lab"))
    told.state = replace(told.state, status=RolloutStatus.DRAFT)
    assert told.why() == [(ReasonKind.APPLIED, "It waits to be started: `wave start`.")]
    assert told.look().wake_at is None
    told.state = replace(told.state, status=RolloutStatus.SCHEDULED, start_at=DAY_0 + DAY)
    assert told.why() == [(ReasonKind.START_AT, "It starts at 2026-03-03 09:00 UTC.")]
    assert told.tick().wake_at == DAY_0 + DAY
    told.pass_time(DAY)
    told.tick()
    assert told.decided(StartRollout) == ["Its start time has come."]
    assert told.status("lab") is WaveStatus.OPEN


# ------------------------------------------------------------------------------------------------- gates


def test_a_closed_window_keeps_a_wave_over_the_weekend() -> None:
    """Thursday 17:00: lab is ready, too late. Friday to Sunday: closed. Monday 09:00 in Berlin: it opens."""
    told = world(WaveRules("lab", window=WEEKDAYS))
    told.now = DAY_0 + 3 * DAY + 7 * HOUR
    told.tick()
    assert told.why("lab") == [
        (ReasonKind.WINDOW, "Its window is closed until 2026-03-09 08:00 UTC; only then can it open.")
    ]
    plan = told.tick()
    while told.status("lab") is WaveStatus.PREPARING:
        assert plan.wake_at is not None
        told.now = plan.wake_at
        plan = told.tick()
    assert told.now == DAY_0 + 7 * DAY - HOUR
    assert len(told.decided(EnsureDeltas, "lab")) > 300, "its devices are looked at again all the while"


def test_a_bake_that_ends_outside_the_window_passes_when_it_opens() -> None:
    """Monday 10:00: lab bakes. 22:00: it could pass. Tuesday 09:00 in Berlin: it passes."""
    told = world(WaveRules("lab", window=WEEKDAYS))
    told.tick()
    told.go_well("lab")
    told.tick()
    told.pass_time(12 * HOUR)
    told.tick()
    assert told.why("lab") == [
        (ReasonKind.WINDOW, "Its window is closed until 2026-03-03 08:00 UTC; only then can it pass.")
    ]
    told.pass_time(11 * HOUR)
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED


def test_a_wave_under_manual_promotion_waits_for_a_person() -> None:
    """Day 0.5: canary is ready and waits. Day 5: ann promotes it, and it opens."""
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",), awaits_promotion=True))
    told.tick()
    go_through(told, "lab")
    assert told.why("canary") == [(ReasonKind.AWAITING_PROMOTION, "It waits for a person: `wave promote`.")]
    told.pass_time(5 * DAY)
    told.tick()
    assert told.status("canary") is WaveStatus.PREPARING
    told.promote("canary")
    told.tick()
    assert told.status("canary") is WaveStatus.OPEN


def _with_deltas(otherwise: Otherwise, *, cover: float = 1.0, ready: int = 3) -> World:
    told = world(WaveRules("lab", otherwise=otherwise, cover=cover), devices=40)
    told.pools["lab"] = Pool(waiting=40, pairs=4, ready=ready)
    told.tick()
    return told


def test_late_deltas_hold_the_wave_until_a_person_grants_more_time() -> None:
    """Day 0: 3 of 4 deltas. 6 h: held. Day 2: they are there, it is held all the same; ann resumes, and it opens."""
    told = _with_deltas(Otherwise.HOLD)
    waits = "3 of 4 deltas are ready, for 30 of 40 devices; 100 % must be covered."
    assert told.why("lab") == [(ReasonKind.DELTAS, waits)]
    told.pass_time(6 * HOUR)
    told.tick()
    assert told.decided(HoldWave, "lab") == [f"{waits} The time for that is over: `wave resume` grants as long again."]
    told.pools["lab"].ready = 4
    told.pass_time(2 * DAY)
    told.tick()
    assert told.status("lab") is WaveStatus.PREPARING
    told.resume_wave("lab")
    told.tick()
    assert told.decided(OpenWave, "lab") == ["4 of 4 deltas are ready, for 40 of 40 devices."]


def test_a_resumed_wait_for_deltas_has_as_long_again() -> None:
    """6 h: held. Day 3: resumed without the deltas. Six hours later: held again, and not at once."""
    told = _with_deltas(Otherwise.HOLD)
    told.pass_time(3 * DAY)
    told.tick()
    told.resume_wave("lab")
    told.tick()
    assert told.state.wave("lab").hold is None
    told.pass_time(6 * HOUR)
    told.tick()
    hold = told.state.wave("lab").hold
    assert hold is not None and hold.reason.kind is ReasonKind.DELTAS_LATE and hold.by == "policy"


@pytest.mark.parametrize(
    ("otherwise", "rest"), [(Otherwise.FULL, "are served whole"), (Otherwise.SKIP, "wait for their delta")]
)
def test_late_deltas_open_the_wave_when_the_policy_says_so_and_not_before(otherwise: Otherwise, rest: str) -> None:
    """Day 0: 3 of 4 deltas. 6 h: the time is over, the wave opens and says what becomes of the rest."""
    told = _with_deltas(otherwise)
    told.pass_time(6 * HOUR - timedelta(minutes=1))
    told.tick()
    assert told.status("lab") is WaveStatus.PREPARING
    told.pass_time(timedelta(minutes=1))
    told.tick()
    assert told.decided(OpenWave, "lab") == [
        f"3 of 4 deltas are ready, for 30 of 40 devices; the time for the others is over: they {rest}."
    ]


def test_as_much_as_the_policy_asks_for_is_enough() -> None:
    told = _with_deltas(Otherwise.HOLD, cover=0.75)
    assert told.decided(OpenWave, "lab") == ["3 of 4 deltas are ready, for 30 of 40 devices; 75 % had to be covered."]


def test_what_becomes_of_unknown_commits_is_said() -> None:
    for from_unknown, fate in ((FromUnknown.FULL, "served whole"), (FromUnknown.SKIP, "left out")):
        told = world(WaveRules("lab", from_unknown=from_unknown))
        told.pools["lab"].unknown = 1
        told.tick()
        assert told.decided(OpenWave, "lab") == [
            f"No device of it needs a delta. 1 device with a commit that the repository does not have is {fate}."
        ]


def test_a_wave_does_not_open_on_an_old_look_at_its_devices() -> None:
    """Day 0: all covered, waiting for lab. Then the orchestrator is down for two days; meanwhile a delta is gone."""
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",)), devices=20)
    told.pools["canary"] = Pool(waiting=20, pairs=2, ready=2)
    told.tick()
    told.go_well("lab")
    told.tick()
    told.pools["canary"].ready = 1
    told.pass_time(2 * DAY)
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED
    assert told.status("canary") is WaveStatus.PREPARING


def test_an_empty_wave_holds_and_is_looked_at_again_when_a_person_resumes_it() -> None:
    """Day 0: nobody in lab: held. Day 1: three devices are put into it; held still. Ann resumes, and it opens."""
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",)), devices=0)
    told.tick()
    empty = (
        "No eligible device is in it: `wave resume` looks again when some have come, `wave skip` lets the next waves go"
        " on without it."
    )
    assert told.decided(HoldWave, "lab") == [empty]
    told.pass_time(DAY)
    told.pools["lab"].waiting = 3
    told.tick()
    assert told.status("lab") is WaveStatus.PREPARING
    assert told.why("lab") == [(ReasonKind.EMPTY, empty)]
    told.resume_wave("lab")
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN


def test_an_empty_wave_that_a_person_skips_lets_the_next_one_open() -> None:
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",)))
    told.pools["lab"].waiting = 0
    told.tick()
    told.move("lab", WaveStatus.SKIPPED)
    told.tick()
    told.tick()
    assert told.decided(OpenWave, "canary") == ["lab was skipped. No device of it needs a delta."]
    go_through(told, "canary")
    assert told.decided(CompleteRollout) == ["Every wave has passed or was skipped: the Target is generally available."]
    assert told.state.status is RolloutStatus.COMPLETED
    told.pools["lab"].waiting = 3
    told.tick()
    assert told.decided(OpenSlice, "lab"), "newcomers of a skipped wave are served once everybody is"


def test_a_wave_that_a_person_cancelled_is_not_served_by_the_completion_even_when_it_was_skipped() -> None:
    told = world(WaveRules("lab"), WaveRules("canary", after=("lab",)), devices=50)
    told.tick()
    told.move("lab", WaveStatus.CANCELLED)
    told.move("lab", WaveStatus.SKIPPED)
    go_through(told, "canary")
    assert told.state.status is RolloutStatus.COMPLETED
    told.tick()
    assert told.decided(OpenSlice, "lab") == ["The first slice: up to 20 devices."], "only what opened before"


def test_a_wave_that_runs_the_target_already_passes_within_its_gates() -> None:
    """Sunday: all of lab runs the Target, the window is closed. Monday: it passes, and canary opens."""
    told = world(WaveRules("lab", window=WEEKDAYS), WaveRules("canary", after=("lab",)))
    told.pools["lab"] = Pool(there=5)
    told.now = DAY_0 - DAY
    told.tick()
    assert told.status("lab") is WaveStatus.PREPARING
    told.now = DAY_0
    told.tick()
    assert told.decided(PassWave, "lab") == [
        "Nothing to do: 5 devices of it already run the Target or a newer version."
    ]
    assert told.status("canary") is WaveStatus.OPEN


def test_nobody_seen_lately_is_no_success() -> None:
    """Day 0: open, but its devices are away. Day 7: the bake begins without them. Day 9: it holds; it never passes."""
    told = world(WaveRules("lab"), devices=0)
    told.pools["lab"] = Pool(away=30)
    told.tick()
    assert told.why("lab") == [(ReasonKind.OFFERING, "None of its devices has been seen lately; it waits for them.")]
    told.pass_time(7 * DAY)
    told.tick()
    assert told.decided(StartBake, "lab") == [
        "0 of 0 devices have the offer after all the time it had: the bake begins."
    ]
    told.pass_time(2 * DAY)
    told.tick()
    assert told.decided(HoldWave, "lab") == [
        "Its bake is over and it could not pass: 0 have confirmed; 1 is needed: 1 more."
        " `wave resume` grants as long again."
    ]


# ------------------------------------------------------------------------------------------------- slices


def test_slices_grow_with_what_has_been_seen() -> None:
    """160 devices: 20, 20, 40 and 80, each when three quarters of the one before have reported."""
    told = world(WaveRules("rest"), devices=160)
    told.tick()
    sizes = []
    while told.status("rest") is WaveStatus.OPEN:
        sizes = [piece.members for piece in told.pools["rest"].slices]
        last = sizes[-1]
        told.offer("rest")
        told.confirm("rest", last * 3 // 4 - 1)
        told.tick()
        if len(sizes) < 4:
            assert len(told.pools["rest"].slices) == len(sizes), "one short of three quarters"
        told.go_well("rest")
        told.tick()
    assert sizes == [20, 20, 40, 80]
    assert told.decided(OpenSlice, "rest") == [
        "The first slice: up to 20 devices.",
        "The next slice: 20 of 20 devices have reported an outcome in the slice before.",
        "The next slice: 20 of 20 devices have reported an outcome in the slice before.",
        "The next slice: 40 of 40 devices have reported an outcome in the slice before.",
    ]


def test_silence_opens_no_slice() -> None:
    """Hour 0: 20 devices are offered it. Hour 20: 12 are found silent. Day 1: held, with 20 devices at risk."""
    told = world(WaveRules("rest"), devices=160)
    told.tick()
    told.offer("rest")
    told.confirm("rest", 8)
    told.pass_time(20 * HOUR)
    told.turn_bad("rest", SILENT, 12)
    told.tick()
    assert told.why("rest") == [
        (ReasonKind.SLICE, "8 of 20 devices have reported an outcome in slice 1; the next slice opens at 15.")
    ]
    told.pass_time(4 * HOUR)
    told.tick()
    assert told.decided(HoldWave, "rest") == [
        "Only 8 of 20 devices have reported an outcome in slice 1 and 8 are confirmed, after all the time they had:"
        " `wave resume` grants as much again."
    ]
    assert len(told.pools["rest"].slices) == 1


def test_half_of_a_slice_confirmed_in_its_time_lets_the_next_one_open() -> None:
    told = world(WaveRules("rest"), devices=160)
    told.tick()
    told.offer("rest")
    told.confirm("rest", 10)
    plan = told.tick()
    assert plan.wake_at == DAY_0 + DAY
    told.pass_time(DAY)
    told.tick()
    assert told.decided(OpenSlice, "rest")[-1] == (
        "The next slice: 10 of 20 devices are confirmed in the slice before, whose time is over."
    )


def test_a_resumed_slice_has_as_long_again_from_then_on() -> None:
    """Day 1: held. Day 4: ann resumes it; it is not held again before day 5. The next slice has one day, not two."""
    told = world(WaveRules("rest"), devices=160)
    told.tick()
    told.offer("rest")
    told.pass_time(DAY)
    told.tick()
    told.pass_time(3 * DAY)
    told.resume_wave("rest")
    assert told.tick().wake_at == told.now + DAY
    told.go_well("rest")
    told.tick()
    assert len(told.pools["rest"].slices) == 2
    told.pass_time(DAY)
    told.tick()
    assert told.state.wave("rest").hold is not None


# ------------------------------------------------------------------------------------------------- those who come later


def test_those_who_come_later_wait_for_what_has_been_seen_like_everybody() -> None:
    """Hour 0: 20 devices are offered a release that bricks. Hours 1 to 6: fifty more come each hour, in vain."""
    told = world(WaveRules("rest"))
    told.tick()
    told.offer("rest")
    for _ in range(6):
        told.pass_time(HOUR)
        told.come("rest", 50)
        told.tick()
    assert slices(told) == [20]
    assert (
        ReasonKind.SLICE,
        "Who came later waits: 0 of 20 devices have reported an outcome in slice 1; the next slice opens at 15.",
    ) in told.why("rest")


@pytest.mark.parametrize("status", [WaveStatus.BAKING, WaveStatus.PASSED, WaveStatus.OPEN])
def test_those_who_come_later_are_served_slice_by_slice(status: WaveStatus) -> None:
    """A wave of 20 is open, bakes or has passed; 100 more come: 20, 40 and 40 of them, each after the one before."""
    told = world(WaveRules("rest"), WaveRules("far", after=("rest",), awaits_promotion=True))
    told.tick()
    if status is not WaveStatus.OPEN:
        told.go_well("rest")
        told.tick()
    else:
        told.offer("rest", 17)
        told.confirm("rest")
    if status is WaveStatus.PASSED:
        told.pass_time(12 * HOUR)
        told.tick()
    assert told.status("rest") is status
    told.come("rest", 100)
    told.tick()
    assert slices(told) == [20, 20]
    assert told.decided(EnsureDeltas, "rest")[-1] == "Devices came since the last look: their deltas are made."
    told.go_well("rest")
    told.tick()
    told.go_well("rest")
    told.tick()
    assert slices(told) == [20, 20, 40, 40]


def test_those_who_come_during_the_bake_do_not_hold_it_up() -> None:
    """Hour 1 of the bake: 20 more devices get a place and never come. Hour 12: the wave passes by its own twenty."""
    told = world(WaveRules("rest"), WaveRules("far", after=("rest",), awaits_promotion=True))
    told.tick()
    told.go_well("rest")
    told.tick()
    told.pass_time(HOUR)
    told.come("rest", 20)
    told.tick()
    told.offer("rest")
    told.pass_time(11 * HOUR)
    told.tick()
    assert told.decided(PassWave, "rest") == ["20 of 20 devices are confirmed, none is bad."]


# ------------------------------------------------------------------------------------------------- the bake


def test_a_bake_without_enough_reports_holds_and_goes_on_when_resumed() -> None:
    """Hour 0: baking, 3 of 20 report nothing. Day 2: held. Day 4: resumed; not held again before day 6. They report."""
    told = world(WaveRules("lab"))
    told.tick()
    told.offer("lab")
    told.confirm("lab", 17)
    told.tick()
    told.pass_time(12 * HOUR)
    told.tick()
    assert told.why("lab") == [(ReasonKind.BAKE, "17 of 20 have reported; 95 % are needed: 2 more.")]
    told.pass_time(36 * HOUR)
    told.tick()
    assert told.decided(HoldWave, "lab") == [
        "Its bake is over and it could not pass: 17 of 20 have reported; 95 % are needed: 2 more."
        " `wave resume` grants as long again."
    ]
    told.pass_time(2 * DAY)
    told.go_well("lab")
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING, "held is left by a person, not by reports"
    told.resume_wave("lab")
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED


def test_a_resumed_bake_has_as_long_again_from_then_on() -> None:
    told = world(WaveRules("lab"))
    told.tick()
    told.offer("lab")
    told.tick()
    told.pass_time(10 * DAY)
    told.tick()
    told.resume_wave("lab")
    assert told.tick().wake_at == told.now + 2 * DAY
    assert told.state.wave("lab").hold is None


def test_offers_taken_back_do_not_count_as_given() -> None:
    """All 20 have the offer, 5 confirm; a halt withdraws 15. Resumed, the wave offers again before it bakes."""
    told = world(WaveRules("lab"))
    told.tick()
    told.offer("lab")
    told.confirm("lab", 5)
    told.halt()
    told.accept_and_resume()
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN
    assert told.why("lab") == [(ReasonKind.OFFERING, "5 of 20 devices have come for the offer; the bake begins at 18.")]
