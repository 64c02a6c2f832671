"""The rest's ranks: a fleet whose excluded segments are left out counts as one that never had them (RULES 4.4)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.evidence.allowance import ROLLOUT, MonitorSpec
from orchestrator.core.evidence.crossing import Node, NodeKey, add, first_crossing, recount
from orchestrator.core.evidence.left_out import NOBODY, LeftOut, Seat
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.position import SPACE
from orchestrator.core.slices import (
    BINS,
    Slice,
    coarse_ranks,
    dimension_of,
    exact_ranks,
    wave_population,
)

DAY_0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
FAILED = (OutcomeClass.FAILED,)
WAVES = ("canary", "rest")
BOARDS, REGIONS, VERSIONS = ("rpi4", "cm4", "imx8"), ("emea", "amer"), (40, 41)


@dataclass(frozen=True)
class Member:
    """A device with a place."""

    wave: str
    slice: int
    position: int
    segments: tuple[str, ...]


def drawn(
    seed: int, slices: int = 5, largest: int = 30, *, versions: bool = False
) -> tuple[list[Slice], dict[Member, Seat]]:
    """Slices of two waves side by side, their members with one or two segments, and the seat of each."""
    dice = random.Random(seed)
    given_: dict[str, int] = {}
    opened: list[Slice] = []
    members: list[Member] = []
    low = dict.fromkeys(WAVES, 0)
    for number in range(slices):
        wave = dice.choice(WAVES)
        mine = 1 + sum(piece.wave == wave for piece in opened)
        upto = low[wave] + SPACE // (slices + 1)
        found = [
            Member(
                wave,
                mine,
                dice.randrange(low[wave], upto),
                (
                    f"hardware_id={dice.choice(BOARDS)}",
                    *([f"source_version={dice.choice(VERSIONS)}"] if versions else []),
                    *([f"label:region={dice.choice(REGIONS)}"] if dice.random() < 0.8 else []),
                ),
            )
            for _ in range(dice.randrange(largest))
        ]
        found = list({member.position: member for member in found}.values())
        low[wave] = upto
        populations: dict[str, list[int]] = {}
        for member in found:
            for name in (ROLLOUT, wave_population(wave), *member.segments):
                populations.setdefault(name, []).append(member.position)
        ranks = {name: exact_ranks(positions) for name, positions in populations.items()}
        opened.append(Slice(wave, mine, upto, DAY_0 + timedelta(hours=number), dict(given_), ranks))
        for name, one in ranks.items():
            given_[name] = given_.get(name, 0) + one.members
        members += found
    return opened, {member: seat_of(opened, member) for member in members}


def seat_of(opened: Sequence[Slice], member: Member) -> Seat:
    piece = next(p for p in opened if (p.wave, p.number) == (member.wave, member.slice))
    places = piece.places(member.position, (ROLLOUT, wave_population(member.wave), *member.segments))
    rollout, wave = places.pop(ROLLOUT), places.pop(wave_population(member.wave))
    return Seat(member.wave, member.slice, member.position, rollout, wave, places)


def spec(scope: str = ROLLOUT) -> MonitorSpec:
    return MonitorSpec(f"{scope}/failed", FAILED, scope, 0.02, 0.015, Answer.HALT)


def order_of(opened: Sequence[Slice], member: Member) -> tuple[int, int]:
    number = next(n for n, p in enumerate(opened) if (p.wave, p.number) == (member.wave, member.slice))
    return number, member.position


BY_BOARD = st.frozensets(st.sampled_from([f"hardware_id={board}" for board in BOARDS]))
ANY_SEGMENTS = st.frozensets(
    st.sampled_from([f"hardware_id={board}" for board in BOARDS] + [f"label:region={name}" for name in REGIONS])
)
VERSIONED = ANY_SEGMENTS | st.frozensets(
    st.sampled_from([f"source_version={version}" for version in VERSIONS] + ["hardware_id=cm4", "label:region=emea"])
)
SEEDS = st.integers(0, 2**32)


@given(SEEDS, BY_BOARD)
def test_over_one_dimension_places_are_the_true_ranks_of_the_rest(seed: int, excluded: frozenset[str]) -> None:
    opened, seats = drawn(seed)
    left_out = LeftOut(opened, excluded)
    rest = sorted((m for m in seats if excluded.isdisjoint(m.segments)), key=lambda m: order_of(opened, m))
    assert [left_out.place(spec(), 0, seats[m]) for m in rest] == list(range(1, len(rest) + 1))
    for wave in WAVES:
        mine = [m for m in rest if m.wave == wave]
        assert [left_out.place(spec(f"wave:{wave}"), 0, seats[m]) for m in mine] == list(range(1, len(mine) + 1))
    for member, seat in seats.items():
        if not excluded.isdisjoint(member.segments):
            assert left_out.place(spec(), 0, seat) is None
            assert left_out.place(spec(f"wave:{member.wave}"), 0, seat) is None


@given(SEEDS, ANY_SEGMENTS)
def test_over_several_dimensions_a_place_is_never_less_than_the_true_rank(seed: int, excluded: frozenset[str]) -> None:
    """So whatever crosses would have crossed among the rest alone: the guarantee holds."""
    opened, seats = drawn(seed)
    left_out = LeftOut(opened, excluded)
    rest = sorted((m for m in seats if excluded.isdisjoint(m.segments)), key=lambda m: order_of(opened, m))
    for rank, member in enumerate(rest, start=1):
        place = left_out.place(spec(), 0, seats[member])
        assert place is not None
        assert rank <= place <= seats[member].rollout_place


@given(SEEDS, VERSIONED)
def test_whoever_changes_between_the_opening_and_its_offer_moves_nobody_below_the_true_rank(
    seed: int, excluded: frozenset[str]
) -> None:
    """After the opening some run another version and keep their place; some have another board or region, so that they
    are in a later slice; some are never offered anything. What the offers froze says who is left out."""
    dice = random.Random(seed)
    opened, seats = drawn(seed, versions=True)
    offered: list[tuple[Member, Seat]] = []
    for member in seats:
        board, version, *region = member.segments
        fate = dice.random()
        if fate < 0.4:
            version = f"source_version={dice.choice(VERSIONS)}"
        elif fate < 0.6:
            continue  # another device to the slices, or one that nobody has seen again
        now = replace(member, segments=(board, version, *region))
        offered.append((now, seat_of(opened, now)))
    left_out = LeftOut(opened, excluded)
    rest = [each for each in offered if excluded.isdisjoint(each[0].segments)]
    rest.sort(key=lambda each: order_of(opened, each[0]))
    in_wave: dict[str, int] = {}
    for rank, (member, seat) in enumerate(rest, start=1):
        in_wave[member.wave] = in_wave.get(member.wave, 0) + 1
        whole, own = (left_out.place(spec(scope), 0, seat) for scope in (ROLLOUT, f"wave:{member.wave}"))
        assert whole is not None and rank <= whole <= seat.rollout_place
        assert own is not None and in_wave[member.wave] <= own <= seat.wave_place


@given(SEEDS, BY_BOARD, st.integers(0, 4))
def test_a_monitor_that_began_anew_counts_the_rest_since_then(seed: int, excluded: frozenset[str], begun: int) -> None:
    opened, seats = drawn(seed)
    from_place = sum(piece.members for piece in opened[:begun])
    left_out = LeftOut(opened, excluded)
    later = [m for m in seats if excluded.isdisjoint(m.segments) and order_of(opened, m)[0] >= begun]
    later.sort(key=lambda m: order_of(opened, m))
    assert [left_out.place(spec(), from_place, seats[m]) for m in later] == list(range(1, len(later) + 1))
    earlier = [m for m in seats if order_of(opened, m)[0] < begun]
    assert all(left_out.place(spec(), from_place, seats[m]) is None for m in earlier)


@given(SEEDS, ANY_SEGMENTS)
def test_a_monitor_over_a_segment_keeps_its_places_and_leaves_the_excluded_of_others_out(
    seed: int, excluded: frozenset[str]
) -> None:
    opened, seats = drawn(seed)
    left_out = LeftOut(opened, excluded)
    for member, seat in seats.items():
        for segment in seat.segments:
            place = left_out.place(spec(f"segment:{segment}"), 0, seat)
            others = excluded.intersection(member.segments)
            if segment in excluded or not others:
                assert place == seat.segments[segment]
            else:
                assert place is None
        assert left_out.place(spec("segment:hardware_id=other"), 0, seat) is None


@given(SEEDS, ANY_SEGMENTS)
def test_members_left_out_are_never_more_than_there_are(seed: int, excluded: frozenset[str]) -> None:
    opened, seats = drawn(seed)
    left_out = LeftOut(opened, excluded)
    for piece in opened:
        gone = sum(
            (m.wave, m.slice) == (piece.wave, piece.number) and not excluded.isdisjoint(m.segments) for m in seats
        )
        counted = left_out.members(piece)
        assert counted <= gone
        if len({dimension_of(segment) for segment in excluded}) < 2:
            assert counted == gone


@settings(max_examples=60)
@given(SEEDS, BY_BOARD, st.randoms(use_true_random=False))
def test_the_tree_is_the_recount_whenever_the_exclusion_came_and_in_whatever_order(
    seed: int, excluded: frozenset[str], dice: random.Random
) -> None:
    """Half of all devices fail, in any order; at some moment the segments are excluded and the tree is built again."""
    opened, seats = drawn(seed, largest=60)
    bad = [member for member in seats if dice.random() < 0.5]
    stairs = staircase(0.02, 0.015)
    ends = []
    for _ in range(3):
        dice.shuffle(bad)
        moment = dice.randrange(len(bad) + 1)
        tree: dict[NodeKey, Node] = {}
        counted = 0
        for number, member in enumerate(bad):
            if number == moment:
                tree, counted = again(opened, excluded, [seats[m] for m in bad[:number]])
            where = (LeftOut(opened, excluded) if number >= moment else NOBODY).place(spec(), 0, seats[member])
            if where is not None:
                added = add(tree, [stairs.need(where)])
                tree, counted = {**tree, **added.changed}, added.bad
        if moment == len(bad):
            tree, counted = again(opened, excluded, [seats[m] for m in bad])
        ends.append((tree, counted))
    assert ends[0] == ends[1] == ends[2]
    left_out = LeftOut(opened, excluded)
    places = [place for m in bad if (place := left_out.place(spec(), 0, seats[m])) is not None]
    assert ends[0][1] == len(places)
    crossing = recount(places, stairs)
    assert first_crossing(ends[0][0].get) == (None if crossing is None else crossing.bad)


def again(opened: list[Slice], excluded: frozenset[str], bad: list[Seat]) -> tuple[dict[NodeKey, Node], int]:
    left_out, stairs = LeftOut(opened, excluded), staircase(0.02, 0.015)
    places = [place for seat in bad if (place := left_out.place(spec(), 0, seat)) is not None]
    added = add({}, [stairs.need(place) for place in places])
    return dict(added.changed), added.bad if places else 0


def test_in_a_large_slice_places_are_interpolated_and_stay_those_of_the_rest() -> None:
    """Ten thousand devices of which a tenth is left out: the last of the rest stands at nine thousand."""
    dice = random.Random(5)
    positions = sorted(dice.sample(range(SPACE), 10_000))
    bad = {position for position in positions if dice.random() < 0.1}

    def counts(of: Sequence[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for position in of:
            found[position * BINS // SPACE] = found.get(position * BINS // SPACE, 0) + 1
        return found

    whole, gone = coarse_ranks(counts(positions)), coarse_ranks(counts(sorted(bad)))
    piece = Slice(
        "rest", 1, SPACE, DAY_0, {}, {ROLLOUT: whole, wave_population("rest"): whole, "hardware_id=cm4": gone}
    )
    left_out = LeftOut([piece], frozenset({"hardware_id=cm4"}))
    rest = [position for position in positions if position not in bad]
    for rank, position in list(enumerate(rest, start=1))[::97]:
        seat = seat_of([piece], Member("rest", 1, position, ()))
        place = left_out.place(spec(), 0, seat)
        assert place is not None and abs(place - rank) <= 25
    assert left_out.members(piece) == len(bad)


def test_nothing_excluded_asks_for_no_slices() -> None:
    seat = Seat("canary", 1, 7, rollout_place=12, wave_place=3)
    assert NOBODY.place(spec(), 10, seat) == 2
    assert NOBODY.place(spec("wave:canary"), 0, seat) == 3
    assert NOBODY.place(spec("wave:rest"), 0, seat) is None
