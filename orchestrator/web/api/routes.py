"""A route for each row of ``services.operations``: who asks is looked at first, then what they bring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, get_args

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from orchestrator.core.roles import Role
from orchestrator.errors import InvalidInput
from orchestrator.services.operations import NOBODY, OPERATIONS, Operation, Shape, shape_of
from orchestrator.services.people import Person
from orchestrator.services.scoping import check_scope
from orchestrator.services.wire import NUL, check_depth, converted, decoded, encoded
from orchestrator.web.api.bodies import read_json, words_of
from orchestrator.web.api.once import once
from orchestrator.web.api.paging import MOST, USUAL, page_of
from orchestrator.web.asking import application, who
from orchestrator.web.bounds import Turns

NOW: Final = "wave-now"
"""The header that says what time it is here, to the microsecond: whoever shows an answer counts ages from it."""


class PageOf(msgspec.Struct, forbid_unknown_fields=True):
    """Which page of a list."""

    cursor: str | None = None
    limit: int = USUAL


def router() -> APIRouter:
    made = APIRouter()
    # A path that is written out comes before one with a blank.
    for operation in sorted(OPERATIONS, key=lambda each: "{" in each.path):
        made.add_api_route(operation.path, _endpoint(operation), methods=[operation.method], include_in_schema=False)
    return made


def _endpoint(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        person = await run_in_threadpool(_asks, operation, request)
        state = request.app.state
        turns: tuple[Turns, Turns] = state.looks if operation.role is Role.VIEWER else state.orders
        to_send, to_work = turns
        body = None
        if operation.method == "POST":
            with to_send.one(person.name):
                body = await read_json(request)
        with to_work.one(person.name):
            return await _answer(operation, request, person, body)

    return answer


async def _answer(operation: Operation, request: Request, person: Person, body: bytes | None) -> Response:
    shape = shape_of(operation)

    def carry_out() -> Response:
        try:
            return _done(operation, shape, request, person, body)
        except OverflowError:
            # Whatever began is taken back with its transaction.
            raise InvalidInput("A time there lies further away than can be counted.") from None

    if not operation.writes:
        return await run_in_threadpool(carry_out)
    kept = {"secret": operation.secret, "confides": operation.confides}
    return await run_in_threadpool(once, request, person, body or b"", carry_out, **kept)


def _asks(operation: Operation, request: Request) -> Person:
    person = who(request)
    person.needs(operation.role)
    return person


def _done(operation: Operation, shape: Shape, request: Request, person: Person, body: bytes | None) -> Response:
    app = application(request)
    given = {name: _part(request.path_params[name], kind) for name, kind in shape.path.items()}
    if body is not None:
        rest = decoded(body, shape.rest)
        page = None
    else:
        words = words_of(request, {field.name: field.type for field in shape.fields})
        page = _page(words) if operation.listing is not None else None
        rest = converted(words, shape.rest)
    given |= {field: getattr(rest, field) for field in rest.__struct_fields__}
    check_depth(given)
    check_scope(app, person, operation, given)
    if page is not None:
        made = page_of(operation, app, given, cursor=page.cursor, limit=page.limit, by=person.name)
        content = encoded({"items": made.items, "next": made.next})
    else:
        content = encoded(_listed(operation.carry_out(app, given, by=person.name)))
    headers = {NOW: app.clock().isoformat(), "cache-control": "no-store"}
    return Response(content, media_type="application/json", headers=headers)


def _part(text: str, kind: Any) -> str | None:
    """A part of the path. Raises InvalidInput."""
    if "\0" in text:
        raise InvalidInput(NUL)
    return None if text == NOBODY and type(None) in get_args(kind) else text


def _page(words: dict[str, Any]) -> PageOf:
    page: PageOf = converted({name: words.pop(name) for name in ("cursor", "limit") if name in words}, PageOf)
    if not 1 <= page.limit <= MOST:
        raise InvalidInput(f"A page has 1 to {MOST:,} items, not {page.limit:,}.")
    return page


def _listed(value: Any) -> Any:
    return value if not hasattr(value, "__next__") else list(value)
