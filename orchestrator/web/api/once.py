"""``Idempotency-Key``: an order that is sent again with the key of the first time is not carried out again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from fastapi import Request, Response

from orchestrator.errors import Busy, Conflict, Refused, Unavailable, WaveError
from orchestrator.services.once import Once
from orchestrator.services.people import Person
from orchestrator.web.asking import application
from orchestrator.web.problems import PROBLEM, told

KEY: Final = "idempotency-key"
REPLAYED: Final = "idempotency-replayed"

_NOTHING_DONE: Final = (Conflict, Busy, Unavailable)
"""After these the same may be sent again: an order is one transaction, and it was taken back."""


def once(
    request: Request,
    person: Person,
    body: bytes,
    carry_out: Callable[[], Response],
    *,
    secret: bool = False,
    confides: bool = False,
) -> Response:
    """The answer of ``carry_out``, or of the first time. ``secret``: the answer is kept nowhere; ``confides``: the body
    holds a secret. Raises Conflict while the first is under way, Refused when the key is another request's or its
    answer is not to be had any more."""
    key = request.headers.get(KEY)
    if key is None:
        return carry_out()
    app = application(request)
    kept = Once(app.store, app.clock)
    asked = _asked(request, body)
    if confides:  # whoever reads the digest must not be able to try passwords against it quickly
        digest = app.people.digest(asked, salt=f"{person.name}\0{key}".encode())
    else:
        digest = hashlib.sha256(asked).digest()
    known = kept.begin(person.name, key, digest)
    if known is not None:
        assert known.status is not None
        if known.answer is None:
            raise Refused(
                "This was done before with the same key, and its answer is not kept: it was shown that once.",
                remedy="Look how things stand; what was shown once can only be made anew.",
            )
        media = "application/json" if known.status < 300 else PROBLEM
        return Response(known.answer, known.status, headers={REPLAYED: "true"}, media_type=media)
    try:
        answer = carry_out()
    except _NOTHING_DONE:
        kept.forget(person.name, key)
        raise
    except WaveError as error:
        answer = told(error)
    kept.end(person.name, key, answer.status_code, None if secret and answer.status_code < 300 else bytes(answer.body))
    return answer


def _asked(request: Request, body: bytes) -> bytes:
    """What is asked, not how."""
    asked = "\0".join((request.method, request.url.path, request.url.query))
    return asked.encode("utf-8", "surrogateescape") + b"\0" + body
