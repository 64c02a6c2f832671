"""Operating characteristics of segments, played through the real allotment, places, trees, ``safety`` and transitions.

A fleet of 4,000 under the standard shares: three classes that halt, eight hardware ids and four versions. A wave opens
in slices of 20, 20, 40, 80 …; each slice reports in any order, failures first where that is said. Budgets are off.
Seeds are fixed, so the figures are the same each time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from statistics import median

import pytest

from orchestrator.core import transitions
from orchestrator.core.decisions import ExcludeSegment, HaltRollout
from orchestrator.core.evidence.allowance import ROLLOUT, MonitorSpec, WaveSize, allot, allot_segments
from orchestrator.core.evidence.crossing import Node, NodeKey, add, recount
from orchestrator.core.evidence.left_out import NOBODY, LeftOut, Seat
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import Facts, MonitorFacts, RolloutState
from orchestrator.core.outcomes import Outcome, OutcomeClass, Tolerance
from orchestrator.core.position import SPACE
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.safety import safety
from orchestrator.core.slices import Slice, exact_ranks, sizes, wave_population
from tests.core.world import fresh_state

DAY_0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
FAILED = OutcomeClass.FAILED
THREE: dict[Outcome, Tolerance] = {
    FAILED: Tolerance(0.02),
    OutcomeClass.ROLLED_BACK: Tolerance(0.01),
    OutcomeClass.SILENT: Tolerance(0.005),
}
RULES = Rules((WaveRules("all"),), tolerate=THREE, segments=("hardware_id", "source_version"))
DEVICES = 4_000
BOARDS = {"bad": 0.05, **{f"board{n}": 0.95 / 7 for n in range(7)}}
BAD = "hardware_id=bad"
RUNS = 100


@dataclass(frozen=True)
class Unit:
    """A device: where it stands, what it is, and what becomes of it."""

    position: int
    segments: tuple[str, str]
    fails: bool


@dataclass
class Count:
    """A monitor with its tree."""

    spec: MonitorSpec
    nodes: dict[NodeKey, Node] = field(default_factory=dict)
    bad: int = 0
    crossed_at: tuple[int, int] | None = None

    def enter(self, place: int) -> None:
        stairs = staircase(self.spec.tolerance, self.spec.alpha)
        added = add(self.nodes, [stairs.need(place)])
        self.nodes |= added.changed
        self.bad = added.bad
        if added.crossed and self.crossed_at is None:
            self.crossed_at = (self.bad, place)

    def again(self, places: Iterable[int]) -> None:
        self.nodes, self.bad, self.crossed_at = {}, 0, None
        for place in (found := list(places)):
            self.enter(place)
        crossing = recount(found, staircase(self.spec.tolerance, self.spec.alpha))
        assert (crossing is None) == (self.crossed_at is None)


@dataclass
class Came:
    """What a run came to. ``places``: of the segment that was excluded first, reported by then."""

    excluded: tuple[str, ...]
    halted: bool
    places: int = 0
    failed: int = 0


@cache
def watched() -> list[MonitorSpec]:
    """The monitors of failures: one over the rollout, and one for each of twelve segments."""
    whole = allot(tolerate=THREE, false_halt=0.05, waves=[WaveSize("all", DEVICES, 0)], devices=DEVICES)
    boards = {f"hardware_id={name}": round(share * DEVICES) for name, share in BOARDS.items()}
    versions = {f"source_version={n}": DEVICES // 4 for n in range(38, 42)}
    sizes_ = {"hardware_id": boards, "source_version": versions}
    segments = allot_segments(tolerate=THREE, false_exclude=0.05, sizes=sizes_, devices=DEVICES)
    return [spec for spec in (*whole, *segments) if spec.outcomes == (FAILED,)]


def play(seed: int, *, bad: float, rest: float, failures_first: bool) -> Came:
    """One rollout: devices of the bad board fail with probability ``bad``, all others with ``rest``."""
    dice = random.Random(seed)
    names, weights = list(BOARDS), list(BOARDS.values())
    fleet = sorted(dice.sample(range(SPACE), DEVICES))
    units = []
    for position in fleet:
        board = dice.choices(names, weights)[0]
        rate = bad if board == "bad" else rest
        units.append(
            Unit(position, (f"hardware_id={board}", f"source_version={dice.randrange(38, 42)}"), dice.random() < rate)
        )
    state = fresh_state(["all"])
    counts = [Count(spec) for spec in watched()]
    opened: list[Slice] = []
    seats: list[Seat] = []
    left_out, came = NOBODY, Came((), False)
    reported: dict[str, int] = {}
    while units and not came.halted:
        size = sizes(DEVICES, first=20, growth=2.0)[len(opened)] if len(opened) < 9 else len(units)
        members, units = units[:size], units[size:]
        opened.append(piece := slice_of(opened, members))
        waiting = list(members)
        dice.shuffle(waiting)
        if failures_first:
            waiting.sort(key=lambda unit: not unit.fails)
        left_out = LeftOut(opened, state.excluded_segments)
        for unit in waiting:
            for segment in unit.segments:
                reported[segment] = reported.get(segment, 0) + 1
            if not unit.fails:
                continue
            seat = seat_of(piece, unit)
            seats.append(seat)
            for count in counts:
                place = left_out.place(count.spec, 0, seat)
                if place is not None:
                    count.enter(place)
            before = state
            state, halted = settled(state, counts, opened, seats)
            if state.excluded != before.excluded:
                if not before.excluded:
                    came.places = reported[state.excluded[0].segment]
                left_out = LeftOut(opened, state.excluded_segments)
                units = [each for each in units if state.excluded_segments.isdisjoint(each.segments)]
            if halted:
                came.halted, came.failed = True, len(seats)
                break
    came.excluded = tuple(each.segment for each in state.excluded)
    return came


def slice_of(opened: list[Slice], members: list[Unit]) -> Slice:
    populations: dict[str, list[int]] = {}
    for unit in members:
        for name in (ROLLOUT, wave_population("all"), *unit.segments):
            populations.setdefault(name, []).append(unit.position)
    before = dict(opened[-1].before) if opened else {}
    for name, last in (opened[-1].ranks if opened else {}).items():
        before[name] = before.get(name, 0) + last.members
    ranks = {name: exact_ranks(found) for name, found in populations.items()}
    upto = members[-1].position + 1
    return Slice("all", len(opened) + 1, upto, DAY_0 + timedelta(hours=len(opened)), before, ranks)


def seat_of(piece: Slice, unit: Unit) -> Seat:
    places = piece.places(unit.position, (ROLLOUT, wave_population("all"), *unit.segments))
    rollout, wave = places.pop(ROLLOUT), places.pop(wave_population("all"))
    return Seat("all", piece.number, unit.position, rollout, wave, places)


def settled(
    state: RolloutState, counts: list[Count], opened: list[Slice], seats: list[Seat]
) -> tuple[RolloutState, bool]:
    """As the transaction that counts a report: until nothing more must be stopped."""
    while any(count.crossed_at for count in counts if count.spec.segment not in state.excluded_segments):
        stop = safety(state, Facts(DEVICES, (), tuple(facts_of(count, opened) for count in counts)), RULES)
        if isinstance(stop, HaltRollout):
            return state, True
        assert isinstance(stop, ExcludeSegment)
        state = transitions.apply(state, stop, DAY_0)
        left_out = LeftOut(opened, state.excluded_segments)
        for count in counts:
            places = (left_out.place(count.spec, 0, seat) for seat in seats)
            count.again(place for place in places if place is not None)
    return state, False


def facts_of(count: Count, opened: list[Slice]) -> MonitorFacts:
    spec = count.spec
    last = opened[-1]
    name = spec.segment or ROLLOUT
    ranks = last.ranks.get(name)
    places = last.before.get(name, 0) + (ranks.members if ranks else 0)
    return MonitorFacts(
        spec.key,
        spec.outcomes,
        spec.wave,
        spec.tolerance,
        spec.alpha,
        spec.answer,
        max(places, count.bad),
        count.bad,
        0,
        count.crossed_at,
        segment=spec.segment,
        devices=spec.devices,
    )


def played(*, bad: float, rest: float, failures_first: bool) -> list[Came]:
    return [play(seed, bad=bad, rest=rest, failures_first=failures_first) for seed in range(RUNS)]


@pytest.mark.parametrize("failures_first", [False, True])
def test_after_a_truly_bad_segment_is_excluded_a_good_rest_is_halted_in_at_most_5_percent(
    failures_first: bool,
) -> None:
    """5 % of the fleet fail 30 %, the rest is exactly at its tolerance of 2 %."""
    found = played(bad=0.3, rest=0.02, failures_first=failures_first)
    excluded = [each for each in found if BAD in each.excluded]
    assert len(excluded) >= 0.9 * RUNS, "a whole-rollout monitor that crosses first is the only other end"
    assert sum(each.halted for each in excluded) <= 0.05 * len(excluded)


@pytest.mark.parametrize("failures_first", [False, True])
def test_a_bad_board_is_excluded_early_and_rightly_named_and_the_rest_arrives(failures_first: bool) -> None:
    """The rest at a quarter of its tolerance: the fleet as a whole fails 2 %, as tolerated."""
    found = played(bad=0.3, rest=0.005, failures_first=failures_first)
    assert sum(each.excluded == (BAD,) and not each.halted for each in found) >= 0.99 * RUNS
    if not failures_first:
        assert median(each.places for each in found if each.excluded) <= 15


def test_a_good_fleet_loses_no_segment_and_is_not_halted() -> None:
    """At tolerance everywhere: together within both allowances, each of 5 %."""
    found = played(bad=0.02, rest=0.02, failures_first=True)
    assert sum(bool(each.excluded) for each in found) <= 0.05 * RUNS
    assert sum(each.halted for each in found) <= 0.05 * RUNS


def test_what_is_bad_for_all_halts_soon() -> None:
    found = [play(seed, bad=0.1, rest=0.1, failures_first=False) for seed in range(RUNS // 3)]
    assert all(each.halted for each in found)
    assert median(each.failed for each in found) <= 10
