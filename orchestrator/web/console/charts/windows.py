"""The calendar of windows: in which hours of the coming days a wave may open, and when devices may be offered it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from orchestrator.core.window import WEEKDAYS, Window
from orchestrator.web.console.charts.svg import el, picture

DAYS: Final = 14
_DAY: Final = timedelta(days=1)
WIDTH: Final = 560
_ROW, _LEFT, _RIGHT, _TOP = 19, 92, 12, 20


@dataclass(frozen=True, slots=True)
class Calendar:
    """One window for the days ahead. ``changes``: when it opens or closes next, in its own zone; ``rows``: each day in
    words."""

    name: str
    zone: str
    open_now: bool
    changes_at: datetime | None
    changes: str
    svg: Markup
    rows: tuple[tuple[str, str], ...]


def calendar(name: str, window: Window, now: datetime, *, id: str) -> Calendar:
    """The next DAYS days in the window's own zone, as of this minute."""
    return _drawn(name, window, now.replace(second=0, microsecond=0), id)


@lru_cache(maxsize=64)
def _drawn(name: str, window: Window, now: datetime, id: str) -> Calendar:
    zone = window.zone
    first = now.astimezone(zone).date()
    days = [first + _DAY * number for number in range(DAYS)]
    openings = list(_openings(window, now, days[-1], zone))
    rows, parts = [], []
    for hour in (0, 6, 12, 18, 24):
        x = _x(hour)
        anchor = "start" if hour == 0 else "end" if hour == 24 else "middle"
        parts.append(el("text", f"{hour:02}:00", class_="tick", x=x, y=12, text_anchor=anchor))
        parts.append(el("line", class_="grid", x1=x, x2=x, y1=_TOP, y2=_TOP + _ROW * DAYS))
    for number, day in enumerate(days):
        y = _TOP + _ROW * number
        month = f" {day:%b}" if number == 0 or day.day == 1 else ""
        label = f"{WEEKDAYS[day.weekday()].capitalize()} {day.day}{month}"
        weekend = day.weekday() >= 5
        parts.append(el("text", label, class_="day weekend" if weekend else "day", x=0, y=y + 14))
        parts.append(el("rect", class_="band-track", x=_LEFT, y=y + 3, width=_x(24) - _LEFT, height=_ROW - 5, rx=2))
        spans = [found for opening in openings if (found := _within(opening, day, zone)) is not None]
        for start, end in spans:
            parts.append(
                el(
                    "rect",
                    class_="open",
                    x=_x(start),
                    y=y + 3,
                    width=max(2, _x(end) - _x(start)),
                    height=_ROW - 5,
                    rx=2,
                )
            )
        excepted = " (an exception)" if window.excepts(day) else ""
        said = ", ".join(f"{_clock(start)} to {_clock(end)}" for start, end in spans) or f"closed{excepted}"
        rows.append((f"{day:%a %d %b}", said))
    at = now.astimezone(zone)
    x = _x(at.hour + at.minute / 60)
    parts.append(el("line", class_="now", x1=x, x2=x, y1=_TOP, y2=_TOP + _ROW))
    parts.append(el("circle", class_="now-dot", cx=x, cy=_TOP, r=3))
    open_now = window.is_open(now)
    svg = picture(
        WIDTH,
        _TOP + _ROW * DAYS + 2,
        parts,
        title=f"{name}: the next {DAYS} days",
        described="; ".join(f"{day} {said}" for day, said in rows),
        id=id,
        class_="chart calendar",
    )
    changes = window.closes_at(now) if open_now else window.next_open(now)
    return Calendar(name, window.timezone, open_now, changes, _at(changes, at), svg, tuple(rows))


def _at(changes: datetime | None, now: datetime) -> str:
    """``16:00`` today, ``Mon 30 Nov 09:00`` on another day."""
    if changes is None:
        return ""
    there = changes.astimezone(now.tzinfo)
    return f"{there:%H:%M}" if there.date() == now.date() else f"{there:%a} {there.day} {there:%b %H:%M}"


def _openings(window: Window, now: datetime, last: date, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
    end = datetime.combine(last + _DAY, time(), zone).astimezone(UTC)
    at = datetime.combine(now.astimezone(zone).date(), time(), zone).astimezone(UTC)
    while at < end:
        opens = window.next_open(at)
        if opens is None or opens >= end:
            return
        closes = window.closes_at(opens) or end
        yield opens, closes
        at = closes


def _within(opening: tuple[datetime, datetime], day: date, zone: ZoneInfo) -> tuple[float, float] | None:
    """The hours of a day that an opening covers."""
    start, end = opening[0].astimezone(zone), opening[1].astimezone(zone)
    if end.date() < day or start.date() > day:
        return None
    first = start.hour + start.minute / 60 if start.date() == day else 0.0
    last = end.hour + end.minute / 60 if end.date() == day else 24.0
    return (first, last) if last > first else None


def _x(hour: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * hour / 24


def _clock(hour: float) -> str:
    return f"{int(hour):02}:{round(hour % 1 * 60):02}"
