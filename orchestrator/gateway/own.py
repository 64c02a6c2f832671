"""The orchestrator's own protocol: a device asks, and tells.

::

    POST /v1/devices/{id}/check-in      a device asks               64 KiB
    POST /v1/devices/{id}/reports       a device tells              1 MiB
    POST /v1/enroll                     a device makes itself known 64 KiB
    GET  /healthz                       is this process well

Errors are ``{"error": {"kind": ..., "message": ...}}``. Answers for: these routes. Not for: anything a device is told
(``services.devices``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

import msgspec

from orchestrator.errors import Unauthorized
from orchestrator.gateway.http import JSON, Problem, Request, Response, decoded, envelope, nothing_there
from orchestrator.gateway.identity import let_in, shown
from orchestrator.gateway.openapi import Route
from orchestrator.services.credentials import Bearer
from orchestrator.services.devices import Devices
from orchestrator.services.messages import Answer, CheckIn, Enrol, Enrolled, Received, Report

CHECK_IN_BYTES: Final = 64 * 1024
REPORTS_BYTES: Final = 1024 * 1024
ENROL_BYTES: Final = 64 * 1024

PRIVATE: Final = (JSON, (b"cache-control", b"no-store"))
"""An answer that holds a secret."""

_PREFIX: Final = "/v1/devices/"
_ENROL: Final = "/v1/enroll"
_HEALTH: Final = "/healthz"


class OwnDoor:
    name: Final = "own"

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._encode = msgspec.json.Encoder().encode
        self._check_in_of = msgspec.json.Decoder(CheckIn).decode
        self._report_of = msgspec.json.Decoder(Report).decode
        self._enrol_of = msgspec.json.Decoder(Enrol).decode

    def takes(self, path: str) -> bool:
        return path.startswith(_PREFIX) or path in (_HEALTH, _ENROL)

    def problem(self, problem: Problem) -> bytes:
        return envelope(problem)

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", _PREFIX + "{device}/check-in", "A device asks, and says what it runs.", CheckIn, Answer),
            Route("POST", _PREFIX + "{device}/reports", "A device tells what became of updates.", Report, Received),
            Route("POST", _ENROL, "A device makes itself known with an enrolment token.", Enrol, Enrolled),
            Route("GET", _HEALTH, "Whether this process is well.", gives=dict[str, str], errors=(503,), anybody=True),
        )

    async def answer(self, request: Request) -> Response:
        path = request.path
        if path == _HEALTH:
            request.only("GET", "HEAD")
            return self._health()
        if path == _ENROL:
            request.only("POST")
            return await self._enrol(request)
        device_id, _, route = path[len(_PREFIX) :].rpartition("/")
        if route == "check-in":
            request.only("POST")
            return await self._check_in(device_id, request)
        if route == "reports":
            request.only("POST")
            return await self._report(device_id, request)
        raise nothing_there()

    async def _check_in(self, device_id: str, request: Request) -> Response:
        credential = shown(request)
        known = await let_in(self._devices, device_id, credential, request)
        body = await request.body(CHECK_IN_BYTES)
        found = self._devices.check_in(device_id, credential, decoded(self._check_in_of, body), known=known)
        heard = await request.committed(found) if isinstance(found, Future) else found
        return Response(200, self._encode(Answer(heard.offer, heard.check_in_after)))

    async def _report(self, device_id: str, request: Request) -> Response:
        credential = shown(request)
        known = await let_in(self._devices, device_id, credential, request)
        body = await request.body(REPORTS_BYTES)
        report = decoded(self._report_of, body)
        received = await request.committed(self._devices.report(device_id, credential, report.events, known=known))
        return Response(200, self._encode(received))

    async def _enrol(self, request: Request) -> Response:
        credential = shown(request)
        if not isinstance(credential, Bearer):
            raise Unauthorized("An enrolment token is shown as `Authorization: Bearer TOKEN`.")
        request.check_suspect()
        self._devices.identity.enrolment(credential.token, self._devices.now())  # before a byte of the body is read
        said = decoded(self._enrol_of, await request.body(ENROL_BYTES))
        device, token = await request.committed(self._devices.join(credential.token, said))
        after = self._devices.check_in_after(device)
        return Response(200, self._encode(Enrolled(device.id, token, device.hardware_id, device.tag, after)), PRIVATE)

    def _health(self) -> Response:
        if not self._devices.writer.alive:
            raise Problem(503, "unavailable", "The writer has ended.")
        if self._devices.writer.failing:
            raise Problem(503, "store_unavailable", "Nothing can be written now; the log says why.")
        return Response(200, b'{"status":"ok"}')
