"""What a request to the operators' side may cost before and while it is answered, whoever sends it.

A body is read before anybody knows who sends it where it is a form; so its length and its time are bounded for all,
by the kind of content. Files in pieces have bounds of their own (``web.api.uploads``).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.errors import TooMany
from orchestrator.web.problems import of_http

MOST_BYTES: Final = 4_000_000
"""A body of JSON: two files, or two thousand devices, or a ``targets.json``."""

MOST_OF_A_FORM: Final = 256_000
"""A form of the console, or of signing in."""

WITHIN: Final = 30.0
"""Seconds in which a body must be here."""

PIECES: Final = ("PATCH", "/api/v1/uploads/")
"""Pieces of files: nothing reads them before it is known who sends them."""


def too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The body is too large: {most:,} bytes are the most that is taken.")


def too_slow() -> HTTPException:
    return HTTPException(408, f"The body took longer than {WITHIN:g} seconds.")


class Bounded:
    """An ASGI application around another: bodies that are too long, or too slow, end in an error for whoever reads
    them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == PIECES[0] and scope["path"].startswith(PIECES[1]):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        most = MOST_BYTES if media == b"application/json" else MOST_OF_A_FORM
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > most):
            await of_http(too_large(most))(scope, receive, send)
            return
        body = _Body(receive, send, most)
        await self._app(scope, body.receive, body.send)


class _Body:
    """One request's. Once it is whole, or an answer has begun, nothing is waited for but that whoever asks goes away,
    which may take for ever."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._most = receive, send, most
        self._size = 0
        self._ends_at = asyncio.get_running_loop().time() + WITHIN
        self._done = False

    async def receive(self) -> Message:
        """Raises HTTPException."""
        if self._done:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._ends_at):
                message = await self._receive()
        except TimeoutError:
            raise too_slow() from None
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise too_large(self._most)
        self._done = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self._done = True
        await self._send(message)


class Turns:
    """How much of one kind a person has under way, and how much of it all have together. Safe in threads.

    ``what`` is said to whoever has too much, ``after`` how many seconds later to come again."""

    def __init__(self, each: int, everybody: int, what: str, *, after: float) -> None:
        self._each, self._everybody = each, everybody
        self._what, self._after = what, after
        self._guard = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Raises TooMany. Whoever takes one gives it back."""
        with self._guard:
            if self._taken[name] >= self._each or self._taken.total() >= self._everybody:
                whose = f"{name} has" if self._taken[name] >= self._each else "All together have"
                raise TooMany(f"{whose} {self._what} already.", after=self._after, remedy="Come back in a moment.")
            self._taken[name] += 1

    def give_back(self, name: str) -> None:
        with self._guard:
            self._taken[name] -= 1
            if not self._taken[name]:
                del self._taken[name]

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """Raises TooMany."""
        self.take(name)
        try:
            yield
        finally:
            self.give_back(name)

    @property
    def under_way(self) -> int:
        with self._guard:
            return self._taken.total()
