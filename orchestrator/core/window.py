"""When something may happen: days and hours in a time zone, with exceptions (RULES 8.1).

The rule, in one sentence: *a local time is the first instant at which the local clock shows it or later.* So a time
that does not exist moves forward to the moment the clocks change, one that occurs twice counts once (the first), and
an opening is always one stretch of time. Hours past midnight belong to the day they start on: ``except`` and ``days``
ask for the day an opening starts.

Times go in and come out as aware UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, NamedTuple, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from orchestrator.core.document import Document, did_you_mean, one_of, problem
from orchestrator.core.durations import shown

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LONGEST_CLOSED = timedelta(days=366)
"""A window that stays closed for longer than this is refused: nobody means it."""
HORIZON_DAYS = 400
"""How far ahead is looked; longer than LONGEST_CLOSED, so every window that was accepted is found open."""
MOST_EXCEPTIONS = 1000
_DAY = timedelta(days=1)
_YEARS = (1970, 2199)
_HOURS = re.compile(r"([0-9]{2}):([0-9]{2}) ?- ?([0-9]{2}):([0-9]{2})", re.ASCII)
_HOURS_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9] ?- ?(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
_DAY_WORDS = r"(daily|(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?)"
_DAYS_PATTERN = rf"^{_DAY_WORDS}( *, *{_DAY_WORDS})*$"
_DATES_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(\.\.[0-9]{4}-[0-9]{2}-[0-9]{2})?$"
_MACHINE_DEPENDENT = ("localtime", "posixrules", "Factory")


class Hours(NamedTuple):
    """Minutes after local midnight: ``opens`` in [0, 1440), ``closes`` in (opens, opens + 1440)."""

    opens: int
    closes: int

    def text(self) -> str:
        closes = self.closes if self.closes <= 1440 else self.closes - 1440
        return f"{self.opens // 60:02}:{self.opens % 60:02}-{closes // 60:02}:{closes % 60:02}"


class Dates(NamedTuple):
    """Local dates from ``first`` to ``last``, both included."""

    first: date
    last: date

    def text(self) -> str:
        return self.first.isoformat() if self.first == self.last else f"{self.first}..{self.last}"


class Opening(NamedTuple):
    """One stretch of time in UTC, ``closes_at`` not included."""

    opens_at: datetime
    closes_at: datetime


ALL_DAY = Hours(0, 1440)


def _read_days(value: object) -> tuple[int, ...]:
    if isinstance(value, tuple) and all(type(day) is int and 0 <= day < 7 for day in value):
        return value
    words = [part.strip(" ") for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not words:
        raise problem(f"must be 'daily', days such as 'mon-thu' or a list such as [mon, wed], not {shown(value)}.")
    days: set[int] = set()
    for word in words:
        if word == "daily":
            days.update(range(7))
            continue
        ends = word.split("-") if isinstance(word, str) else []
        if not 1 <= len(ends) <= 2 or any(end not in WEEKDAYS for end in ends):
            wrong = next((end for end in ends if end not in WEEKDAYS), word)
            raise problem(one_of(wrong, (*WEEKDAYS, "daily")))
        first, last = WEEKDAYS.index(ends[0]), WEEKDAYS.index(ends[-1])
        days.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return tuple(sorted(days))


def _days_text(days: tuple[int, ...]) -> str | list[str]:
    return "daily" if len(days) == 7 else [WEEKDAYS[day] for day in days]


def _read_hours(value: object) -> Hours:
    if isinstance(value, Hours):
        return value
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise problem(f'must be two times of day such as "09:00-16:00" or "22:00-04:00", not {shown(value)}.')
    hour, minute, to_hour, to_minute = map(int, match.groups())
    opens, closes = hour * 60 + minute, to_hour * 60 + to_minute
    if hour > 23 or minute > 59 or to_minute > 59 or closes > 1440:
        raise problem(f"must have times from 00:00 to 24:00, not {shown(value)}.")
    if opens == closes:
        raise problem(f'begin and end at the same time; write "00:00-24:00" for the whole day, not {shown(value)}.')
    return Hours(opens, closes if closes > opens else closes + 1440)


def _read_date(text: str, whole: object) -> date:
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
            raise ValueError
        day = date.fromisoformat(text)
    except ValueError:
        raise problem(
            f"must be dates such as 2026-12-24 or ranges such as 2026-12-21..2027-01-06, not {shown(whole)}."
        ) from None
    if not _YEARS[0] <= day.year <= _YEARS[1]:
        raise problem(f"must lie in the years {_YEARS[0]} to {_YEARS[1]}, not {shown(whole)}.")
    return day


def _read_except(value: object) -> tuple[Dates, ...]:
    given = [value] if isinstance(value, str | Dates) else value
    if not isinstance(given, list | tuple):
        raise problem(f"must be a list of dates and ranges such as [2026-12-21..2027-01-06], not {shown(value)}.")
    if len(given) > MOST_EXCEPTIONS:
        raise problem(f"has {len(given)} entries; at most {MOST_EXCEPTIONS} are allowed.")
    ranges: list[Dates] = []
    for entry in given:
        if isinstance(entry, Dates):
            ranges.append(entry)
            continue
        parts = entry.split("..") if isinstance(entry, str) else []
        if not 1 <= len(parts) <= 2:
            raise problem(
                f"must be dates such as 2026-12-24 or ranges such as 2026-12-21..2027-01-06, not {shown(entry)}."
            )
        first, last = _read_date(parts[0], entry), _read_date(parts[-1], entry)
        if last < first:
            raise problem(f"has a range that ends before it begins: {shown(entry)}.")
        ranges.append(Dates(first, last))
    joined: list[Dates] = []
    for dates in sorted(ranges):
        if joined and dates.first <= joined[-1].last + _DAY:
            joined[-1] = Dates(joined[-1].first, max(joined[-1].last, dates.last))
        else:
            joined.append(dates)
    return tuple(joined)


def _read_zone(value: object) -> str:
    if not isinstance(value, str):
        raise problem(f"must be a time zone such as Europe/Berlin or UTC, not {shown(value)}.")
    try:
        if value in _MACHINE_DEPENDENT or value.startswith(("posix/", "right/")) or not value.isprintable():
            raise ZoneInfoNotFoundError
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        zones = {zone.lower(): zone for zone in available_timezones() - set(_MACHINE_DEPENDENT)}
        guess = did_you_mean(value, zones)
        for small, zone in zones.items() if guess else ():
            guess = guess.replace(f"'{small}'", f"'{zone}'")
        raise problem(f"must be a time zone such as Europe/Berlin or UTC, not {shown(value)}.{guess}") from None
    return value


Days = Annotated[
    tuple[int, ...],
    BeforeValidator(_read_days),
    PlainSerializer(_days_text, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _DAYS_PATTERN, "examples": ["mon-thu", "daily", "sat,sun"]},
                {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": f"^{_DAY_WORDS}$"}},
            ]
        }
    ),
]
HoursField = Annotated[
    Hours,
    BeforeValidator(_read_hours),
    PlainSerializer(Hours.text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _HOURS_PATTERN, "examples": ["09:00-16:00", "22:00-04:00"]}),
]
Zone = Annotated[
    str, BeforeValidator(_read_zone), WithJsonSchema({"type": "string", "examples": ["Europe/Berlin", "UTC"]})
]
Exceptions = Annotated[
    tuple[Dates, ...],
    BeforeValidator(_read_except),
    PlainSerializer(lambda ranges: [dates.text() for dates in ranges], return_type=list[str], when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _DATES_PATTERN},
                {
                    "type": "array",
                    "maxItems": MOST_EXCEPTIONS,
                    "items": {"type": "string", "pattern": _DATES_PATTERN},
                    "examples": [["2026-12-21..2027-01-06"]],
                },
            ]
        }
    ),
]


class Window(Document):
    """Days and hours in which something may happen."""

    days: Days = Field(default=tuple(range(7)), description="Days of the week: mon-thu, a list, or daily (default).")
    hours: HoursField = Field(
        default=ALL_DAY,
        description="From-to in local time; past midnight they belong to the day they start on. Default: all day.",
    )
    timezone: Zone = Field(description="The time zone of days, hours and exceptions.", examples=["Europe/Berlin"])
    except_: Exceptions = Field(
        default=(), alias="except", description="Dates and a..b ranges, both ends included, on which nothing opens."
    )

    @model_validator(mode="after")
    def _opens_sometimes(self) -> Self:
        closed_from: date | None = None
        for index, dates in enumerate(self.except_):
            if closed_from is None:
                closed_from = dates.first
            following = self.except_[index + 1].first if index + 1 < len(self.except_) else date(_YEARS[1] + 1, 12, 31)
            day = dates.last + _DAY
            while day < following and day.weekday() not in self.days:
                day += _DAY
            if day - closed_from > LONGEST_CLOSED:
                raise problem(f"is closed from {closed_from} to {day - _DAY}: longer than a year is refused.")
            if day < following:
                closed_from = None
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def is_open(self, at: datetime) -> bool:
        """Whether ``at`` lies in an opening; the moment of closing does not."""
        at = _utc(at)
        return any(opening.opens_at <= at < opening.closes_at for opening in self._openings(at, days=4))

    def next_open(self, at: datetime) -> datetime | None:
        """``at`` itself while open, else the start of the next opening; None if there is none within 400 days."""
        at = _utc(at)
        for opening in self._openings(at, days=HORIZON_DAYS):
            if at < opening.closes_at:
                return max(at, opening.opens_at)
        return None

    def closes_at(self, at: datetime) -> datetime | None:
        """``at`` itself while closed, else when the present opening ends; None if it lasts beyond 400 days.

        Openings that touch (``00:00-24:00`` on two days running) are one.
        """
        at = _utc(at)
        until = at
        for opening in self._openings(at, days=HORIZON_DAYS):
            if opening.opens_at > until:
                return until
            until = max(until, opening.closes_at)
        return until if until - at < timedelta(days=HORIZON_DAYS - 8) else None

    def excepts(self, day: date) -> bool:
        """Whether ``day``, a date in the window's zone, is an exception."""
        return any(dates.first <= day <= dates.last for dates in self.except_)

    def _openings(self, at: datetime, *, days: int) -> Iterator[Opening]:
        """Openings that start on local days from two before ``at``, in order; empty ones (lost in a gap) left out."""
        try:
            first = at.astimezone(self.zone).date() - 2 * _DAY
            last = first + days * _DAY
        except OverflowError:
            return
        day = first
        while day <= last:
            if day.weekday() in self.days and not self.excepts(day):
                opening = Opening(self._instant(day, self.hours.opens), self._instant(day, self.hours.closes))
                if opening.opens_at < opening.closes_at:
                    yield opening
            day += _DAY

    def _instant(self, day: date, minutes: int) -> datetime:
        """The first instant at which the local clock shows ``minutes`` after ``day``'s midnight, or later."""
        wanted = datetime.combine(day, time()) + timedelta(minutes=minutes)
        late = wanted.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if late.astimezone(self.zone).replace(tzinfo=None) == wanted:
            return late
        early = wanted.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        while late - early > timedelta(seconds=1):
            middle = early + (late - early) // 2
            middle = middle.replace(microsecond=0)
            if middle.astimezone(self.zone).replace(tzinfo=None) >= wanted:
                late = middle
            else:
                early = middle
        return late


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a time without a zone: windows take aware datetimes")
    return at.astimezone(UTC)
