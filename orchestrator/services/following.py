"""Which request or tick a line of the log belongs to: an id that every line written on its behalf carries.

Following costs a request one assignment. The id of a device's request is made only when a line is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from uuid import uuid4

HEADER: Final = b"x-request-id"
_SANE: Final = re.compile(rb"[A-Za-z0-9._:@=+/-]{1,64}")
_KEPT: Final = "wave.request"

ASKED: Final[ContextVar[MutableMapping[str, Any] | None]] = ContextVar("asked", default=None)
"""The request under way: its ASGI scope."""

_tick: ContextVar[str | None] = ContextVar("tick", default=None)


def new_id() -> str:
    return uuid4().hex[:16]


def request_id(scope: MutableMapping[str, Any]) -> str:
    """Whoever asks may bring one in ``X-Request-Id``; what is no sane one is replaced. The same for a request for as
    long as it lasts."""
    found: str | None = scope.get(_KEPT)
    if found is None:
        found = scope[_KEPT] = _brought(scope["headers"]) or new_id()
    return found


def _brought(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    value = next((value for name, value in headers if name == HEADER), b"")
    return value.decode("ascii") if _SANE.fullmatch(value) else None


@contextmanager
def tick() -> Iterator[str]:
    """What is written inside belongs to one tick."""
    found = new_id()
    before = _tick.set(found)
    try:
        yield found
    finally:
        _tick.reset(before)


def followed() -> dict[str, str]:
    """The ids of what is under way here: ``request``, ``tick``."""
    found = {}
    scope, under_way = ASKED.get(), _tick.get()
    if scope is not None:
        found["request"] = request_id(scope)
    if under_way is not None:
        found["tick"] = under_way
    return found
