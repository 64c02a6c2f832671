"""The band shown to people, against an independent library."""

from __future__ import annotations

import math

import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.interval import interval
from orchestrator.errors import InvalidInput


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_band_is_that_of_an_independent_library(alpha: float) -> None:
    outcomes = [0.0] * 12 + [1.0] + [0.0] * 80 + [1.0, 1.0] + [0.0] * 400
    bands = ville.BernoulliCS(alpha=alpha, prior=(0.5, 0.5), intersect=False).fit(outcomes)
    for places in (1, 2, 12, 13, 93, 94, 95, 495):
        band = interval(int(sum(outcomes[:places])), places, alpha)
        assert band.low == pytest.approx(float(bands.lower_[places - 1]), abs=1e-9)
        assert band.high == pytest.approx(float(bands.upper_[places - 1]), abs=1e-9)


@given(st.integers(0, 10_000_000), st.floats(0.0, 1.0), st.floats(1e-6, 0.5))
def test_the_band_holds_what_was_seen(places: int, share: float, alpha: float) -> None:
    bad = round(places * share)
    low, high = interval(bad, places, alpha)
    assert 0.0 <= low <= (bad / places if places else 0.5) <= high <= 1.0
    assert (low == 0.0) == (bad == 0) or low < 1e-9
    wider = interval(bad, places, alpha / 10)
    assert wider.low <= low
    assert wider.high >= high
    mirrored = interval(places - bad, places, alpha)
    assert (1.0 - mirrored.high, 1.0 - mirrored.low) == pytest.approx((low, high), abs=1e-9)


def test_nothing_seen_says_nothing() -> None:
    assert interval(0, 0, 0.05) == (0.0, 1.0)


def test_twenty_good_devices_leave_a_fifth_open() -> None:
    assert interval(0, 20, 0.05).high == pytest.approx(0.224, abs=0.001)


@pytest.mark.parametrize(("bad", "places", "alpha"), [(3, 2, 0.05), (-1, 2, 0.05), (1, 2, 0.0), (1, 2, math.nan)])
def test_bands_that_cannot_be_are_refused(bad: int, places: int, alpha: float) -> None:
    with pytest.raises(InvalidInput, match="no band"):
        interval(bad, places, alpha)
