"""The early door: proven, or shut; silence never opens it, and a release at the tolerance rarely does."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.confident import (
    BETA,
    Boundary,
    confident,
    good_needed,
    log_confidence,
    rate_of,
    reports_needed,
)
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

HORIZON = 3_000


@pytest.mark.parametrize(("rate", "needed"), [(0.01, (332, 671, 895)), (0.02, (165, 334, 446)), (0.05, (65, 132, 177))])
def test_so_many_reports_prove_it_with_no_one_and_two_failures(rate: float, needed: tuple[int, ...]) -> None:
    assert tuple(reports_needed(bad, rate) for bad in range(3)) == needed
    for bad, places in enumerate(needed):
        assert confident([Boundary(places, places - bad)], rate)
        assert not confident([Boundary(places - 1, places - 1 - bad)], rate)


def exact(places: int, bad: int, rate: Fraction) -> Fraction:
    """The mixture with whole fractions, no logarithm in it."""
    parts = [(Fraction(0), 40), (Fraction(1, 16), 15), (Fraction(1, 8), 15), (Fraction(1, 4), 15), (Fraction(1, 2), 15)]
    return sum(
        (
            Fraction(weight, 100) * part**bad * ((1 - part * rate) / (1 - rate)) ** (places - bad)
            for part, weight in parts
        ),
        start=Fraction(0),
    )


@given(st.integers(0, 400), st.integers(0, 12), st.sampled_from([Fraction(1, 100), Fraction(1, 20), Fraction(2, 5)]))
def test_it_is_the_mixture_and_no_other_number(good: int, bad: int, rate: Fraction) -> None:
    found = log_confidence(good + bad, bad, float(rate))
    assert found == pytest.approx(math.log(exact(good + bad, bad, rate)), rel=1e-9, abs=1e-9)


def chance_of_ever_passing(fails: float, rate: float, every: int) -> float:
    """By dynamic programming over the count of failures: a look after every ``every`` devices, the worst kind of
    looking; whoever has passed has left the table."""
    alive = {0: 1.0}
    passed = 0.0
    for place in range(1, HORIZON + 1):
        after: dict[int, float] = {}
        for bad, mass in alive.items():
            after[bad] = after.get(bad, 0.0) + mass * (1 - fails)
            after[bad + 1] = after.get(bad + 1, 0.0) + mass * fails
        if place % every == 0:
            for bad in [bad for bad in after if confident([Boundary(place, place - bad)], rate)]:
                passed += after.pop(bad)
        alive = {bad: mass for bad, mass in after.items() if mass > 1e-15}
    return passed


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_a_release_at_the_tolerance_passes_early_in_one_of_twenty_at_most(rate: float) -> None:
    every_report = chance_of_ever_passing(rate, rate, 1)
    assert 0.04 < every_report <= BETA
    assert chance_of_ever_passing(rate, rate, 20) <= every_report
    assert chance_of_ever_passing(1.5 * rate, rate, 1) < 0.02


def test_a_release_at_a_quarter_of_it_nearly_always_does() -> None:
    assert chance_of_ever_passing(0.0125, 0.05, 1) > 0.99


boundaries = st.lists(st.tuples(st.integers(1, 400), st.floats(0.9, 1)), min_size=1, max_size=8).map(
    lambda pieces: [Boundary(places, int(places * good)) for places, good in pieces]
)


@given(boundaries, st.data())
def test_one_good_device_less_never_makes_confident(found: list[Boundary], data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(found) - 1))
    worse = [each._replace(good=max(0, each.good - 1)) if i >= where else each for i, each in enumerate(found)]
    assert confident(found, 0.05) or not confident(worse, 0.05)


@given(boundaries, boundaries)
def test_the_best_prefix_decides_and_more_prefixes_never_shut_it(some: list[Boundary], more: list[Boundary]) -> None:
    assert confident([*some, *more], 0.05) or not confident(some, 0.05)
    both = [confident([each], 0.05) for each in (*some, *more)]
    assert (confident([*some, *more], 0.05) is not None) == any(each is not None for each in both)


@given(st.integers(0, 3_000), st.sampled_from([0.01, 0.03, 0.05, 0.3, 0.9]))
def test_so_many_good_ones_are_needed_and_not_one_fewer(places: int, rate: float) -> None:
    needed = good_needed(places, rate)
    if needed is None:
        assert not confident([Boundary(places, places)], rate)
    else:
        assert confident([Boundary(places, needed)], rate)
        assert needed == 0 or not confident([Boundary(places, needed - 1)], rate)


def test_nothing_proves_anything_of_what_cannot_be_refuted() -> None:
    whole = [Boundary(10**7, 10**7)]
    assert confident(whole, 0.0) is confident(whole, 1.0) is confident(whole, 1.2) is None
    assert good_needed(10**7, 1.0) is None
    assert confident([], 0.05) is None
    assert confident([Boundary(0, 0)], 0.05) is None
    for places, bad, rate in ((1, 2, 0.05), (1, -1, 0.05), (1, 0, 0.0), (1, 0, 1.0)):
        with pytest.raises(InvalidInput):
            log_confidence(places, bad, rate)


def test_ten_million_devices_and_a_million_failures_are_a_number() -> None:
    assert log_confidence(10**7, 10**6, 0.05) < -1e5
    assert log_confidence(10**7, 0, 0.05) > 1e5
    assert math.isfinite(log_confidence(10**7, 10**7, 1e-6))


def test_only_classes_that_halt_and_are_heard_of_make_the_rate() -> None:
    tolerate: dict[Outcome, Tolerance] = {
        OutcomeClass.FAILED: Tolerance(0.02),
        OutcomeClass.ROLLED_BACK: Tolerance(0.01),
        OutcomeClass.SILENT: Tolerance(0.05),  # who was not heard of counts as bad: nothing is granted for it
        OutcomeClass.IGNORED: Tolerance(0.3, Answer.COUNT),
    }
    assert rate_of(tolerate) == pytest.approx(0.03)
    assert rate_of({}) == 0.0


def test_whatever_the_order_of_reports_only_who_has_confirmed_counts() -> None:
    """Two hundred devices at the tolerance, in waves whose failures come first, last or mixed: at no moment does the
    door open for a set of reports for which it stays shut in another order."""
    dice = random.Random(7)
    fails = [dice.random() < 0.05 for _ in range(200)]
    for order in (sorted(range(200), key=lambda i: fails[i]), sorted(range(200), key=lambda i: not fails[i])):
        good = 0
        for i in order:
            good += not fails[i]
            assert not confident([Boundary(200, good)], 0.05)
