"""Times, spans, sizes and shares as people read them, in the terminal and in the console alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

MARK: Final[Mapping[str, str]] = {
    "passed": "+",
    "baking": "~",
    "open": ">",
    "preparing": ":",
    "pending": ".",
    "failed": "x",
    "cancelled": "-",
    "skipped": "-",
    "held": "!",
}
"""One plain character beside the word, so that a log shows at a glance what a terminal shows in colour."""


def span(duration: timedelta) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``5 d 4 h``."""
    seconds = max(0, round(duration.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(at: datetime | None, now: datetime) -> str:
    """``12 min ago``; ``never`` for None."""
    return "never" if at is None else f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"


def clock(at: datetime | None, now: datetime | None = None) -> str:
    """``14:20:11 UTC`` today, with the date on other days; ``-`` for None."""
    if at is None:
        return "-"
    at = at.astimezone(UTC)
    if now is not None and at.date() == now.astimezone(UTC).date():
        return f"{at:%H:%M:%S} UTC"
    return f"{at:%Y-%m-%d %H:%M} UTC"


def moment(at: datetime) -> str:
    """``2026-11-24 14:20:11 UTC``: as a journal has it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def short_clock(at: datetime | None) -> str:
    """``11-24 14:20``; ``open`` for None: nobody knows."""
    return "?" if at is None else f"{at.astimezone(UTC):%m-%d %H:%M}"


def megabytes(count: int | None) -> str:
    """``1.2`` for 1,234,567 bytes; three digits that mean something."""
    if count is None:
        return "-"
    mb = count / 1_000_000
    if 0 < mb < 0.01:
        return "<0.01"
    return f"{mb:.2f}" if mb < 0.995 else f"{mb:.1f}" if mb < 99.5 else f"{mb:,.0f}"


def percent(share: float | None) -> str:
    """``0.4%``, ``25%``; ``-`` for None."""
    if share is None:
        return "-"
    value = 100 * share
    return f"{value:.1f}%" if 0 < value < 9.95 else f"{value:.0f}%"


def number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def plural(count: int, one: str, more: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def more(count: int, verb: str) -> str:
    """``1 more halts``, ``2 more halt``."""
    return f"{count:,} more {verb}{'s' if count == 1 else ''}"


def digest(commit: str | None) -> str:
    """The first 12 hex digits; ``unknown`` for None."""
    return "unknown" if commit is None else commit[:12]


def minutes(seconds: float) -> str:
    """``<1``, ``12``."""
    return "<1" if 0 < seconds < 60 else f"{seconds / 60:.0f}"


def building(seconds: float) -> str:
    """``less than a minute``, ``about 12 minutes``."""
    return "less than a minute" if seconds < 60 else f"about {plural(round(seconds / 60), 'minute')}"
