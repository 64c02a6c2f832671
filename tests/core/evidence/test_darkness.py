"""What is tolerated of silence on top of the darkness learnt: good releases to dark fleets go on, bad ones do not."""

from __future__ import annotations

import math
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.allowance import WaveSize, allot
from orchestrator.core.evidence.budgets import default_budgets
from orchestrator.core.evidence.clock import FLEET, learn
from orchestrator.core.evidence.confident import rate_of
from orchestrator.core.evidence.darkness import MOST_DARK, Darkness, darkness
from orchestrator.core.evidence.door import Condition, door
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.core.policy import Policy
from tests.core.evidence.clock_world import Fate, clock, curves, dead, past, usual

SILENT = OutcomeClass.SILENT
UNNAMED = Policy.parse({"policy": "x"})
DEVICES, SEEDS = 2_000, 200


def over(dark: float | None) -> Darkness | None:
    return None if dark is None else Darkness(dark, dark)


def in_part_dark(dark: float) -> Fate:
    return lambda rng: usual(rng, dark)


def stopped(dark: float, learnt: float | None, seed: int) -> bool:
    """Whether a release of which so many devices stay dark runs into a monitor or a budget for silence, on any wave."""
    rng = Random(f"dark {dark} {seed}")
    tolerate: dict[Outcome, Tolerance] = {SILENT: UNNAMED.tolerances_over(over(learnt))[SILENT]}
    waves = [WaveSize("canary", 20, 0), WaveSize("some", 200, 20), WaveSize("rest", DEVICES - 220, 220)]
    monitors = allot(tolerate=tolerate, false_halt=0.05, waves=waves, devices=DEVICES, clock=learnt is not None)
    first = {None: 0, "canary": 0, "some": 20, "rest": 220}
    places = [place for place in range(1, DEVICES + 1) if rng.random() < dark]
    for monitor in monitors:
        steps = staircase(monitor.tolerance, monitor.alpha)
        mine = [place - first[monitor.wave] for place in places if place > first[monitor.wave]]
        if any(steps.reaches(place, number) for number, place in enumerate(mine, 1)):
            return True
    (budget,) = default_budgets(tolerate=tolerate, devices=DEVICES)
    return len(places) >= budget.count


@pytest.mark.parametrize("earlier", [300, 2_000])
def test_a_good_release_to_a_fleet_that_is_3_percent_dark_is_not_stopped(earlier: int) -> None:
    """Each seed has a history of its own; without what it says, most of these releases would be stopped."""
    false = missed = 0
    for seed in range(SEEDS):
        learnt = clock(curves(earlier, seed, in_part_dark(0.03)), answer=Answer.HALT).dark.fleet
        assert learnt >= 0.02
        false += stopped(0.03, learnt, seed)
        missed += not stopped(0.3, learnt, seed)
    assert false <= 0.01 * SEEDS
    assert missed == 0
    bare = sum(stopped(0.03, 0.0, seed) for seed in range(SEEDS))
    assert bare >= 0.25 * SEEDS


@pytest.mark.parametrize("dark", [0.0, 0.01, 0.03, 0.2])
def test_what_is_learnt_is_no_less_than_the_truth_but_for_bad_luck(dark: float) -> None:
    found = [clock(curves(300, seed, in_part_dark(dark))).dark for seed in range(SEEDS)]
    assert all(each.fleet >= dark for each in found)
    assert all(each.fleet <= each.segment for each in found)
    assert sum(each.fleet for each in found) / SEEDS <= dark + 0.1, "and not uselessly more"


def test_segments_get_the_darkness_of_the_darkest_board() -> None:
    bright = past(2_000, hardware_id="rpi4", fate=in_part_dark(0.0))
    murky = [
        each._replace(device=each.device + 2_000) for each in past(500, hardware_id="imx8", fate=in_part_dark(0.2))
    ]
    found = clock(learn([*bright, *murky])).dark
    assert found.fleet < 0.08 < 0.2 < found.segment


def test_a_fleet_of_which_nobody_was_ever_heard_of_is_not_tolerated_whole() -> None:
    found = clock(curves(300, fate=dead)).dark
    assert found == Darkness(MOST_DARK, MOST_DARK)
    tolerance = UNNAMED.tolerances_over(found)[SILENT].at_most
    assert staircase(tolerance, 0.01).first > 0


def test_the_darkness_is_that_at_the_hard_stop() -> None:
    learnt = curves(2_000)
    early, late = (clock(learnt, silent_after=timedelta(hours=hours)).dark for hours in (1, 24))
    assert early.fleet >= learnt[FLEET].silent(60) / 2_000 > late.fleet


def test_no_history_makes_the_early_door_wider() -> None:
    assert {rate_of(UNNAMED.tolerances_over(over(dark))) for dark in (None, 0.0, 0.03, 0.5)} == {
        rate_of(UNNAMED.tolerances)
    }


shares = st.floats(0.0, MOST_DARK)


@given(shares, shares, st.floats(0.001, 0.9))
def test_more_past_darkness_tolerates_more_and_never_all(one: float, other: float, at_most: float) -> None:
    less, more = sorted((one, other))
    found = [Tolerance(at_most).over(dark).at_most for dark in (less, more)]
    assert at_most <= found[0] + 1e-12 and found[0] <= found[1] + 1e-12 < 1.0


@given(st.integers(200, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_more_past_silence_is_never_less_darkness(devices: int, one: int, other: int) -> None:
    less, more = sorted((min(one, devices), min(other, devices)))
    found = [darkness((silent, devices), [], risk=1e-4) for silent in (less, more)]
    assert found[0] <= found[1]
    assert found[0].fleet >= min(math.floor(1_000 * less / devices) / 1_000, MOST_DARK)


@given(st.none() | shares, st.integers(1, 2_000), st.integers(0, 2_000), st.integers(0, 2_000))
def test_more_silence_never_opens_more(dark: float | None, offers: int, one: int, other: int) -> None:
    """Under whatever was learnt: of the same offers more are silent, instead of confirmed."""
    less, more = sorted((min(one, offers), min(other, offers)))
    tolerate = UNNAMED.tolerances_over(over(dark))

    def unmet(silent: int) -> set[tuple[Condition, str]]:
        found = door(
            baked=timedelta(days=1),
            at_least=timedelta(hours=12),
            offers=offers,
            outcomes=offers,
            reports=0.95,
            confirmed=offers - silent,
            reachable=offers,
            bad={SILENT: silent},
            tolerate=tolerate,
        )
        return {(each.condition, each.subject) for each in found}

    assert unmet(less) <= unmet(more)
    steps = staircase(tolerate[SILENT].at_most, 0.01)
    assert steps.reaches(offers, more) or not steps.reaches(offers, less)
