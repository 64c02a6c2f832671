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
    return None if moment is None else stored_at(moment)


@overload
def moment(value: int) -> datetime: ...
@overload
def moment(value: int | None) -> datetime | None: ...
def moment(value: int | None) -> datetime | None:
    """A stored moment, aware and in UTC; None stays None."""
    return None if value is None else moment_at(value)


# What arrives together carries the same time of receipt: most of a batch's moments are made once.
@lru_cache(maxsize=16_384)
def stored_at(moment: datetime) -> int:
    """An aware moment as stored."""
    return (moment - _EPOCH) // _MICROSECOND


@lru_cache(maxsize=16_384)
def moment_at(value: int) -> datetime:
    """A stored moment, aware and in UTC."""
    return _EPOCH + _MICROSECOND * value


def length(span: timedelta) -> int:
    """A span as stored."""
    return span // _MICROSECOND


@lru_cache(maxsize=16_384)
def span(value: int) -> timedelta:
    """A stored span."""
    return _MICROSECOND * value
