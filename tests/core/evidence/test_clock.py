"""The clock test for silence: what it catches, what it leaves alone, and that its figures hold."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.clock import (
    DARK,
    FLEET,
    FLOOR,
    LEARNT_FROM,
    LEFT,
    SLACK,
    Checkpoint,
    Clock,
    ClockFacts,
    Curve,
    Delay,
    Mark,
    Seen,
    Untouched,
    bind_clock,
    explained,
    learn,
    limit,
    log_evidence,
    minute_of,
    passed,
    reading,
    tally,
)
from orchestrator.core.outcomes import Answer
from orchestrator.errors import InvalidInput
from tests.core.evidence.clock_world import (
    DAY,
    NINE,
    Device,
    clock,
    cohorts,
    crossed_at,
    curves,
    dead,
    fleet,
    past,
    slower,
    usual,
)

MINUTE = timedelta(minutes=1)


# ------------------------------------------------------------------------------------------------- what it catches


@pytest.mark.parametrize("every", [0.0, 0.2, 3.0])
def test_twenty_bricked_canaries_halt_within_a_quarter_of_an_hour(every: float) -> None:
    devices = fleet(20, dead, 1, every=every)
    crossed = crossed_at(clock(), devices)
    assert crossed is not None
    assert crossed - devices[-1][1] <= timedelta(minutes=15)


def test_half_of_two_hundred_dark_is_found_long_before_the_hard_stop() -> None:
    found = [crossed_at(clock(), fleet(200, slower(1, 0.5), seed)) for seed in range(10)]
    assert all(at is not None and at - NINE < timedelta(hours=3) for at in found)


@pytest.mark.parametrize("times", [1.0, 1.5, 2.0])
@pytest.mark.parametrize(("devices", "every"), [(20, 0.0), (150, 0.5), (2_000, 0.0)])
def test_a_release_that_is_merely_slower_is_left_alone(devices: int, every: float, times: float) -> None:
    """At twice the time and the whole tolerated darkness it stands where the tolerance ends."""
    stopped = sum(
        crossed_at(clock(curves(seed=seed)), fleet(devices, slower(times, 0.02), seed, every=every)) is not None
        for seed in range(5)
    )
    assert stopped == 0


@pytest.mark.parametrize("alpha", [0.05, 0.25])
@pytest.mark.parametrize("learnt_from", [200, 2_000])
def test_at_the_very_null_it_halts_no_oftener_than_its_alpha(alpha: float, learnt_from: int) -> None:
    """The checkpoints' own tolerated chances, exactly, each device independent: nothing is given away by slack. And
    with the history drawn anew each time, so that what was learnt by chance counts."""
    runs, halts = 200, 0
    for seed in range(runs):
        told = clock(curves(learnt_from, seed), alpha=alpha)
        rng = Random(f"null {seed}")
        seen = [[0, 0] for _ in told.of("rpi4")]
        crossed = False
        for _ in range(100):
            level = rng.random()
            for counts, point in zip(seen, told.of("rpi4"), strict=True):
                counts[level >= point.tolerated] += 1
            crossed = crossed or _crosses(told.of("rpi4"), seen, alpha)
        halts += crossed
    # 3 standard deviations above the alpha
    assert halts <= runs * alpha + 3 * math.sqrt(runs * alpha * (1 - alpha)), halts


def _crosses(points: tuple[Checkpoint, ...], seen: list[list[int]], alpha: float) -> bool:
    each = tuple(Seen("rpi4", n, point, *counts) for n, (point, counts) in enumerate(zip(points, seen, strict=True), 1))
    found = reading(ClockFacts(0.02, alpha, Answer.HALT, 2_000, len(points), each))
    return found is not None and found.crossed


def test_a_short_history_does_not_halt_by_its_own_luck() -> None:
    """200 past devices, drawn anew for each of 20 rollouts, and 2,000 that do as those did."""
    stopped = sum(
        crossed_at(clock(curves(LEARNT_FROM, seed)), fleet(2_000, usual, seed)) is not None for seed in range(20)
    )
    assert stopped == 0


def test_hardware_ids_add_up() -> None:
    """Twelve of each of three hardware ids are dark: none has enough alone, together they do."""
    learnt = learn([each for n, name in enumerate("abc") for each in _numbered(past(400, 1, name), n)])
    told = clock(learnt)
    devices = [each for name in "abc" for each in fleet(12, dead, 1, hardware_id=name)]
    now = NINE + timedelta(minutes=told.of("a")[0].minutes + 2)
    assert _evidence(told, [each for each in devices if each[0] == "a"], now) < _evidence(told, devices, now)
    alone = reading(tally(told, cohorts(told, [each for each in devices if each[0] == "a"], now), now=now))
    together = reading(tally(told, cohorts(told, devices, now), now=now))
    assert alone is not None and not alone.crossed
    assert together is not None and together.crossed


def _numbered(these: list[Delay], n: int) -> list[Delay]:
    return [each._replace(device=each.device + 10_000 * n) for each in these]


def _evidence(told: Clock, devices: list[Device], now: datetime) -> float:
    found = reading(tally(told, cohorts(told, devices, now), now=now))
    assert found is not None
    return found.evidence


# ------------------------------------------------------------------------------------------------- the curve


def test_a_curve_needs_two_hundred_devices_and_counts_each_once() -> None:
    rare = _numbered(past(199, 2, "imx8"), 1)
    learnt = learn([*past(300), *rare, *past(300)])
    assert set(learnt) == {FLEET, "rpi4"}
    assert learnt["rpi4"].devices == 300
    assert learnt[FLEET].devices == 499
    assert learn(past(199)) == {}
    told = clock(learnt)
    assert told.of("imx8") == told.learnt[FLEET].checkpoints, "it has too little history of its own"


def test_checkpoints_respect_slack_and_floor_and_the_hard_stop() -> None:
    told = clock()
    points = told.of("rpi4")
    assert [each.minutes for each in points] == sorted(each.minutes for each in points)
    learnt = curves()["rpi4"]
    for point in points:
        assert FLOOR <= point.minutes < 24 * 60
        assert point.tolerated >= 0.02 + 0.98 * learnt.silent(point.minutes // SLACK) / learnt.devices
    fast = clock(curves(fate=lambda rng: 0.1))
    assert [each.minutes for each in fast.of("rpi4")] == [FLOOR], "what the floor makes one is looked at once"
    assert max(each.minutes for each in clock(silent_after=timedelta(hours=2)).of("rpi4")) < 120


@pytest.mark.parametrize(
    ("alpha", "answer", "silent_after"),
    [(0.0, Answer.HALT, DAY), (0.01, Answer.COUNT, DAY), (0.01, Answer.HALT, timedelta(seconds=60))],
)
def test_where_it_could_never_speak_there_is_none(alpha: float, answer: Answer, silent_after: timedelta) -> None:
    assert bind_clock(curves(), tolerance=0.02, alpha=alpha, answer=answer, silent_after=silent_after) is None
    assert bind_clock({}, tolerance=0.02, alpha=0.01, answer=Answer.HALT, silent_after=DAY) is None


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1.0, math.nan])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    with pytest.raises(InvalidInput):
        bind_clock(curves(), tolerance=tolerance, alpha=0.01, answer=Answer.HALT, silent_after=DAY)


def test_a_past_in_which_nobody_was_ever_heard_of_says_nothing() -> None:
    told = clock({FLEET: Curve(500, ())})
    assert all(point.tolerated == pytest.approx(1.0) for point in told.of("any"))
    assert crossed_at(told, fleet(500, dead, 1)) is None


# ------------------------------------------------------------------------------------------------- figures


def _by_hand(seen: list[tuple[int, int, str]]) -> Decimal:
    """E with 60 digits, products and no logarithms; (silent, reported, tolerated)."""
    with localcontext() as context:
        context.prec = 60
        total = Decimal(0)
        for dark, weight in DARK:
            d, product = Decimal(str(dark)), Decimal(str(weight))
            for silent, reported, tolerated in seen:
                q = Decimal(tolerated)
                product *= ((d + (1 - d) * q) / q) ** silent * ((1 - d) ** reported if reported else 1)
            total += product
        return total


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["0.01", "0.3", "0.75", "0.99"])),
        min_size=1,
        max_size=3,
    ).filter(lambda seen: sum(s + r for s, r, _ in seen) > 0)
)
def test_the_evidence_is_that_of_sixty_digits(seen: list[tuple[int, int, str]]) -> None:
    made = [Seen("x", 1, Checkpoint(10, 0.0, float(q)), silent, reported) for silent, reported, q in seen]
    assert log_evidence(made) == pytest.approx(float(_by_hand(seen).ln()), rel=1e-9, abs=1e-9)


def test_the_weights_are_a_mixture() -> None:
    assert math.fsum(weight for _, weight in DARK) == pytest.approx(1.0)


@given(st.integers(0, 10_000_000), st.integers(0, 10_000_000), st.floats(1e-6, 1.0))
def test_it_is_sound_up_to_ten_million_devices(silent: int, reported: int, tolerated: float) -> None:
    each = Seen("x", 1, Checkpoint(10, 0.0, tolerated), silent, reported)
    evidence = log_evidence([each])
    assert math.isfinite(evidence)
    more = log_evidence([each._replace(silent=silent + 1)])
    assert more >= evidence - 1e-9 * abs(evidence), "more silence is never less evidence"
    facts = ClockFacts(0.02, 0.009, Answer.HALT, 2_000, 6, (each,))
    found = reading(facts)
    if found is not None and (at := limit(found)) is not None:
        assert found.crossed == (silent >= at), "the limit is where it crosses"


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.0, 0.9))
def test_darkness_that_is_explained_is_less_evidence(silent: int, reported: int, darkness: float) -> None:
    each = [Seen("x", 1, Checkpoint(10, 0.0, 0.2), silent, reported)]
    assert log_evidence(each, darkness=darkness) <= log_evidence(each) + 1e-9


# ------------------------------------------------------------------------------------------------- marks and cohorts


def test_the_order_in_which_things_are_told_makes_no_difference() -> None:
    told = clock()
    devices = fleet(60, slower(1.2), 3, every=0.7)
    now = NINE + timedelta(hours=2)
    first = tally(told, cohorts(told, devices, now), now=now)
    for seed in range(5):
        mixed = list(devices)
        random.Random(seed).shuffle(mixed)
        assert tally(told, cohorts(told, mixed, now), now=now) == first


def test_a_device_that_was_heard_of_in_time_is_never_silent_however_it_falls_within_its_minute() -> None:
    told = clock()
    point = told.of("rpi4")[0]
    for second in range(0, 60, 7):
        started = NINE + timedelta(seconds=second)
        in_time = Mark(minute_of(started)).heard(started + timedelta(minutes=point.minutes), told.of("rpi4"))
        assert in_time.interval == 1
        # And nobody is looked at before having had all of that time.
        looked = NINE + timedelta(minutes=point.minutes + 1)
        assert passed(looked, point) == minute_of(started)
        assert passed(looked - timedelta(microseconds=1), point) < minute_of(started)


def test_a_clock_that_jumps_back_makes_nobody_silent() -> None:
    told = clock()
    mark = Mark(minute_of(NINE)).heard(NINE - timedelta(days=3), told.of("rpi4"))
    assert mark.interval == 1
    back = tally(told, cohorts(told, fleet(20, dead, 1), NINE), now=NINE - timedelta(days=3))
    assert back.seen == ()
    assert Mark.unpacked(mark.packed) == mark


def test_what_began_before_a_person_accepted_it_is_no_evidence_any_more() -> None:
    told = clock()
    now = NINE + timedelta(hours=1)
    devices = [*fleet(20, dead, 1), *fleet(3, dead, 1, at=NINE + 5 * MINUTE)]
    found = tally(told, cohorts(told, devices, now), now=now, since=minute_of(NINE) + 1)
    assert {each.silent for each in found.seen} == {3}


def test_it_says_when_to_look_again_and_only_where_somebody_is_missing() -> None:
    told = clock()
    first = told.of("rpi4")[0].minutes
    waiting = tally(told, cohorts(told, fleet(20, dead, 1), NINE + MINUTE), now=NINE + MINUTE)
    assert waiting.next_at == NINE + timedelta(minutes=first + 1)
    all_there = cohorts(told, fleet(20, lambda rng: 1.0, 1), NINE + 2 * MINUTE)
    assert tally(told, all_there, now=NINE + 2 * MINUTE).next_at is None


# ------------------------------------------------------------------------------------------------- the veto


def _dark(untouched: Untouched | None, silent: int = 20, reported: int = 0) -> bool:
    point = Checkpoint(14, 0.4, 0.55)
    seen = (Seen("rpi4", 2, point, silent, reported),)
    return explained(ClockFacts(0.02, 0.009, Answer.HALT, 2_000, 6, seen, untouched=untouched))


def test_untouched_devices_that_went_dark_too_explain_it() -> None:
    assert _dark(Untouched(200, 190, 14))
    assert _dark(Untouched(20, 20, 14))


def test_too_few_untouched_devices_or_too_little_darkness_explain_nothing() -> None:
    assert not _dark(None)
    assert not _dark(Untouched(0, 0, 14))
    assert not _dark(Untouched(19, 19, 14)), "too few to tell"
    assert not _dark(Untouched(200, 5, 14)), "no more than the tolerance explains"
    assert not _dark(Untouched(200, 20, 14)), "a tenth dark does not excuse a release that darkens all"


def test_no_limit_is_said_where_not_even_all_of_them_would_cross() -> None:
    found = reading(ClockFacts(0.02, 0.009, Answer.HALT, 2_000, 6, (Seen("x", 1, Checkpoint(10, 0.1, 0.9), 2, 1),)))
    assert found is not None and limit(found) is None
    assert len(LEFT) == 6
