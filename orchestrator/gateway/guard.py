"""What one client may cost the server before anything is known of it: the head of a request, and a connection.

Uvicorn waits for ever for a head, keeps any length of it, and takes every connection that comes. Here a head has a time
and a length, and connections far above the limit are closed at once, so that the files of the process suffice for the
rest. Whoever is refused here is told so as the application tells its own errors (``said``).
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from orchestrator.gateway.at_once import WHOLE, Headers, round_of, whole
from orchestrator.gateway.counting import CONNECTION, NOT_HTTP, TOO_LARGE, TOO_MANY, TOO_SLOW
from orchestrator.gateway.said import Form, Said, by_kind
from orchestrator.gateway.tls import CERTIFICATE, peer_certificate
from orchestrator.services.metering import Refusals

HEAD_SECONDS: Final = 10.0
"""How long the head of a request may take, from the first byte, and the first byte on a new connection."""

HEAD_BYTES: Final = 64 * 1024
"""Of a request's line and headers; what comes in one piece with its end is not counted."""

UNREAD_BYTES: Final = 4 * 1024 * 1024
"""Of what still comes of a request that was answered already: more than any body may have."""

MOST_AT_ONCE: Final = 10_000
"""Connections and requests at once; more are told 503."""

TOLD_AT_ONCE: Final = 100
"""Connections above that, which can be told so; more are closed."""

FILES_ASIDE: Final = 256
"""Open files kept free of connections: for the database, the builders and the log."""


LAST_WORD: Final = 0.5
"""Seconds in which a connection that was kept open may still ask when the server stops: its device may have begun to
speak just then."""


def connections_possible() -> int:
    """Raise the limit of open files of this process as far as is needed and allowed; how many connections at once that
    is good for, each with a file that is sent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MOST_AT_ONCE + TOLD_AT_ONCE + FILES_ASIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return MOST_AT_ONCE
    return max(1, min(MOST_AT_ONCE, (soft - TOLD_AT_ONCE - FILES_ASIDE) // 2))


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's own, with these bounds. An application that says ``at_once`` is run as ``at_once`` has it."""

    refused: ClassVar[Refusals]
    """Counts whom the bounds hit; see ``guarded``."""

    said: ClassVar[Mapping[str, Said]]
    """What they are told, by the kind that is counted."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._in_head = False
        self._head_bytes = 0
        self._beside_bytes = 0
        self._late: asyncio.TimerHandle | None = None
        self._extensions: dict[str, Any] = {}
        self._at_once: bool = getattr(self.app, "at_once", False)
        self._round = round_of(self.loop)
        self._reading = False
        self._ready: RequestResponseCycle | None = None
        self._begun: RequestResponseCycle | None = None
        self._idle_since: float | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.scheme == "https" and (certificate := peer_certificate(transport)) is not None:
            self._extensions[CERTIFICATE] = certificate
        if self._at_once:
            self._extensions[WHOLE] = self._whole
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency + TOLD_AT_ONCE:
            self.refused.count(CONNECTION, TOO_MANY)
            transport.abort()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._extensions, self._begun = {}, None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return  # whatever comes while an answer before the refusal goes out: no parser may keep it
        self._idle_since = None
        self._reading = True
        super().data_received(data)
        self._reading = False
        if self._ready is not None:
            cycle, self._ready = self._ready, None
            self._begun = cycle
            self._round.add(cycle.run_asgi(self.app))
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(TOO_LARGE)
                return
        elif bool(self.cycle) and self.cycle.more_body:
            self._beside(self.cycle, len(data))
        # any byte ends the wait between two requests, an empty line too
        if self._in_head or not (self._is_idle() or self._answering()):
            self._expect_head()

    def _beside(self, cycle: RequestResponseCycle, size: int) -> None:
        """What came and is no part of a body that is read: headers behind it, mostly, which no parser bounds."""
        most = HEAD_BYTES
        if cycle.response_complete:
            self.headers.clear()  # those behind the body are put among them, and nobody reads them any more
            most = UNREAD_BYTES
        elif cycle.message_event.is_set():
            self._beside_bytes = 0  # a piece of the body is there
            return
        self._beside_bytes += size
        if self._beside_bytes > most:
            self._refuse(TOO_LARGE)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if app is not self.app:  # there are too many at once
            self.refused.count(CONNECTION, TOO_MANY)
            full: Any = self.said[TOO_MANY]
            super()._start_asgi_task(cycle, full)
        elif not self._at_once:
            super()._start_asgi_task(cycle, app)
        elif self._reading:
            self._ready = cycle  # its body may be in what is being read
        else:
            # One of many that came together, after the one before it: a task each, or the stack would grow with them.
            super()._start_asgi_task(cycle, app)

    def _whole(self, status: int, headers: Headers, body: bytes) -> bool:
        """The extension ``WHOLE``. Nothing in it leads back to the request: what a request leaves must be free at once
        and not wait for the collector of cycles."""
        return self._begun is not None and whole(self._begun, status, headers, body)

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        # Uvicorn's timer is made and ended with every request; this one looks whether anything has come meanwhile.
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._look_if_idle)

    def _is_idle(self) -> bool:
        """It was answered, and has said nothing since."""
        return self._idle_since is not None

    def _look_if_idle(self) -> None:
        self._idle = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle = self.loop.call_later(left, self._look_if_idle)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """The server stops. What is under way ends first; what is idle gets its last word (the server has every answer
        close its connection)."""
        if self._answering():
            super().shutdown()
        else:
            self.loop.call_later(LAST_WORD, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head or self._answering():
            self.loop.call_later(LAST_WORD, self._end_if_idle)  # bounded by the time that a head and a body may take
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes, self._beside_bytes = True, 0, 0
        super().on_message_begin()
        if self._extensions:
            self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()
        self._in_head = False  # and not before: an address that is none is found in there

    def send_400_response(self, msg: str) -> None:
        self._refuse(NOT_HTTP)

    def _refuse(self, kind: str) -> None:
        """Nothing is read of this connection any more. What is wrong is told once, in its turn: never in the place of
        an answer that is still to come, nor in the middle of one. Where its turn cannot come it is only closed, and who
        still sends when it is may see a connection that broke before the words."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.refused.count(CONNECTION, kind)
        cycle = self.cycle
        in_its_body = bool(cycle) and cycle.more_body and not self._in_head
        if in_its_body and (self.pipeline or cycle.response_started):
            self.transport.close()
        elif not bool(cycle) or in_its_body or cycle.response_complete:
            if in_its_body:
                cycle.disconnected = True  # whatever the application says of it now goes nowhere
                cycle.message_event.set()
            self._last_word(kind)
        else:
            cycle.on_response = partial(self._last_word, kind)

    def _last_word(self, kind: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.said[kind].line(self.server_state.default_headers))
            self.transport.close()

    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._late = None
        if self._in_head:
            self._refuse(TOO_SLOW)
        else:  # it has asked for nothing
            self.refused.count(CONNECTION, TOO_SLOW)
            self.transport.close()

    def _head_is_there(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def guarded(refused: Refusals, form: Form) -> type[GuardedProtocol]:
    """The protocol of one server, all of whose connections are counted together and told in the same form."""
    counts, words = refused, by_kind(form)

    class Guarded(GuardedProtocol):
        refused = counts
        said = words

    return Guarded
