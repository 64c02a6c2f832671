"""Files in pieces, as tus 1.0 has it (core and creation): begin, send, and after whatever interrupted it go on where it
stopped.

``POST /uploads`` says the length and, in ``Upload-Metadata``, ``filename`` and what else there is to say: ``name``,
``version``, ``hardware_ids`` (with commas) and ``sha256``, which the whole must come to. The piece that completes a
file makes it an artifact. With a ``sha256`` the same upload begun again is the one that was begun before.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from orchestrator.core.artifact import LARGEST, check_filename
from orchestrator.core.roles import Role
from orchestrator.errors import Conflict, InvalidInput, NotFound
from orchestrator.services.application import Application
from orchestrator.services.artifact_store import Upload
from orchestrator.services.artifacts import Added, Said
from orchestrator.services.people import Person
from orchestrator.services.wire import encoded
from orchestrator.web.api.bodies import announced
from orchestrator.web.api.once import once
from orchestrator.web.asking import application, asks
from orchestrator.web.bounds import WITHIN

TUS: Final = "1.0.0"
PIECE: Final = 4 << 20
"""Bytes written and synced at a time: as much is lost when the server dies."""

LONGEST_METADATA: Final = 4_096
_MEDIA: Final = "application/offset+octet-stream"
_SAID: Final = ("filename", "name", "version", "hardware_ids", "sha256")

_Releaser = Annotated[Person, Depends(asks(Role.RELEASER))]


def router() -> APIRouter:
    made = APIRouter(include_in_schema=False)

    @made.options("/uploads")
    def options() -> Response:
        headers = {"tus-version": TUS, "tus-extension": "creation", "tus-max-size": str(LARGEST)}
        return _answer(204, headers)

    @made.post("/uploads")
    def begin(request: Request, person: _Releaser) -> Response:
        _speaks_tus(request)
        size = _number(request, "upload-length")
        if size > LARGEST:
            raise HTTPException(413, f"A file has {LARGEST:,} bytes at most.")
        words = request.headers.get("upload-metadata", "")
        said = _metadata(words)
        check_filename(said.get("filename", ""))
        sha256 = said.pop("sha256", None)

        def carry_out() -> Response:
            upload = application(request).artifacts.begin(size, sha256, {"by": person.name, **said})
            return Response(encoded({"upload": upload.id}), 201, media_type="application/json")

        # What is asked stands in headers here.
        answer = once(request, person, f"{size}\0{words}".encode(), carry_out)
        if answer.status_code == 201:
            begun = json.loads(bytes(answer.body))["upload"]
            answer.headers["location"] = f"{request.url.path}/{begun}"
        answer.headers["tus-resumable"] = TUS
        answer.headers["cache-control"] = "no-store"
        return answer

    @made.head("/uploads/{upload_id}")
    def stands(request: Request, upload_id: str, person: _Releaser) -> Response:
        _speaks_tus(request)
        upload = _own(application(request), upload_id, person)
        return _answer(200, {"upload-length": str(upload.size)}, upload)

    @made.patch("/uploads/{upload_id}")
    async def go_on(request: Request, upload_id: str, person: _Releaser) -> Response:
        _speaks_tus(request)
        if request.headers.get("content-type") != _MEDIA:
            raise HTTPException(415, f"A piece says `Content-Type: {_MEDIA}`.")
        app = application(request)
        upload = await run_in_threadpool(_own, app, upload_id, person)
        offset = _number(request, "upload-offset")
        if offset != upload.offset:
            raise Conflict(
                f"The upload stands at {upload.offset}, not at {offset}.", remedy=f"Go on at {upload.offset}."
            )
        upload = await _received(request, app, upload)
        if upload.offset < upload.size:
            return _answer(204, {}, upload)
        added = await run_in_threadpool(_finished, app, upload)
        return _answer(204, _told(added), upload)

    return made


async def _received(request: Request, app: Application, upload: Upload) -> Upload:
    """Write what comes, piece by piece; what had come when the sender went away, or said nothing for too long, is
    kept. Raises InvalidInput for more than was announced, HTTPException when nothing comes any more."""
    if announced(request) > upload.size - upload.offset:
        raise InvalidInput(f"The upload was announced with {upload.size} bytes; this would be more.")
    waiting = bytearray()

    async def write() -> Upload:
        piece = bytes(waiting)
        waiting.clear()
        return await run_in_threadpool(app.artifacts.append, upload.id, upload.offset, piece)

    pieces, stalled = aiter(request.stream()), False
    try:
        while (piece := await _next(pieces)) is not None:
            waiting += piece
            if len(waiting) >= PIECE:
                upload = await write()
    except ClientDisconnect:
        pass  # nobody reads the answer; what came is kept
    except TimeoutError:
        stalled = True
    upload = await write() if waiting else upload
    if stalled:
        raise HTTPException(408, f"Nothing came for {WITHIN:g} seconds; go on at {upload.offset}.")
    return upload


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    """None when there is none. Raises TimeoutError."""
    async with asyncio.timeout(WITHIN):
        return await anext(pieces, None)


def _finished(app: Application, upload: Upload) -> Added:
    said = upload.note
    hardware_ids = tuple(each.strip() for each in said.get("hardware_ids", "").split(",") if each.strip())
    whole = Said(said.get("name"), said.get("version"), hardware_ids)
    return app.artifacts.finish(upload.id, said["filename"], whole, by=said["by"])


def _told(added: Added) -> dict[str, str]:
    """What the file came to, in headers: the answer to a piece has no body."""
    headers = {"wave-artifact": added.artifact.sha256, "wave-new": str(added.new).lower()}
    return headers if added.remark is None else {**headers, "wave-remark": quote(added.remark)}


def _own(app: Application, upload_id: str, person: Person) -> Upload:
    """The upload, of whoever began it. Raises NotFound."""
    upload = app.artifacts.upload(upload_id)
    if upload.note.get("by") != person.name:
        raise NotFound(f"There is no upload {upload_id[:40]!r}.", remedy="Begin it anew.")
    return upload


def _speaks_tus(request: Request) -> None:
    if request.headers.get("tus-resumable") != TUS:
        raise HTTPException(412, f"This is tus {TUS}, and a request says so.", {"tus-version": TUS})


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput(f"{name.title()} is no number.")
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """``Upload-Metadata``: words and their base64, with commas between. Raises InvalidInput."""
    if len(text) > LONGEST_METADATA:
        raise InvalidInput(f"Upload-Metadata is longer than {LONGEST_METADATA} characters.")
    found: dict[str, str] = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        key, _, value = pair.partition(" ")
        if key not in _SAID or key in found:
            raise InvalidInput(f"Upload-Metadata says each of {', '.join(_SAID)} once, and nothing else.")
        try:
            found[key] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise InvalidInput(f"{key} in Upload-Metadata is no text in base64.") from None
    return found


def _answer(status: int, headers: dict[str, str], upload: Upload | None = None) -> Response:
    more: dict[str, Any] = {"tus-resumable": TUS, "cache-control": "no-store", **headers}
    if upload is not None:
        more["upload-offset"] = str(upload.offset)
    return Response(status_code=status, headers=more)
