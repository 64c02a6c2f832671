"""The description of the API as OpenAPI, made from the very types that travel."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final, get_args

import msgspec
from fastapi import APIRouter, Response

from orchestrator.core.roles import ROLE_MEANING
from orchestrator.services.once import LONGEST_KEY
from orchestrator.services.operations import NOBODY, OPERATIONS, Operation, shape_of
from orchestrator.web.api.bodies import is_list
from orchestrator.web.api.paging import MOST, USUAL

_SCHEMAS: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:wave:problem:not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "Whose fault it is, in a sentence."},
        "remedy": {"type": "string", "description": "What to do."},
        "problems": {
            "type": "array",
            "description": "Of a file: everything that is wrong with it, each with `file`, `line`, `path`, `message`.",
            "items": {"type": "object"},
        },
    },
}
_MEANING: Final = {
    "400": "What was said cannot be.",
    "401": "Nobody knows who asks.",
    "403": "Whoever asks may not.",
    "404": "There is no such thing.",
    "405": "There is another method for that; `Allow` names it.",
    "408": "The request took too long.",
    "409": "The state or a rule forbids it, or somebody else was quicker.",
    "412": "Another version of tus.",
    "413": "Too large.",
    "415": "Not JSON.",
    "429": "Too often; `Retry-After` says when again.",
    "431": "The head is too long.",
    "500": "A mistake of the server's, which it has written down.",
    "503": "Busy, or a part that it leans on is missing.",
}
_READING: Final = ("400", "401", "403", "404", "405", "408", "409", "413", "429", "431", "500", "503")
_SENDING: Final = tuple(status for status in _MEANING if status != "412")
_IN_PIECES: Final = tuple(_MEANING)


def router() -> APIRouter:
    made = APIRouter()

    @made.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        """For anybody: it says nothing of this installation."""
        return Response(_text(), media_type="application/json")

    return made


@cache
def _text() -> bytes:
    return json.dumps(describe(), ensure_ascii=False).encode()


def describe() -> dict[str, Any]:
    """The description of every route."""
    shapes = {operation.key: shape_of(operation) for operation in OPERATIONS}
    kinds: list[Any] = []
    for shape in shapes.values():
        kinds += [shape.answer, *(field.type for field in shape.fields), *shape.path.values()]
    made, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS)
    schema_of = {id(kind): schema for kind, schema in zip(kinds, made, strict=True)}
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(f"/api/v1{operation.path}", {})[operation.method.lower()] = _described(operation, schema_of)
    paths |= _BY_HAND
    return {
        "openapi": "3.1.0",
        "info": {"title": "wave, for operators", "version": "1"},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**components, "Problem": _PROBLEM},
        },
    }


def _described(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    shape = shape_of(operation)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        | ({"description": f"`{NOBODY}`: left out."} if type(None) in get_args(kind) else {})
        for name, kind in shape.path.items()
    ]
    fields = shape.fields
    found: dict[str, Any] = {
        "operationId": operation.key,
        "summary": _first(operation),
        "x-role": operation.role.value,
        "description": f"For a {operation.role.value}, who {ROLE_MEANING[operation.role]}.",
        "parameters": parameters,
    }
    if operation.method == "POST":
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {field.name: _with_default(field, schema_of) for field in fields},
            "required": [field.name for field in fields if field.required],
            "additionalProperties": False,
        }
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}, "required": True}
    else:
        for field in fields:
            one = {"name": field.name, "in": "query", "schema": schema_of[id(field.type)]}
            parameters.append(one | ({"explode": True} if is_list(field.type) else {}))
    answer = schema_of[id(shape.answer)]
    if operation.listing is not None:
        most = {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}
        parameters.append({"name": "limit", "in": "query", "schema": most})
        parameters.append({"name": "cursor", "in": "query", "schema": {"type": "string"}})
        items = {"type": "array", "items": answer}
        after = {"type": ["string", "null"], "description": "The cursor of what follows."}
        answer = {"type": "object", "required": ["items", "next"], "properties": {"items": items, "next": after}}
    if operation.writes:
        parameters.append(_KEY)
    found["responses"] = {
        "200": {"description": "It is so.", "content": {"application/json": {"schema": answer}}},
        **_problems(_SENDING if operation.method == "POST" else _READING),
    }
    return found


def _problems(statuses: tuple[str, ...]) -> dict[str, Any]:
    schema = {"schema": {"$ref": _SCHEMAS.format(name="Problem")}}
    return {
        status: {"description": _MEANING[status], "content": {"application/problem+json": schema}}
        for status in statuses
    }


def _with_default(field: msgspec.structs.FieldInfo, schema_of: dict[int, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = schema_of[id(field.type)]
    if field.required or not isinstance(field.default, str | int | bool | None):
        return schema
    return {**schema, "default": field.default}


def _first(operation: Operation) -> str:
    """The first sentence of what the method says of itself."""
    text = " ".join((operation.call.__doc__ or operation.call.__name__).split())
    return text.partition(". ")[0].rstrip(".") + "."


def _header(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "schema": {"type": kind}}


_KEY: Final = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": LONGEST_KEY}}
_TUS: Final = _header("Tus-Resumable", "string")

_BY_HAND: Final[dict[str, Any]] = {
    "/api/v1/me": {
        "get": {
            "operationId": "me",
            "summary": "Who asks, with which roles.",
            "responses": {"200": {"description": "It is so."}, **_problems(_READING)},
        }
    },
    "/api/v1/journal/feed": {
        "get": {
            "operationId": "journal_feed",
            "summary": "The entries of all journals as they are written, as server-sent events.",
            "description": "Each event's `id` is its number: sent back as `Last-Event-ID`, the feed goes on after it, "
            "also over a restart. `lost` says that this store never came to that number: begin anew.",
            "parameters": [
                {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}},
                {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0}},
            ],
            "responses": {
                "200": {"description": "The stream.", "content": {"text/event-stream": {}}},
                **_problems(_READING),
            },
        }
    },
    "/api/v1/uploads": {
        "post": {
            "operationId": "begin_upload",
            "summary": "Begin to send a file in pieces, as tus 1.0 has it, or go on with one that was begun.",
            "x-role": "releaser",
            "parameters": [_TUS, _header("Upload-Length", "integer"), _header("Upload-Metadata", "string"), _KEY],
            "responses": {"201": {"description": "`Location` is where."}, **_problems(_IN_PIECES)},
        }
    },
    "/api/v1/uploads/{upload_id}": {
        "parameters": [{"name": "upload_id", "in": "path", "required": True, "schema": {"type": "string"}}, _TUS],
        "head": {
            "operationId": "look_at_upload",
            "summary": "How far it is: `Upload-Offset`.",
            "x-role": "releaser",
            "responses": {"200": {"description": "It is so."}, **_problems((*_READING, "412"))},
        },
        "patch": {
            "operationId": "send_piece",
            "summary": "Send the next piece; the one that completes the file makes it an artifact.",
            "x-role": "releaser",
            "parameters": [_header("Upload-Offset", "integer")],
            "requestBody": {"content": {"application/offset+octet-stream": {}}, "required": True},
            "responses": {"204": {"description": "It is on disk."}, **_problems(_IN_PIECES)},
        },
    },
}
