"""Who asks, for every route of the operators' side: ``asks(Role.RELEASER)`` is a dependency that gives the person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import Request

from orchestrator.core.roles import Role
from orchestrator.errors import Unauthorized
from orchestrator.services.application import Application
from orchestrator.services.people import Doorkeeper, Person

SESSION: Final = "wave_session"
"""The console's cookie."""


def asks(role: Role) -> Callable[[Request], Person]:
    """The person who asks. Raises Unauthorized, Forbidden, TooMany."""

    def person(request: Request) -> Person:
        found = who(request)
        found.needs(role)
        return found

    return person


def who(request: Request) -> Person:
    """By the token in ``Authorization``, else by the console's session. Raises Unauthorized, TooMany."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    address = request.client.host if request.client is not None else ""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return doorkeeper.by_token(token.strip(), address=address)
    if session := request.cookies.get(SESSION):
        return doorkeeper.by_session(session, address=address)
    raise Unauthorized("Say who you are: sign in, or show a token as `Authorization: Bearer TOKEN`.")


def application(request: Request) -> Application:
    """The installation that is asked."""
    found: Application = request.app.state.application
    return found
