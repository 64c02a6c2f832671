"""Who gets which part of the allowance."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.allowance import MonitorSpec, WaveSize, allot, newcomer_alpha
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

FAILED, ROLLED_BACK, SILENT = OutcomeClass.FAILED, OutcomeClass.ROLLED_BACK, OutcomeClass.SILENT
DOWNLOAD_FAILED, IGNORED = OutcomeClass.DOWNLOAD_FAILED, OutcomeClass.IGNORED
STANDARD: dict[Outcome, Tolerance] = {
    FAILED: Tolerance(0.02),
    ROLLED_BACK: Tolerance(0.01),
    SILENT: Tolerance(0.005),
    DOWNLOAD_FAILED: Tolerance(0.15, Answer.HOLD),
    IGNORED: Tolerance(0.05, Answer.COUNT),
}
WAVES = (
    WaveSize("lab", 10, 0),
    WaveSize("canary", 20, 10),
    WaveSize("emea", 500, 30),
    WaveSize("americas", 600, 100),
    WaveSize("rest", 20_000, 1_130),
)

POLICIES = st.dictionaries(
    st.sampled_from(OutcomeClass), st.builds(Tolerance, at_most=st.floats(0.0001, 0.15), then=st.sampled_from(Answer))
)
SIZES = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 400)), max_size=6).map(
    lambda pairs: [WaveSize(f"wave-{number}", *pair) for number, pair in enumerate(pairs)]
)


def _alphas(specs: tuple[MonitorSpec, ...], answer: Answer) -> dict[str, float]:
    return {spec.key: spec.alpha for spec in specs if spec.answer is answer}


def test_a_large_fleet_under_the_standard_policy() -> None:
    """5 % less a tenth is 4.5 %: four fifths overall, a fifth to the two late waves, each over three classes."""
    specs = allot(tolerate=STANDARD, false_halt=0.05, waves=WAVES, devices=21_130)
    assert _alphas(specs, Answer.HALT) == pytest.approx(
        {
            "rollout/failed": 0.012,
            "rollout/rolled_back": 0.012,
            "rollout/silent": 0.012,
            "wave:americas/failed": 0.0015,
            "wave:americas/rolled_back": 0.0015,
            "wave:americas/silent": 0.0015,
            "wave:rest/failed": 0.0015,
            "wave:rest/rolled_back": 0.0015,
            "wave:rest/silent": 0.0015,
        }
    )
    assert _alphas(specs, Answer.HOLD) == pytest.approx(
        {
            "rollout/download_failed": 0.036,
            "wave:americas/download_failed": 0.0045,
            "wave:rest/download_failed": 0.0045,
        }
    )
    assert [spec.key for spec in specs if spec.wave is None] == [spec.key for spec in specs][:4]
    assert {spec.wave for spec in specs} == {None, "americas", "rest"}


def test_without_a_late_wave_the_whole_pool_is_overall() -> None:
    specs = allot(tolerate=STANDARD, false_halt=0.05, waves=WAVES[:3], devices=530)
    assert _alphas(specs, Answer.HALT) == pytest.approx(
        {"rollout/failed": 0.015, "rollout/rolled_back": 0.015, "rollout/silent": 0.015}
    )


def test_a_wave_too_small_to_fire_gets_nothing() -> None:
    """Two devices cannot halt at 2 %, however bad; at 0.5 % they can. The larger wave has what they leave."""
    waves = (WaveSize("pair", 2, 500), WaveSize("rest", 5_000, 502))
    specs = allot(tolerate=STANDARD, false_halt=0.05, waves=waves, devices=5_502)
    late = {key: alpha for key, alpha in _alphas(specs, Answer.HALT).items() if key.startswith("wave:")}
    assert late == pytest.approx(
        {
            "wave:rest/failed": 0.003,
            "wave:rest/rolled_back": 0.003,
            "wave:pair/silent": 0.0015,
            "wave:rest/silent": 0.0015,
        }
    )


def test_a_small_fleet_has_one_monitor_that_halts() -> None:
    specs = allot(tolerate=STANDARD, false_halt=0.05, waves=WAVES, devices=199)
    pooled, held = specs
    assert (pooled.key, pooled.outcomes, pooled.scope, pooled.alpha, pooled.answer) == (
        "rollout/bad",
        (FAILED, ROLLED_BACK, SILENT),
        "rollout",
        0.025,
        Answer.HALT,
    )
    assert pooled.tolerance == pytest.approx(0.035)
    assert (held.key, held.alpha, held.answer) == ("rollout/download_failed", 0.025, Answer.HOLD)


def test_a_small_fleet_with_one_halting_class_keeps_the_pooled_key() -> None:
    (spec,) = allot(tolerate={FAILED: Tolerance(0.02)}, false_halt=0.05, waves=(), devices=10)
    assert (spec.key, spec.outcomes, spec.tolerance) == ("rollout/bad", (FAILED,), 0.02)


def test_two_hundred_devices_are_no_small_fleet() -> None:
    assert len(allot(tolerate=STANDARD, false_halt=0.05, waves=(), devices=200)) == 4


@pytest.mark.parametrize(("devices", "slice_size"), [(20_000, 20), (500, 20), (150, 20)])
def test_promise_3_total_failure_is_halted_by_the_fifth_failed_device(devices: int, slice_size: int) -> None:
    """Any k of the first slice's 20 places are within the limits once k reaches the need of place 20."""
    specs = allot(tolerate=STANDARD, false_halt=0.05, waves=WAVES, devices=devices)
    spec = next(spec for spec in specs if FAILED in spec.outcomes and spec.wave is None)
    assert staircase(spec.tolerance, spec.alpha).need(slice_size) <= 5


