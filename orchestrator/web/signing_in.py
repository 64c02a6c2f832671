"""Signing in and out: ``GET`` and ``POST /sign-in``, ``POST /sign-out``; ``/sign-in/oidc`` with a provider's word.

The session's cookie is sent to no page that another site has linked (``SameSite=Strict``). So who follows such a link
is led on by a page of ours (``onward``), and then is who they were.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.core.roles import MOST_NAME
from orchestrator.errors import Forbidden, TooMany, Unauthorized, Unavailable, WaveError
from orchestrator.services.openid import OpenId
from orchestrator.services.people_door import Door
from orchestrator.web.asking import address_of, who
from orchestrator.web.console.rendering import filled
from orchestrator.web.csrf import (
    FIELD,
    SESSION,
    check_site,
    cookie_name,
    cookie_of,
    csrf_token,
    is_secure,
    session_of,
)
from orchestrator.web.problems import status_of

BEFORE: Final = "wave_sign_in"
"""The cookie of who has not signed in yet: the form is bound to it as later ones are to the session."""

ASKED: Final = "wave_oidc"
"""The cookie of who was sent to the provider: state, nonce and verifier are derived from it."""

HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def page(request: Request, next: str = "/") -> Response:
    """The form; who has a session is led on."""
    onward = local(next)
    if session_of(request) is None and request.headers.get("sec-fetch-site") == "cross-site":
        return lead_on(f"/sign-in?next={_quoted(onward)}")
    if has_session(request):
        return RedirectResponse(onward, 303, headers=HEADERS)
    return form(request, onward=onward)


@router.post("/sign-in")
def sign_in(
    request: Request,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    csrf: Annotated[str, Form(alias=FIELD)] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """A fresh session, or the form again with what was wrong."""
    onward = local(next)
    try:
        _is_ours(request, csrf)
        session = door_of(request).sign_in(name, password, address=address_of(request), before=session_of(request))
    except (Unauthorized, TooMany, Forbidden) as error:
        return form(request, onward=onward, name=name, error=error)
    answer = RedirectResponse(onward, 303, headers=HEADERS)
    keep(request, answer, session)
    return answer


@router.get("/sign-in/oidc")
def ask_provider(request: Request, next: str = "/") -> Response:
    """To the provider, which sends people back to ``callback``; who has a session is led on. Back from there the
    browser shows no strict cookie, so that nobody could end the session that there was."""
    if has_session(request):
        return RedirectResponse(local(next), 303, headers=HEADERS)
    secret = f"{door_of(request).new_secret()}.{quote(local(next), safe='')}"
    try:
        answer = RedirectResponse(openid_of(request).begin(secret), 303, headers=HEADERS)
    except WaveError as error:
        return form(request, onward=local(next), error=error)
    # People come back by a link of the provider's, with which no strict cookie is sent.
    give(request, answer, ASKED, secret, strict=False, max_age=600)
    return answer


@router.get("/sign-in/oidc/callback")
def callback(request: Request, state: str = "", code: str = "", iss: str | None = None, error: str = "") -> Response:
    """Back from the provider: a session, or the form with what was wrong."""
    secret = cookie_of(request, ASKED) or ""
    onward = local(unquote(secret.partition(".")[2]))
    try:
        if error or not code:
            raise Unauthorized("The provider did not let you in.")
        session = openid_of(request).finish(
            secret,
            state=state,
            code=code,
            issuer=iss,
            address=address_of(request),
            before=session_of(request),
        )
    except WaveError as wrong:
        answer = form(request, onward=onward, error=wrong)
    else:
        answer = lead_on(onward)
        keep(request, answer, session)
    take(request, answer, ASKED, strict=False)
    return answer


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """The session ends here, not only in the browser."""
    if session := session_of(request):
        door_of(request).sign_out(session)
    answer = RedirectResponse("/sign-in", 303, headers=HEADERS)
    take(request, answer, SESSION)
    return answer


# ------------------------------------------------------------------------------------------------- parts


def form(request: Request, *, onward: str, name: str = "", error: WaveError | None = None) -> Response:
    """The page, with what was wrong before."""
    door, openid = door_of(request), request.app.state.openid
    before = session_of(request) or cookie_of(request, BEFORE)
    fresh = None if before else door.new_secret()
    values = {
        "csrf": csrf_token(before or fresh or ""),
        "next": onward,
        "name": name[:MOST_NAME],
        "problem": "" if error is None else _said(error),
        "empty": door.is_empty(),
        "oidc": "" if openid is None else openid.name,
    }
    answer = shown("sign_in.html", values, status=200 if error is None else status_of(error))
    if isinstance(error, TooMany):
        answer.headers["retry-after"] = str(max(1, ceil(error.after)))
    if fresh is not None:
        give(request, answer, BEFORE, fresh)
    return answer


def keep(request: Request, answer: Response, session: str) -> None:
    """Have the browser keep a session."""
    give(request, answer, SESSION, session, max_age=int(door_of(request).at_most.total_seconds()))
    take(request, answer, BEFORE)


def give(
    request: Request, answer: Response, name: str, value: str, *, strict: bool = True, max_age: int | None = None
) -> None:
    """A cookie that no script reads; a ``strict`` one is sent to no page that another site has linked."""
    answer.set_cookie(
        cookie_name(request, name),
        value,
        path="/",
        max_age=max_age,
        secure=is_secure(request),
        httponly=True,
        samesite="strict" if strict else "lax",
    )


def take(request: Request, answer: Response, name: str, *, strict: bool = True) -> None:
    """Have the browser forget one."""
    answer.delete_cookie(
        cookie_name(request, name),
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="strict" if strict else "lax",
    )


def lead_on(onward: str) -> Response:
    """A page of ours that goes there by itself, so that the browser sends the session's cookie along."""
    return shown("onward.html", {"next": onward})


