"""How a page of the console is made and sent: templates, words, headers, compression, and an answer of few bytes to
who has the page already.

A page is the same wherever it is asked from; a request that carries ``X-Wave-Part: main`` gets only what changes while
somebody watches, without the frame around it.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from datetime import time as clock_time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from orchestrator.core import words
from orchestrator.core.roles import Role, may
from orchestrator.core.states import ROLLOUT_MEANING, WAVE_MEANING
from orchestrator.services.console_store import JournalLine
from orchestrator.services.people import Person
from orchestrator.web.asking import application
from orchestrator.web.console import static
from orchestrator.web.console.charts.svg import el
from orchestrator.web.csrf import token_of

PART: Final = "x-wave-part"

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing of another host, nothing inline, and no frame around it."""

HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

HTML: Final = "text/html; charset=utf-8"

FRESH_FOR: Final = 2.0
"""Seconds for which a page is given again. Ages on it, and what tells nobody that it changed, are no older."""

_MOST_KEPT: Final = 128

_AT_ONCE: Final = 2
"""Pages made at the same time: those who ask for more wait for each other, and not the devices for all of them."""

_PACKING: Final = 1
"""How hard a page is packed, of 9: it is a fifth larger than at 5, and takes a third of the time."""

_WORTH_IT: Final = 1_000
"""Bytes below which nothing is compressed."""


def page(
    request: Request, template: str, person: Person | None, now: datetime, *, code: int = 200, **shown: Any
) -> Response:
    """The template as an answer."""
    part = request.headers.get(PART) == "main"
    whole = _environment().get_template(template)
    text = whole.render(
        person=person,
        may=lambda role: person is not None and may(person.roles, Role(role)),
        now=now,
        path=request.url.path,
        csrf=token_of(request),
        part=part,
        **shown,
    )
    return sent(request, text.encode(), HTML, status=code)


def filled(template: str, shown: Mapping[str, Any]) -> str:
    """A page for whoever it is, in the same frame: nobody is at its top, and it has no script."""
    return _environment().get_template(template).render(person=None, path="", part=False, **shown)


def sent(request: Request, body: bytes, kind: str, *, status: int = 200) -> Response:
    """Private to who asked, looked at anew each time, and not sent again while it is the same."""
    return _answer(request, _made(body), kind, status)


class Made(NamedTuple):
    """A body as it is sent: whole, packed, and its tag."""

    body: bytes
    packed: bytes
    tag: str


class Page(Response):
    """An answer that knows what it was made of, so that it can be given again."""

    made: Made | None = None


