"""aktualizr-lite and its relatives: the device gateway of Foundries, as their clients ask it.

::

    GET  /repo/{N}.root.json             a root                                    64 KiB are read by clients
    GET  /repo/timestamp.json            what is new? The check-in, by the headers that say what runs
    GET  /repo/snapshot.json, /repo/targets.json    of the same edition as the last timestamp.json
    POST /events                         what it did                                              256 KiB
    PUT  /system_info, /system_info/network, /system_info/config    what it is                      1 MiB
    POST /apps-states                    how its apps are                                          1 MiB
    GET  /device                         {"Name": ...}
    POST /treehub/download-urls          404: the repository is here
    GET  /treehub/delta-stats/{sha256}   how large a delta is

A device is known by its client certificate, whose common name is its id; or everything stands below
``/d/{device}/{secret}``, and the secret is its token. Anything else that such clients ask for is 404, which harms none
of them. Answers for: these routes. Not for: the repository's files (``treehub``), nor for what a device is shown
(``services.aktualizr``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from orchestrator.core.protocols import DeviceProtocol
from orchestrator.core.tuf import Role
from orchestrator.errors import Unauthorized
from orchestrator.gateway.aktualizr.messages import ClientEvent, all_healthy, events, meaning, running
from orchestrator.gateway.http import Problem, Request, Response, envelope, nothing_there
from orchestrator.gateway.identity import certificate_of, let_in
from orchestrator.gateway.openapi import Route
from orchestrator.services.aktualizr import About, Aktualizr, Note
from orchestrator.services.credentials import Credential, Secret
from orchestrator.services.devices import Devices, Kept
from orchestrator.services.messages import LONGEST_MESSAGE, ReportedEvent

EVENTS_BYTES: Final = 256 * 1024
TOLD_BYTES: Final = 1024 * 1024

PREFIX: Final = re.compile(r"/d/([^/]{1,128})/([^/]{16,256})(/.*)")
_BELOW: Final = ("/repo/", "/system_info/", "/treehub/", "/d/")
_PATHS: Final = frozenset("/events /system_info /apps-states /device /ecus /config".split())
_ROOT: Final = re.compile(r"/repo/([1-9][0-9]{0,8})\.root\.json", re.ASCII)
_STATS: Final = re.compile(r"/(?:treehub|ostree)/delta-stats/([0-9a-f]{64})", re.ASCII)
_FRESH: Final = (b"cache-control", b"no-store")
_JSON: Final = ((b"content-type", b"application/json"), _FRESH)
_DONE: Final = Response(200, b"{}", _JSON)
_TOPICS: Final = {"/system_info": "hardware", "/system_info/network": "network", "/system_info/config": "config"}

_encode: Final = msgspec.json.Encoder().encode


class AktualizrDoor:
    name: Final = "aktualizr"

    def __init__(self, devices: Devices, service: Aktualizr) -> None:
        self._devices = devices
        self._service = service

    def takes(self, path: str) -> bool:
        return path in _PATHS or path.startswith(_BELOW)

    def problem(self, problem: Problem) -> bytes:
        return envelope(problem)

    def routes(self) -> Sequence[Route]:
        """Below the prefix; the same without it for a device with a certificate."""
        told: tuple[tuple[str, str, str, Any], ...] = (
            ("GET", "/repo/timestamp.json", "An aktualizr-lite device asks what is new: its check-in.", None),
            ("GET", "/repo/snapshot.json", "What belongs to the last timestamp.json.", None),
            ("GET", "/repo/targets.json", "The Targets that it may take.", None),
            ("GET", "/repo/{version}.root.json", "A root.", None),
            ("POST", "/events", "What it did.", list[dict[str, Any]]),
            ("PUT", "/system_info", "What it is.", dict[str, Any]),
            ("PUT", "/system_info/network", "How it is reached.", dict[str, Any]),
            ("PUT", "/system_info/config", "How it is set up, in TOML.", None),
            ("POST", "/apps-states", "How its apps are.", dict[str, Any]),
            ("GET", "/device", "Who it is.", None),
            ("GET", "/treehub/delta-stats/{sha256}", "How large a delta is.", None),
        )
        return [Route(method, "/d/{device}/{secret}" + path, what, takes) for method, path, what, takes in told]

    async def answer(self, request: Request) -> Response:
        device_id, credential, route = _who(request)
        known = await let_in(self._devices, device_id, credential, request)
        match route:
            case "/repo/timestamp.json":
                request.only("GET")
                return await self._timestamp(known, credential, request)
            case "/repo/snapshot.json" | "/repo/targets.json":
                request.only("GET")
                role = Role.SNAPSHOT if route == "/repo/snapshot.json" else Role.TARGETS
                return await self._document(known, role, request)
            case "/events":
                request.only("POST")
                return await self._events(known, credential, request)
            case "/system_info" | "/system_info/network" | "/system_info/config":
                request.only("PUT")
                return await self._told(known, _TOPICS[route], await request.body(TOLD_BYTES), request)
            case "/apps-states":
                request.only("POST")
                return await self._apps(known, credential, request)
            case "/device":
                request.only("GET")
                return Response(200, _encode({"Name": known.person.device.id}), _JSON)
        return await self._kept(route, request)

    async def _kept(self, route: str, request: Request) -> Response:
        """What never changes."""
        if (root := _ROOT.fullmatch(route)) is not None:
            request.only("GET")
            return Response(200, self._service.editions.root(int(root[1])), _JSON)
        if (stats := _STATS.fullmatch(route)) is not None:
            request.only("GET")
            digest = stats[1]
            text = await request.committed(self._devices.aside(lambda: self._service.delta_stats(digest)))
            if text is not None:
                return Response(200, text.encode(), _JSON)
        raise nothing_there()

    # --------------------------------------------------------------------------------------------- what is new?

    async def _timestamp(self, known: Kept, credential: Credential, request: Request) -> Response:
        """The poll: the only request that is a check-in."""
        self._service.editions.mint()  # without a repository nobody is offered what he could not fetch
        said = self._service.said(known, running(request.header))
        device_id = known.person.device.id
        asked = self._devices.check_in(device_id, credential, said, known=known, over=DeviceProtocol.AKTUALIZR)
        heard = await request.committed(asked) if isinstance(asked, Future) else asked
        if self._service.at_hand(heard.had, heard.offer):
            wish = self._service.wish(known, said, heard)
        else:
            wish = await request.committed(self._devices.aside(lambda: self._service.wish(known, said, heard)))
        chosen = self._service.editions.show(wish)
        edition = await request.committed(chosen) if isinstance(chosen, Future) else chosen
        return Response(200, self._service.editions.bodies(edition).timestamp, _JSON)

    async def _document(self, known: Kept, role: Role, request: Request) -> Response:
        found = self._service.editions.shown(known.person.key)
        edition = await request.committed(found) if isinstance(found, Future) else found
        bodies = self._service.editions.bodies(edition)
        return Response(200, bodies.snapshot if role is Role.SNAPSHOT else bodies.targets, _JSON)

    # --------------------------------------------------------------------------------------------- what it tells

    async def _events(self, known: Kept, credential: Credential, request: Request) -> Response:
        told = events(await request.body(EVENTS_BYTES))
        if not told or self._service.at_hand(known.had):
            about = self._service.updates(known) if told else []
        else:
            about = await request.committed(self._devices.aside(lambda: self._service.updates(known)))
        counted: list[ReportedEvent] = []
        shown: list[Note] = []
        for event in told:
            said = meaning(event)
            update = _about(event, about)
            if said.counts is None or update is None:
                shown.append(self._note(known, event))
                continue
            message = event.details[-LONGEST_MESSAGE:] or None
            counted.append(
                ReportedEvent(event.id, update.rollout, update.version, said.counts.value, event.at, said.code, message)
            )
        waiting: list[Awaitable[object]] = []
        if counted:
            device_id = known.person.device.id
            reported = request.committed(self._devices.report(device_id, credential, counted, known=known))
            waiting.append(reported)
        if shown:
            noted = request.committed(self._service.note(shown))
            waiting.append(noted)
        await asyncio.gather(*waiting)
        return _DONE

    def _note(self, known: Kept, event: ClientEvent) -> Note:
        said = meaning(event)
        subject = event.target or (None if event.version is None else str(event.version))
        details = event.details[-LONGEST_MESSAGE:]
        message = f"{subject}: {details}" if subject and details else subject or details or None
        return Note(
            known.person.key,
            event.id,
            said.shown,
            None if event.at is None else event.at[:64].replace("\0", ""),
            said.code,
            None if message is None else message[:LONGEST_MESSAGE].replace("\0", ""),
            self._devices.now(),
        )

    async def _told(self, known: Kept, topic: str, body: bytes, request: Request) -> Response:
        waiting = self._service.tell(known, topic, body)
        if waiting is not None:
            await request.committed(waiting)
        return _DONE

    async def _apps(self, known: Kept, credential: Credential, request: Request) -> Response:
        body = await request.body(TOLD_BYTES)
        healthy = all_healthy(body)
        if healthy is None:
            raise Problem(400, "invalid_report", "The body says nothing of any app.")
        found = self._service.healthy(known, credential, healthy=healthy)
        if isinstance(found, Future):
            await request.committed(found)
        return await self._told(known, "apps", body, request)


def _who(request: Request) -> tuple[str, Credential, str]:
    """Who asks, by what, and for what. Raises Unauthorized."""
    found = PREFIX.fullmatch(request.path)
    if found is not None:
        return found[1], Secret(found[2]), found[3]
    certificate = certificate_of(request)
    if certificate is None:
        raise Unauthorized("A device shows a client certificate, or asks below /d/DEVICE/SECRET.")
    return certificate.device_id, certificate, request.path


def _about(event: ClientEvent, updates: list[About]) -> About | None:
    """The newest update whose Target this is: by its version, and by its name where that is said. So an event about
    the version before, after a rollback, never passes for one about the new."""
    for update in updates:
        if event.version is not None and event.version != update.version:
            continue
        if event.target is not None and event.target != update.target:
            continue
        if event.version is not None or event.target is not None:
            return update
    return None