def shown(template: str, values: Mapping[str, Any], *, status: int = 200) -> Response:
    return HTMLResponse(filled(template, values), status, headers=HEADERS)


def local(onward: str) -> str:
    """A path of this site, whatever was asked for."""
    # A browser reads a backslash as a slash, and two slashes as another host.
    fine = onward.startswith("/") and onward.isascii() and onward.isprintable() and "\\" not in onward
    if not fine or onward.startswith("//") or onward.partition("?")[0] in ("/sign-in", "/sign-out"):
        return "/"
    return onward


def has_session(request: Request) -> bool:
    """Whether this browser is somebody's already."""
    if session_of(request) is None:
        return False
    try:
        who(request)
    except Unauthorized:
        return False
    return True


def door_of(request: Request) -> Door:
    """Raises Unavailable where nobody keeps a door."""
    door = request.app.state.doorkeeper
    if not isinstance(door, Door):
        raise Unavailable("Nobody can sign in here.")
    return door


def openid_of(request: Request) -> OpenId:
    """Raises Unavailable where no provider is set."""
    found = request.app.state.openid
    if not isinstance(found, OpenId):
        raise Unavailable("People do not sign in with a provider here.")
    return found


def _is_ours(request: Request, csrf: str) -> None:
    """Nobody else's page may sign somebody in: under whose name would they work then? Raises Forbidden."""
    check_site(request)
    # With a session, `csrf.guard` has looked.
    if session_of(request) is None:
        before = cookie_of(request, BEFORE) or ""
        if not before or not hmac.compare_digest(csrf.encode("utf-8", "surrogatepass"), csrf_token(before).encode()):
            raise Forbidden("This page was too old: try again. Cookies must be allowed.")


def _said(error: WaveError) -> str:
    if isinstance(error, TooMany):
        seconds = max(1, ceil(error.after))
        return f"{error.message} Try again in {'a second' if seconds == 1 else f'{seconds} seconds'}."
    return error.message


def _quoted(onward: str) -> str:
    return quote(onward, safe="/")
