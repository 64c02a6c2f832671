"""The operators' side: one ASGI application, served beside the gateway on a listener of its own.

::

    /api/v1/...      what the command line does, over HTTP          ``web.api``
    /metrics         for Prometheus                                 ``web.metrics``
    /                the console                                    ``web.console``
    /sign-in         who people are                                 ``web.signing_in``

Routes are plain functions that FastAPI runs in threads: the store blocks. Every one names the role it needs
(``asking.asks``); every error is a problem document (``problems``); forged requests are refused (``csrf``).
"""

from __future__ import annotations

import threading
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.core.roles import Role
from orchestrator.errors import Unauthorized
from orchestrator.services.application import Application
from orchestrator.services.metering import Meter
from orchestrator.services.openid import OpenId
from orchestrator.services.people import Doorkeeper, Person
from orchestrator.web import api, csrf, metrics, problems, signing_in
from orchestrator.web.asking import asks
from orchestrator.web.bounds import Bounded, Turns
from orchestrator.web.console import mounting as console
from orchestrator.web.feed import Feed

AT_ONCE: Final = 8
"""Requests of the API that one person has under way."""

LOOKS: Final = 24
ORDERS: Final = 12
"""Requests that viewers may send, and all others, that are under way together: fewer than there are threads, so that
whoever looks at everything at once keeps nobody from halting a rollout."""

BODIES: Final = 32
"""Bodies that are on their way, of those who look and of all others: whoever sends one slowly keeps no thread, and
nobody from ordering."""

STREAMS: Final = 16
MOST_STREAMS: Final = 256
"""Open feeds of journals of one person, and of all."""


def operators_side(
    app: Application,
    *,
    over: threading.Event | None = None,
    doorkeeper: Doorkeeper | None = None,
    meter: Meter | None = None,
    scraper: str | None = None,
    openid: OpenId | None = None,
    secure: bool = False,
) -> FastAPI:
    """``over``: set when the server stops, so that streams end. ``doorkeeper``: who knows people. ``meter``: what this
    process counts; ``scraper``: the token that may read ``/metrics`` beside people. ``openid``: signing in with
    another's word. ``secure``: browsers come by https, whatever a proxy in front makes of it."""
    # No page of documentation: FastAPI's would ask another host for its scripts.
    made = FastAPI(
        title="wave",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A slash more is another path, not one to be sent elsewhere from by the `Host` that came with it.
        redirect_slashes=False,
        dependencies=[Depends(csrf.guard)],
    )
    made.state.application = app
    made.state.doorkeeper = doorkeeper or Nobody()
    made.state.openid = openid
    made.state.secure = secure
    made.state.over = over or threading.Event()
    made.state.metrics = metrics.Metrics(app, meter or Meter(), scraper=scraper)
    made.state.feed = Feed(lambda: app.store, made.state.over)
    under_way, on_its_way = "as many requests under way as may be", "as many bodies on their way as may be"
    made.state.looks = (Turns(AT_ONCE, BODIES, on_its_way, after=1.0), Turns(AT_ONCE, LOOKS, under_way, after=1.0))
    made.state.orders = (Turns(AT_ONCE, BODIES, on_its_way, after=1.0), Turns(AT_ONCE, ORDERS, under_way, after=1.0))
    made.state.streams = Turns(STREAMS, MOST_STREAMS, "as many streams open as may be", after=15.0)
    made.add_middleware(Bounded)
    made.add_middleware(_Headers)
    problems.install(made)
    made.include_router(_me)
    made.include_router(api.router())
    made.include_router(metrics.router)
    made.include_router(signing_in.router)
    console.mount(made)
    return made


class _Headers:
    """Around every answer: what a browser must not make of it, where the page itself says nothing."""

    _USUAL: Final = (
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = list(message.get("headers", ()))
                known = {name.lower() for name, _ in said}
                message = {**message, "headers": said + [each for each in self._USUAL if each[0] not in known]}
            await send(message)

        await self._app(scope, receive, told)


class Nobody:
    """Lets nobody in."""

    def by_token(self, token: str, *, address: str, looks: bool = True) -> Person:
        raise Unauthorized("The token is not known here.")

    def by_session(self, session: str, *, address: str, looks: bool = True) -> Person:
        raise Unauthorized("The session is over: sign in again.")


_me = APIRouter(prefix="/api/v1")


@_me.get("/me")
def me(person: Annotated[Person, Depends(asks(Role.VIEWER))]) -> dict[str, object]:
    """Who asks."""
    within = {} if person.tags is None else {"tags": sorted(person.tags)}
    return {"name": person.name, "roles": sorted(person.roles), **within}
