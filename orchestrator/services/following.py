"""Which request, tick, build or delivery a line of the log belongs to: an id that every line written on its behalf
carries. Where traces are on it is the trace's.

Following costs a request one assignment. The id of a device's request is made only when a line is written, or a span.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from uuid import uuid4

from orchestrator.services import tracing
from orchestrator.services.tracing import NO_FACTS, Facts, Span

HEADER: Final = b"x-request-id"
_SANE: Final = re.compile(rb"[A-Za-z0-9._:@=+/-]{1,64}")
_KEPT: Final = "wave.request"

ASKED: Final[ContextVar[MutableMapping[str, Any] | None]] = ContextVar("asked", default=None)
"""The request under way: its ASGI scope."""

_work: ContextVar[tuple[str, str] | None] = ContextVar("work", default=None)
"""What is under way that nobody asked for: its kind and its id."""


def new_id() -> str:
    """An id that a trace could have, where there are traces."""
    return uuid4().hex if tracing.on() else uuid4().hex[:16]


def request_id(scope: MutableMapping[str, Any]) -> str:
    """Whoever asks may bring one in ``X-Request-Id``; what is no sane one is replaced. Where traces are on it is the
    trace's, and none can be brought so. The same for a request for as long as it lasts."""
    found: str | None = scope.get(_KEPT)
    if found is None:
        found = scope[_KEPT] = (None if tracing.on() else brought(scope["headers"])) or new_id()
    return found


def belongs(scope: MutableMapping[str, Any], trace: str) -> None:
    """The request is part of this trace."""
    scope[_KEPT] = trace


def brought(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What a request brings as its id."""
    value = next((value for name, value in headers if name == HEADER), b"")
    return value.decode("ascii") if _SANE.fullmatch(value) else None


@contextmanager
def work(kind: str, facts: Facts = NO_FACTS, *, parent: str = "") -> Iterator[Span]:
    """What is written inside belongs to one piece of work: a tick, a build, a delivery. ``parent``: a ``traceparent``
    to go on from; else it is a trace of its own."""
    with tracing.span(kind, facts, parent=parent) as span:
        before = _work.set((kind, span.trace or new_id()))
        try:
            yield span
        finally:
            _work.reset(before)


def followed() -> dict[str, str]:
    """The ids of what is under way here: ``request``; ``tick``, ``build``, ``delivery``."""
    found = {}
    scope, under_way = ASKED.get(), _work.get()
    if scope is not None:
        found["request"] = request_id(scope)
    if under_way is not None:
        kind, id = under_way
        found[kind] = id
    return found
