"""How the operators' side tells of what went wrong: problem documents, RFC 9457.

``type`` is ``urn:wave:problem:KIND`` with the kind of ``orchestrator.errors``; ``detail`` is the sentence, ``remedy``
what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orchestrator.errors import (
    Busy,
    Conflict,
    Forbidden,
    Gone,
    InvalidFile,
    InvalidInput,
    NotFound,
    Refused,
    TooMany,
    Unauthorized,
    Unavailable,
    WaveError,
)

PROBLEM: Final = "application/problem+json"

_HTTP_KINDS: Final = {
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    412: "another_version",
    413: "too_large",
    415: "another_format",
}

_SENTENCES: Final = {404: "There is nothing at this address.", 405: "This address takes another method."}
"""In place of the framework's words."""

_log = logging.getLogger(__name__)

_STATUS: Final[tuple[tuple[type[WaveError], int], ...]] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (TooMany, 429),
    (Gone, 410),
    (NotFound, 404),
    (InvalidInput, 400),
    (Conflict, 409),
    (Refused, 409),
    (Busy, 503),
    (Unavailable, 503),
)


def status_of(error: WaveError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(
    status: int,
    kind: str,
    detail: str,
    *,
    remedy: str | None = None,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """The answer; ``members``: what this kind of problem says besides."""
    body: dict[str, Any] = {"type": f"urn:wave:problem:{kind}", "title": kind.replace("_", " "), "status": status}
    body |= {"detail": detail} | ({} if remedy is None else {"remedy": remedy}) | dict(members or {})
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=PROBLEM)


def form(status: int, kind: str, sentence: str) -> tuple[bytes, bytes]:
    """The kind of content and the body, for whoever refuses before there is an application."""
    return PROBLEM.encode(), bytes(problem(status, kind, sentence).body)


def told(error: WaveError) -> JSONResponse:
    headers = {}
    if isinstance(error, TooMany):
        headers["retry-after"] = str(max(1, ceil(error.after)))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    members = _of_file(error) if isinstance(error, InvalidFile) else None
    return problem(status_of(error), error.kind, error.message, remedy=error.remedy, headers=headers, members=members)


def of_http(error: HTTPException) -> JSONResponse:
    """What the framework says, or what has no kind of its own."""
    kind = _HTTP_KINDS.get(error.status_code, "invalid_input" if error.status_code < 500 else "unavailable")
    detail = str(error.detail)
    if detail == HTTPStatus(error.status_code).phrase:
        detail = _SENTENCES.get(error.status_code, f"{detail}.")
    return problem(error.status_code, kind, detail, headers=error.headers)


def _of_file(error: InvalidFile) -> dict[str, Any]:
    """Where in the file, and everything that is wrong with it."""
    found = [
        {"file": each.file, "line": each.line, "path": each.path, "message": each.message, "remedy": each.remedy}
        for each in error.problems
    ]
    return {"file": error.file, "line": error.line, "path": error.path, "problems": found}


def install(app: FastAPI) -> None:
    """From now on every error of this application is a problem document."""

    def of_ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, WaveError)
        answer = told(error)
        if answer.status_code >= 500:
            _log.warning("%s %s could not be answered: %s", request.method, request.url.path, error)
        return answer

    def of_shape(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        return problem(400, "invalid_input", f"{where}: {first['msg']}.")

    def of_framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return of_http(error)

    def of_nobody(request: Request, error: Exception) -> JSONResponse:
        _log.exception("%s %s could not be answered", request.method, request.url.path, exc_info=error)
        return problem(500, "internal", "The server made a mistake; it has written it down.")

    app.add_exception_handler(WaveError, of_ours)
    app.add_exception_handler(RequestValidationError, of_shape)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(Exception, of_nobody)
