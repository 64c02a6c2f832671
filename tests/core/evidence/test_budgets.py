"""Binomial tails against fractions, and the budgets that follow."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.core.evidence.budgets import (
    DEFAULT_CHANCE,
    SMALL_FLEET_CHANCE,
    chance_of_reaching,
    default_budget,
    default_budgets,
)
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

FAILED, ROLLED_BACK, SILENT = OutcomeClass.FAILED, OutcomeClass.ROLLED_BACK, OutcomeClass.SILENT


def _tail(devices: int, probability: Fraction, budget: int) -> Fraction:
    return sum(
        (
            math.comb(devices, bad) * probability**bad * (1 - probability) ** (devices - bad)
            for bad in range(max(0, budget), devices + 1)
        ),
        Fraction(0),
    )


@given(st.integers(0, 120), st.integers(0, 64), st.integers(-1, 122))
def test_tails_are_those_of_exact_fractions(devices: int, sixty_fourths: int, budget: int) -> None:
    exact = float(_tail(devices, Fraction(sixty_fourths, 64), budget))
    assert chance_of_reaching(devices, sixty_fourths / 64, budget) == pytest.approx(exact, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(
    ("devices", "probability", "budget"),
    [
        (10_000_000, 0.02, 201_000),
        (10_000_000, 0.02, 199_000),
        (10_000_000, 0.5, 4_998_000),
        (1_000_000, 0.001, 1_126),
        (10_000_000, 0.999, 9_990_100),
        (10_000_000, 1e-6, 22),
        (10_000_000, 1e-6, 4),
    ],
)
def test_tails_of_large_fleets_are_those_of_an_independent_library(
    devices: int, probability: float, budget: int
) -> None:
    expected = float(stats.binom.sf(budget - 1, devices, probability))
    assert chance_of_reaching(devices, probability, budget) == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 100_000), st.floats(0.0005, 0.5), st.sampled_from([DEFAULT_CHANCE, SMALL_FLEET_CHANCE]))
def test_a_default_budget_is_the_smallest_that_is_rare(devices: int, tolerance: float, chance: float) -> None:
    budget = default_budget(devices, tolerance, chance)
    assert chance_of_reaching(devices, tolerance, budget) <= chance < chance_of_reaching(devices, tolerance, budget - 1)
    assert default_budget(devices + 1, tolerance, chance) >= budget


def test_fifty_devices_have_a_pooled_budget_of_six() -> None:
    """RULES 4.7, with the 2 % + 1 % + 0.5 % of the standard policy; with silence held (3 %) it is five."""
    standard: dict[Outcome, Tolerance] = {
        FAILED: Tolerance(0.02),
        ROLLED_BACK: Tolerance(0.01),
        SILENT: Tolerance(0.005),
    }
    (budget,) = default_budgets(tolerate=standard, devices=50)
    assert (budget.outcomes, budget.count, budget.answer) == ((FAILED, ROLLED_BACK, SILENT), 6, Answer.HALT)
    assert default_budget(50, 0.03, SMALL_FLEET_CHANCE) == 5


def test_a_large_fleet_has_a_budget_for_each_class() -> None:
    tolerate: dict[Outcome, Tolerance] = {
        FAILED: Tolerance(0.02),
        SILENT: Tolerance(0.05, Answer.HOLD),
        OutcomeClass.IGNORED: Tolerance(0.1, Answer.COUNT),
    }
    budgets = default_budgets(tolerate=tolerate, devices=10_000)
    assert [(budget.outcomes, budget.answer) for budget in budgets] == [
        ((FAILED,), Answer.HALT),
        ((SILENT,), Answer.HOLD),
    ]
    assert [budget.count for budget in budgets] == [246, 570]
    assert [budget.outcomes for budget in default_budgets(tolerate=tolerate, devices=50)] == [(FAILED,), (SILENT,)]


def test_a_fixed_ten_silent_stops_many_good_rollouts() -> None:
    """RULES 4.5: why the default is no plain number."""
    assert chance_of_reaching(5_000, 0.0025, 10) > 0.79


def test_a_fleet_too_small_for_its_budget_is_never_stopped_by_it() -> None:
    assert default_budget(1, 0.02) == 2
    assert default_budget(0, 0.02) == 1
    assert chance_of_reaching(3, 1.0, 3) == 1.0


@pytest.mark.parametrize(("devices", "probability"), [(-1, 0.1), (5, -0.1), (5, 1.1), (5, math.nan)])
def test_fleets_that_cannot_be_are_refused(devices: int, probability: float) -> None:
    with pytest.raises(InvalidInput, match="no such fleet"):
        chance_of_reaching(devices, probability, 1)


def test_a_budget_without_any_chance_is_refused() -> None:
    with pytest.raises(InvalidInput, match="some chance"):
        default_budget(50, 0.02, 0.0)
