"""What the staircases do, by exact dynamic programming over their own limits: no formula of theirs is used.

A device after the other, each bad by itself with one probability; the chance of every bad count is carried along, and
what reaches the count that halts at its place is gone. So the rule is looked at after every single device.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
import ville

from orchestrator.adapters.files.library import Library
from orchestrator.core.evidence.allowance import WaveSize, allot
from orchestrator.core.evidence.detect import detectable_rate
from orchestrator.core.evidence.limits import Staircase, _mixture, staircase
from orchestrator.core.outcomes import Answer, OutcomeClass, Tolerance
from tests.core.evidence import oracle

PLACES = 1_500
ALPHAS = (0.05, 0.018, 0.012, 0.0045, 0.0003, 0.00001)
"""The whole allowance, and parts of it as classes, late waves and segments get them."""
WAVES = (WaveSize("lab", 10, 0), WaveSize("canary", 20, 10), WaveSize("emea", 470, 30), WaveSize("rest", 20_000, 500))


@cache
def counts(stairs: Staircase, places: int = PLACES) -> list[int]:
    """How many bad halt at each place, by the program; more than the place where none do."""
    return [1, *(stairs.need(place) if place >= stairs.first else place + 1 for place in range(1, places + 1))]


def chance(stairs: Staircase, rate: float, places: int = PLACES) -> float:
    return oracle.halting_chance(counts(stairs, places), rate)


@pytest.mark.parametrize("tolerance", [0.005, 0.02, 0.05, 0.15])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_false_halts_stay_below_the_allowance_and_real_ones_come(tolerance: float, alpha: float) -> None:
    """At the tolerance at most alpha; at half of it at most a fifth of alpha; at twice and five times ever more."""
    stairs = staircase(tolerance, alpha)
    half, at, twice, five = (chance(stairs, factor * tolerance) for factor in (0.5, 1.0, 2.0, 5.0))
    assert 0.0 < half <= alpha / 5
    assert half < at <= alpha
    assert at < twice <= five + 1e-12 <= 1.0 + 1e-9
    assert five > 0.99 or tolerance * PLACES < 20


@cache
def bad_at_halt(stairs: Staircase, rate: float) -> list[float]:
    """The chance that the halt comes at the k-th bad device, by k."""
    undecided, halted = [1.0], [0.0] * 200
    for needed in counts(stairs)[1:]:
        moved = [0.0, *(each * rate for each in undecided)]
        for bad, each in enumerate(undecided):
            moved[bad] += each * (1.0 - rate)
        for bad in range(needed, len(moved)):
            halted[bad] += moved[bad]
        undecided = moved[:needed]
    return halted


def median(chances: list[float]) -> int:
    total = 0.0
    return next(bad for bad, each in enumerate(chances) if (total := total + each) >= 0.5)


def test_five_times_the_tolerance_is_caught_after_a_few_bad_devices() -> None:
    """With three classes at most 10, one after the other, with the whole allowance for one class at most 8."""
    specs = allot(
        tolerate=dict.fromkeys(list(OutcomeClass)[:3], Tolerance(0.02)), false_halt=0.05, waves=WAVES, devices=20_500
    )
    failed = next(spec for spec in specs if spec.key == "rollout/failed")
    assert median(bad_at_halt(staircase(failed.tolerance, failed.alpha), 0.1)) <= 10
    assert median(bad_at_halt(staircase(0.02, 0.045), 0.1)) <= 8


@pytest.mark.parametrize("policy", ["standard", "accelerated", "slow-roll", "manual", "emergency"])
def test_no_shipped_policy_halts_a_good_release_more_often_than_it_says(policy: str) -> None:
    """All its monitors together, each at its tolerance: the union bound, which is worse than what happens."""
    page = Library((Path(__file__).parents[3] / "policies",)).policy(policy)
    specs = allot(tolerate=page.tolerances, false_halt=page.false_halt, waves=WAVES, devices=20_500)
    halting = [spec for spec in specs if spec.answer is Answer.HALT]
    assert halting
    assert sum(chance(staircase(s.tolerance, s.alpha), s.tolerance, 800) for s in halting) <= page.false_halt
    assert sum(chance(staircase(s.tolerance, s.alpha), s.tolerance / 2, 800) for s in halting) <= page.false_halt / 5


def test_a_release_that_fails_everywhere_is_halted_by_its_fifth_bad_device_in_a_first_slice_of_20() -> None:
    """In whatever order they report: five bad places among twenty, the last ones at worst."""
    specs = allot(
        tolerate={OutcomeClass.FAILED: Tolerance(0.02), OutcomeClass.ROLLED_BACK: Tolerance(0.01)},
        false_halt=0.05,
        waves=WAVES,
        devices=20_500,
    )
    for spec in specs:
        if spec.wave is None:
            assert staircase(spec.tolerance, spec.alpha).need(20) <= 5


@pytest.mark.parametrize("tolerance", [0.005, 0.02, 0.15])
def test_each_bet_of_the_mixture_is_an_independent_librarys(tolerance: float) -> None:
    """A beta prior that stands at one alternative makes the library's mixture a likelihood ratio: ours, term by term,
    and mixed with the weights of the page."""
    outcomes = [0.0] * 31 + [1.0] + [0.0] * 7 + [1.0, 1.0] + [0.0] * 120 + [1.0] * 4
    bad, places = int(sum(outcomes)), len(outcomes)
    found = []
    for term, (weight, alternative) in zip(_mixture(tolerance), oracle.grid(str(tolerance)), strict=True):
        p, sure = float(alternative), 1e9
        library = ville.BernoulliTest(tolerance, prior=(p * sure, (1 - p) * sure)).fit(outcomes).log_e_values_[-1]
        assert bad * term.per_bad + (places - bad) * term.per_good == pytest.approx(float(library), rel=1e-5, abs=1e-4)
        found.append((float(weight), float(library)))
    e_value = ville.evalues.combine([math.exp(each) for _, each in found], weights=[w for w, _ in found])
    assert math.exp(staircase(tolerance, 0.05).log_evidence(places, bad)) == pytest.approx(e_value, rel=1e-3)


@pytest.mark.parametrize(("tolerance", "alpha"), [(0.02, 0.018), (0.05, 0.012)])
@pytest.mark.parametrize("places", [20, 300, 1_000, 3_000])
def test_what_plan_calls_detectable_is_found_nine_times_in_ten(tolerance: float, alpha: float, places: int) -> None:
    """Exact while 64 limits lie within the places; beyond, on the safe side, and off by less than three per cent."""
    stairs = staircase(tolerance, alpha)
    rate = detectable_rate(stairs, places)
    assert rate is not None
    assert oracle.halting_chance(counts(stairs, places), rate) >= 0.9 - 1e-9
    assert oracle.halting_chance(counts(stairs, places), 0.97 * rate) < 0.9
