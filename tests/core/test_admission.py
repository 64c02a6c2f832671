"""How many the evidence bears: never more for more failures or more silence, in whatever order slices were opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.admission import (
    ALPHA,
    Flow,
    admit,
    ambers,
    bearable,
    boundaries,
    calmed_by,
    early_door,
    flow,
    in_order,
    slowing,
    upper,
)
from orchestrator.core.evidence.interval import interval
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import SliceFacts, WaveFacts
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.core.pace import Rate
from orchestrator.core.rules import WaveRules
from tests.core.world import DAY_0, HOUR, monitor

DOWNLOAD = OutcomeClass.DOWNLOAD_FAILED
TOLERATE: dict[Outcome, Tolerance] = {OutcomeClass.FAILED: Tolerance(0.02), DOWNLOAD: Tolerance(0.1)}


def piece(members: int, confirmed: int, at: int = 0, **bad: int) -> SliceFacts:
    stained: dict[Outcome, int] = {OutcomeClass(name): count for name, count in bad.items()}
    return SliceFacts(
        1, DAY_0 + at * HOUR, members, offered=members, resolved=confirmed, confirmed=confirmed, bad=stained
    )


def slices(draw: Callable[..., int]) -> SliceFacts:
    members = draw(st.integers(0, 60))
    confirmed = draw(st.integers(0, members))
    return piece(members, confirmed, draw(st.integers(0, 3)), download_failed=draw(st.integers(0, members)))


pieces = st.lists(st.composite(slices)(), max_size=6)


def test_before_anything_is_known_as_many_as_are_staked() -> None:
    assert upper([]) == 1.0
    assert upper(boundaries([piece(20, 0)], TOLERATE)) == 1.0
    assert [bearable(stake, 1.0) for stake in (1, 5, 20)] == [1, 5, 20]


@pytest.mark.parametrize(("confirmed", "most"), [(20, 89), (40, 157), (1_000, 2_858), (10**7, 17_200_000)])
def test_it_grows_by_itself_while_all_goes_well(confirmed: int, most: int) -> None:
    assert bearable(20, upper(boundaries([piece(confirmed, confirmed)], TOLERATE))) == pytest.approx(most, rel=0.02)


def test_it_is_the_upper_end_of_the_band_at_the_best_boundary() -> None:
    found = boundaries([piece(20, 20), piece(20, 0), piece(40, 40)], TOLERATE)
    assert found == [(20, 20), (40, 20), (80, 60)]
    assert upper(found) == min(interval(bad, places, ALPHA).high for bad, places in ((0, 20), (20, 40), (20, 80)))


@given(pieces, st.data())
def test_one_confirmation_less_never_bears_more(found: list[SliceFacts], data: st.DataObject) -> None:
    able = [number for number, each in enumerate(found) if each.confirmed]
    if not able:
        return
    number = data.draw(st.sampled_from(able))
    worse = [replace(each, confirmed=each.confirmed - 1) if i == number else each for i, each in enumerate(found)]
    before, after = (boundaries(these, TOLERATE) for these in (found, worse))
    assert bearable(20, upper(after)) <= bearable(20, upper(before))
    assert early_door(found, TOLERATE)[1] or not early_door(worse, TOLERATE)[1]


@given(pieces, pieces)
def test_a_further_slice_never_takes_back_what_the_ones_before_have_shown(
    found: list[SliceFacts], more: list[SliceFacts]
) -> None:
    assert upper(boundaries([*found, *more], TOLERATE)) <= upper(boundaries(found, TOLERATE))


@given(pieces, st.sampled_from([OutcomeClass.SILENT, OutcomeClass.IGNORED]), st.integers(1, 9))
def test_silence_is_no_more_than_pending(found: list[SliceFacts], outcome: Outcome, many: int) -> None:
    silent = [replace(each, resolved=each.resolved + many, bad={**each.bad, outcome: many}) for each in found]
    assert boundaries(silent, TOLERATE) == boundaries(found, TOLERATE)


def test_a_failed_download_of_a_confirmed_device_counts_only_where_it_halts() -> None:
    one = [piece(20, 20, download_failed=3)]
    assert boundaries(one, TOLERATE) == [(20, 17)]
    assert boundaries(one, {**TOLERATE, DOWNLOAD: Tolerance(0.1, Answer.HOLD)}) == [(20, 20)]
    assert boundaries(one, {}) == [(20, 20)]


def test_the_slices_of_parallel_waves_follow_in_the_order_of_their_opening() -> None:
    first, second, third = piece(1, 1, 0), piece(2, 2, 1), piece(3, 3, 2)
    assert in_order([(first, third), (second,)]) == [first, second, third]


def test_a_wave_is_paced_by_its_own_evidence_and_the_rollout_by_all_of_it() -> None:
    waves = (WaveFacts("a", slices=(piece(1_000, 1_000),)), WaveFacts("b", slices=(piece(20, 0, 1),)))
    staked = WaveRules("b", stake=20)
    own = flow(waves, (), TOLERATE, wave="b", paced=staked, spent_until=None)
    whole = flow(waves, (), TOLERATE, wave=None, paced=staked, spent_until=None)
    assert (own.in_flight, whole.in_flight) == (20, 20)
    assert own.upper == 1.0 and whole.upper < 0.01
    unasked = flow(waves, (), TOLERATE, wave=None, paced=WaveRules("b"), spent_until=None)
    assert unasked == Flow(20)


def test_amber_is_of_the_rollout_or_of_a_wave_and_none_that_was_accepted() -> None:
    found = (
        monitor(amber=True),
        monitor(monitor="wave:a/failed", wave="a", amber=True),
        monitor(monitor="wave:b/failed", wave="b", amber=True, accepted=True),
        monitor(monitor="rollout/silent"),
    )
    assert ambers(found, None) == ("rollout/failed",)
    assert ambers(found, "a") == ("wave:a/failed",)
    assert ambers(found, "b") == ()


def test_failed_downloads_alone_slow_no_offers() -> None:
    """Their devices stay at it: at a trickle no other would ever be let in, and the monitor never come to its hold."""
    downloads = monitor(monitor="rollout/download_failed", outcomes=(OutcomeClass.DOWNLOAD_FAILED,), amber=True)
    pooled = monitor(monitor="rollout/bad", outcomes=(OutcomeClass.FAILED, OutcomeClass.DOWNLOAD_FAILED), amber=True)
    assert ambers((downloads,), None) == ("rollout/download_failed",)
    assert slowing((downloads,), None) == ()
    assert slowing((downloads, pooled, monitor(amber=True)), None) == ("rollout/bad", "rollout/failed")


@given(st.integers(0, 200), st.integers(1, 50), st.integers(0, 200))
def test_only_a_confirmation_calms_and_a_failure_never_does(places: int, bad: int, confirmed: int) -> None:
    stairs = staircase(0.02, 0.018)
    places = max(places, bad + confirmed)

    def amber(bad: int, confirmed: int) -> bool:
        return stairs.amber(calmed_by(places, bad, confirmed), bad)

    assert amber(bad + 1, confirmed) or not amber(bad, confirmed)
    assert amber(bad + 1, max(0, confirmed - 1)) or not amber(bad, confirmed), "one that had confirmed and rolled back"
    assert amber(bad, confirmed) or not amber(bad, confirmed + 1)


def test_an_offer_is_one_more_at_it_and_spends_the_rate() -> None:
    rate = Rate(200, "h")
    after = admit(Flow(3), WaveRules("a", rate=rate), DAY_0)
    assert after == Flow(4, spent_until=DAY_0 + rate.every)
    assert admit(after, WaveRules("a"), DAY_0 + timedelta(days=1)) == replace(after, in_flight=5)
