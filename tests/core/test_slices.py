"""Slices grow as told, and a place is a function of the device and the slice table alone."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.crossing import place_since
from orchestrator.core.position import SPACE
from orchestrator.core.slices import (
    BINS,
    ROLLOUT,
    UNCOUNTED,
    Ranks,
    Slice,
    coarse_ranks,
    covered,
    cut,
    exact_ranks,
    next_size,
    segment_population,
    sizes,
    slice_of,
    wave_population,
)

DAY_0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
positions = st.integers(0, SPACE - 1)
moments = st.integers(0, 20).map(lambda hours: DAY_0 + timedelta(hours=hours))


# ------------------------------------------------------------------------------------------------- sizes


def test_each_slice_is_as_large_as_all_before_it() -> None:
    assert sizes(160, first=20, growth=2.0) == (20, 20, 40, 80)
    assert sizes(165, first=20, growth=2.0) == (20, 20, 40, 80, 5)
    assert sizes(7, first=20, growth=2.0) == (7,)
    assert sizes(0, first=20, growth=2.0) == ()


def test_a_growth_is_the_decimal_that_was_written() -> None:
    """1.9 of 20 is 18 more; in binary it would come to 17."""
    assert next_size(20, first=20, growth=1.9) == 18


@given(st.integers(0, 5_000), st.integers(1, 50), st.sampled_from([1.1, 1.5, 1.9, 2.0]))
def test_slices_hold_all_devices_and_never_more_than_all_before(devices: int, first: int, growth: float) -> None:
    found = sizes(devices, first=first, growth=growth)
    assert sum(found) == devices
    assert all(size >= 1 for size in found)
    assert all(size <= max(1, sum(found[:number])) for number, size in enumerate(found) if number)


# ------------------------------------------------------------------------------------------------- ranks


@given(st.sets(positions, min_size=1, max_size=60))
def test_exact_ranks_count_up_by_position(members: set[int]) -> None:
    ranks = exact_ranks(members)
    assert [ranks.rank(position) for position in sorted(members)] == list(range(1, len(members) + 1))
    assert ranks.members == len(members)


@pytest.mark.parametrize(
    ("low", "upto"),
    [(0, SPACE), (SPACE // 1000, 3 * SPACE // 1000), (SPACE // 3, SPACE // 2), (SPACE - SPACE // 700, SPACE)],
    ids=["whole", "narrow, early", "middle", "narrow, at the end"],
)
def test_interpolated_ranks_are_close_to_the_exact_ones(low: int, upto: int) -> None:
    """Also in a slice narrower than one 256th of all positions, which in a fleet of a million most slices are."""
    drawn = random.Random(42)
    members = sorted(drawn.sample(range(low, upto), 5_000))
    exact = exact_ranks(members)
    coarse = coarse_ranks(Counter((position - low) * BINS // (upto - low) for position in members), low=low, upto=upto)
    assert coarse.members == exact.members
    assert max(abs(coarse.rank(position) - exact.rank(position)) for position in members) <= 12


@given(st.lists(positions, min_size=1, max_size=300), st.lists(positions, min_size=2, max_size=20))
def test_interpolated_ranks_rise_with_the_position_and_stay_among_the_members(
    members: list[int], asked: list[int]
) -> None:
    ranks = coarse_ranks(Counter(position * BINS // SPACE for position in members))
    found = [ranks.rank(position) for position in sorted(asked)]
    assert found == sorted(found)
    assert found[0] >= 1 and found[-1] <= ranks.members


@given(st.sampled_from([Ranks(), exact_ranks([5]), coarse_ranks({3: 9}, low=100, upto=5_000)]), st.integers(0, SPACE))
def test_a_stranger_gets_a_rank_among_the_members(ranks: Ranks, position: int) -> None:
    assert 1 <= ranks.rank(position) <= max(1, ranks.members)


# ------------------------------------------------------------------------------------------------- membership of slices

tables = st.lists(st.tuples(st.integers(0, 5), st.integers(0, SPACE)), max_size=12).map(
    lambda rows: [
        (DAY_0 + timedelta(hours=sum(gap for gap, _ in rows[: number + 1])), upto)
        for number, (_, upto) in enumerate(rows)
    ]
)


def _slice(number: int, opened_at: datetime, upto: int) -> Slice:
    return Slice("rest", number, upto, opened_at, {}, {})


@given(tables, positions, moments)
def test_the_steps_cover_exactly_whom_an_earlier_slice_holds(
    table: list[tuple[datetime, int]], position: int, since: datetime
) -> None:
    slices = [_slice(number, *row) for number, row in enumerate(table, start=1)]
    steps = covered(table).steps
    brute = any(piece.holds(position, since) for piece in slices)
    assert any(since <= opened_at and position < upto for opened_at, upto in steps) == brute
    assert (slice_of(slices, position, since) is not None) == brute
    assert [upto for _, upto in steps] == sorted({upto for _, upto in steps}, reverse=True)


@given(tables, positions, moments)
def test_a_device_is_in_the_first_slice_that_holds_it_whatever_opens_later(
    table: list[tuple[datetime, int]], position: int, since: datetime
) -> None:
    slices = [_slice(number, *row) for number, row in enumerate(table, start=1)]
    found = slice_of(slices, position, since)
    for opened in range(len(slices) + 1):
        early = slice_of(slices[:opened], position, since)
        assert early is None or early == found


def test_who_comes_back_later_is_in_the_next_slice_that_opens() -> None:
    """Day 0: the first slice takes the first tenth. Day 1: a device at 0.05 is back. Day 2: the next slice takes it."""
    first, second = _slice(1, DAY_0, SPACE // 10), _slice(2, DAY_0 + timedelta(days=2), SPACE // 5)
    back = DAY_0 + timedelta(days=1)
    assert slice_of([first], SPACE // 20, back) is None
    assert slice_of([first, second], SPACE // 20, back) == second
    assert slice_of([first, second], SPACE // 20, DAY_0) == first


# ------------------------------------------------------------------------------------------------- places


@given(st.lists(st.sets(positions, min_size=1, max_size=40), min_size=1, max_size=4))
def test_places_count_up_from_slice_to_slice_and_no_two_devices_share_one(members: list[set[int]]) -> None:
    given_: Counter[str] = Counter()
    seen: list[int] = []
    for number, positions_ in enumerate(members, start=1):
        ranks = {ROLLOUT: exact_ranks(positions_), wave_population("rest"): exact_ranks(positions_)}
        piece = Slice("rest", number, SPACE, DAY_0, dict(given_), ranks)
        assert piece.members == len(positions_)
        for position in sorted(positions_):
            places = piece.places(position, [ROLLOUT, wave_population("rest")])
            assert places[ROLLOUT] == places[wave_population("rest")]
            seen.append(places[ROLLOUT])
        given_.update({name: ranks.members for name, ranks in ranks.items()})
    assert seen == list(range(1, len(seen) + 1))


def test_a_place_in_the_rollout_counts_the_slices_of_every_wave_before() -> None:
    rank = exact_ranks([10, 20, 30])
    piece = Slice("emea", 2, 40, DAY_0, {ROLLOUT: 60, "wave:emea": 20}, {ROLLOUT: rank, "wave:emea": rank})
    assert piece.places(20, [ROLLOUT, "wave:emea"]) == {ROLLOUT: 62, "wave:emea": 22}


def test_who_was_not_counted_in_a_segment_has_no_place_in_it() -> None:
    population = segment_population("label:region", "emea")
    assert population == "label:region=emea"
    assert Slice("rest", 1, 40, DAY_0, {population: 7}, {}).places(3, [population]) == {population: UNCOUNTED}


@given(
    st.lists(st.sets(positions, min_size=1, max_size=40), min_size=1, max_size=4),
    st.sets(positions, max_size=40),
    st.integers(0, 3),
)
def test_in_a_segment_no_two_devices_share_a_place_whoever_has_come_into_it_since(
    counted: list[set[int]], came: set[int], began: int
) -> None:
    """The segment is watched from some slice on, or all along; others move into it while its slices are open. Each who
    has a place has at least its rank among those who have one, and so does a monitor that begins later."""
    segment = segment_population("source_version", "41")
    before, places = 0, []
    for number, members in enumerate(counted):
        ranks = {segment: exact_ranks(members)} if number >= began else {}
        piece = Slice("rest", number + 1, SPACE, DAY_0, {segment: before} if before else {}, ranks)
        found = [piece.places(position, [segment])[segment] for position in sorted(members | came)]
        places += [place for place in found if place is not UNCOUNTED]
        before += ranks[segment].members if ranks else 0
    assert places == list(range(1, before + 1))
    for start in range(before):
        later = [since for place in places if (since := place_since(place, start)) is not None]
        assert later == list(range(1, before - start + 1))
    assert place_since(UNCOUNTED, 0) is None


# ------------------------------------------------------------------------------------------------- the cut


@given(st.lists(positions, max_size=400, unique=True), st.integers(1, 500))
def test_a_cut_is_within_one_stretch_of_the_size(members: list[int], size: int) -> None:
    waiting = Counter(position * BINS // SPACE for position in members)
    bound = cut(waiting, size)
    inside = sum(position < bound for position in members)
    if size >= len(members):
        assert bound == SPACE
    else:
        assert abs(inside - size) <= max(waiting.values())
        assert inside <= size + waiting[min(bound * BINS // SPACE, BINS - 1)]


@pytest.mark.parametrize("given_", [0, 1_280, 20_480, 81_920])
def test_a_cut_in_a_large_fleet_takes_about_as_many_as_it_may(given_: int) -> None:
    """A wave of 300,000 devices whose earlier slices end inside a stretch: what waits there stands above their end."""
    drawn = random.Random(7)
    members = sorted(drawn.sample(range(SPACE), 300_000))
    waiting = members[given_:]
    size = max(given_, 1_280)
    counts = Counter(position * BINS // SPACE for position in waiting)
    low = members[given_ - 1] + 1 if given_ else 0
    bound = cut(counts, size, low=low)
    assert abs(bisect_right(waiting, bound - 1) - size) <= 60
