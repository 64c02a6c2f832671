"""``GET /journal/feed``: the entries of all journals as server-sent events, from now on or from where one stood."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from orchestrator.core.roles import Role
from orchestrator.errors import InvalidInput
from orchestrator.services.feed import Fed
from orchestrator.services.people import Person
from orchestrator.services.wire import encoded
from orchestrator.web.asking import asks, still
from orchestrator.web.feed import BEAT, Feed, frame

MEDIA: Final = "text/event-stream"


def router() -> APIRouter:
    made = APIRouter()

    @made.get("/journal/feed", include_in_schema=False)
    async def journal_feed(
        request: Request, person: Annotated[Person, Depends(asks(Role.VIEWER))]
    ) -> StreamingResponse:
        feed: Feed = request.app.state.feed
        after = _position(request)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_events(request, feed, after), media_type=MEDIA, headers=headers)

    return made


def _position(request: Request) -> int | None:
    """``Last-Event-ID``, as a reader sends it by itself, or ``after`` in the query; 0 is the beginning."""
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput("The last event's id is no number of this feed.", remedy="Leave it out to begin anew.")
    return int(text)


async def _events(request: Request, feed: Feed, after: int | None) -> AsyncIterator[bytes]:
    # Something at once, so that the reader knows that it is connected.
    yield BEAT
    async for news in feed.follow(after):
        if not await still(request, Role.VIEWER):
            return
        if news.lost:
            yield frame("lost", number=news.position)
        for each in news.entries:
            yield _event(each)
        if not news.entries:
            yield BEAT


def _event(each: Fed) -> bytes:
    value = encoded({"rollout": each.rollout, "entry": each.entry})
    return b"id: %d\nevent: journal\ndata: %b\n\n" % (each.number, value)
