"""Whoever is refused before there is a request is told so as the application beside it tells its errors: in its form,
with a length, once, in its turn, and the connection is closed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from typing import Any, NamedTuple

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.gateway import guard
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.at_once import in_a_task
from orchestrator.gateway.http import JSON
from orchestrator.gateway.said import Form, own_form
from orchestrator.services.metering import Refusals
from orchestrator.web.problems import PROBLEM, form
from tests.gateway.test_server import connected, serving

ASK = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
GARBAGE = b"what is this?\r\n\r\n"
FORMS = pytest.mark.parametrize("form_of", [own_form, form], ids=["devices", "operators"])


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def answers(said: bytes, *, head: bool = False) -> list[Answer]:
    """All that came over one connection: each of exactly the length that it says."""
    found = []
    while said:
        top, _, rest = said.partition(b"\r\n\r\n")
        first, *lines = top.decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = dict(pairs)
        assert len(headers) == len(pairs), f"a header is there twice: {lines}"
        length = 0 if head else int(headers["content-length"])
        assert len(rest) >= length
        found.append(Answer(int(first.split()[1]), headers, rest[:length]))
        said = rest[length:]
    return found


def whole(port: int, *pieces: bytes) -> bytes:
    """Everything that is said until the other side closes."""
    with connected(port) as line:
        for piece in pieces:
            line.sendall(piece)
        return heard(line)


def heard(line: Any) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while received := line.recv(65536):
            found += received
    return found


def check(answer: Answer, form_of: Form, status: int, kind: str) -> None:
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    told = json.loads(answer.body)
    if form_of is own_form:
        assert answer.headers["content-type"] == JSON[1].decode()
        assert told["error"].pop("message").endswith(".")
        assert told == {"error": {"kind": kind}}
    else:
        assert answer.headers["content-type"] == PROBLEM
        assert told.pop("detail").endswith(".")
        assert told == {"type": f"urn:wave:problem:{kind}", "title": kind.replace("_", " "), "status": status}


class Watched(Refusals):
    """Says when somebody was refused."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()

    def count(self, door: str, kind: str) -> None:
        super().count(door, kind)
        self.seen.set()


@pytest.fixture
def refused() -> Watched:
    return Watched()


class InTwoPieces:
    """An application whose answer goes on when it may."""

    at_once = True

    def __init__(self, may: threading.Event) -> None:
        self._may = may

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        await in_a_task()
        await asyncio.to_thread(self._may.wait, 10)
        await send({"type": "http.response.body", "body": b"world"})


def half_an_answer(line: socket.socket) -> bytes:
    """What such an application has said of its answer before it waits."""
    line.sendall(ASK)
    begun = line.recv(65536)
    while not begun.endswith(b"hello"):
        begun += line.recv(65536)
    return begun


@pytest.fixture
def gateway() -> Gateway:
    return Gateway([])


@FORMS
def test_a_line_that_is_no_http(gateway: Gateway, refused: Refusals, form_of: Form) -> None:
    with serving(gateway, refused=refused, form=form_of) as (_, port):
        for said in (GARBAGE, b"GET http://[ HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            (answer,) = answers(whole(port, said))
            check(answer, form_of, 400, "not_http")
            assert "date" in answer.headers
    assert refused.counts == {("connection", "not_http"): 3}


@FORMS
def test_a_head_that_does_not_end(
    gateway: Gateway, refused: Refusals, form_of: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.1)
    with serving(gateway, refused=refused, form=form_of) as (_, port):
        (answer,) = answers(whole(port, b"GET /healthz HTTP/1.1\r\n"))
        check(answer, form_of, 408, "too_slow")
        assert whole(port) == b"", "who asked for nothing is told nothing"
    assert refused.counts == {("connection", "too_slow"): 2}


@FORMS
def test_a_head_that_is_too_long(gateway: Gateway, refused: Refusals, form_of: Form) -> None:
    with serving(gateway, refused=refused, form=form_of) as (_, port), connected(port) as line:
        line.sendall(b"GET / HTTP/1.1\r\nx: " + b"x" * (guard.HEAD_BYTES - 100))
        line.sendall(b"x" * 200)
        (answer,) = answers(heard(line))
        check(answer, form_of, 431, "too_large")
    assert refused.counts == {("connection", "too_large"): 1}


@FORMS
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_one_too_many(gateway: Gateway, refused: Refusals, form_of: Form, method: str) -> None:
    ask = ASK.replace(b"GET", method.encode())
    with serving(gateway, at_once=1, refused=refused, form=form_of) as (_, port), connected(port):
        (answer,) = answers(whole(port, ask), head=method == "HEAD")
    if method == "GET":
        check(answer, form_of, 503, "busy")
    assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "5", "close")
    assert int(answer.headers["content-length"]) > 50
    assert refused.counts == {("connection", "too_many"): 1}


def test_a_good_request_is_answered_before_what_comes_behind_it_is_refused(gateway: Gateway, refused: Refusals) -> None:
    """Both come in one piece, or in two; whoever counts answers would take the refusal for the first of them."""
    for pieces in ([ASK + GARBAGE], [ASK, GARBAGE], [ASK + ASK + GARBAGE]):
        with serving(gateway, refused=refused) as (_, port):
            *good, bad = answers(whole(port, *pieces))
        assert [each.status for each in good] == [404] * b"".join(pieces).count(b"healthz")
        assert all("connection" not in each.headers for each in good)
        check(bad, own_form, 400, "not_http")
    assert refused.counts[("connection", "not_http")] == 3


def test_an_answer_that_has_begun_is_ended_first(refused: Watched) -> None:
    may = threading.Event()
    with serving(InTwoPieces(may), refused=refused) as (_, port), connected(port) as line:
        begun = half_an_answer(line)
        line.sendall(GARBAGE)
        assert refused.seen.wait(10)
        line.sendall(GARBAGE)
        may.set()
        good, bad = answers(begun + heard(line))
    assert (good.status, good.body) == (200, b"helloworld")
    check(bad, own_form, 400, "not_http")
    assert refused.counts == {("connection", "not_http"): 1}


def test_who_was_refused_behind_an_answer_that_goes_out_slowly_is_not_read_any_more(
    refused: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last word waits for that answer; a head that goes on without end meanwhile is kept nowhere."""
    fed = 0

    def counting(self: Any, data: bytes, feed: Any = HttpToolsProtocol.data_received) -> None:
        nonlocal fed
        fed += len(data)
        feed(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", counting)
    may = threading.Event()
    with serving(InTwoPieces(may), refused=refused) as (_, port), connected(port) as line:
        begun = half_an_answer(line)
        line.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 2 * guard.HEAD_BYTES)
        assert refused.seen.wait(10)
        line.sendall(b"y" * 64 * guard.HEAD_BYTES)
        may.set()
        good, bad = answers(begun + heard(line))
    assert (good.status, good.body) == (200, b"helloworld")
    check(bad, own_form, 431, "too_large")
    assert refused.counts == {("connection", "too_large"): 1}
    assert fed < 8 * guard.HEAD_BYTES


def test_a_body_that_breaks_off_into_nonsense_is_the_one_thing_that_is_told(refused: Refusals) -> None:
    """Its length in pieces is no number: the application waits for the rest of it in vain, and says nothing."""

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    for pieces in ([head, b"zzz\r\n"], [head + b"zzz\r\n"]):
        with serving(reads, refused=refused) as (_, port):
            (answer,) = answers(whole(port, *pieces))
        check(answer, own_form, 400, "not_http")
    assert refused.counts == {("connection", "not_http"): 2}
