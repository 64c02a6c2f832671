"""Long lists, page by page: each page says where the next one begins, and nobody has to understand how.

A cursor names the last item of its page. What was added before it since does not come again; where the item itself has
gone, the list goes on from where it stood.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from orchestrator.errors import InvalidInput
from orchestrator.services.application import Application
from orchestrator.services.operations import Operation, shape_of

USUAL: Final = 100
MOST: Final = 1_000
"""Items of one page."""


class Page(NamedTuple):
    """Some items of a list; ``next``: the cursor of those that follow, None after the last."""

    items: Sequence[Any]
    next: str | None


class _Cursor(NamedTuple):
    operation: str
    key: str | int
    at: int


def page_of(
    operation: Operation, app: Application, given: dict[str, Any], *, cursor: str | None, limit: int, by: str
) -> Page:
    """Raises InvalidInput for a cursor of another list, or none at all."""
    listing = operation.listing
    assert listing is not None
    start = None if cursor is None else _read(operation, cursor)
    if listing.native:
        if start is not None:
            given["after"] = _key(operation, start)
        found = list(operation.carry_out(app, {**given, "limit": limit + 1}, by=by))
        first = 0
    else:
        found = list(operation.carry_out(app, given, by=by))
        first = 0 if start is None else _after(operation, found, start)
    items = found[first : first + limit]
    more = len(found) > first + limit
    return Page(items, _written(operation, listing.key(items[-1]), first + limit) if more else None)


def _after(operation: Operation, found: Sequence[Any], start: _Cursor) -> int:
    assert operation.listing is not None
    for place, item in enumerate(found):
        if operation.listing.key(item) == start.key:
            return place + 1
    # Only the item before has gone: what followed it stands where it stood.
    return max(0, start.at - 1)


def _key(operation: Operation, start: _Cursor) -> Any:
    """What the list goes on after, of the type that it goes by. Raises InvalidInput."""
    kind = next(field.type for field in shape_of(operation).fields if field.name == "after")
    try:
        return msgspec.convert(start.key, kind)
    except msgspec.ValidationError:
        raise _wrong() from None


def _written(operation: Operation, key: str | int, at: int) -> str:
    text = msgspec.json.encode(_Cursor(operation.key, key, at))
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _read(operation: Operation, cursor: str) -> _Cursor:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        found = msgspec.json.decode(text, type=_Cursor)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise _wrong() from None
    if found.operation != operation.key:
        raise _wrong()
    return found


def _wrong() -> InvalidInput:
    return InvalidInput("This cursor belongs to no page of this list.", remedy="Begin without one.")
