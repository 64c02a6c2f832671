"""Around every request of the operators' side: its id, in the log and in the answer, the count of its status, and how
many are worked on at once."""

from __future__ import annotations

from typing import Final

from anyio.to_thread import current_default_thread_limiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.services.following import ASKED, HEADER, request_id
from orchestrator.services.metering import Meter

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
        own = (HEADER, request_id(scope).encode("ascii"))

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                self._counts[status] = self._counts.get(status, 0) + 1
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        await self._app(scope, receive, counted)
