"""hawkBit's Direct Device Integration: which address is what.

::

    GET   /{tenant}/controller/v1/{id}                                             a poll
    PUT   .../configData                                                           what it is and runs   64 KiB
    GET   .../deploymentBase/{action}                                              what to install
    POST  .../deploymentBase/{action}/feedback                                     how that goes         256 KiB
    GET   .../cancelAction/{action}                                                what to stop
    POST  .../cancelAction/{action}/feedback                                       whether it did
    GET   .../softwaremodules/{action}/artifacts                                   the files of an action
    GET   .../softwaremodules/{action}/artifacts/{name}  and  {name}.MD5SUM        a file, with ranges
    GET   .../confirmationBase                                                     nothing waits for a person here

``installedBase`` and confirmations are never linked, and not there. A device shows its own token (``TargetToken``), its
gateway's (``GatewayToken``) or a certificate. Success is always 200: clients take no other code for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

from orchestrator.gateway.ddi import rendering
from orchestrator.gateway.ddi.messages import ConfigData, Feedback, config_of, event_id, feedback_of
from orchestrator.gateway.http import App, Handed, Problem, Request, Response, known_name, nothing_there
from orchestrator.gateway.identity import let_in, shown
from orchestrator.gateway.openapi import ANY_ROUTE, Route
from orchestrator.services import ddi
from orchestrator.services.credentials import Credential, GatewayToken
from orchestrator.services.ddi import Ddi
from orchestrator.services.devices import Devices
from orchestrator.services.installable import Download
from orchestrator.services.kept import Kept

CONFIG_BYTES: Final = 64 * 1024
FEEDBACK_BYTES: Final = 256 * 1024

_LONGEST_ACTION: Final = 10


class DdiDoor:
    """``url``: how devices reach the gateway. ``files``: an application that serves artifacts, and deltas between them,
    to whoever is let in here."""

    name: Final = "ddi"

    def __init__(self, devices: Devices, service: Ddi, *, url: str, tenant: str, files: App) -> None:
        self._devices = devices
        self._ddi = service
        self._prefix = f"/{tenant}/controller/v1/"
        self._url = url
        self._files = files

    def takes(self, path: str) -> bool:
        return path.startswith(self._prefix)

    def problem(self, problem: Problem) -> bytes:
        return rendering.failure(problem.kind, problem.message)

    def routes(self) -> Sequence[Route]:
        device = self._prefix + "{device}"
        base, stop = device + "/deploymentBase/{action}", device + "/cancelAction/{action}"
        files = device + "/softwaremodules/{action}/artifacts"
        late = (*ANY_ROUTE, 410)
        told = (
            ("GET", device, "A device of hawkBit's protocol polls.", None, ANY_ROUTE),
            ("PUT", device + "/configData", "It says what it is and runs.", ConfigData, ANY_ROUTE),
            ("GET", base, "What it shall install.", None, ANY_ROUTE),
            ("POST", base + "/feedback", "How that goes.", Feedback, late),
            ("GET", stop, "What it shall stop.", None, ANY_ROUTE),
            ("POST", stop + "/feedback", "Whether it did.", Feedback, late),
            ("GET", files, "The files of an action.", None, ANY_ROUTE),
            ("GET", device + "/confirmationBase", "Nothing waits for a person there.", None, ANY_ROUTE),
        )
        found = [
            Route(method, path, what, takes, own_errors=False, errors=errors)
            for method, path, what, takes, errors in told
        ]
        octets, whole_or_part = "application/octet-stream", (200, 206)
        errors = (*ANY_ROUTE, 416)
        file = Route("GET", files + "/{name}", "A file.", media=octets, success=whole_or_part, errors=errors)
        return (*found, file._replace(own_errors=False))

    async def answer(self, request: Request) -> Response | Handed:
        device_id, _, rest = request.path[len(self._prefix) :].partition("/")
        if not rest:
            return await self._poll(device_id, request)
        credential = shown(request)
        content = rest.startswith("softwaremodules/")  # fetched in many ranges, perhaps
        kept = await let_in(self._devices, device_id, credential, request, content=content)
        match rest.split("/"):
            case ["configData"]:
                return await self._configure(kept, credential, request)
            case ["deploymentBase", action]:
                return await self._deployment(kept, _number(action), request)
            case ["deploymentBase", action, "feedback"]:
                return await self._feedback(kept, credential, _number(action), request)
            case ["cancelAction", action]:
                return await self._cancellation(kept, _number(action), request)
            case ["cancelAction", action, "feedback"]:
                return await self._cancelled(kept, credential, _number(action), request)
            case ["softwaremodules", action, "artifacts"]:
                named, *_ = await self._files_of(kept, _number(action), request)
                return Response(200, rendering.files(self._base(device_id), int(action), named.artifact))
            case ["softwaremodules", action, "artifacts", name]:
                return await self._download(kept, credential, (_number(action), name), request)
            case ["confirmationBase"]:
                request.only("GET", "HEAD")
                return Response(200, rendering.NO_CONFIRMATION)
        raise nothing_there()

    def _base(self, device_id: str) -> str:
        return f"{self._url}{self._prefix}{device_id}"

    async def _poll(self, device_id: str, request: Request) -> Response:
        request.only("GET", "HEAD")
        credential = shown(request)
        # A gateway's token may make the device known, and an address may be suspect; that is for `let_in` alone.
        known = None
        if request.suspect or isinstance(credential, GatewayToken):
            known = await let_in(self._devices, device_id, credential, request)
        found = self._ddi.poll(known_name(device_id), credential, known=known)
        poll = await request.committed(found) if isinstance(found, Future) else found
        if known is None:
            request.asked_by(device_id)
        return Response(200, rendering.poll(self._base(device_id), poll))

    async def _configure(self, kept: Kept, credential: Credential, request: Request) -> Response:
        request.only("PUT")
        said = config_of(await request.body(CONFIG_BYTES))
        found = self._ddi.configure(kept, credential, said.attributes, (said.mode or "merge").lower())
        if isinstance(found, Future):
            await request.committed(found)
        return Response(200, b"")

    async def _deployment(self, kept: Kept, action: int, request: Request) -> Response:
        request.only("GET", "HEAD")
        await self._ready(kept, action, request)
        artifact = self._ddi.deployment(kept, action)
        return Response(200, rendering.deployment(self._base(kept.person.device.id), action, artifact))

    async def _feedback(self, kept: Kept, credential: Credential, action: int, request: Request) -> Response:
        request.only("POST")
        body = await request.body(FEEDBACK_BYTES)
        told = _told(feedback_of(body), event_id(action, "", body))
        await self._ready(kept, action, request, late=True)
        await request.committed(self._ddi.feedback(kept, credential, action, told))
        return Response(200, b"")

    async def _cancellation(self, kept: Kept, action: int, request: Request) -> Response:
        request.only("GET", "HEAD")
        await self._ready(kept, action, request)
        if not self._ddi.cancelling(kept, action):
            raise Problem(404, "not_found", f"Action {action} is not to be cancelled.")
        return Response(200, rendering.cancellation(action))

    async def _cancelled(self, kept: Kept, credential: Credential, action: int, request: Request) -> Response:
        request.only("POST")
        body = await request.body(FEEDBACK_BYTES)
        told = _told(feedback_of(body), event_id(action, "cancel-", body))
        await self._ready(kept, action, request, late=True)
        await request.committed(self._ddi.cancelled(kept, credential, action, told))
        return Response(200, b"")

    async def _files_of(self, kept: Kept, action: int, request: Request) -> tuple[Download, ...]:
        request.only("GET", "HEAD")
        await self._ready(kept, action, request)
        return self._ddi.downloads(kept, action)

    async def _download(
        self, kept: Kept, credential: Credential, which: tuple[int, str], request: Request
    ) -> Response | Handed:
        action, name = which
        files = {each.artifact.filename: each for each in await self._files_of(kept, action, request)}
        if (summed := files.get(name.removesuffix(".MD5SUM"))) is not None and name not in files:
            return Response(200, rendering.md5sum(summed.artifact), ((b"content-type", b"text/plain"),))
        if (file := files.get(name)) is None:
            raise nothing_there()
        if request.method == "GET" and (begun := self._ddi.fetching(kept, credential, action)) is not None:
            await request.committed(begun)
        path = f"/{file.path}"
        return Handed(self._files, {**request.scope, "path": path, "raw_path": path.encode(), "root_path": ""})

    async def _ready(self, kept: Kept, action: int, request: Request, *, late: bool = False) -> None:
        looking = self._ddi.ready(kept, action, late=late)
        if looking is not None:
            await request.committed(looking)


def _number(text: str) -> int:
    """The number of an action. Raises Problem."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ACTION):
        raise nothing_there()
    return int(text)


def _told(said: Feedback, known_by: str) -> ddi.Feedback:
    return ddi.Feedback(known_by, said.said, said.at, said.code, said.message)
