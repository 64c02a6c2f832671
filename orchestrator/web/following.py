"""Around every request of the operators' side: its id, in the log and in the answer, its span, the count of its status,
and how many are worked on at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from anyio.to_thread import current_default_thread_limiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.services import tracing
from orchestrator.services.following import ASKED, HEADER, belongs, brought, request_id
from orchestrator.services.metering import Meter
from orchestrator.services.tracing import NOTHING, Side, Span

NOT_TRACED: Final = ("/metrics", "/static/")
"""What is asked for all the time and tells nothing."""

_PARENT: Final = b"traceparent"
_STREAM: Final = b"text/event-stream"

AT_ONCE: Final = 16
"""Requests that threads work on at the same time. Each may hold a connection to the store, of which there are twice as
many: devices never wait because all are in people's hands."""


class Following:
    """An ASGI application around another, for one event loop."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app: Final = app
        self._counts: Final = meter.operators
        self._bounded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not self._bounded:
            self._bounded = True
            current_default_thread_limiter().total_tokens = AT_ONCE
        ASKED.set(scope)
        with _span(scope) as span:
            own = (HEADER, request_id(scope).encode("ascii"))

            async def counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    self._counts[status] = self._counts.get(status, 0) + 1
                    headers = message.get("headers", ())
                    _answered(span, scope, status, headers)
                    message = {**message, "headers": [*headers, own]}
                await send(message)

            await self._app(scope, receive, counted)


def _span(scope: Scope) -> Span:
    """It goes on from what whoever asks brings."""
    if not tracing.on() or scope["path"].startswith(NOT_TRACED):
        return NOTHING
    parents = [value for name, value in scope["headers"] if name == _PARENT]
    parent = parents[0].decode("latin-1") if len(parents) == 1 else ""
    span = tracing.span(scope["method"], {"http.request.method": scope["method"]}, side=Side.ASKED, parent=parent)
    if span.trace:
        belongs(scope, span.trace)
    if (own := brought(scope["headers"])) is not None:
        span.note({"http.request.header.x-request-id": own})
    return span


def _answered(span: Span, scope: Scope, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Named by the route, of which there are few, and not by the path. A stream of events is over when it begins: how
    long somebody looks is no work."""
    facts: dict[str, str | int] = {"http.response.status_code": status}
    if (route := getattr(scope.get("route"), "path", None)) is not None:
        span.name(f"{scope['method']} {route}")
        facts["http.route"] = route
    span.note(facts)
    if status >= 500:
        span.failed(f"HTTP {status}")
    if any(name.lower() == b"content-type" and value.startswith(_STREAM) for name, value in headers):
        span.end()
