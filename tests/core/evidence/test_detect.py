"""What a wave can see, against enumeration and the slow oracle; and promise 3's theorem at exact work."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.crossing import recount
from orchestrator.core.evidence.detect import detectable_rate, halting_probability, plain_word
from orchestrator.core.evidence.limits import Staircase, staircase
from tests.core.evidence import oracle


@cache
def _counts(tolerance: str, alpha: str, places: int) -> list[int]:
    return oracle.halting_counts(tolerance, alpha, places)


@pytest.mark.parametrize(("places", "percent"), [(5, "58"), (20, "28"), (100, "10"), (500, "5.0"), (1_000, "4.0")])
def test_the_table_of_evidence_md(places: int, percent: str) -> None:
    rate = detectable_rate(staircase(0.02, 0.05), places)
    assert rate is not None
    assert f"{100 * rate:.{1 if '.' in percent else 0}f}" == percent


@pytest.mark.parametrize(
    ("tolerance", "alpha"), [("0.005", "0.05"), ("0.02", "0.05"), ("0.02", "0.012"), ("0.05", "0.05"), ("0.15", "0.1")]
)
def test_halting_is_as_likely_as_the_slow_way_says(tolerance: str, alpha: str) -> None:
    stairs = staircase(float(tolerance), float(alpha))
    counts = _counts(tolerance, alpha, 400)
    for places in (1, 5, 20, 150, 400):
        for factor in (0.5, 1.0, 2.0, 5.0):
            exact = oracle.halting_chance(counts[: places + 1], factor * float(tolerance))
            found = halting_probability(stairs, places, factor * float(tolerance))
            if stairs.limit(stairs.first + 64) >= places:
                assert found == pytest.approx(exact, rel=1e-9, abs=1e-12)
            else:
                assert found <= exact + 1e-12


@pytest.mark.parametrize(("tolerance", "alpha"), [(0.02, 0.05), (0.2, 0.2), (0.6, 0.3)])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_every_sequence_of_ten_devices(tolerance: float, alpha: float, rate: float) -> None:
    """All 1,024 outcomes of ten devices, each recounted: the detection and the recount are one rule."""
    stairs, chance = staircase(tolerance, alpha), 0.0
    for sequence in product((0, 1), repeat=10):
        bad = [place for place, outcome in enumerate(sequence, start=1) if outcome]
        if recount(bad, stairs):
            chance += rate ** len(bad) * (1 - rate) ** (10 - len(bad))
    assert halting_probability(stairs, 10, rate) == pytest.approx(chance)


@pytest.mark.parametrize("tolerance", ["0.001", "0.01", "0.02", "0.05", "0.2", "0.45"])
@pytest.mark.parametrize("alpha", ["0.05", "0.012", "0.0015"])
def test_a_release_at_its_tolerance_is_halted_at_most_as_often_as_allowed(tolerance: str, alpha: str) -> None:
    """Ville, held by the slow oracle alone: exact, 1,000 places, a look after every device."""
    assert oracle.halting_chance(_counts(tolerance, alpha, 1_000), float(tolerance)) <= float(alpha)


@pytest.mark.parametrize(
    ("tolerance", "half", "at"), [("0.01", 0.171, 2.849), ("0.02", 0.180, 3.280), ("0.05", 0.150, 3.545)]
)
def test_false_halts_of_evidence_md_over_five_thousand_places(tolerance: str, half: float, at: float) -> None:
    """The page rounds: 0.2 / 2.9 %, 0.2 / 3.3 %, 0.15 / 3.6 %."""
    counts = _counts(tolerance, "0.05", 5_000)
    assert 100 * oracle.halting_chance(counts, float(tolerance) / 2) == pytest.approx(half, abs=0.0005)
    assert 100 * oracle.halting_chance(counts, float(tolerance)) == pytest.approx(at, abs=0.0005)
    stairs = staircase(float(tolerance), 0.05)
    assert halting_probability(stairs, 5_000, float(tolerance)) <= oracle.halting_chance(counts, float(tolerance))


@given(
    st.sampled_from([staircase(0.02, 0.05), staircase(0.005, 0.012), staircase(0.3, 0.05), staircase(0.9, 0.01)]),
    st.integers(1, 50_000),
    st.floats(0.0, 1.0),
)
def test_worse_releases_are_halted_more_often(stairs: Staircase, places: int, rate: float) -> None:
    chance = halting_probability(stairs, places, rate)
    assert 0.0 <= chance <= 1.0
    assert halting_probability(stairs, places, min(1.0, rate * 1.1)) >= chance - 1e-9
    if rate <= stairs.tolerance:
        assert chance <= stairs.alpha


@pytest.mark.parametrize("places", [4, 40, 700, 10_000, 10_000_000])
@pytest.mark.parametrize("tolerance", [0.0001, 0.02, 0.15])
def test_a_detectable_rate_is_detected_and_less_is_not(tolerance: float, places: int) -> None:
    stairs = staircase(tolerance, 0.012)
    rate = detectable_rate(stairs, places)
    assert rate is not None
    assert rate > tolerance
    assert halting_probability(stairs, places, rate) >= 0.9 > halting_probability(stairs, places, rate * 0.98)


def test_extremes() -> None:
    stairs = staircase(0.02, 0.05)
    assert halting_probability(stairs, 1, 1.0) == 0.0
    assert halting_probability(stairs, 2, 1.0) == 1.0
    assert halting_probability(stairs, 10_000_000, 0.0) == 0.0
    assert halting_probability(staircase(0.999, 0.01), 10_000, 0.999) <= 0.01
    assert halting_probability(staircase(0.999, 0.01), 20_000_000, 0.9999) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("places", "word"),
    [
        (1, "one device cannot halt by evidence, even if it fails; advancing rests on you"),
        (5, "five devices say nothing below a failure rate of 58 %; advancing rests on you"),
        (20, "20 devices say nothing below a failure rate of 28 %; advancing rests on you"),
    ],
)
def test_the_plain_word_to_small_fleets(places: int, word: str) -> None:
    assert plain_word(staircase(0.02, 0.05), places) == word
