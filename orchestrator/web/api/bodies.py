"""What a request brings, read within bounds: its body, and the words of its query."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Union, get_args, get_origin

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from orchestrator.errors import InvalidInput

MOST_BYTES: Final = 4_000_000
"""A body of JSON: two files, or two thousand devices, or a ``targets.json``."""

WITHIN: Final = 30.0
"""Seconds in which it must be here."""

_LONGEST_NUMBER: Final = 18

_LISTS: Final = (list, tuple, Sequence, Collection)


async def read_json(request: Request) -> bytes:
    """The body; ``{}`` where there is none. Raises HTTPException for one that is too large, compressed, or something
    else than JSON."""
    raw = await read_body(request, MOST_BYTES)
    if not raw:
        return b"{}"
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise HTTPException(415, "The body of a request is JSON, and says so: `Content-Type: application/json`.")
    return raw


async def read_body(request: Request, most: int) -> bytes:
    """At most so many bytes; what is announced as more is not read at all."""
    if announced(request) > most:
        raise too_large(most)
    pieces, size = [], 0
    try:
        async with asyncio.timeout(WITHIN):
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise too_large(most)
                pieces.append(piece)
    except TimeoutError:
        raise HTTPException(408, f"The body took longer than {WITHIN:g} seconds.") from None
    except ClientDisconnect:
        raise InvalidInput("The request ended before its body did.") from None
    return b"".join(pieces)


def announced(request: Request) -> int:
    """How many bytes the body has by its head, 0 where that does not say. Raises HTTPException for one that is
    compressed, and InvalidInput for a length that is none."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "A compressed body is not taken: send it as it is.")
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or len(length) > _LONGEST_NUMBER:
        raise InvalidInput("Content-Length is no number.")
    return int(length)


def too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The body is too large: {most:,} bytes are the most that is taken.")


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
    return found


def is_list(kind: Any) -> bool:
    """Whether a parameter of that type takes several values."""
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        return any(is_list(each) for each in get_args(kind))
    return get_origin(kind) in _LISTS
