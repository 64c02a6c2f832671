"""The staircase against the tables of evidence.md, against 60 digits, and against itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence import limits
from orchestrator.core.evidence.limits import Staircase, staircase
from orchestrator.errors import InvalidInput
from tests.core.evidence import oracle

TOLERANCES = st.one_of(
    st.floats(1e-6, 1e-3), st.floats(1e-3, 0.5), st.floats(0.5, 0.999), st.sampled_from([1e-6, 0.01, 0.02, 0.05, 0.95])
)
ALPHAS = st.one_of(st.floats(1e-12, 1e-3), st.floats(1e-3, 0.5))


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        (0.01, (0, 9, 32, 63, 101, 143, 190, 239, 291, 344)),
        (0.02, (0, 5, 16, 33, 52, 74, 97, 123, 149, 177)),
        (0.05, (0, 2, 7, 14, 22, 31, 41, 52, 63, 74)),
    ],
)
def test_the_table_of_evidence_md(tolerance: float, expected: tuple[int, ...]) -> None:
    assert staircase(tolerance, 0.05).limits(10) == expected


@pytest.mark.parametrize(
    ("tolerance", "alpha"), [("0.02", "0.05"), ("0.01", "0.012"), ("0.005", "0.0003"), ("0.15", "0.05"), ("0.4", "0.1")]
)
def test_every_place_needs_what_sixty_digits_say(tolerance: str, alpha: str) -> None:
    stairs = staircase(float(tolerance), float(alpha))
    counts = oracle.halting_counts(tolerance, alpha, 600)
    for place in range(1, 601):
        if counts[place] <= place:
            assert stairs.need(place) == counts[place]
        else:  # cannot halt here; the tree's bucket is then the first that can
            assert stairs.need(place) == stairs.first > place


@pytest.mark.parametrize("bad", [10, 1_000, 40_000, 210_000])
def test_limits_are_right_to_the_place_for_a_million_places_and_more(bad: int) -> None:
    limit = staircase(0.02, 0.012).limit(bad)
    assert oracle.evidence("0.02", limit, bad) >= 1 / Decimal("0.012") > oracle.evidence("0.02", limit + 1, bad)


@pytest.mark.parametrize(
    ("places", "bad"), [(10_000_000, 1_000_000), (10_000_000, 0), (10_000_000, 202_000), (1_000_000, 1_000_000)]
)
def test_evidence_is_sound_at_ten_million_places(places: int, bad: int) -> None:
    exact = float(oracle.evidence("0.02", places, bad).ln())
    assert staircase(0.02, 0.05).log_evidence(places, bad) == pytest.approx(exact, rel=1e-12, abs=1e-6)


def test_evidence_is_the_mixed_capital_of_bets_on_failure() -> None:
    """The same number by the betting form of Waudby-Smith & Ramdas, combined by an independent library."""
    outcomes = [0] * 7 + [1] + [0] * 20 + [1, 1] + [0] * 9
    capitals = []
    for _, alternative in (points := oracle.grid("0.02")):
        stake = (float(alternative) - 0.02) / (0.02 * 0.98)
        capitals.append(math.prod(1.0 + stake * (outcome - 0.02) for outcome in outcomes))
    combined = ville.evalues.combine(capitals, weights=[float(weight) for weight, _ in points])
    assert math.exp(staircase(0.02, 0.05).log_evidence(len(outcomes), sum(outcomes))) == pytest.approx(combined)


@given(TOLERANCES, ALPHAS, st.integers(1, 10_000_000))
def test_need_and_limit_are_inverse(tolerance: float, alpha: float, place: int) -> None:
    stairs = staircase(tolerance, alpha)
    needed = stairs.need(place)
    assert stairs.limit(needed) >= place > stairs.limit(needed - 1)
    assert stairs.reaches(place, needed)
    assert not stairs.reaches(place, needed - 1)


@given(TOLERANCES, ALPHAS, st.integers(1, 1_000_000))
def test_limits_rise_and_are_reached(tolerance: float, alpha: float, bad: int) -> None:
    stairs = staircase(tolerance, alpha)
    here, after = stairs.limit(bad), stairs.limit(bad + 1)
    assert (here == 0) == (bad < stairs.first)
    assert here == after == 0 or after > here
    if here:
        assert here >= bad
        assert stairs.need(here) == bad
        assert stairs.need(here + 1) == bad + 1


@given(TOLERANCES, ALPHAS, st.integers(1, 5_000))
def test_less_allowance_and_more_tolerance_never_halt_sooner(tolerance: float, alpha: float, bad: int) -> None:
    assert staircase(tolerance, alpha / 2).limit(bad) <= staircase(tolerance, alpha).limit(bad)
    if tolerance < 0.3:
        assert staircase(tolerance * 1.5, alpha).limit(bad) <= staircase(tolerance, alpha).limit(bad)


@given(st.floats(0.4, 1 - 1e-6), st.integers(0, 200), st.integers(0, 200))
def test_high_tolerances_still_have_a_fair_bet(tolerance: float, bad: int, good: int) -> None:
    """E's expectation after one more device at the tolerance is E itself: no drift, whatever the grid."""
    stairs = staircase(tolerance, 0.05)
    now = stairs.log_evidence(bad + good, bad)
    worse = math.exp(stairs.log_evidence(bad + good + 1, bad + 1) - now)
    better = math.exp(stairs.log_evidence(bad + good + 1, bad) - now)
    assert tolerance * worse + (1.0 - tolerance) * better == pytest.approx(1.0, abs=1e-6)
    assert worse > 1.0 > better


