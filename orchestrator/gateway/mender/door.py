"""The protocol of the Mender client, as it was seen to speak it.

::

    POST      /api/devices/v1/authentication/auth_requests                         32 KiB   a token, or 401
    PUT PATCH /api/devices/v1/inventory/device/attributes                         256 KiB   200
    POST      /api/devices/v2/deployments/device/deployments/next                  64 KiB   200, or 204: nothing
    POST GET  /api/devices/v1/deployments/device/deployments/next                  64 KiB   the same
    PUT       /api/devices/v1/deployments/device/deployments/{id}/status           16 KiB   204, or 409: stop
    PUT       /api/devices/v1/deployments/device/deployments/{id}/log               1 MiB   204

A download has an address of its own that needs no token. Errors are ``{"error": ..., "request_id": ...}``. Answers
for: these routes. Not for: what any of it means (``services.mender``).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from orchestrator.errors import Forbidden, Unauthorized
from orchestrator.gateway.http import JSON, Problem, Request, Response, decoded, nothing_there
from orchestrator.gateway.identity import let_in, shown
from orchestrator.gateway.mender.bodies import (
    Attributes,
    AuthRequest,
    Log,
    Next,
    NextDeployment,
    Status,
    deployment,
    provided,
    queried,
    texts,
)
from orchestrator.gateway.openapi import Route
from orchestrator.services.credentials import Bearer, Certificate, Credential
from orchestrator.services.devices import Devices, Kept
from orchestrator.services.mender.authentication import Authentication
from orchestrator.services.mender.conversation import Conversations
from orchestrator.services.mender.tokens import holder

AUTH_BYTES: Final = 32 * 1024
INVENTORY_BYTES: Final = 256 * 1024
NEXT_BYTES: Final = 64 * 1024
STATUS_BYTES: Final = 16 * 1024
LOG_BYTES: Final = 1024 * 1024

_PREFIX: Final = "/api/devices/"
_AUTH: Final = "v1/authentication/auth_requests"
_INVENTORY: Final = "v1/inventory/device/attributes"
_DEPLOYMENTS: Final = "v1/deployments/device/deployments/"
_DEPLOYMENTS_NEXT: Final = "deployments/device/deployments/next"
_NEXT: Final = {f"v1/{_DEPLOYMENTS_NEXT}": 1, f"v2/{_DEPLOYMENTS_NEXT}": 2}

_NOTHING: Final = Response(204, b"", ())
_JWT: Final = "application/jwt"
_TOKEN_HEADERS: Final = ((b"content-type", _JWT.encode()), (b"cache-control", b"no-store"))


class MenderDoor:
    name: Final = "mender"

    def __init__(self, devices: Devices, authentication: Authentication, conversations: Conversations) -> None:
        self._devices = devices
        self._authentication = authentication
        self._conversations = conversations
        self._encode = msgspec.json.Encoder().encode
        self._inventory_of = msgspec.json.Decoder(Attributes).decode
        self._next_of = msgspec.json.Decoder(Next).decode
        self._provides_of = msgspec.json.Decoder(dict[str, object]).decode
        self._status_of = msgspec.json.Decoder(Status).decode
        self._log_of = msgspec.json.Decoder(Log).decode

    def takes(self, path: str) -> bool:
        return path.startswith(_PREFIX)

    def problem(self, problem: Problem) -> bytes:
        return self._encode({"error": problem.message, "request_id": secrets.token_hex(8)})

    def routes(self) -> Sequence[Route]:
        def route(method: str, path: str, what: str, takes: Any = None, gives: Any = None, **more: Any) -> Route:
            return Route(method, _PREFIX + path, what, takes, gives, own_errors=False, **more)

        one, nothing = _DEPLOYMENTS + "{deployment}/", {"success": (204,)}
        found: dict[str, Any] = {"gives": NextDeployment, "success": (200, 204)}
        asks = "A Mender device asks for its next deployment."
        return (
            route(
                "POST", _AUTH, "A Mender device asks to be let in.", AuthRequest, media="application/jwt", anybody=True
            ),
            route("PUT", _INVENTORY, "A Mender device says all its attributes.", Attributes),
            route("PATCH", _INVENTORY, "A Mender device says some of its attributes.", Attributes),
            route("POST", f"v2/{_DEPLOYMENTS_NEXT}", asks, Next, **found),
            route("POST", f"v1/{_DEPLOYMENTS_NEXT}", asks, dict[str, Any], **found),
            route("GET", f"v1/{_DEPLOYMENTS_NEXT}", asks, query=("artifact_name", "device_type"), **found),
            route("PUT", one + "status", "A Mender device says how far a deployment is.", Status, **nothing),
            route("PUT", one + "log", "A Mender device sends the log of a deployment.", Log, **nothing),
        )

    async def answer(self, request: Request) -> Response:
        route = request.path[len(_PREFIX) :]
        if route == _AUTH:
            request.only("POST")
            return await self._ask_in(request)
        if route == _INVENTORY:
            request.only("PUT", "PATCH")
            return await self._with_device(request, self._inventory)
        if route in _NEXT:
            request.only(*(("POST",) if _NEXT[route] == 2 else ("POST", "GET")))
            return await self._with_device(request, self._next)
        if route.startswith(_DEPLOYMENTS):
            name, _, what = route.removeprefix(_DEPLOYMENTS).partition("/")
            if what in ("status", "log"):
                request.only("PUT")
                return await self._about(request, name, what)
        raise nothing_there()

    async def _ask_in(self, request: Request) -> Response:
        body = await request.body(AUTH_BYTES)
        signature = request.header(b"x-men-signature") or b""
        # Behind one router there may be a thousand devices: who is known is heard whatever its neighbours do.
        asking = self._authentication.ask(body, signature, strangers=not request.suspect)
        try:
            token = await request.committed(asking)
        except Forbidden as error:
            # The client knows no other status for it; and who waits for a person has not guessed at anything.
            raise Problem(401, "forbidden", str(error)) from None
        return Response(200, token.encode(), _TOKEN_HEADERS)

    async def _with_device(
        self, request: Request, work: Callable[[Request, Credential, Kept], Awaitable[Response]]
    ) -> Response:
        """Who asks is known before a byte of the body is read."""
        credential = shown(request)
        match credential:
            case Bearer():
                device_id = holder(credential.token, self._devices.now())
            case Certificate():
                device_id = credential.device_id
            case _:
                raise Unauthorized("A device shows its token as `Authorization: Bearer TOKEN`.")
        return await work(request, credential, await let_in(self._devices, device_id, credential, request))

    async def _inventory(self, request: Request, credential: Credential, known: Kept) -> Response:
        said = decoded(self._inventory_of, await request.body(INVENTORY_BYTES))
        keep = request.method == "PATCH"
        await request.committed(self._conversations.tell(credential, list(texts(said)), known, keep=keep))
        return Response(200, b"", ())

    async def _next(self, request: Request, credential: Credential, known: Kept) -> Response:
        if request.method == "GET":
            said = queried(request.scope.get("query_string", b""))
        else:
            body = await request.body(NEXT_BYTES)
            second = request.path.startswith(_PREFIX + "v2")
            said = provided(
                decoded(self._next_of, body).device_provides if second else decoded(self._provides_of, body)
            )
        told = await request.committed(self._conversations.ask(credential, said, known))
        return _NOTHING if told is None else Response(200, self._encode(deployment(told)), (JSON,))

    async def _about(self, request: Request, name: str, what: str) -> Response:
        async def status(request: Request, credential: Credential, known: Kept) -> Response:
            said = decoded(self._status_of, await request.body(STATUS_BYTES))
            return await self._taken(
                request, self._conversations.status(credential, name, said.status, said.substate, known)
            )

        async def log(request: Request, credential: Credential, known: Kept) -> Response:
            said = decoded(self._log_of, await request.body(LOG_BYTES))
            return await self._taken(request, self._conversations.log(credential, name, said.messages, known))

        return await self._with_device(request, status if what == "status" else log)

    async def _taken(self, request: Request, done: Future[None]) -> Response:
        await request.committed(done)
        return _NOTHING
