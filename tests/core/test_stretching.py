"""The interval between check-ins under pressure: evenly up, slowly back, never beyond its ends."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.stretching import EASY, FALLS_IN, LATE, RISES_IN, followed, pressure, stretched

EVERY, AT_MOST = timedelta(minutes=5), timedelta(minutes=30)
parts = st.floats(0, 1)
some_time = st.timedeltas(timedelta(0), timedelta(hours=1))


def test_pressure_is_the_fuller_queue_or_the_later_loop() -> None:
    assert pressure(waiting=0, most_waiting=100, late=timedelta(0)) == 0
    assert pressure(waiting=50, most_waiting=100, late=LATE / 4) == 0.5
    assert pressure(waiting=10, most_waiting=100, late=LATE / 4) == 0.25
    assert pressure(waiting=500, most_waiting=100, late=10 * LATE) == 1


def test_nothing_stretches_while_it_is_easy_and_all_of_it_at_the_end() -> None:
    assert stretched(EVERY, AT_MOST, EASY) == EVERY
    assert stretched(EVERY, AT_MOST, 1) == AT_MOST
    assert stretched(EVERY, AT_MOST, (1 + EASY) / 2) / EVERY == pytest.approx((AT_MOST / EVERY) ** 0.5)
    assert stretched(EVERY, EVERY / 2, 1) == EVERY, "a longest that is shorter stretches nothing"


@given(parts, parts)
def test_more_pressure_never_shortens_it_and_a_little_more_is_a_little_longer(one: float, other: float) -> None:
    low, high = sorted((one, other))
    shorter, longer = stretched(EVERY, AT_MOST, low), stretched(EVERY, AT_MOST, high)
    assert EVERY <= shorter <= longer <= AT_MOST
    assert longer / shorter <= (AT_MOST / EVERY) ** ((high - low) / (1 - EASY)) + 1e-6


@given(parts, parts, some_time)
def test_what_counts_lies_between_before_and_now(before: float, seen: float, elapsed: timedelta) -> None:
    counts = followed(before, seen, elapsed=elapsed)
    assert min(before, seen) - 1e-9 <= counts <= max(before, seen) + 1e-9


@given(parts, parts, some_time, some_time)
def test_two_steps_are_one(before: float, seen: float, first: timedelta, then: timedelta) -> None:
    stepwise = followed(followed(before, seen, elapsed=first), seen, elapsed=then)
    assert stepwise == pytest.approx(followed(before, seen, elapsed=first + then), abs=1e-6)


def test_it_rises_in_seconds_and_falls_in_minutes() -> None:
    assert followed(0, 1, elapsed=RISES_IN) == pytest.approx(0.632, abs=0.001)
    assert followed(1, 0, elapsed=FALLS_IN) == pytest.approx(0.368, abs=0.001)
    assert followed(0.5, 0.9, elapsed=timedelta(0)) == 0.5
