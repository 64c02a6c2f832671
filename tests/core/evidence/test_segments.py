"""Which segments have monitors, and what each of them is allowed (RULES 4.2, 4.3)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.allowance import (
    MOST_NEWCOMERS,
    MOST_VALUES,
    MonitorSpec,
    allot_newcomer,
    allot_segments,
)
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

FAILED, ROLLED_BACK, SILENT = OutcomeClass.FAILED, OutcomeClass.ROLLED_BACK, OutcomeClass.SILENT
THREE: dict[Outcome, Tolerance] = {
    FAILED: Tolerance(0.02),
    ROLLED_BACK: Tolerance(0.01),
    SILENT: Tolerance(0.005),
    OutcomeClass.DOWNLOAD_FAILED: Tolerance(0.15, Answer.HOLD),
    OutcomeClass.IGNORED: Tolerance(0.05, Answer.COUNT),
}
SIZES = st.dictionaries(
    st.sampled_from(["hardware_id", "source_version", "label:site"]),
    st.lists(st.integers(0, 400), max_size=30).map(lambda many: {f"v{n}": size for n, size in enumerate(many)}),
)


def named(sizes: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {name: {f"{name}={value}": many for value, many in found.items()} for name, found in sizes.items()}


def allotted(
    sizes: dict[str, dict[str, int]],
    *,
    false_exclude: float = 0.05,
    devices: int = 10_000,
    tolerate: Mapping[Outcome, Tolerance] = THREE,
) -> tuple[MonitorSpec, ...]:
    return allot_segments(
        tolerate=tolerate,
        false_exclude=false_exclude,
        sizes=named(sizes),
        devices=devices,
    )


def test_twelve_segments_under_the_standard_shares() -> None:
    """4.5 % over three classes, over two dimensions, over the eight and four segments of each."""
    boards = {f"board{n}": 1_000 for n in range(8)}
    versions = {str(n): 2_000 for n in range(38, 42)}
    specs = allotted({"hardware_id": boards, "source_version": versions})
    assert len(specs) == 36
    alphas = {spec.key: spec.alpha for spec in specs}
    assert alphas["segment:hardware_id=board3/failed"] == pytest.approx(0.045 / 3 / 2 / 8)
    assert alphas["segment:source_version=41/silent"] == pytest.approx(0.045 / 3 / 2 / 4)
    first = specs[0]
    assert (first.segment, first.wave, first.devices, first.answer) == ("hardware_id=board0", None, 1_000, Answer.HALT)
    assert {spec.outcomes for spec in specs} == {(FAILED,), (ROLLED_BACK,), (SILENT,)}


def test_a_segment_too_small_to_fire_gets_nothing_and_leaves_its_part() -> None:
    """Two cm4 in a row can be found at 0.5 %; at 2 % they cannot, and rpi4 and imx8 share what they leave."""
    specs = allotted({"hardware_id": {"rpi4": 5_000, "imx8": 5_000, "cm4": 2}}, false_exclude=0.01)
    alphas = {spec.key: spec.alpha for spec in specs}
    assert alphas["segment:hardware_id=rpi4/failed"] == pytest.approx(0.009 / 3 / 2)
    assert "segment:hardware_id=cm4/failed" not in alphas
    assert alphas["segment:hardware_id=rpi4/silent"] == pytest.approx(0.009 / 3 / (1 + 1 + 19))


def test_a_small_segment_has_more_of_the_allowance_than_a_large_one() -> None:
    """By how many devices are outside for each one inside: 60, 25, 10 and 5 % weigh 2/3, 3, 9 and 19. With three
    classes and dimensions the smallest then needs 4 failed within 13 places instead of 10."""
    boards = {"a": 1_200, "b": 500, "c": 200, "d": 100}
    alphas = {spec.key: spec.alpha for spec in allotted({"hardware_id": boards}, devices=2_000)}
    whole = 2 / 3 + 3 + 9 + 19
    for name, weight in zip(boards, (2 / 3, 3, 9, 19), strict=True):
        assert alphas[f"segment:hardware_id={name}/failed"] == pytest.approx(0.045 / 3 * weight / whole)
    assert staircase(0.02, alphas["segment:hardware_id=d/failed"] / 3).limit(4) == 13
    assert staircase(0.02, 0.045 / 3 / 3 / 4).limit(4) == 10


def test_a_handful_of_devices_does_not_take_the_allowance_from_the_others() -> None:
    """Four of 2,000 weigh no more than 5 % of them would."""
    alphas = {spec.key: spec.alpha for spec in allotted({"hardware_id": {"a": 1_896, "c": 100, "e": 4}}, devices=2_000)}
    tiny, small = (alphas[f"segment:hardware_id={name}/failed"] for name in ("e", "c"))
    assert tiny == pytest.approx(small)


def test_a_dimension_that_says_nothing_leaves_its_part_to_the_others() -> None:
    """All run version 41: that segment is the whole rollout once more. Sites of one device cannot fire."""
    sizes = {"hardware_id": {"rpi4": 900, "cm4": 100}, "source_version": {"41": 1_000}, "label:site": {"a": 1, "b": 1}}
    specs = allotted(sizes, devices=1_000)
    assert {spec.segment for spec in specs} == {"hardware_id=rpi4", "hardware_id=cm4"}
    assert math.fsum(spec.alpha for spec in specs) == pytest.approx(0.045)


def test_below_200_devices_there_is_none() -> None:
    sizes = {"hardware_id": {"rpi4": 150, "cm4": 49}}
    assert allotted(sizes, devices=199) == ()
    assert len(allotted(sizes, devices=200)) == 6


def test_a_fleet_in_which_everything_is_a_segment_of_one_has_no_monitor_and_is_fast() -> None:
    alone = {"label:serial": {str(n): 1 for n in range(100_000)}}
    begun = time.perf_counter()
    assert allotted(alone, devices=100_000) == ()
    assert time.perf_counter() - begun < 2


def test_of_one_dimension_the_largest_are_watched() -> None:
    sites = {f"{n:04}": 100 + (n * 7919) % 1_000 for n in range(1_000)}
    specs = [spec for spec in allotted({"label:site": sites}) if spec.outcomes == (FAILED,)]
    largest = sorted(sites, key=lambda name: (-sites[name], name))[:MOST_VALUES]
    assert {spec.segment for spec in specs} == {f"label:site={name}" for name in largest}


@given(SIZES, st.floats(0.001, 0.2))
def test_the_allowance_is_never_overspent_and_nobody_has_a_part_in_vain(
    sizes: dict[str, dict[str, int]], false_exclude: float
) -> None:
    specs = allotted(sizes, false_exclude=false_exclude)
    assert len({spec.key for spec in specs}) == len(specs)
    for outcome in (FAILED, ROLLED_BACK, SILENT):
        mine = [spec for spec in specs if spec.outcomes == (outcome,)]
        if mine:
            assert math.fsum(spec.alpha for spec in mine) == pytest.approx(false_exclude * 0.9 / 3)
    for spec in specs:
        assert spec.devices >= staircase(spec.tolerance, spec.alpha).first, "it can fire"


@given(SIZES)
def test_whoever_has_no_monitor_could_not_have_fired_beside_the_others(sizes: dict[str, dict[str, int]]) -> None:
    """The largest of those left out, with its part of what its dimension has, beside those watched."""
    specs = allotted(sizes)
    for outcome in (FAILED, SILENT):
        mine = [spec for spec in specs if spec.outcomes == (outcome,)]
        for dimension, found in named(sizes).items():
            watched: list[MonitorSpec] = [spec for spec in mine if (spec.segment or "").startswith(f"{dimension}=")]
            left_out = [size for name, size in found.items() if name not in {spec.segment for spec in watched}]
            if not watched or not left_out:
                continue
            # None has 5 % of the 10,000 devices, so that all weigh the same.
            part = math.fsum(spec.alpha for spec in watched)
            assert max(left_out) < staircase(watched[0].tolerance, part / (len(watched) + 1)).first


def test_only_classes_that_halt_stop_a_segment() -> None:
    tolerate: dict[Outcome, Tolerance] = {FAILED: Tolerance(0.02, Answer.HOLD), SILENT: Tolerance(0.01, Answer.COUNT)}
    assert allotted({"hardware_id": {"rpi4": 500, "cm4": 500}}, tolerate=tolerate) == ()


@pytest.mark.parametrize("false_exclude", [0.0, 1.0, math.nan])
def test_an_allowance_that_is_none_is_refused(false_exclude: float) -> None:
    with pytest.raises(InvalidInput, match="false_exclude"):
        allotted({"hardware_id": {"a": 500, "b": 500}}, false_exclude=false_exclude)


def newcomer(number: int, places: int) -> tuple[MonitorSpec, ...]:
    return allot_newcomer("hardware_id=new", tolerate=THREE, false_exclude=0.05, newcomer=number, places=places)


def test_a_newcomer_is_paid_from_the_reserve() -> None:
    specs = newcomer(1, 50)
    assert [spec.key for spec in specs] == [
        f"segment:hardware_id=new/{name}" for name in ("failed", "rolled_back", "silent")
    ]
    assert all(spec.alpha == pytest.approx(0.005 * 6 / math.pi**2 / 3) for spec in specs)
    assert all(spec.devices == 0 for spec in specs)


def test_newcomers_never_spend_more_than_the_reserve_and_those_who_cannot_fire_get_nothing() -> None:
    spent = math.fsum(spec.alpha for number in range(1, 500) for spec in newcomer(number, 1_000))
    assert 0.0048 < spent < 0.005
    assert newcomer(1, 2) == ()
    assert newcomer(MOST_NEWCOMERS + 1, 1_000) == ()
