"""Moments and spans as the tables hold them: whole microseconds, moments since 1970 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, overload

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@overload
def stored(moment: datetime) -> int: ...
@overload
def stored(moment: datetime | None) -> int | None: ...
def stored(moment: datetime | None) -> int | None:
    """An aware moment as stored; None stays None."""
    if moment is None:
        return None
    return (moment - _EPOCH) // _MICROSECOND


@overload
def moment(value: int) -> datetime: ...
@overload
def moment(value: int | None) -> datetime | None: ...
def moment(value: int | None) -> datetime | None:
    """A stored moment, aware and in UTC; None stays None."""
    return None if value is None else _moment(value)


@lru_cache(maxsize=8_192)
def _moment(value: int) -> datetime:
    # What arrives together carries the same time of receipt: most of a batch's moments are made once.
    return _EPOCH + _MICROSECOND * value


def length(span: timedelta) -> int:
    """A span as stored."""
    return span // _MICROSECOND


def span(value: int) -> timedelta:
    """A stored span."""
    return _MICROSECOND * value
