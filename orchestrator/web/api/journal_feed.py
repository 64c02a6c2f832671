"""``GET /journal/feed``: the entries of all journals as server-sent events, from now on or from where one stood."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from orchestrator.core.roles import Role
from orchestrator.errors import InvalidInput
from orchestrator.services.feed import Fed
from orchestrator.services.people import Person
from orchestrator.services.wire import encoded
from orchestrator.web.asking import asks, still
from orchestrator.web.bounds import Turns
from orchestrator.web.feed import BEAT, BEAT_EVERY, Feed, frame

MEDIA: Final = "text/event-stream"


class Stream(StreamingResponse):
    """One reader's turn, given back when the stream ends, however it does."""

    media_type = MEDIA

    def __init__(self, events: AsyncIterator[bytes], turns: Turns, name: str) -> None:
        super().__init__(events, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._turns, self._name = turns, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._turns.give_back(self._name)


def router() -> APIRouter:
    made = APIRouter()

    @made.get("/journal/feed", include_in_schema=False)
    async def journal_feed(
        request: Request, person: Annotated[Person, Depends(asks(Role.VIEWER))]
    ) -> StreamingResponse:
        after = _position(request)
        turns: Turns = request.app.state.streams
        turns.take(person.name)
        return Stream(_events(request, request.app.state.feed, after), turns, person.name)

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
    async with aclosing(feed.follow(after, beat_every=BEAT_EVERY)) as followed:
        async for news in followed:
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
