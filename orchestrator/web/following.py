"""Around every request of the operators' side: its id, in the log and in the answer, and the count of its status."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.services.following import ASKED, HEADER, request_id
from orchestrator.services.metering import Meter


class Following:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app: Final = app
        self._counts: Final = meter.operators

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ASKED.set(scope)
        own = (HEADER, request_id(scope).encode("ascii"))

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                self._counts[status] = self._counts.get(status, 0) + 1
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        await self._app(scope, receive, counted)
