"""The way in for devices: a bare ASGI application that leads each request to the door of its protocol.

::

    /v1/devices/...  /healthz    the orchestrator's own protocol    ``own``
    /ostree/...                  the repository                     ``files`` (an application of its own)
    /artifacts/...               artifacts and their deltas         ``artifact_files`` (another)

Every error is ``{"error": {"kind": ..., "message": ...}}`` with one of ``http.KINDS``, unless a foreign protocol shapes
its own. Answers for: which door, and what is told when something fails. Not for: the protocols (the doors).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from orchestrator.errors import WaveError
from orchestrator.gateway.artifact_files import PREFIX as ARTIFACTS
from orchestrator.gateway.at_once import NO_LENGTH, WHOLE
from orchestrator.gateway.http import (
    JSON,
    READ_SECONDS,
    App,
    Bridge,
    Door,
    Handed,
    Limiting,
    Problem,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    envelope,
    live,
    nothing_there,
    told,
)
from orchestrator.services.following import ASKED
from orchestrator.services.metering import Refusals

_log = logging.getLogger(__name__)


class Gateway:
    """The application. ``doors`` are asked in their order who takes a path; ``files`` serves what lies below
    ``/ostree``, ``artifacts`` below ``/artifacts``; ``read_seconds`` bounds slow bodies, and
    ``limits`` how often one may ask the doors; content is not limited. ``refused`` counts what is told an error."""

    at_once = True

    def __init__(
        self,
        doors: Sequence[Door],
        *,
        files: App | None = None,
        artifacts: App | None = None,
        read_seconds: float = READ_SECONDS,
        limits: Limiting | None = None,
        refused: Refusals | None = None,
    ) -> None:
        self._doors = tuple(doors)
        self._mounted = [(at, app) for at, app in (("/ostree", files), (ARTIFACTS, artifacts)) if app is not None]
        self._read_seconds = read_seconds
        self._limits = limits
        self._refused = refused or Refusals()
        self._bridge: Bridge | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await live(receive, send)
            return
        if kind != "http":
            raise RuntimeError(f"the gateway answers HTTP, not {kind}")
        ASKED.set(scope)
        path: str = scope["path"]
        for at, app in self._mounted:
            if path.startswith(f"{at}/"):
                await app({**scope, "root_path": scope.get("root_path", "") + at}, receive, send)
                return
        door: Door | None = None
        for each in self._doors:
            if each.takes(path):
                door = each
                break
        try:
            response = await self._answer(door, scope, receive)
        except ConnectionResetError:
            return  # the device hung up before it had said everything
        if isinstance(response, Handed):
            await response.app(response.scope, receive, send)
            return
        status, body, headers = response
        extensions = scope.get("extensions")
        if extensions is not None and WHOLE in extensions and extensions[WHOLE](status, headers, body):
            return
        length = () if status in NO_LENGTH else ((b"content-length", b"%d" % len(body)),)
        await send({"type": "http.response.start", "status": status, "headers": [*length, *headers]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, door: Door | None, scope: Scope, receive: Receive) -> Response | Handed:
        try:
            if door is None:
                raise nothing_there()
            limits = self._limits
            suspect = limits is not None and limits.arrive(scope)
            request = Request(scope, receive, self._to_loop, self._read_seconds, limits, suspect=suspect)
            return await door.answer(request)
        except Problem as error:
            problem = error
        except WaveError as error:
            problem = told(error)
            if problem.status >= 500:
                _log.warning("a request could not be answered: %s", error)
        except ConnectionResetError:
            raise
        except Exception:
            _log.exception("a request could not be answered")
            problem = Problem(500, "internal", "The server made a mistake; it has written it down.")
        if problem.status == 401 and problem.kind == "unauthorized" and self._limits is not None:
            self._limits.wrong(scope)
        self._refused.count("none" if door is None else door.name, problem.kind)
        body = envelope(problem) if door is None else door.problem(problem)
        return Response(problem.status, body, (JSON, *problem.headers))

    def _to_loop(self) -> Bridge:
        loop = asyncio.get_running_loop()
        if self._bridge is None or self._bridge.loop is not loop:
            self._bridge = Bridge(loop)
        return self._bridge
