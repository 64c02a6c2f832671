"""Runs an ASGI application on Uvicorn, in the current thread, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from datetime import timedelta
from typing import Any, Final

import uvicorn

from orchestrator.errors import Unavailable
from orchestrator.gateway.guard import MOST_AT_ONCE, guarded
from orchestrator.gateway.said import Form, own_form
from orchestrator.gateway.tls import TlsLoop
from orchestrator.services.metering import Refusals

App = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]

STOP_WITHIN: Final = 10
"""Seconds that requests under way get to end when the server stops."""

KEEP_ALIVE: Final = 75
"""Seconds an idle connection is kept open."""

BACKLOG: Final = 2048

COLLECT_AFTER: Final = (10_000, 10, 100)
"""Objects made beyond those freed, and rounds of a generation, before the collector looks at the next."""

TICK_SECONDS: Final = 0.1
"""How often Uvicorn looks whether it shall stop."""


def spare_collector() -> None:
    """For a process that serves: what it has by now lives as long as it does and is not looked through again, and
    garbage in cycles, of which only a refused request leaves some, is looked for less often. A report takes a fifth
    less by it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class Server:
    """``run`` serves until ``stop`` (from any thread) or, with ``signals``, SIGINT or SIGTERM; then requests under way
    end first. ``started`` is called with the port once it listens. Give ``sockets`` instead of host and port to listen
    on what is bound already. Port 0 takes any free one. Above ``at_once`` connections or requests each is told 503.
    With ``tls`` it speaks nothing else. ``proxies``: addresses whose word for whom they ask is believed. ``late`` is
    told ten times a second how late the event loop gets round to its work. ``refused`` counts whom the bounds hit, and
    ``form`` says how they are told.

    Stopping: it listens no more; every answer from then on closes its connection; a connection that says nothing gets
    ``guard.LAST_WORD`` seconds to ask once more, so that nobody who had just begun to speak is cut off."""

    def __init__(
        self,
        app: App,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sockets: Sequence[socket.socket] = (),
        signals: bool = True,
        at_once: int = MOST_AT_ONCE,
        tls: ssl.SSLContext | None = None,
        proxies: str | None = None,
        started: Callable[[int], None] = lambda port: None,
        late: Callable[[timedelta], None] = lambda by: None,
        refused: Refusals | None = None,
        form: Form = own_form,
    ) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="uvloop",
            http=guarded(refused or Refusals(), form),
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=True,
            proxy_headers=proxies is not None,
            forwarded_allow_ips=proxies or "",
            backlog=BACKLOG,
            limit_concurrency=at_once,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=STOP_WITHIN,
            ssl_context_factory=None if tls is None else lambda config, default: tls,
        )
        # libcurl, which ostree pulls with, offers h2c with every request, and Uvicorn warns of each.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = _Quiet(config, signals=signals, started=started, late=late)
        self._sockets = list(sockets)

    def run(self) -> None:
        """Serve in this thread, on an event loop of its own. Raises Unavailable when the port cannot be had."""
        config = self._server.config
        loop_factory = TlsLoop if config.ssl_context_factory is not None else config.get_loop_factory()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(self.serve())

    async def serve(self) -> None:
        """Serve in the running event loop. Raises Unavailable when the port cannot be had."""
        sockets = self._sockets or [listen(self._server.config.host, self._server.config.port)]
        try:
            await self._server.serve(sockets=sockets)
        finally:
            for each in sockets:
                each.close()

    def stop(self) -> None:
        """Stop listening, let requests under way end, and return from ``run``. From any thread."""
        self._server.should_exit = True

    @property
    def port(self) -> int:
        """The port it listens on, once it does."""
        return self._server.port


class _Quiet(uvicorn.Server):
    """Tells when it listens, and leaves signals alone when asked to."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        signals: bool,
        started: Callable[[int], None],
        late: Callable[[timedelta], None],
    ) -> None:
        super().__init__(config)
        self._signals = signals
        self._tell = started
        self._late = late
        self._ticked_at: float | None = None
        self.port = 0

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        if self._ticked_at is not None and now - self._ticked_at > TICK_SECONDS:
            self._late(timedelta(seconds=now - self._ticked_at - TICK_SECONDS))
        self._ticked_at = now
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.server_state.default_headers.append((b"connection", b"close"))
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals() if self._signals else contextlib.nullcontext():
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            name = sockets[0].getsockname()
            self.port = name[1] if isinstance(name, tuple) else 0
            self._tell(self.port)


def listen(host: str, port: int, *, keys: tuple[str, str] = ("port", "host")) -> socket.socket:
    """A socket that listens on loopback or wherever it is told; port 0 takes any free one. Raises Unavailable, which
    names the settings that say otherwise."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Unavailable(
            f"Nothing can listen on {host} port {port}: {os.strerror(error.errno) if error.errno else error}.",
            remedy=f"Set another `{keys[0]}` or `{keys[1]}`, or end what holds it (`ss -ltnp` names it).",
        ) from None
