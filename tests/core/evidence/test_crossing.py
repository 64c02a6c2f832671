"""The tree against the offline recount, whatever the order and the batches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.crossing import (
    BUCKETS,
    ROOT,
    Added,
    Child,
    Crossing,
    Node,
    NodeKey,
    Step,
    add,
    buckets_of,
    first_crossing,
    first_step,
    next_step,
    path,
    paths,
    place_since,
    recount,
)
from orchestrator.core.evidence.limits import Staircase, staircase
from orchestrator.errors import InvalidInput

STAIRCASES = st.sampled_from(
    [(0.02, 0.05), (0.02, 0.012), (0.005, 0.003), (0.15, 0.05), (0.6, 0.05), (0.0001, 0.01)]
).map(lambda pair: staircase(*pair))
PLACES = st.one_of(
    st.lists(st.integers(1, 60), unique=True, max_size=30),
    st.lists(st.integers(1, 3_000), unique=True, max_size=80),
    st.lists(st.integers(1, 10_000_000), unique=True, max_size=40),
)


class Rows(Mapping[NodeKey, Node]):
    """A database as a dictionary: gives only what may be read, and remembers nodes as bytes."""

    def __init__(self) -> None:
        self.stored: dict[NodeKey, bytes] = {}
        self.allowed: frozenset[NodeKey] = frozenset()

    def __getitem__(self, key: NodeKey) -> Node:
        assert key in self.allowed, f"{key} is on no path of what was added"
        return Node.from_bytes(self.stored[key])

    def __iter__(self) -> Iterator[NodeKey]:
        raise AssertionError("a tree is never read whole")

    def __len__(self) -> int:
        return len(self.stored)

    def add(self, buckets: Sequence[int]) -> Added:
        self.allowed = paths(buckets)
        added = add(self, buckets)
        assert set(added.changed) == (self.allowed if buckets else set())
        self.stored.update({key: node.to_bytes() for key, node in added.changed.items()})
        return added

    def first_crossing(self) -> int | None:
        reads: list[NodeKey] = []

        def read(key: NodeKey) -> Node | None:
            reads.append(key)
            return Node.from_bytes(self.stored[key]) if key in self.stored else None

        found = first_crossing(read)
        assert len(reads) <= 4
        return found


@given(STAIRCASES, PLACES, st.randoms(use_true_random=False))
def test_the_tree_finds_what_the_recount_finds(stairs: Staircase, places: list[int], rng: random.Random) -> None:
    rows, seen = Rows(), 0
    rng.shuffle(places)
    while seen < len(places):
        batch = places[seen : seen + rng.randint(1, 7)]
        seen += len(batch)
        added = rows.add([stairs.need(place) for place in batch])
        expected = recount(places[:seen], stairs)
        assert added.bad == seen
        assert added.crossed == (expected is not None)
        assert rows.first_crossing() == (expected.bad if expected else None)


@given(STAIRCASES, PLACES, st.randoms(use_true_random=False))
def test_order_and_batches_leave_the_same_rows(stairs: Staircase, places: list[int], rng: random.Random) -> None:
    at_once, one_by_one = Rows(), Rows()
    at_once.add([stairs.need(place) for place in places])
    rng.shuffle(places)
    for place in places:
        one_by_one.add([stairs.need(place)])
    assert at_once.stored == one_by_one.stored


@given(STAIRCASES, PLACES, PLACES)
def test_more_bad_devices_never_uncross(stairs: Staircase, places: list[int], more: list[int]) -> None:
    rows = Rows()
    crossed = rows.add([stairs.need(place) for place in places]).crossed
    first = rows.first_crossing()
    for place in more:
        now = rows.add([stairs.need(place)])
        assert now.crossed >= crossed
        crossed = now.crossed
    if first is not None:
        assert rows.first_crossing() is not None


@given(st.lists(st.integers(1, BUCKETS), max_size=50))
def test_the_tree_is_the_highest_prefix_sum(buckets: list[int]) -> None:
    """By hand: crossed when for some k at least k outcomes are in buckets 1 … k."""
    rows = Rows()
    added = rows.add(buckets)
    ordered = sorted(buckets)
    crossing = [bucket for count, bucket in enumerate(ordered, start=1) if count >= bucket]
    assert added.crossed == bool(crossing)
    assert added.bad == len(buckets)
    known = rows.first_crossing()
    assert known == (min(k for k in range(1, 60) if sum(b <= k for b in buckets) >= k) if crossing else None)


def test_a_story_in_the_order_of_the_reports() -> None:
    """Tolerance 2 %, whole allowance: 2 in 5, 3 in 16, 4 in 33. Failures come in at places 30, 14, 90, 12 and 33.

    After the fourth, 12, 14 and 30 are three in thirty: not enough. The fifth makes four in 33: halt.
    """
    stairs, rows = staircase(0.02, 0.05), Rows()
    answers = [rows.add([stairs.need(place)]).crossed for place in (30, 14, 90, 12, 33)]
    assert answers == [False, False, False, False, True]
    assert rows.first_crossing() == 4
    assert recount([30, 14, 90, 12, 33], stairs) == Crossing(bad=4, place=33, limit=33)


def test_pending_devices_in_front_may_still_prove_a_crossing_far_behind() -> None:
    """The report that proves it lies in the first bucket, the crossing it proves in another node's."""
    rows = Rows()
    assert not rows.add([100] * 99).crossed
    assert rows.add([2]).crossed
    assert rows.first_crossing() == 100


