"""The door for devices: a bare ASGI application for the hot routes, and the repository beside it.

::

    POST /v1/devices/{id}/check-in      a device asks               64 KiB
    POST /v1/devices/{id}/reports       a device tells              1 MiB
    GET  /healthz                       is this process well
    *    /ostree/...                    the repository (another application)

Every error is ``{"error": {"kind": ..., "message": ...}}`` with one of the kinds in ``KINDS``. Answers for: HTTP,
limits, shapes, status codes. Not for: anything a device is told (``services.devices``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import msgspec

from orchestrator.core.fleet import check_name
from orchestrator.errors import Busy, Conflict, InvalidInput, NotFound, Refused, Unauthorized, Unavailable, WaveError
from orchestrator.services.devices import Devices, Kept
from orchestrator.services.messages import Answer, CheckIn, Received, Report

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

CHECK_IN_BYTES: Final = 64 * 1024
REPORTS_BYTES: Final = 1024 * 1024
READ_SECONDS: Final = 10.0
"""How long a device may take to send its body."""

RETRY_SECONDS: Final = 5
"""When a device that found the server busy should come again."""

KINDS: Final = frozenset(
    "not_json invalid_report too_large too_slow not_found method_not_allowed unauthorized refused busy "
    "store_unavailable unavailable internal".split()
)
"""Every kind that an error on the wire can have."""

_JSON: Final = (b"content-type", b"application/json")
_CLOSE: Final = (b"connection", b"close")
_PREFIX: Final = "/v1/devices/"


class _Problem(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, kind: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers


class Gateway:
    """The application. ``files`` serves what lies below ``/ostree``; ``read_seconds`` bounds slow bodies."""

    def __init__(self, devices: Devices, *, files: App | None = None, read_seconds: float = READ_SECONDS) -> None:
        self._devices = devices
        self._files = files
        self._read_seconds = read_seconds
        self._encode = msgspec.json.Encoder().encode
        self._check_in_of = msgspec.json.Decoder(CheckIn).decode
        self._report_of = msgspec.json.Decoder(Report).decode
        self._bridge: _Bridge | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await _live(receive, send)
            return
        if kind != "http":
            raise RuntimeError(f"the gateway answers HTTP, not {kind}")
        path: str = scope["path"]
        if self._files is not None and path.startswith("/ostree/"):
            await self._files({**scope, "root_path": scope.get("root_path", "") + "/ostree"}, receive, send)
            return
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            status, body = await self._answer(path, scope, receive)
        except _Problem as problem:
            status, body, headers = problem.status, self._problem(problem.kind, problem.message), problem.headers
        except WaveError as error:
            told = _told(error)
            if told.status >= 500:
                _log.warning("a request could not be answered: %s", error)
            status, body, headers = told.status, self._problem(told.kind, told.message), told.headers
        except ConnectionResetError:
            return  # the device hung up before it had said everything
        except Exception:
            _log.exception("a request could not be answered")
            status = 500
            body = self._problem("internal", "The server made a mistake; it has written it down.")
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _problem(self, kind: str, message: str) -> bytes:
        return self._encode({"error": {"kind": kind, "message": message}})

    async def _answer(self, path: str, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        if path.startswith(_PREFIX):
            device_id, _, route = path[len(_PREFIX) :].rpartition("/")
            if route == "check-in":
                _only(scope, "POST")
                return await self._check_in(device_id, scope, receive)
            if route == "reports":
                _only(scope, "POST")
                return await self._report(device_id, scope, receive)
        elif path == "/healthz":
            _only(scope, "GET", "HEAD")
            return self._health()
        raise _Problem(404, "not_found", "There is nothing under this path.")

    async def _check_in(self, device_id: str, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        token = _token(scope)
        known = await self._let_in(device_id, token)
        body = await self._body(scope, receive, CHECK_IN_BYTES)
        found = self._devices.check_in(device_id, token, _decoded(self._check_in_of, body), known=known)
        answer: Answer = found if isinstance(found, Answer) else await self._committed(found)
        return 200, self._encode(answer)

    async def _report(self, device_id: str, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        token = _token(scope)
        known = await self._let_in(device_id, token)
        body = await self._body(scope, receive, REPORTS_BYTES)
        report = _decoded(self._report_of, body)
        told = self._devices.report(device_id, token, report.events, known=known)
        received: Received = await self._committed(told)
        return 200, self._encode(received)

    async def _let_in(self, device_id: str, token: str) -> Kept:
        """Before a byte of the body is read: strangers cost a short look at most."""
        try:
            check_name(device_id, "device id")
        except InvalidInput:
            # nothing below sees such an id; no device can have it, so it is unknown
            raise Unauthorized("The device is not known here, or its token is wrong.") from None
        known = self._devices.let_in(device_id, token)
        return known if isinstance(known, Kept) else await self._committed(known)

    def _health(self) -> tuple[int, bytes]:
        if not self._devices.writer.alive:
            raise _Problem(503, "unavailable", "The writer has ended.")
        return 200, b'{"status":"ok"}'

    def _committed(self, future: Future[Result]) -> asyncio.Future[Result]:
        """Wait for a commit."""
        loop = asyncio.get_running_loop()
        if self._bridge is None or self._bridge.loop is not loop:
            self._bridge = _Bridge(loop)
        return self._bridge.wait(future)

    async def _body(self, scope: Scope, receive: Receive, most: int) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > most:
                raise _too_large(most)
        try:
            async with asyncio.timeout(self._read_seconds):
                message = await receive()
                body: bytes = message.get("body", b"")
                if message.get("more_body") or message["type"] == "http.disconnect":
                    body = await _rest(message, receive, most)
        except TimeoutError:
            raise _Problem(
                408, "too_slow", f"The body did not come within {self._read_seconds:g} seconds.", _CLOSE
            ) from None
        if len(body) > most:
            raise _too_large(most)
        return body


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
            raise _too_large(most)
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)
        message = await receive()


class _Bridge:
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


def _only(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        allow = (b"allow", ", ".join(methods).encode())
        raise _Problem(405, "method_not_allowed", f"Only {' and '.join(methods)} is possible here.", allow)


def _token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and token:
                return str(token.strip(), "latin-1")
    raise Unauthorized("A device shows its token as `Authorization: Bearer TOKEN`.")


def _decoded(decode: Callable[[bytes], Result], body: bytes) -> Result:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise _Problem(400, "invalid_report", f"The body has not the right shape: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Problem(400, "not_json", f"The body is not JSON in UTF-8: {error}.") from None


def _too_large(most: int) -> _Problem:
    return _Problem(413, "too_large", f"The body may have {most // 1024} KiB at most here.", _CLOSE)


def _told(error: WaveError) -> _Problem:
    """What a device is told of an error of ours. Of what is broken inside it learns only that it is."""
    later = (b"retry-after", b"%d" % RETRY_SECONDS)
    match error:
        case Unauthorized():
            return _Problem(401, "unauthorized", str(error), (b"www-authenticate", b"Bearer"))
        case InvalidInput():
            return _Problem(400, "invalid_report", str(error))
        case NotFound():
            return _Problem(404, "not_found", str(error))
        case Busy() | Conflict():
            return _Problem(503, "busy", "The server is busy; ask again in a few seconds.", later)
        case Unavailable():
            kind = error.kind if error.kind in KINDS else "unavailable"
            return _Problem(503, kind, "The server cannot do this now; ask again later.", later)
        case Refused():
            return _Problem(409, "refused", str(error))
        case _:
            return _Problem(500, "internal", "The server made a mistake; it has written it down.")


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
