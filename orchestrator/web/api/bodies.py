"""What a request brings, read within bounds: its body, and the words of its query."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Union, get_args, get_origin

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from orchestrator.errors import InvalidInput
from orchestrator.services.wire import NUL

_LONGEST_NUMBER: Final = 18

_LISTS: Final = (list, tuple, Sequence, Collection)


async def read_json(request: Request) -> bytes:
    """The body; ``{}`` where there is none. Raises HTTPException for one that is too large, compressed, or something
    else than JSON."""
    raw = await _read(request)
    if not raw:
        return b"{}"
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise HTTPException(415, "The body of a request is JSON, and says so: `Content-Type: application/json`.")
    if b"\\u0000" in raw:
        raise InvalidInput(NUL)
    return raw


async def _read(request: Request) -> bytes:
    """As much as ``web.bounds`` lets through."""
    announced(request)
    try:
        return await request.body()
    except ClientDisconnect:
        raise InvalidInput("The request ended before its body did.") from None


def announced(request: Request) -> int:
    """How many bytes the body has by its head, 0 where that does not say. Raises HTTPException for one that is
    compressed, and InvalidInput for a length that is none."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "A compressed body is not taken: send it as it is.")
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or len(length) > _LONGEST_NUMBER:
        raise InvalidInput("Content-Length is no number.")
    return int(length)


def words_of(request: Request, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The query's words by name: a list where the parameter is one. Raises InvalidInput for a word given twice."""
    found: dict[str, Any] = {}
    for name in request.query_params:
        given = request.query_params.getlist(name)
        if name in kinds and is_list(kinds[name]):
            found[name] = given
        elif len(given) > 1:
            raise InvalidInput(f"{name[:80]!r} stands twice in the query.")
        else:
            found[name] = given[0]
        if any("\0" in each for each in given):
            raise InvalidInput(NUL)
    return found


def is_list(kind: Any) -> bool:
    """Whether a parameter of that type takes several values."""
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        return any(is_list(each) for each in get_args(kind))
    return get_origin(kind) in _LISTS
