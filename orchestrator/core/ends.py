"""When something handed out is over, as people write it: ``7d``, ``2027-01-31``, ``2027-01-31T18:00+01:00``,
``never``."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from orchestrator.core.durations import parse_duration
from orchestrator.errors import InvalidInput

NEVER: Final = "never"


def parse_end(text: str, now: datetime) -> datetime | None:
    """The moment, aware and in UTC; None for ``never``. A date lasts to its end in UTC. Raises InvalidInput."""
    text = text.strip()
    if text == NEVER:
        return None
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None:
        if moment.tzinfo is None:
            raise InvalidInput(f"{text} has no time zone: write {text}Z or {text}+01:00.")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise InvalidInput(f"{text} is no time that can be reckoned with.") from None
    try:
        return now + parse_duration(text)
    except InvalidInput:
        raise InvalidInput(
            f"{text[:80]!r} is no end: write a duration such as 7d or 12h, a date such as 2027-01-31, or never."
        ) from None