def test_ten_thousand_failures_among_ten_million_places() -> None:
    stairs, rows, rng = staircase(0.001, 0.01), Rows(), random.Random(7)
    places = rng.sample(range(1, 10_000_001), 9_000)
    for start in range(0, len(places), 500):
        added = rows.add([stairs.need(place) for place in places[start : start + 500]])
    assert (added.crossed, added.bad) == (False, 9_000)
    assert recount(places, stairs) is None
    assert max(len(stored) for stored in rows.stored.values()) <= 577
    assert len(rows) < 400, "empty regions have no rows"


def test_the_last_bucket_and_beyond() -> None:
    rows = Rows()
    assert rows.add([BUCKETS, BUCKETS]).bad == 2
    assert path(BUCKETS) == (ROOT, NodeKey(1, 63), NodeKey(2, 4_095), NodeKey(3, 262_143))
    for bucket in (0, -1, BUCKETS + 1):
        with pytest.raises(InvalidInput, match="outside"):
            path(bucket)


def test_ten_million_places_fit_at_any_tolerance_to_95_percent() -> None:
    assert staircase(0.95, 1e-6).need(10_000_000) <= BUCKETS


def test_nothing_added_says_what_is_there() -> None:
    rows = Rows()
    assert rows.add([]) == Added(changed={}, bad=0, crossed=False)
    assert rows.first_crossing() is None
    rows.add([2, 2])
    assert rows.add([]) == Added(changed={}, bad=2, crossed=True)


@pytest.mark.parametrize(
    "stored",
    [b"", b"\x02", b"\x01\x00", Node((Child(3, 0, 0), Child(3, 1, 1))).to_bytes(), Node((Child(64, 0, 0),)).to_bytes()],
)
def test_broken_rows_are_refused(stored: bytes) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        Node.from_bytes(stored)


def test_a_missing_row_is_noticed() -> None:
    rows = Rows()
    rows.add([1])
    for key in path(1)[1:]:
        stored = dict(rows.stored)
        del stored[key]
        with pytest.raises(InvalidInput, match="missing"):
            first_crossing({k: Node.from_bytes(v) for k, v in stored.items()}.get)


def test_a_tree_that_contradicts_itself_is_noticed() -> None:
    rows = {ROOT: Node((Child(0, 0, 0),)), NodeKey(1, 0): Node()}
    with pytest.raises(InvalidInput, match="contradicts"):
        first_crossing(rows.get)


def test_a_monitor_that_starts_anew_counts_from_there() -> None:
    assert [place_since(place, 40) for place in (39, 40, 41, 100)] == [None, None, 1, 60]


@given(STAIRCASES, PLACES)
def test_the_next_step_is_the_least_that_crosses_and_the_most_places(stairs: Staircase, places: list[int]) -> None:
    rows = Rows()
    crossed = rows.add([stairs.need(place) for place in places]).crossed
    step = next_step(stairs, lambda key: Node.from_bytes(rows.stored[key]) if key in rows.stored else None)
    if crossed:
        assert step is None
        return
    assert step is not None
    more, within, there = step
    assert there == sum(place <= within for place in places)
    assert recount([*places, *[within] * more], stairs), "so many there cross"
    assert not recount([*places, *[within + 1] * more], stairs), "so many one place further do not"
    assert not recount([*places, *[1] * (more - 1)], stairs), "one fewer does not, wherever"


def test_next_steps_by_hand() -> None:
    """Tolerance 2 %: 2 in 5, 3 in 16, 4 in 33, 5 in 52. After 30, 14 and 12 a 4th within 33 is enough."""
    stairs, rows = staircase(0.02, 0.05), Rows()

    def step() -> Step | None:
        return next_step(stairs, lambda key: Node.from_bytes(rows.stored[key]) if key in rows.stored else None)

    assert step() == first_step(stairs) == Step(more=2, within=5, there=0)
    rows.add([stairs.need(place) for place in (30, 14, 12)])
    assert step() == Step(more=1, within=33, there=3)
    rows = Rows()
    rows.add([stairs.need(900)])
    assert step() == Step(more=2, within=5, there=0), "one far behind helps none in front"
    rows.add([stairs.need(place) for place in (15, 50)])
    assert step() == Step(more=2, within=16, there=1), "two within 5 would do as well; these are the most places"
    rows.add([2, 2])
    assert step() is None


@given(st.lists(st.integers(1, 5_000)), st.sampled_from([0.005, 0.02, 0.3]))
def test_buckets_of_many_places_are_those_of_each(places: list[int], tolerance: float) -> None:
    stairs = staircase(tolerance, 0.01)
    assert buckets_of(sorted(places), stairs) == Counter(stairs.need(place) for place in places)
