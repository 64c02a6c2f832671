"""The early door and amber, told as stories: what lets a rollout go faster, and what slows it down.

Each story runs in ``tests/core/world.py``: the machine decides by ``decide``, people and devices as told.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import HoldWave, OpenSlice, OpenWave, PassWave, StartBake
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.core.reasons import amber_held_sentence, amber_sentence
from orchestrator.core.rules import WaveRules
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, WaveStatus
from orchestrator.core.window import Window
from tests.core.world import DAY, HOUR, World, monitor, slices, world

FAILED, SILENT = OutcomeClass.FAILED, OutcomeClass.SILENT
AMBER = monitor(bad=2, amber=True, next_limit=5)
CALM = replace(AMBER, amber=False)

# ------------------------------------------------------------------------------------------------- the early door


def baking(devices: int, *, window: Window | None = None) -> World:
    """A wave whose devices all have the offer, none has confirmed yet, and whose bake has begun."""
    told = world(WaveRules("lab", early=True, window=window), devices=devices, first_slice=devices)
    told.tick()
    told.offer("lab")
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING
    return told


def test_a_wave_that_proves_itself_passes_long_before_its_time() -> None:
    """The tolerances of what halts sum to 3 %. 110 of 200 devices confirm, which would prove it were there no others:
    the other 90 count as failed. All but one: not yet. The last one: passed, twelve hours early."""
    told = baking(200)
    told.confirm("lab", 110)
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING
    assert told.why("lab")[-1][0] is ReasonKind.BAKE
    assert "It passes earlier once 200 of its 200 places are confirmed; 110 are." in told.why("lab")[-1][1]
    told.confirm("lab", 89)
    assert told.tick().decisions == ()
    told.confirm("lab", 1)
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED
    said = "200 of 200 devices are confirmed, none is bad. Early: 200 confirmed among its first 200 places prove, at"
    assert told.decided(PassWave, "lab") == [f"{said} 95 %, that fewer than 3 % fail."]


@pytest.mark.parametrize("outcome", [SILENT, OutcomeClass.IGNORED, FAILED])
def test_silence_and_failure_keep_the_early_door_shut_and_the_ordinary_one_opens_in_its_time(
    outcome: Outcome,
) -> None:
    told = baking(200)
    told.confirm("lab", 199)
    told.turn_bad("lab", outcome, 1)
    told.tick()
    told.pass_time(12 * HOUR - timedelta(minutes=1))
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING
    told.pass_time(timedelta(minutes=1))
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED
    assert "Early" not in told.decided(PassWave, "lab")[0]


def test_a_wave_too_small_to_prove_anything_says_so_and_bakes_as_ever() -> None:
    told = baking(20)
    told.confirm("lab")
    told.tick()
    why = "It cannot pass earlier: to prove that fewer than 3 % fail takes 110 devices without a failure."
    assert told.why("lab")[-1][1].endswith(why)
    told.pass_time(12 * HOUR)
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED


def test_the_first_slices_may_prove_it_while_later_ones_still_report() -> None:
    """The prefix that says most decides: 320 places, of which the first 160 have all confirmed."""
    told = world(WaveRules("lab", early=True), devices=320)
    told.tick()
    while told.status("lab") is WaveStatus.OPEN:
        told.offer("lab")
        if sum(slices(told, "lab")) < 320:
            told.confirm("lab")
        told.tick()
    assert slices(told, "lab") == [20, 20, 40, 80, 160]
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED
    assert "160 confirmed among its first 160 places" in told.decided(PassWave, "lab")[0]


@pytest.mark.parametrize("key", ["amber", "class", "window"])
def test_confidence_lifts_time_and_reports_and_nothing_else(key: str) -> None:
    from tests.core.strategies import OFFICE

    told = baking(400, window=OFFICE if key == "window" else None)
    told.confirm("lab", 390)
    match key:
        case "amber":
            told.confirm("lab")
            told.monitors = {"rollout/failed": AMBER}
        case "class":
            told.rules = replace(told.rules, tolerate={**told.rules.tolerate, SILENT: Tolerance(0.001, Answer.HOLD)})
            told.turn_bad("lab", SILENT, 4)
            told.confirm("lab")
            told.rules = replace(told.rules, tolerate={**told.rules.tolerate, FAILED: Tolerance(0.2)})
        case _:
            told.confirm("lab")
            told.pass_time(9 * HOUR)  # 18:00 UTC
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING


def test_without_the_key_nothing_is_early() -> None:
    told = baking(400)
    told.rules = replace(told.rules, waves=(WaveRules("lab"),))
    told.confirm("lab")
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING
    assert "earlier" not in told.why("lab")[-1][1]


# ------------------------------------------------------------------------------------------------- amber


def open_wave(devices: int = 200) -> World:
    """Its first slice has reported, and the next one is due."""
    told = world(WaveRules("lab"), devices=devices)
    told.tick()
    told.go_well("lab")
    return told


def test_amber_slows_slices_to_a_trickle_and_releases_itself() -> None:
    """Of 20 all have confirmed, which leaves open a failure rate of at most 22 %: four at once bear one failure, and a
    slice has four times as many. When the monitor is calm, the next is as large as all before it."""
    told = open_wave()
    told.monitors = {"rollout/failed": AMBER}
    told.tick()
    assert slices(told, "lab") == [20, 16]
    assert (ReasonKind.AMBER, amber_sentence(["rollout/failed"])) in told.why("lab")
    told.go_well("lab")
    told.monitors = {"rollout/failed": CALM}
    told.tick()
    assert slices(told, "lab") == [20, 16, 36]


def test_amber_never_stops_by_itself_for_a_trickle_goes_on_until_it_crosses_or_is_calm() -> None:
    """Whatever is slow: each slice that has reported is followed by a small one, and nobody has to be asked."""
    told = open_wave()
    told.monitors = {"rollout/failed": AMBER}
    for _ in range(3):
        told.tick()
        told.go_well("lab")
        told.pass_time(3 * HOUR)
    sizes = slices(told, "lab")
    assert len(sizes) == 4 and sizes[1:] == sorted(sizes[1:]) and sizes[1] < 20
    assert told.decided(HoldWave, "lab") == []


def test_amber_of_a_wave_concerns_that_wave_and_of_the_rollout_all() -> None:
    told = world(WaveRules("a"), WaveRules("b"), devices=100)
    told.tick()
    for name in ("a", "b"):
        told.go_well(name)
    told.monitors = {"wave:a/failed": replace(AMBER, monitor="wave:a/failed", wave="a")}
    told.tick()
    assert (slices(told, "a"), slices(told, "b")) == ([20, 16], [20, 20])
    told.go_well("b")
    told.monitors["rollout/failed"] = AMBER
    told.tick()
    assert slices(told, "b")[2] < 40
    both = amber_sentence(["rollout/failed", "wave:a/failed"])
    assert both.startswith("Monitors rollout/failed and wave:a/failed are amber")
    assert (ReasonKind.AMBER, both) in told.why("a")


def test_amber_keeps_the_next_wave_shut_and_holds_it_when_its_time_is_over() -> None:
    """A device of the first wave rolls back after it has passed: its next wave, whose promotion comes then, waits."""
    told = world(WaveRules("lab"), WaveRules("rest", after=("lab",), awaits_promotion=True), devices=20)
    told.tick()
    told.go_well("lab")
    told.tick()
    told.pass_time(12 * HOUR)
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED
    told.monitors = {"rollout/failed": AMBER}
    told.promote("rest")
    told.tick()
    assert told.decided(OpenWave, "rest") == []
    assert told.why("rest") == [(ReasonKind.AMBER, amber_sentence(["rollout/failed"]))]
    told.pass_time(12 * HOUR)  # a day since the last slice anywhere
    told.tick()
    assert told.decided(HoldWave, "rest") == [amber_held_sentence(["rollout/failed"])]
    told.resume_wave("rest")
    told.tick()
    assert told.status("rest") is WaveStatus.OPEN
    assert slices(told) == [20]


def test_amber_never_holds_up_a_wave_that_is_done_with_its_slices() -> None:
    """Who came late comes at the trickle; the wave goes on to its bake, whose door amber keeps shut until it holds."""
    told = world(WaveRules("lab"), devices=20)
    told.tick()
    told.monitors = {"rollout/failed": AMBER}
    told.go_well("lab")
    told.come("lab", 5)
    told.tick()
    assert told.decided(StartBake, "lab") and slices(told, "lab") == [20, 5]
    told.pass_time(2 * DAY)
    told.tick()
    (held,) = told.decided(HoldWave, "lab")
    assert "rollout/failed is amber" in held


def test_what_a_person_completed_is_served_at_a_trickle_and_not_stopped() -> None:
    told = open_wave()
    told.monitors = {"rollout/failed": AMBER}
    told.tick()
    told.complete()
    told.tick()
    assert sum(slices(told, "lab")) == 200
    assert told.state.status is RolloutStatus.COMPLETED


def test_an_accepted_monitor_slows_nothing_down() -> None:
    told = open_wave()
    told.monitors = {"rollout/failed": replace(AMBER, accepted=True)}
    told.tick()
    assert len(told.decided(OpenSlice, "lab")) == 2


def test_a_freeze_comes_before_amber_and_lets_no_time_run_out() -> None:
    told = open_wave()
    told.monitors = {"rollout/failed": AMBER}
    told.frozen = Reason(ReasonKind.FROZEN, "Storm.")
    told.pass_time(5 * DAY)
    told.tick()
    assert told.decided(HoldWave, "lab") == []
    assert ReasonKind.FROZEN in {kind for kind, _ in told.why("lab")}
