"""Sound up to ten million devices and a million bad ones: no overflow, no NaN, and everything still points one way."""

from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.core.evidence.budgets import chance_of_reaching, default_budget
from orchestrator.core.evidence.crossing import Node, NodeKey, add, first_crossing, next_step, paths
from orchestrator.core.evidence.door import door
from orchestrator.core.evidence.interval import interval
from orchestrator.core.evidence.limits import LEAST_ALPHA, LEAST_TOLERANCE, MOST_TOLERANCE, staircase
from orchestrator.core.outcomes import Outcome, OutcomeClass, Tolerance

FLEET = 10_000_000
BAD = 1_000_000
HOUR = timedelta(hours=1)

PLACES = st.one_of(st.integers(1, 300), st.integers(1, FLEET))
TOLERANCES = st.one_of(
    st.sampled_from([LEAST_TOLERANCE, 0.005, 0.02, 0.15, 0.5, 0.95, MOST_TOLERANCE]), st.floats(1e-4, 0.5)
)
ALPHAS = st.one_of(st.sampled_from([LEAST_ALPHA, 1e-12, 0.012, 0.05, 0.999]), st.floats(1e-6, 0.5))


@given(TOLERANCES, ALPHAS, PLACES, st.integers(0, BAD))
def test_evidence_is_finite_and_grows_with_bad_devices_and_falls_with_good_ones(
    tolerance: float, alpha: float, places: int, bad: int
) -> None:
    stairs, bad = staircase(tolerance, alpha), min(bad, places)
    here = stairs.log_evidence(places, bad)
    assert math.isfinite(here)
    assert stairs.log_evidence(places + 1, bad) <= here
    if bad < places:
        assert stairs.log_evidence(places, bad + 1) >= here
    assert stairs.reaches(places, bad) == (stairs.need(places) <= bad)


@given(TOLERANCES, ALPHAS, st.lists(st.one_of(st.integers(1, 200), st.integers(1, BAD)), min_size=2, max_size=6))
def test_limits_rise_up_to_a_million_bad_devices(tolerance: float, alpha: float, counts: list[int]) -> None:
    stairs = staircase(tolerance, alpha)
    limits = {bad: stairs.limit(bad) for bad in sorted(set(counts))}
    assert list(limits.values()) == sorted(limits.values())
    assert all(limit == 0 or limit >= bad for bad, limit in limits.items())


@given(st.integers(0, FLEET), st.floats(0.0, 1.0), st.integers(-1, FLEET + 1), st.integers(1, 1_000))
def test_tails_are_probabilities_and_fall(devices: int, probability: float, budget: int, more: int) -> None:
    here = chance_of_reaching(devices, probability, budget)
    assert 0.0 <= here <= 1.0
    assert chance_of_reaching(devices, probability, budget + more) <= here + 1e-9
    assert chance_of_reaching(devices, min(1.0, probability * 1.01), budget) >= here - 1e-7


@pytest.mark.parametrize("devices", [1, 50, 10_000, FLEET])
@pytest.mark.parametrize("tolerance", [1e-6, 0.02, 0.15, 0.999])
def test_default_budgets_are_those_of_an_independent_library(devices: int, tolerance: float) -> None:
    budget = default_budget(devices, tolerance)
    assert stats.binom.sf(budget - 1, devices, tolerance) <= 0.001 * (1 + 1e-6)
    assert stats.binom.sf(budget - 2, devices, tolerance) > 0.001 * (1 - 1e-6)


@given(st.integers(0, FLEET), st.integers(0, BAD), st.floats(1e-9, 0.5))
def test_bands_are_ordered_and_move_with_what_was_seen(places: int, bad: int, alpha: float) -> None:
    bad = min(bad, places)
    low, high = interval(bad, places, alpha)
    assert 0.0 <= low <= high <= 1.0
    if bad < places:
        worse = interval(bad + 1, places, alpha)
        assert worse.low >= low - 1e-12 and worse.high >= high - 1e-12
    assert interval(2 * bad, 2 * places, alpha).high <= high + 1e-12, "twice as much of the same says more"


def test_a_band_over_ten_million_devices_is_narrow_and_right() -> None:
    """Ten times the standard error is far; the band lies within it and around what was seen."""
    low, high = interval(BAD, FLEET, 0.05)
    error = math.sqrt(0.1 * 0.9 / FLEET)
    assert 0.1 - 10 * error < low < 0.1 - error and 0.1 + error < high < 0.1 + 10 * error


@given(
    st.integers(0, FLEET),
    st.floats(0.0, 1.0),
    st.floats(1e-6, 0.99),
    st.integers(1, 10_000),
    st.sampled_from(OutcomeClass),
)
def test_no_door_opens_for_more_bad_devices(
    outcomes: int, share: float, tolerance: float, more: int, outcome: Outcome
) -> None:
    def unmet(bad: int) -> int:
        return len(
            door(
                baked=HOUR, at_least=HOUR, offers=outcomes, outcomes=outcomes, reports=0.95, confirmed=outcomes,
                reachable=outcomes, bad={outcome: bad}, tolerate={outcome: Tolerance(tolerance)},
            )
        )  # fmt: skip

    bad = int(share * outcomes)
    assert unmet(min(bad + more, outcomes)) >= unmet(bad)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.99, 1.01])
def test_a_tree_of_a_million_bad_devices(spread: float) -> None:
    """In four batches; by hand: crossed when for some k at least k are in the buckets 1 to k."""
    dice = random.Random(1)
    buckets = [20 * (1 + int(spread * (number + 2_000 * dice.random()) / 20)) for number in range(BAD)]
    dice.shuffle(buckets)
    nodes: dict[NodeKey, Node] = {}
    for start in range(0, BAD, BAD // 4):
        batch = buckets[start : start + BAD // 4]
        added = add({key: nodes[key] for key in paths(set(batch)) if key in nodes}, batch)
        nodes |= added.changed
    assert added.bad == BAD
    crossing = next((count for count, bucket in enumerate(sorted(buckets), start=1) if count >= bucket), None)
    assert added.crossed == (crossing is not None)
    assert first_crossing(nodes.get) == crossing
    step = next_step(staircase(0.05, 0.01), nodes.get)
    if crossing is not None:
        assert step is None
        return
    assert step is not None
    missing = min(bucket - count for count, bucket in enumerate(sorted(buckets), start=1))
    assert step.more == min(missing, staircase(0.05, 0.01).first)
