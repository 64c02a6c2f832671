"""What the doors share: a request with its bounds, a response, what is told of an error, and waiting for a commit.

Answers for: HTTP, limits, shapes, status codes. Not for: any protocol (the doors), nor what a device is told
(``services.devices``).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from concurrent.futures import Future
from math import ceil
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from orchestrator.core.fleet import check_name
from orchestrator.errors import (
    Busy,
    Conflict,
    Forbidden,
    Gone,
    InvalidInput,
    NotFound,
    Refused,
    TooMany,
    Unauthorized,
    Unavailable,
    WaveError,
)
from orchestrator.gateway.at_once import Headers, in_a_task
from orchestrator.services import tracing
from orchestrator.services.following import request_id
from orchestrator.services.tracing import Side

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Result = TypeVar("Result")

READ_SECONDS: Final = 10.0
"""How long a device may take to send its body."""

RETRY_SECONDS: Final = 5
"""When a device that found the server busy should come again."""

KINDS: Final = frozenset(
    "not_http not_json invalid_report too_large too_slow not_found gone method_not_allowed unauthorized forbidden "
    "refused too_many busy store_unavailable unavailable internal".split()
)
"""Every kind that an error on the wire can have."""

JSON: Final = (b"content-type", b"application/json")
CLOSE: Final = (b"connection", b"close")


class Problem(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, kind: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers


class Response(NamedTuple):
    """A whole answer; ``headers`` beside the length."""

    status: int
    body: bytes
    headers: Headers = (JSON,)


class Handed(NamedTuple):
    """Another application answers, asked with this scope."""

    app: App
    scope: Scope


class Door(Protocol):
    """One protocol of devices."""

    @property
    def name(self) -> str:
        """By which it is counted: one word."""

    def takes(self, path: str) -> bool:
        """Whether requests under this path are this protocol's. Asked of every request: cheap."""

    async def answer(self, request: Request) -> Response | Handed:
        """Raises Problem and WaveError for what is no success."""

    def problem(self, problem: Problem) -> bytes:
        """The body of an error, in the protocol's own shape."""


class Limiting(Protocol):
    """How often one may ask."""

    def arrive(self, scope: Scope) -> bool:
        """A request from an address begins; whether that was wrong too often. Raises TooMany."""

    def wrong(self, scope: Scope) -> None:
        """It was refused because nobody could tell who asked."""

    def device(self, device_id: str) -> None:
        """A device was let in. Raises TooMany."""

    def suspected(self, scope: Scope) -> TooMany:
        """What a stranger is told whose address was wrong too often."""


