"""Requests that somebody else's page makes a browser send are refused.

A browser sends the console's cookie with every request to it, whoever's page asked for that. So a request that changes
something and comes with the cookie must show that a page of ours made it, in two ways:

* where the browser says which site the request is from (``Sec-Fetch-Site``, or ``Origin``), that is this one;
* it carries the session's own CSRF token, in the header ``X-CSRF-Token`` or the form field ``csrf``.

Under https the cookies are named ``__Host-``: a browser takes those from this very host alone, over TLS, so that no
neighbour and nobody on the way can plant one.

A request by bearer token needs neither: no browser sends that by itself. ``guard`` is a dependency of the whole
application, and ``asking.who`` knows nobody by a session in a request that it has not seen.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request

from orchestrator.errors import Forbidden

SESSION: Final = "wave_session"
"""The console's cookie, as ``cookie_name`` has it."""

_HERE_ALONE: Final = "__Host-"

HEADER: Final = "x-csrf-token"
FIELD: Final = "csrf"

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")


def is_secure(request: Request) -> bool:
    """Whether browsers reach this by https: as the request says itself, or as ``console_url`` says where a proxy in
    front is not believed."""
    return request.url.scheme == "https" or getattr(request.app.state, "secure", False) is True


def cookie_name(request: Request, name: str) -> str:
    return f"{_HERE_ALONE}{name}" if is_secure(request) else name


def cookie_of(request: Request, name: str) -> str | None:
    """What the browser keeps for this host, None for nothing."""
    return request.cookies.get(cookie_name(request, name)) or None


def session_of(request: Request) -> str | None:
    """The session that the browser shows."""
    return cookie_of(request, SESSION)


def csrf_token(session: str) -> str:
    """The token of a session. It tells nothing of the session itself, and is another after each sign-in."""
    return hmac.new(session.encode("utf-8", "surrogatepass"), b"wave csrf", hashlib.sha256).hexdigest()


def token_of(request: Request) -> str:
    """What a page that answers this request puts into its forms; empty without a session."""
    session = session_of(request)
    return csrf_token(session) if session else ""


def bearer(request: Request) -> str | None:
    """The token in ``Authorization``."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return (token.strip() or None) if scheme.lower() == "bearer" else None


async def guard(request: Request) -> AsyncIterator[None]:
    """Let a request pass that is no forgery. Raises Forbidden."""
    try:
        await _look(request)
        request.state.not_forged = True
        yield
    finally:
        # of a form that nobody but this has read
        await request.close()


async def _look(request: Request) -> None:
    if request.method not in SAFE and bearer(request) is None and (session := session_of(request)):
        check_site(request)
        shown = await _shown(request)
        if not hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), csrf_token(session).encode()):
            raise Forbidden(
                "The request does not come from a page of this session.",
                remedy="Load the page again, and sign in again if it asks for that.",
            )


def was_guarded(request: Request) -> bool:
    return getattr(request.state, "not_forged", False) is True


def check_site(request: Request) -> None:
    """Raises Forbidden when the browser says that another site's page asked for this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Forbidden("The request comes from a page of another site.")
        return
    origin = request.headers.get("origin")
    # Compared without the scheme, which a proxy in front may have changed; `null` is nobody's.
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden("The request comes from a page of another site.")


async def _shown(request: Request) -> str:
    if (token := request.headers.get(HEADER)) is not None:
        return token
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        field = (await request.form()).get(FIELD)
        return field if isinstance(field, str) else ""
    return ""
