"""Traces: what was done, how long it took, and what it was part of, told to a collector where an installation has one.

A port. ``adapters.traces`` implements it over OpenTelemetry, which is an extra, and ``switch_on`` is called where the
setting ``traces`` says so. Until then every span is one and the same nothing: nobody pays for it, and nothing of it is
imported. What is in a span: names of rollouts, waves, gates and destinations, commits, counts and sentences of ours.
Never a body, a header, a query, an address or a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import TracebackType
from typing import Final, Protocol, Self

Fact = str | int | float | bool
Facts = Mapping[str, Fact]

NO_FACTS: Final[Facts] = {}


class Side(Enum):
    """On which side of a conversation a span is."""

    INSIDE = "inside"
    ASKED = "asked"
    """Somebody asked us."""
    ASKS = "asks"
    """We ask somebody."""


class Span(Protocol):
    """One piece of work. As a context manager it is what is under way inside, and ends with it; what is raised out of
    it is noted: a WaveError by its sentence, all else by its kind, because another's text may hold anything."""

    @property
    def trace(self) -> str:
        """The trace that it belongs to, 32 hexadecimal digits; empty where nothing is traced."""

    def note(self, facts: Facts) -> None: ...

    def name(self, name: str) -> None: ...

    def event(self, name: str, facts: Facts = NO_FACTS) -> None:
        """Something that happened at one moment of it."""

    def failed(self, why: str) -> None: ...

    def end(self) -> None:
        """Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracer(Protocol):
    """Thread-safe. What is under way follows the context (``contextvars``)."""

    def begin(self, name: str, facts: Facts, *, side: Side, parent: str | None, trace: str) -> Span:
        """``parent``: a W3C ``traceparent`` to go on from; empty for none, so that a trace begins; None: what is under
        way. What is no such thing is none. ``trace``: the id that a trace which begins shall have; empty for any."""

    def carried(self) -> str:
        """What is under way as a W3C ``traceparent``; empty where nothing is."""

    def close(self) -> None:
        """Send what has ended, within a few seconds; never raises."""


class Nothing:
    """The span where nothing is traced."""

    trace: Final = ""

    def note(self, facts: Facts) -> None: ...

    def name(self, name: str) -> None: ...

    def event(self, name: str, facts: Facts = NO_FACTS) -> None: ...

    def failed(self, why: str) -> None: ...

    def end(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


NOTHING: Final = Nothing()

_tracers: Final[list[Tracer]] = []
"""None, or the one of this process."""


def switch_on(tracer: Tracer) -> None:
    """From here on spans of this process are told."""
    _tracers[:] = [tracer]


def switch_off() -> None:
    """Send what is left, and be as before. Idempotent."""
    was, _tracers[:] = list(_tracers), []
    for each in was:
        each.close()


def on() -> bool:
    return bool(_tracers)


def span(
    name: str,
    facts: Facts = NO_FACTS,
    *,
    side: Side = Side.INSIDE,
    parent: str | None = None,
    trace: str = "",
) -> Span:
    """See ``Tracer.begin``."""
    return _tracers[0].begin(name, facts, side=side, parent=parent, trace=trace) if _tracers else NOTHING


def carried() -> str:
    """See ``Tracer.carried``."""
    return _tracers[0].carried() if _tracers else ""


def carried_headers() -> dict[str, str]:
    """For a request of ours: ``traceparent``, where something is under way."""
    found = carried()
    return {"traceparent": found} if found else {}
