"""What an open page listens to: that something has changed, and no more. The page then asks for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import StreamingResponse

from orchestrator.core.roles import Role
from orchestrator.web.asking import still
from orchestrator.web.console.rendering import HEADERS
from orchestrator.web.console.routes import Viewer, router
from orchestrator.web.feed import BEAT, Feed, frame


@router.get("/live")
async def live(request: Request, person: Viewer) -> StreamingResponse:
    """Open until the browser goes, the server ends or whoever watches may not any more; a browser comes back by
    itself, and is told then."""
    feed: Feed = request.app.state.feed

    async def told() -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        async for news in feed.follow():
            if not await still(request, Role.VIEWER):
                return
            yield frame("change") if news.entries or news.stirred else BEAT

    headers = {**HEADERS, "cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(told(), headers=headers, media_type="text/event-stream")
