"""Who asks, for every route of the operators' side: ``asks(Role.RELEASER)`` is a dependency that gives the person."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from orchestrator.core.roles import Role
from orchestrator.errors import Forbidden, Unauthorized, WaveError
from orchestrator.services.application import Application
from orchestrator.services.people import Doorkeeper, Person
from orchestrator.services.scoping import check_rollout
from orchestrator.web.csrf import SAFE, bearer, session_of, was_guarded


def asks(role: Role, *, of_rollout: bool = False) -> Callable[[Request], Person]:
    """The person who asks. ``of_rollout``: what is ordered is about the rollout ``name`` of the path. Raises
    Unauthorized, Forbidden, TooMany."""

    def person(request: Request) -> Person:
        found = who(request)
        found.needs(role)
        if request.method not in SAFE:
            if of_rollout:
                check_rollout(application(request), found, request.path_params["name"])
            else:
                found.orders_about(())
        return found

    return person


async def still(request: Request, role: Role) -> bool:
    """Whether whoever reads a stream may go on: who signed out, was disabled or lost the role meanwhile may not. Asked
    before each thing that is told; where it cannot be answered, nothing is told."""

    def asked() -> bool:
        try:
            who(request, looks=False).needs(role)
        except WaveError:
            return False
        return True

    return await run_in_threadpool(asked)


def who(request: Request, *, looks: bool = True) -> Person:
    """By the token in ``Authorization``, else by the console's session. ``looks`` as of ``Doorkeeper``. Raises
    Unauthorized, TooMany, and Forbidden for a session in a request that changes something and that nobody has looked at
    (``csrf.guard``)."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    address = address_of(request)
    if token := bearer(request):
        return doorkeeper.by_token(token, address=address, looks=looks)
    if session := session_of(request):
        if request.method not in SAFE and not was_guarded(request):
            raise Forbidden("Nobody has looked whether this request is forged.")
        return doorkeeper.by_session(session, address=address, looks=looks)
    raise Unauthorized("Say who you are: sign in, or show a token as `Authorization: Bearer TOKEN`.")


def address_of(request: Request) -> str:
    """Where the request comes from, as far as a trusted proxy says."""
    return request.client.host if request.client is not None else ""


def application(request: Request) -> Application:
    """The installation that is asked."""
    found: Application = request.app.state.application
    return found