def test_amber_is_a_fifth_of_the_way() -> None:
    stairs = staircase(0.02, 0.05)
    seen = [(places, bad) for places in range(1, 80) for bad in range(min(places, 4) + 1)]
    assert {pair for pair in seen if stairs.amber(*pair)} == {
        pair for pair in seen if oracle.evidence("0.02", *pair) >= 4
    }
    assert not stairs.amber(0, 0)
    assert not staircase(0.02, 0.5).amber(0, 0), "an allowance above a fifth is not amber before it has seen anything"


@given(TOLERANCES, ALPHAS, st.integers(1, 100_000))
def test_what_halts_is_amber_before(tolerance: float, alpha: float, bad: int) -> None:
    stairs = staircase(tolerance, alpha)
    if limit := stairs.limit(bad):
        assert stairs.amber(limit, bad)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -0.1, 1.5, 1e-9, 1 - 1e-9, math.nan, math.inf])
def test_tolerances_without_a_staircase_are_refused(tolerance: float) -> None:
    with pytest.raises(InvalidInput, match="cannot be watched"):
        staircase(tolerance, 0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.05, 5.0, math.nan])
def test_allowances_that_are_none_are_refused(alpha: float) -> None:
    with pytest.raises(InvalidInput, match="allowance"):
        staircase(0.02, alpha)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="6 bad among 5"):
        staircase(0.02, 0.05).log_evidence(5, 6)
    with pytest.raises(InvalidInput, match="count from 1"):
        staircase(0.02, 0.05).need(0)


@pytest.mark.parametrize("tolerance", [1e-6, 0.0001, 0.02, 0.5, 0.9])
def test_a_place_costs_a_handful_of_evaluations(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    stairs = staircase(tolerance, 0.0123)
    evaluations = _counted(monkeypatch)
    limits._need.cache_clear()
    limits._limit.cache_clear()
    for place in (1, 999, 123_456, 9_999_999):
        before = evaluations()
        needed = stairs.need(place)
        assert evaluations() - before <= 12
        before = evaluations()
        stairs.limit(needed)
        assert evaluations() - before <= 26
    before = evaluations()
    stairs.need(9_999_999)
    assert evaluations() == before, "asked again, it is remembered"


def _counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    count, original = 0, Staircase._log

    def counting(self: Staircase, places: int, bad: int) -> float:
        nonlocal count
        count += 1
        return original(self, places, bad)

    monkeypatch.setattr(Staircase, "_log", counting)
    return lambda: count
