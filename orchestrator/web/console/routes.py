"""The console's router: every page names the role it needs, every error is a page, and nobody is sent anywhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Annotated, Any, Final, ParamSpec
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from orchestrator.core.roles import Role
from orchestrator.errors import NotFound, Unauthorized, WaveError
from orchestrator.services.console import Console
from orchestrator.services.people import Person
from orchestrator.web.asking import application, asks, who
from orchestrator.web.console.rendering import HEADERS, Kept, elsewhere, page
from orchestrator.web.console.static import files
from orchestrator.web.problems import status_of

SIGN_IN: Final = "/sign-in"

_MISTAKE: Final = "Try again in a moment. What went wrong stands in the log of `wave serve`."

_FOR_EVER: Final = "public, max-age=31536000, immutable"

_log = logging.getLogger(__name__)

_P = ParamSpec("_P")


def kept(make: Callable[_P, Response]) -> Callable[_P, Response]:
    """A page that is given again for as long as it is true. It takes ``request`` and ``person``."""

    @wraps(make)
    def given(*args: _P.args, **named: _P.kwargs) -> Response:
        request, person = named["request"], named["person"]
        assert isinstance(request, Request) and isinstance(person, Person)
        pages: Kept = request.app.state.kept
        return pages.page(request, person, lambda: make(*args, **named))

    return given


Viewer = Annotated[Person, Depends(asks(Role.VIEWER))]
Orderer = Annotated[Person, Depends(asks(Role.VIEWER, of_rollout=True))]
Releaser = Annotated[Person, Depends(asks(Role.RELEASER))]


def console_of(request: Request) -> Console:
    app = application(request)
    return Console(app.store, app.queries, app.clock)


class PageRoute(APIRoute):
    """Errors as pages; who is nobody goes to the door and comes back."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Unauthorized:
                asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return elsewhere(SIGN_IN if request.method != "GET" else f"{SIGN_IN}?next={quote(asked, safe='')}")
            except WaveError as error:
                if status_of(error) >= 500:
                    _log.warning("%s %s could not be answered: %s", request.method, request.url.path, error)
                return trouble(request, status_of(error), error.message, error.remedy)
            except RequestValidationError as error:
                first = error.errors()[0]
                return trouble(request, 400, f"{first['loc'][-1]}: {first['msg']}.", None)
            except HTTPException:
                raise
            except Exception:
                _log.exception("%s %s could not be answered", request.method, request.url.path)
                return trouble(request, 500, "The server made a mistake; it has written it down.", _MISTAKE)

        return handled


def trouble(request: Request, status: int, sentence: str, remedy: str | None) -> Response:
    """An error as a page, with whoever asks at the top where that is known."""
    try:
        person = who(request)
    except WaveError:
        person = None
    now = application(request).clock()
    shown = {"sentence": sentence, "remedy": remedy, "number": status, "again": _again(request)}
    return page(request, "error.html", person, now, code=status, **shown)


def _again(request: Request) -> str:
    """Where the same is asked once more, on this host; empty for what was no mere look."""
    path, query = request.url.path, request.url.query
    if request.method not in ("GET", "HEAD") or path.startswith("//"):
        return ""
    return f"{path}?{query}" if query else path


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/static/{name}")
def static_file(name: str, request: Request) -> Response:
    """A name with another hash is not there: it belongs to another version of the program."""
    file = files().get(name)
    if file is None:
        raise NotFound("There is no such file.")
    headers = {**HEADERS, "cache-control": _FOR_EVER, "vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, 200, {**headers, "content-encoding": "gzip"}, media_type=file.kind)
    return Response(file.body, 200, headers, media_type=file.kind)
