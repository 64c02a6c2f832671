"""Answering without a task, and with one write.

Uvicorn makes a task of every request and writes head and body apart. Most requests here are answered from memory. Those
to an application with ``at_once = True`` that were read in one round of the event loop are run one after another;
whatever one waits for goes on by itself, and only what asks for a task becomes one. The application may hand a whole
answer to ``scope["extensions"][WHOLE]`` instead of sending it in messages.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Generator
from functools import lru_cache, partial
from types import coroutine
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

WHOLE: Final = "wave.whole"
"""The extension ``whole(status, headers, body) -> bool``: answer with one write. ``headers`` are those beside the
length; ``body`` is what a GET would be answered with. False: it cannot be done now, send messages."""

NO_LENGTH: Final = (204, 304)
"""Answers that have no body, and say no length."""

_BAD_NAME: Final = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Round:
    """What was read in one round of the event loop. It is run when all has been read: whoever is told something at once
    asks again at once, and one by one costs more than all together."""

    __slots__ = ("_coming", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._coming: list[Coroutine[Any, Any, None]] = []

    def add(self, run: Coroutine[Any, Any, None]) -> None:
        """To be run until it waits, and on whenever what it waits for is there. What it raises is the event loop's."""
        if not self._coming:
            self.loop.call_soon(self._run)
        self._coming.append(run)

    def _run(self) -> None:
        come, self._coming = self._coming, []
        for each in come:
            try:
                _Running(each, self.loop).step()
            except Exception as error:
                self.loop.call_exception_handler({"message": "a request could not be answered", "exception": error})


_rounds: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Round]] = WeakKeyDictionary()


def round_of(loop: asyncio.AbstractEventLoop) -> Round:
    """The one of this event loop; asked once for each connection."""
    known = _rounds.get(loop)
    if known is None:
        known = _rounds[loop] = Round(loop)
    return known


async def in_a_task() -> None:
    """From here on there is a task: what has a clock or ends early (``asyncio.timeout``) asks for one."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


class _Running:
    __slots__ = ("_loop", "_run")

    def __init__(self, run: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        self._run = run
        self._loop = loop

    def step(self, resolved: asyncio.Future[Any] | None = None) -> None:
        try:
            waits_for = self._run.send(None)
        except StopIteration:
            return
        if waits_for is None:
            self._loop.create_task(_rest(self._run))
        else:
            waits_for._asyncio_future_blocking = False  # it was heard, as a task would say
            waits_for.add_done_callback(self.step)


@coroutine
def _rest(run: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """What is left of a coroutine that has begun, for a task of its own."""
    on = partial(run.send, None)
    while True:
        try:
            waits_for = on()
        except StopIteration:
            return
        try:
            yield waits_for
        except GeneratorExit:
            run.close()
            raise
        except BaseException as error:
            on = partial(run.throw, error)
        else:
            on = partial(run.send, None)


def whole(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> bool:
    """See ``WHOLE``. Raises RuntimeError for a header that would end its line."""
    if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
        return False
    head, closes = _head(status, headers)
    lines = [head]
    for name, value in cycle.default_headers:
        lines += (name, b": ", value, b"\r\n")
        closes = closes or name == b"connection"  # the server ends, and says so itself
    if not (cycle.keep_alive or closes):
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n" if status in NO_LENGTH else b"content-length: %d\r\n\r\n" % len(body))
    if cycle.scope["method"] != "HEAD":
        lines.append(body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(lines))
    cycle.message_event.set()
    if closes or not cycle.keep_alive:
        cycle.keep_alive = False
        cycle.transport.close()
    cycle.on_response()
    return True


@lru_cache(maxsize=1_024)
def _head(status: int, headers: Headers) -> tuple[bytes, bool]:
    """The status line with the headers, and whether one of them says that the connection is closed."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
            raise RuntimeError(f"no header can be {name!r}: {value!r}")
        lines += (name.lower(), b": ", value, b"\r\n")
    return b"".join(lines), (b"connection", b"close") in headers
