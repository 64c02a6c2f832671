"""What a client is told that never gets as far as the application: the line is no HTTP, too slow, too long, one of too
many.

Each is one whole answer, made once when the server starts. Answers for: status, words, length, and that the connection
is closed. Not for: who is refused (``guard``), nor the shape of an error (``Form``: the gateway's own, or that of the
operators' side).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from orchestrator.gateway.counting import NOT_HTTP, TOO_LARGE, TOO_MANY, TOO_SLOW
from orchestrator.gateway.http import CLOSE, JSON, RETRY_SECONDS, Problem, Receive, Scope, Send, envelope

Form: TypeAlias = Callable[[int, str, str], tuple[bytes, bytes]]
"""Of status, kind and sentence: the kind of content, and the body."""


class Said(NamedTuple):
    """One answer. It is an ASGI application, too, which tells nothing else."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def line(self, more: Iterable[tuple[bytes, bytes]]) -> bytes:
        """As it goes over the wire, with those headers that the server says in every answer."""
        headers = (*(each for each in more if each != CLOSE), *self.headers)
        head = b"".join(b"%s: %s\r\n" % each for each in headers)
        return b"%s%s\r\n%s" % (STATUS_LINE[self.status], head, self.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: dict[str, Any] = {"type": "http.response.start", "status": self.status, "headers": list(self.headers)}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


def own_form(status: int, kind: str, sentence: str) -> tuple[bytes, bytes]:
    """The gateway's."""
    return JSON[1], envelope(Problem(status, kind, sentence))


def by_kind(form: Form) -> Mapping[str, Said]:
    """Every answer there is, by the kind that is counted."""
    return {counted: _said(form, *answer) for counted, answer in _ANSWERS.items()}


_ANSWERS: Final[Mapping[str, tuple[int, str, str]]] = {
    NOT_HTTP: (400, "not_http", "This is no HTTP that can be read."),
    TOO_SLOW: (408, "too_slow", "The head of the request took too long."),
    TOO_LARGE: (431, "too_large", "The head of the request is too long."),
    TOO_MANY: (503, "busy", "Too many ask at once; come again in a few seconds."),
}


def _said(form: Form, status: int, kind: str, sentence: str) -> Said:
    media, body = form(status, kind, sentence)
    headers = [(b"content-type", media), (b"content-length", b"%d" % len(body)), CLOSE]
    if status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_SECONDS))
    return Said(status, tuple(headers), body)
