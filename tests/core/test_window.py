"""Windows against a clock on the wall that is read minute by minute, across every kind of clock change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.document import InvalidDocument
from orchestrator.core.window import HORIZON_DAYS, WEEKDAYS, Window

MINUTE = timedelta(minutes=1)

CHANGES = [  # the zone, and a UTC moment within a day of a clock change (Kolkata has none)
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),  # half an hour only
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),  # from 01:00 back to midnight
    ("Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),  # midnight does not exist
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),  # a whole day does not exist
]


def window(**keys: Any) -> Window:
    return Window.parse({"timezone": "UTC", **{key.rstrip("_"): value for key, value in keys.items()}})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def watch_the_wall(asked: Window, start: datetime, minutes: int) -> list[bool]:
    """Open or not for each minute, by reading the wall clock: what has been shown stays shown.

    A day's opening begins in the minute in which the clock first shows its first time or later, and ends in the one
    in which it first shows its last time or later.
    """
    zone = ZoneInfo(asked.timezone)
    shown = datetime(1, 1, 1)  # noqa: DTZ001 the wall has no zone
    seen: list[bool] = []
    for minute in range(-3000, minutes):
        wall = (start + minute * MINUTE).astimezone(zone).replace(tzinfo=None)
        shown = max(shown, wall)
        if minute < 0:
            continue
        is_open = False
        for back in range(3):
            day = shown.date() - timedelta(days=back)
            midnight = datetime.combine(day, datetime.min.time())
            if day.weekday() in asked.days and not any(first <= day <= last for first, last in asked.except_):
                is_open |= midnight + asked.hours.opens * MINUTE <= shown < midnight + asked.hours.closes * MINUTE
        seen.append(is_open)
    return seen


times = st.one_of(
    st.integers(0, 1439), st.integers(0, 240), st.sampled_from([0, 60, 90, 105, 120, 135, 150, 180, 1380, 1425])
)


@st.composite
def windows(draw: st.DrawFn, zone: str, around: date) -> Window:
    opens, closes = draw(times), draw(st.one_of(times, st.just(1440)))
    if opens == closes:
        closes = 1440
    days = draw(st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7, unique=True))
    near = st.integers(-2, 3).map(lambda step: (around + timedelta(days=step)).isoformat())
    return window(
        timezone=zone,
        days=draw(st.sampled_from(["daily", days])),
        hours=f"{opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02}",
        except_=draw(st.lists(near, max_size=2)),
    )


@pytest.mark.parametrize(("zone", "change"), CHANGES)
@settings(max_examples=12, deadline=None)
@given(chosen=st.data())
def test_a_window_is_open_exactly_when_the_clock_on_the_wall_says_so(
    zone: str, change: datetime, chosen: st.DataObject
) -> None:
    asked = chosen.draw(windows(zone, change.date()))
    start, minutes = change - timedelta(days=2), 4 * 1440
    wall = watch_the_wall(asked, start, minutes)

    now, told = start, []
    while now < start + minutes * MINUTE:
        opens = asked.next_open(now)
        assert opens is not None
        closes = asked.closes_at(opens) or datetime.max.replace(tzinfo=UTC)
        assert now <= opens < closes
        told.append((opens, closes))
        now = closes

    for minute, is_open in enumerate(wall):
        moment = start + minute * MINUTE
        assert any(opens <= moment < closes for opens, closes in told) is is_open, moment
    for minute in chosen.draw(st.lists(st.integers(0, minutes - 1), max_size=40)):
        moment = start + minute * MINUTE
        assert asked.is_open(moment) is wall[minute], moment
        assert (asked.next_open(moment) == moment) is wall[minute]
        assert (asked.closes_at(moment) == moment) is not wall[minute]


def test_office_hours_over_a_weekend() -> None:
    """Thursday 16:00 it closes; Monday 09:00 Berlin time, which is 07:00 UTC in summer, it opens."""
    office = window(days="mon-thu", hours="09:00-16:00", timezone="Europe/Berlin")
    assert office.is_open(at("2026-07-02 13:59:59"))
    assert not office.is_open(at("2026-07-02 14:00"))
    assert office.next_open(at("2026-07-02 14:00")) == at("2026-07-06 07:00")
    assert office.closes_at(at("2026-07-06 07:00")) == at("2026-07-06 14:00")
    assert office.closes_at(at("2026-07-05 07:00")) == at("2026-07-05 07:00")


def test_hours_past_midnight_belong_to_the_day_they_start_on() -> None:
    """Friday night is open until Saturday 04:00, also when Saturday is an exception; Saturday night is not."""
    nights = window(days="daily", hours="22:00-04:00", except_=["2026-07-04"])
    assert nights.is_open(at("2026-07-04 03:59"))
    assert not nights.is_open(at("2026-07-04 22:30"))
    assert not nights.is_open(at("2026-07-05 01:00"))
    fridays = window(days="fri", hours="22:00-04:00")
    assert fridays.is_open(at("2026-07-04 03:00"))
    assert not fridays.is_open(at("2026-07-03 03:00"))


def test_a_time_that_does_not_exist_moves_forward() -> None:
    """29 March in Berlin: 02:30 does not exist; the clocks show 03:00 at 01:00 UTC."""
    assert window(hours="02:30-05:00", timezone="Europe/Berlin").next_open(at("2026-03-29 00:00")) == at(
        "2026-03-29 01:00"
    )
    assert window(hours="00:30-02:30", timezone="Europe/Berlin").closes_at(at("2026-03-29 00:00")) == at(
        "2026-03-29 01:00"
    )
    lost = window(days="sun", hours="02:15-02:45", timezone="Europe/Berlin")
    assert lost.next_open(at("2026-03-28 12:00")) == at("2026-04-05 00:15")


def test_a_time_that_occurs_twice_counts_once() -> None:
    """25 October in Berlin: 02:00 to 03:00 is shown twice, at 00:00 and at 01:00 UTC."""
    twice = window(hours="02:15-02:45", timezone="Europe/Berlin")
    assert twice.is_open(at("2026-10-25 00:20"))
    assert not twice.is_open(at("2026-10-25 01:20"))
    assert twice.next_open(at("2026-10-25 00:45")) == at("2026-10-26 01:15")


def test_all_day_every_day_never_closes() -> None:
    assert window().closes_at(at("2026-01-01")) is None
    assert window(hours="00:00-24:00", timezone="Europe/Berlin").closes_at(at("2026-01-01")) is None


def test_whole_days_that_touch_are_one_opening() -> None:
    assert window(days="mon-wed").closes_at(at("2026-06-29 10:00")) == at("2026-07-02")


def test_exceptions_include_both_ends_in_the_windows_zone() -> None:
    """In New York 24 December begins at 05:00 UTC."""
    asked = window(timezone="America/New_York", except_=["2026-12-24..2026-12-26"])
    assert asked.closes_at(at("2026-12-23 12:00")) == at("2026-12-24 05:00")
    assert asked.next_open(at("2026-12-24 05:00")) == at("2026-12-27 05:00")


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_ends_of_time_are_survived(moment: datetime) -> None:
    for asked in (window(), window(days="mon", hours="22:00-04:00", timezone="Asia/Kolkata")):
        asked.is_open(moment)
        asked.next_open(moment)
        asked.closes_at(moment)


def test_a_time_without_a_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        window().is_open(datetime(2026, 1, 1))  # noqa: DTZ001


def test_another_zones_time_is_understood_and_utc_comes_back() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    opens = window(hours="09:00-10:00").next_open(datetime(2026, 1, 1, 1, tzinfo=berlin))
    assert opens == at("2026-01-01 09:00")
    assert opens is not None
    assert opens.tzinfo is UTC


def test_every_window_that_is_accepted_opens_within_the_horizon() -> None:
    """The longest that may be closed: a year of exceptions and the rest of the week."""
    asked = window(days="wed", hours="12:00-12:01", except_=["2026-01-08..2027-01-05"])
    opens = asked.next_open(at("2026-01-07 12:01"))
    assert opens == at("2027-01-06 12:00")
    assert opens - at("2026-01-07") < timedelta(days=HORIZON_DAYS - 3)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-thu", "mon tue wed thu"),
        ("fri-mon", "mon fri sat sun"),
        ("sat,sun", "sat sun"),
        ("sun", "sun"),
        (["mon", "wed-fri"], "mon wed thu fri"),
    ],
)
def test_days_as_people_write_them(text: object, days: str) -> None:
    assert window(days=text).document()["days"] == days.split()


REFUSED = [
    (
        {"days": "mon-fry"},
        "days: must be one of mon, tue, wed, thu, fri, sat, sun, daily, not 'fry'. Did you mean 'fri'?",
    ),
    ({"days": []}, "days: must be 'daily', days such as 'mon-thu' or a list such as [mon, wed], not a list."),
    ({"hours": "9-16"}, 'hours: must be two times of day such as "09:00-16:00" or "22:00-04:00", not \'9-16\'.'),
    ({"hours": "09:00-25:00"}, "hours: must have times from 00:00 to 24:00, not '09:00-25:00'."),
    (
        {"hours": "09:00-09:00"},
        "hours: begin and end at the same time; write \"00:00-24:00\" for the whole day, not '09:00-09:00'.",
    ),
    (
        {"timezone": "Europe/Berln"},
        "timezone: must be a time zone such as Europe/Berlin or UTC, not 'Europe/Berln'. Did you mean 'Europe/Berlin'?",
    ),
    ({"timezone": "../../x"}, "timezone: must be a time zone such as Europe/Berlin or UTC, not '../../x'."),
    ({"timezone": "localtime"}, "timezone: must be a time zone such as Europe/Berlin or UTC, not 'localtime'."),
    (
        {"except": ["2026-02-30"]},
        "except: must be dates such as 2026-12-24 or ranges such as 2026-12-21..2027-01-06, not '2026-02-30'.",
    ),
    ({"except": "2027-01-06..2026-12-21"}, "except: has a range that ends before it begins: '2027-01-06..2026-12-21'."),
    (
        {"except": ["2026-01-01..2027-12-31"]},
        "is closed from 2026-01-01 to 2027-12-31: longer than a year is refused.",
    ),
    (
        {"days": "mon", "except": ["2000-01-01..2199-12-31"]},
        "is closed from 2000-01-01 to 2200-01-05: longer than a year is refused.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "sentence"), REFUSED)
def test_windows_that_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        Window.parse({"timezone": "UTC", **keys})
    assert str(refused.value) == sentence