class Kept:
    """Pages as they were made, each for who asked. One is given again within FRESH_FOR while nothing has stirred in the
    store: many consoles that stand open cost one page."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._making = threading.BoundedSemaphore(_AT_ONCE)
        self._pages: OrderedDict[tuple[str, ...], tuple[str, float, Made]] = OrderedDict()

    def page(self, request: Request, person: Person, make: Callable[[], Response]) -> Response:
        """The page that ``make`` makes."""
        which = (str(request.url), request.headers.get(PART, ""), person.name, *sorted(person.roles), token_of(request))
        with application(request).store.reading() as r:
            stir = r.stir()
        now = time.monotonic()
        with self._guard:
            found = self._pages.get(which)
        if found is not None and found[0] == stir and now - found[1] < FRESH_FOR:
            return _answer(request, found[2], HTML, 200)
        with self._making:
            answer = make()
        made = answer.made if isinstance(answer, Page) else None
        if made is not None and answer.status_code in (200, 304):
            with self._guard:
                self._pages[which] = (stir, now, made)
                self._pages.move_to_end(which)
                while len(self._pages) > _MOST_KEPT:
                    self._pages.popitem(last=False)
        return answer

    def forget(self) -> None:
        """All of them."""
        with self._guard:
            self._pages.clear()


def _made(body: bytes) -> Made:
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    return Made(body, gzip.compress(body, _PACKING, mtime=0) if len(body) >= _WORTH_IT else b"", tag)


def _answer(request: Request, made: Made, kind: str, status: int) -> Response:
    vary = f"Cookie, Accept-Encoding, {PART}"
    headers = {**HEADERS, "etag": made.tag, "cache-control": "private, no-cache", "vary": vary}
    if status == 200 and request.headers.get("if-none-match") == made.tag:
        answer = Page(None, 304, headers)
    elif made.packed and "gzip" in request.headers.get("accept-encoding", ""):
        answer = Page(made.packed, status, {**headers, "content-encoding": "gzip"}, media_type=kind)
    else:
        answer = Page(made.body, status, headers, media_type=kind)
    answer.made = made
    return answer


def elsewhere(to: str) -> Response:
    """After something was done, or before it can be: go there."""
    return RedirectResponse(to, 303, headers=HEADERS)


def url(*parts: str) -> str:
    """A path of the console out of names that may hold anything."""
    return "/" + "/".join([_quoted(part) for part in parts])


@lru_cache(maxsize=4_096)
def _quoted(part: str) -> str:
    return quote(part, safe="")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        span=words.span,
        number=words.number,
        percent=_percent,
        megabytes=words.megabytes,
        digest=words.digest,
        plural=words.plural,
        moment=words.moment,
        ago=_ago,
        when=_when,
        clock=_clock,
        ticked=_ticked,
        said=_said,
        journalled=_journalled,
    )
    made.globals.update(
        url=url,
        static=static.address,
        mark={**words.MARK, "halted": "x", "rolled_back": "x"},
        meaning={str(each): text for each, text in ROLLOUT_MEANING.items()},
        wave_meaning={str(each): text for each, text in WAVE_MEANING.items()},
        meter=_meter,
    )
    return made


@pass_context
def _ago(context: Context, at: datetime | None) -> str:
    return words.ago(at, context["now"])


@pass_context
def _when(context: Context, at: datetime | None) -> Markup:
    """How long ago, with the moment itself for who asks."""
    if at is None:
        return Markup("never")
    return _time(at, words.ago(at, context["now"]), words.moment(at))


@pass_context
def _clock(context: Context, at: datetime | None) -> Markup:
    """The moment, with the date unless it is today."""
    if at is None:
        return Markup("-")
    return _time(at, words.clock(at, context["now"]), words.ago(at, context["now"]))


def _time(at: datetime, said: str, title: str) -> Markup:
    """None of it needs escaping: it is made of numbers and words of ours."""
    return Markup(f'<time datetime="{at.isoformat()}" title="{title}">{said}</time>')


@pass_context
def _journalled(context: Context, entry: JournalLine) -> Markup:
    """An entry of a journal, which never changes: it is written out once a day."""
    return _entry(entry, context["now"].astimezone(UTC).date())


@lru_cache(maxsize=4_096)
def _entry(entry: JournalLine, today: date) -> Markup:
    at = _time(entry.at, words.clock(entry.at, datetime.combine(today, clock_time(tzinfo=UTC))), words.moment(entry.at))
    wave = (el("b", entry.wave), " ") if entry.wave else ()
    return el(
        "li",
        el("span", at, class_="at"),
        el("span", _said(entry.event), class_=f"event e-{entry.event}"),
        el("span", el("span", "by ", class_="hidden"), entry.by, class_="by"),
        el("span", wave, _ticked(entry.sentence), class_="sentence"),
    )


def _said(word: object) -> str:
    return str(word).replace("_", " ")


def _ticked(sentence: str) -> Markup:
    """A sentence, what stands between its backticks as code. No share is parted from its sign."""
    parts = sentence.split("`")
    if len(parts) % 2 == 0:
        return escape(_together(sentence))
    return Markup("").join(el("code", part) if number % 2 else _together(part) for number, part in enumerate(parts))


def _together(sentence: str) -> str:
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _percent(share: float | None) -> str:
    """As in the sentences around it: ``2 %``, ``0.4 %``, never parted from its number."""
    return words.percent(share).replace(".0%", "%").replace("%", "\N{NO-BREAK SPACE}%")


def _meter(share: float, label: str) -> Markup:
    """Closed by a tag of its own: in HTML it would else hold, and hide, whatever comes after it."""
    return el("progress", max=1, value=f"{min(1.0, max(0.0, share)):.3f}", aria_label=label)