@given(POLICIES, SIZES, st.floats(0.001, 0.2), st.integers(1, 100_000))
def test_the_allowance_is_never_overspent(
    tolerate: dict[Outcome, Tolerance], waves: list[WaveSize], false_halt: float, devices: int
) -> None:
    specs = allot(tolerate=tolerate, false_halt=false_halt, waves=waves, devices=devices)
    assert len({spec.key for spec in specs}) == len(specs)
    for answer in (Answer.HALT, Answer.HOLD):
        spent = math.fsum(_alphas(specs, answer).values())
        if not any(tolerance.then is answer for tolerance in tolerate.values()):
            assert spent == 0.0
        else:
            part = 0.5 if devices < 200 else 0.9
            assert spent == pytest.approx(part * false_halt), "all of the pool is used, and no more"
    sizes = {wave.name: wave for wave in waves}
    for spec in specs:
        assert spec.answer is not Answer.COUNT
        if spec.wave is not None:
            assert sizes[spec.wave].places_before >= 100
            assert sizes[spec.wave].places >= staircase(spec.tolerance, spec.alpha).first
            assert devices >= 200


@given(POLICIES, SIZES, st.integers(1, 100_000))
def test_classes_that_hold_take_nothing_from_those_that_halt(
    tolerate: dict[Outcome, Tolerance], waves: list[WaveSize], devices: int
) -> None:
    halting = {outcome: tolerance for outcome, tolerance in tolerate.items() if tolerance.then is Answer.HALT}
    alone = allot(tolerate=halting, false_halt=0.05, waves=waves, devices=devices)
    together = allot(tolerate=tolerate, false_halt=0.05, waves=waves, devices=devices)
    assert tuple(spec for spec in together if spec.answer is Answer.HALT) == alone


def test_newcomers_never_spend_more_than_the_reserve() -> None:
    spent = math.fsum(newcomer_alpha(0.05, number) for number in range(1, 10_001))
    assert 0.00499 < spent < 0.005
    assert newcomer_alpha(0.05, 1) == pytest.approx(0.05 * 0.1 * 6 / math.pi**2)
    with pytest.raises(InvalidInput):
        newcomer_alpha(0.05, 0)


@pytest.mark.parametrize("false_halt", [0.0, 1.0, -0.05, math.nan])
def test_an_allowance_that_is_none_is_refused(false_halt: float) -> None:
    with pytest.raises(InvalidInput, match="false_halt"):
        allot(tolerate=STANDARD, false_halt=false_halt, waves=(), devices=500)


def test_pooled_tolerances_over_everything_are_refused() -> None:
    tolerate: dict[Outcome, Tolerance] = {FAILED: Tolerance(0.6), SILENT: Tolerance(0.5)}
    with pytest.raises(InvalidInput, match="sum to 110%"):
        allot(tolerate=tolerate, false_halt=0.05, waves=(), devices=50)
    assert len(allot(tolerate=tolerate, false_halt=0.05, waves=(), devices=500)) == 2