class Request:
    """One request; its body is read within ``read_seconds``, and only when it is asked for. ``limits``: how often its
    device may ask; ``suspect``: its address was wrong too often, so only who is known in memory is served."""

    __slots__ = ("_bridge", "_read_seconds", "_receive", "limits", "path", "scope", "suspect")

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        bridge: Callable[[], Bridge],
        read_seconds: float,
        limits: Limiting | None = None,
        *,
        suspect: bool = False,
    ) -> None:
        self.scope = scope
        self.path: str = scope["path"]
        self._bridge = bridge
        self._receive = receive
        self._read_seconds = read_seconds
        self.limits = limits
        self.suspect = suspect

    @property
    def method(self) -> str:
        method: str = self.scope["method"]
        return method

    def header(self, wanted: bytes) -> bytes | None:
        """The first header of that name, in lower case."""
        for name, value in self.scope["headers"]:
            if name == wanted:
                return bytes(value)
        return None

    def asked_by(self, device_id: str) -> None:
        """This device was let in, and asked once more. Raises TooMany."""
        if self.limits is not None:
            self.limits.device(device_id)

    def check_suspect(self) -> None:
        """Before anything that costs a look into the store for somebody who is not known yet. Raises TooMany."""
        if self.suspect and self.limits is not None:
            raise self.limits.suspected(self.scope)

    def only(self, *methods: str) -> None:
        """Raises Problem for any other method."""
        if self.scope["method"] not in methods:
            allow = (b"allow", ", ".join(methods).encode())
            raise Problem(405, "method_not_allowed", f"Only {' and '.join(methods)} is possible here.", allow)

    def committed(self, future: Future[Result]) -> asyncio.Future[Result]:
        """Wait for a commit, or a look into the store: what is answered from memory does not come here."""
        if tracing.on():
            self._trace(future)
        return self._bridge().wait(future)

    def _trace(self, future: Future[Result]) -> None:
        """A device's word on traces is not taken: it could write into any."""
        facts = {"http.request.method": self.method, "url.path": self.path}
        trace = request_id(self.scope)
        span = tracing.span("device", facts, side=Side.ASKED, parent="", trace=trace)

        def ended(done: Future[Result]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                span.failed(str(error) if isinstance(error, WaveError) else type(error).__name__)
            span.end()

        future.add_done_callback(ended)

    async def body(self, most: int) -> bytes:
        """The body, of ``most`` bytes at most. Raises Problem, and ConnectionResetError when the device hung up."""
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > most:
            raise too_large(most)
        asked = _Asked(self._receive())
        message = asked.at_once()
        if message is not None and not message.get("more_body") and message["type"] != "http.disconnect":
            # It came with the head, as nearly all do: a clock would cost more than all the rest of this.
            body: bytes = message.get("body", b"")
            if len(body) > most:
                raise too_large(most)
            return body
        await in_a_task()
        try:
            async with asyncio.timeout(self._read_seconds):
                return await _rest(message or await asked, self._receive, most)
        except TimeoutError:
            raise Problem(
                408, "too_slow", f"The body did not come within {self._read_seconds:g} seconds.", CLOSE
            ) from None


class _Asked:
    """Something awaited whose answer is taken at once when it is there."""

    def __init__(self, awaited: Awaitable[Message]) -> None:
        self._steps = awaited.__await__()
        self._waits_for: Any = None

    def at_once(self) -> Message | None:
        """None: it has to be awaited after all. To be called once, first."""
        try:
            self._waits_for = next(self._steps)
        except StopIteration as there:
            message: Message = there.value
            return message
        return None

    def __await__(self) -> Generator[Any, Any, Message]:
        try:
            yield self._waits_for
        except BaseException as error:
            self._steps.throw(error)
            raise
        return (yield from self._steps)


class Bridge:
    """From other threads into the event loop: all that one commit resolved comes over with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._guard = threading.Lock()
        self._done: list[tuple[Future[Any], asyncio.Future[Any]]] = []

    def wait(self, future: Future[Result]) -> asyncio.Future[Result]:
        waiting: asyncio.Future[Result] = self.loop.create_future()

        def done(resolved: Future[Result]) -> None:
            with self._guard:
                self._done.append((resolved, waiting))
                first = len(self._done) == 1
            if first:
                # RuntimeError: the loop has ended, and nobody waits.
                with contextlib.suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self._take)

        future.add_done_callback(done)
        return waiting

    def _take(self) -> None:
        with self._guard:
            heap, self._done = self._done, []
        for resolved, waiting in heap:
            if waiting.done():
                continue
            error = resolved.exception()
            if error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(resolved.result())


def known_name(device_id: str) -> str:
    """The id itself when a device could have it. Raises Unauthorized: nothing below sees such an id, it is unknown."""
    try:
        return check_name(device_id, "device id")
    except InvalidInput:
        raise Unauthorized("The device is not known here, or its token is wrong.") from None


def decoded(decode: Callable[[bytes], Result], body: bytes) -> Result:
    """A body of JSON. Raises Problem."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise Problem(400, "invalid_report", f"The body has not the right shape: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "not_json", f"The body is not JSON in UTF-8: {error}.") from None


def as_utf8(body: bytes) -> bytes:
    """A body whatever a device's log put into it: what is no UTF-8 is replaced."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace").encode()
    return body


def too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"The body may have {most // 1024} KiB at most here.", CLOSE)


def nothing_there() -> Problem:
    return Problem(404, "not_found", "There is nothing under this path.")


def told(error: WaveError) -> Problem:
    """What a device is told of an error of ours. Of what is broken inside it learns only that it is."""
    later = (b"retry-after", b"%d" % RETRY_SECONDS)
    match error:
        case Unauthorized():
            return Problem(401, "unauthorized", str(error), (b"www-authenticate", b"Bearer"))
        case Forbidden():
            return Problem(403, "forbidden", str(error))
        case TooMany():
            return Problem(429, "too_many", str(error), (b"retry-after", b"%d" % max(1, ceil(error.after))))
        case Gone():
            return Problem(410, "gone", str(error))
        case InvalidInput():
            return Problem(400, "invalid_report", str(error))
        case NotFound():
            return Problem(404, "not_found", str(error))
        case Busy() | Conflict():
            return Problem(503, "busy", "The server is busy; ask again in a few seconds.", later)
        case Unavailable():
            kind = error.kind if error.kind in KINDS else "unavailable"
            return Problem(503, kind, "The server cannot do this now; ask again later.", later)
        case Refused():
            return Problem(409, "refused", str(error))
        case _:
            return Problem(500, "internal", "The server made a mistake; it has written it down.")


_envelope: Final = msgspec.json.Encoder().encode


def envelope(problem: Problem) -> bytes:
    """``{"error": {"kind", "message"}}``: how every error looks that no foreign protocol shapes."""
    return _envelope({"error": {"kind": problem.kind, "message": problem.message}})


async def live(receive: Receive, send: Send) -> None:
    """ASGI's lifespan, of an application that needs none."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _rest(message: Message, receive: Receive, most: int) -> bytes:
    """A body that comes in pieces."""
    pieces: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise too_large(most)
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)
        message = await receive()
