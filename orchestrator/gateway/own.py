"""The orchestrator's own protocol: a device asks, and tells.

::

    POST /v1/devices/{id}/check-in      a device asks               64 KiB
    POST /v1/devices/{id}/reports       a device tells              1 MiB
    GET  /healthz                       is this process well

Errors are ``{"error": {"kind": ..., "message": ...}}``. Answers for: these routes. Not for: anything a device is told
(``services.devices``).
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final

import msgspec

from orchestrator.errors import Unauthorized
from orchestrator.gateway.http import Problem, Request, Response, decoded, envelope, known_name, nothing_there
from orchestrator.services.devices import Devices
from orchestrator.services.kept import Kept
from orchestrator.services.messages import Answer, CheckIn, Report

CHECK_IN_BYTES: Final = 64 * 1024
REPORTS_BYTES: Final = 1024 * 1024

_PREFIX: Final = "/v1/devices/"
_HEALTH: Final = "/healthz"


class OwnDoor:
    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._encode = msgspec.json.Encoder().encode
        self._check_in_of = msgspec.json.Decoder(CheckIn).decode
        self._report_of = msgspec.json.Decoder(Report).decode

    def takes(self, path: str) -> bool:
        return path.startswith(_PREFIX) or path == _HEALTH

    def problem(self, problem: Problem) -> bytes:
        return envelope(problem)

    async def answer(self, request: Request) -> Response:
        path = request.path
        if path == _HEALTH:
            request.only("GET", "HEAD")
            return self._health()
        device_id, _, route = path[len(_PREFIX) :].rpartition("/")
        if route == "check-in":
            request.only("POST")
            return await self._check_in(device_id, request)
        if route == "reports":
            request.only("POST")
            return await self._report(device_id, request)
        raise nothing_there()

    async def _check_in(self, device_id: str, request: Request) -> Response:
        token = _token(request)
        known = await self._let_in(device_id, token, request)
        body = await request.body(CHECK_IN_BYTES)
        found = self._devices.check_in(device_id, token, decoded(self._check_in_of, body), known=known)
        heard = await request.committed(found) if isinstance(found, Future) else found
        return Response(200, self._encode(Answer(heard.offer, heard.check_in_after)))

    async def _report(self, device_id: str, request: Request) -> Response:
        token = _token(request)
        known = await self._let_in(device_id, token, request)
        body = await request.body(REPORTS_BYTES)
        report = decoded(self._report_of, body)
        received = await request.committed(self._devices.report(device_id, token, report.events, known=known))
        return Response(200, self._encode(received))

    async def _let_in(self, device_id: str, token: str, request: Request) -> Kept:
        """Before a byte of the body is read: strangers cost a short look at most."""
        known = self._devices.let_in(known_name(device_id), token)
        return await request.committed(known) if isinstance(known, Future) else known

    def _health(self) -> Response:
        if not self._devices.writer.alive:
            raise Problem(503, "unavailable", "The writer has ended.")
        return Response(200, b'{"status":"ok"}')


def _token(request: Request) -> str:
    value = request.header(b"authorization") or b""
    scheme, _, token = value.partition(b" ")
    if scheme.lower() == b"bearer" and token:
        return str(token.strip(), "latin-1")
    raise Unauthorized("A device shows its token as `Authorization: Bearer TOKEN`.")
