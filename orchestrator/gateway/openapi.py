"""Every route of the doors as an OpenAPI description, made from the very types that bodies are read with.

A door describes itself by ``routes()`` (``Described``); whatever it lists is in ``docs/openapi.json`` and is fuzzed by
``tests.load.fuzz``. Answers for: the shape of the description. Not for: what a route means (the doors).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from orchestrator.gateway.http import KINDS

_SCHEMAS: Final = "#/components/schemas/{name}"
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["kind", "message"],
            "properties": {"kind": {"enum": sorted(KINDS)}, "message": {"type": "string"}},
        }
    },
}
_MEANING: Final = {
    400: "What was said cannot be.",
    401: "Not known here, or the wrong credential.",
    403: "Known, and not allowed.",
    404: "There is nothing.",
    405: "Another method.",
    408: "The request took too long.",
    409: "A rule forbids it.",
    410: "It is over.",
    413: "Too large.",
    416: "No such range.",
    429: "Too often.",
    431: "The head is too long.",
    500: "The server's mistake.",
    503: "Busy; come again when `Retry-After` says.",
}
ANY_ROUTE: Final = (400, 401, 403, 404, 408, 409, 413, 429, 503)
"""What a route may be refused with, unless it says otherwise."""
EVERYWHERE: Final = (400, 405, 408, 431, 500, 503)
"""What anything may be refused with: before it is known what is asked for, too, and in the gateway's own form then."""


class Route(NamedTuple):
    """One method of one path. ``{name}`` in ``path`` is a part of the path. ``takes`` and ``gives`` are the types of
    the bodies, None where there is none or it is no JSON; ``media`` says what is given. ``success``: the statuses when
    it goes well. ``anybody``: no credential is asked for. ``own_errors``: errors look as in the own protocol."""

    method: str
    path: str
    what: str
    takes: Any = None
    gives: Any = None
    media: str = "application/json"
    success: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ANY_ROUTE
    anybody: bool = False
    own_errors: bool = True
    query: tuple[str, ...] = ()


@runtime_checkable
class Described(Protocol):
    """A door that says what it takes."""

    def routes(self) -> Sequence[Route]: ...


def describe(doors: Iterable[object], *, version: str = "1") -> dict[str, Any]:
    """The description of all routes of those doors that describe themselves."""
    routes = [route for door in doors if isinstance(door, Described) for route in door.routes()]
    types = [each for route in routes for each in (route.takes, route.gives) if each is not None]
    shapes, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
    shape_of = {id(kind): shape for kind, shape in zip(types, shapes, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, shape_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "wave, the gateway for devices", "version": version},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Error": _ERROR, **dict(sorted(components.items()))},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, shape_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.what}
    names = [part.partition("}")[0] for part in route.path.split("{")[1:]]
    text = {"type": "string"}
    parameters = [{"name": name, "in": "path", "required": True, "schema": {**text, "minLength": 1}} for name in names]
    parameters += [{"name": name, "in": "query", "required": False, "schema": text} for name in route.query]
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        content = {"application/json": {"schema": shape_of[id(route.takes)]}}
        operation["requestBody"] = {"required": True, "content": content}
    given = {} if route.gives is None else {"schema": shape_of[id(route.gives)]}
    answers: dict[str, Any] = {
        str(status): {"description": "It went well.", "content": {route.media: given}} for status in route.success
    }
    problem = {"content": {"application/json": {"schema": {"$ref": _SCHEMAS.format(name="Error")}}}}
    for status in {*route.errors, *EVERYWHERE}:
        answers[str(status)] = {"description": _MEANING[status], **(problem if route.own_errors else {})}
    operation["responses"] = dict(sorted(answers.items()))
    if not route.anybody:
        operation["security"] = [{"token": []}]
    return operation
