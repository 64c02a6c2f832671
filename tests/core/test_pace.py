"""Rates: never more than written in any stretch of time, however devices come; and what is shown of a pace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.pace import Rate

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

rates = st.builds(Rate, st.integers(1, 60), st.sampled_from(sorted(UNITS)))


def given_out(rate: Rate, asks: list[datetime], spent: datetime | None = None) -> list[datetime]:
    """When offers were given, to whoever asked at these moments."""
    given = []
    for now in asks:
        next_at = rate.next_at(spent)
        if next_at is None or next_at <= now:
            given.append(now)
            spent = rate.spend(spent, now)
    return given


def most_in(given: list[datetime], span: timedelta) -> int:
    """The most in any stretch of that length, its end left out."""
    return max((sum(at <= other < at + span for other in given) for at in given), default=0)


@given(rates, st.lists(st.floats(0, 0.3), max_size=150))
def test_never_more_than_written_in_any_stretch_however_devices_come(rate: Rate, gaps: list[float]) -> None:
    now, asks = START, []
    for gap in gaps:
        now += gap * UNITS[rate.unit]
        asks.append(now)
    given = given_out(rate, asks)
    assert most_in(given, UNITS[rate.unit]) <= rate.offers
    assert bool(given) == bool(asks)


@given(rates)
def test_everybody_at_once_gets_a_burst_and_then_it_flows_steadily(rate: Rate) -> None:
    """Devices that ask without a pause: a tenth at once, and nearly the whole rate in each stretch."""
    unit, step = UNITS[rate.unit], UNITS[rate.unit] / 1_000
    given = given_out(rate, [START + step * n for n in range(3_000) for _ in range(rate.burst + 1)])
    assert given.count(START) == rate.burst == max(1, rate.offers // 10)
    assert most_in(given, unit) <= rate.offers
    assert len(given) >= 3 * 0.85 * rate.offers


def test_what_was_not_used_is_not_saved_up() -> None:
    rate = Rate(200, "h")
    given = given_out(rate, [START, *[START + timedelta(days=30)] * 500])
    assert given.count(START + timedelta(days=30)) == 20


@given(rates, st.integers(0, 100))
def test_it_is_one_moment_that_only_moves_forward_and_a_restart_keeps_it(rate: Rate, seconds: int) -> None:
    now = START + timedelta(seconds=seconds)
    spent = rate.spend(rate.spend(None, START), now)
    assert spent > START
    assert rate.spend(spent, START - timedelta(days=1)) > spent, "a clock that went back gives nothing away"
    assert given_out(rate, [now] * 200, spent) == given_out(
        rate, [now] * 200, datetime.fromisoformat(spent.isoformat())
    )


@given(rates, st.integers(1, 300))
def test_so_long_it_takes_at_least(rate: Rate, offers: int) -> None:
    now, given, spent = START, 0, None
    while given < offers:
        now = max(now, rate.next_at(spent) or now)
        spent = rate.spend(spent, now)
        given += 1
    assert now - START == rate.time_for(offers)


@pytest.mark.parametrize(
    ("rate", "text", "burst"),
    [
        (Rate(200, "h"), "200 in any hour", 20),
        (Rate(20, "min"), "20 in any minute", 2),
        (Rate(1, "d"), "1 in any day", 1),
    ],
)
def test_a_rate_in_words(rate: Rate, text: str, burst: int) -> None:
    assert (rate.words, rate.burst) == (text, burst)
