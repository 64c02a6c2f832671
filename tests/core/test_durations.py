"""What a person types for a duration or a share, and the exact sentence when it cannot be taken."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.durations import devices_in, duration_text, parse_duration, parse_share, share_text
from orchestrator.errors import InvalidInput

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "hours"),
    [("24h", 24), ("7d", 168), ("90m", 1.5), ("1d12h", 36), ("1d0h30m", 24.5), ("0s", 0), ("3600s", 1), ("365d", 8760)],
)
def test_durations_are_read(text: str, hours: float) -> None:
    assert parse_duration(text) == hours * HOUR


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (24 * HOUR, "1d"),
        (36 * HOUR, "36h"),
        (1.5 * HOUR, "90m"),
        (100 * HOUR, "4d4h"),
        (timedelta(), "0s"),
        (timedelta(seconds=90061), "1d1h1m1s"),
        (timedelta(seconds=1.9), "1s"),
        (-HOUR, "-1h"),
    ],
)
def test_durations_are_written_short(duration: timedelta, text: str) -> None:
    assert duration_text(duration) == text


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ("24", "has no unit: write 24s, 24m, 24h or 24d."),
        (24, "has no unit: write 24s, 24m, 24h or 24d."),
        (1.5, "must be a duration in whole numbers such as 90m, 24h or 1d12h, not 1.5."),
        (
            "1.5h",
            "must be a duration such as 30s, 90m, 24h, 7d or 1d12h (whole numbers, largest unit first), not '1.5h'.",
        ),
        (
            "12h1d",
            "must be a duration such as 30s, 90m, 24h, 7d or 1d12h (whole numbers, largest unit first), not '12h1d'.",
        ),
        ("366d", "is longer than a year: at most 365d is allowed, not '366d'."),
        (True, "must be a duration such as 90m, 24h or 1d12h, not true."),
        ([], "must be a duration such as 90m, 24h or 1d12h, not a list."),
    ],
)
def test_other_durations_are_refused(given_: object, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_duration(given_)
    assert refused.value.message == sentence


@pytest.mark.parametrize("text", ["", "h", "-1h", "1 h", "1H", "1h ", "١h", "1h\n", "1h1h", "1w"])
def test_what_only_looks_like_a_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), ("0.5%", 0.005), ("100%", 1), ("0%", 0), ("33.3%", 0.333)])
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        (2, "has no unit: a share is written with a per cent sign, such as 2%."),
        ("2", "has no unit: a share is written with a per cent sign, such as 2%."),
        (0.02, "has no unit: a share is written with a per cent sign, such as 2% or 0.02%."),
        ("120%", "is more than the whole: a share is at most 100%, not '120%'."),
        ("100.1%", "is more than the whole: a share is at most 100%, not '100.1%'."),
        ("-2%", "must be a share between 0% and 100% such as 2% or 0.5%, not '-2%'."),
        ("two", "must be a share between 0% and 100% such as 2% or 0.5%, not 'two'."),
        (None, "must be a share such as 2% or 0.5%, not nothing."),
        (True, "must be a share such as 2% or 0.5%, not true."),
    ],
)
def test_other_shares_are_refused(given_: object, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_share(given_)
    assert refused.value.message == sentence


@given(st.integers(min_value=0, max_value=365 * 86_400))
def test_a_duration_survives_being_written(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(duration_text(duration)) == duration


@given(st.integers(min_value=0, max_value=100_000_000))
def test_a_share_survives_being_written(millionths_of_a_percent: int) -> None:
    whole, rest = divmod(millionths_of_a_percent, 1_000_000)
    share = parse_share(f"{whole}.{rest:06}%")
    assert parse_share(share_text(share)) == share


def test_a_share_of_devices_is_rounded_up_and_exact() -> None:
    assert devices_in(0.03, 100) == 3  # 0.03 * 100 is 3.0000000000000004 in floats of another order
    assert devices_in(0.07, 100) == 7
    assert devices_in(0.01, 101) == 2
    assert devices_in(0.5, 0) == 0
