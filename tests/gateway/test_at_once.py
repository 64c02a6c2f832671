"""Applications that are run at once, on a real socket: answers in their order, whole, and with a task where one is
asked for; the same bytes as Uvicorn would send."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.gateway import server as server_module
from orchestrator.gateway.at_once import WHOLE, Headers, in_a_task
from orchestrator.gateway.http import CLOSE, JSON
from orchestrator.gateway.server import Server


class Echo:
    """Answers with the path; what the path says it does beforehand."""

    def __init__(self, *, at_once: bool = True, whole: bool = True) -> None:
        self.at_once = at_once
        self._whole = whole
        self.tasks: dict[str, bool] = {}
        self.go_on = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, status = scope["path"], 200
        headers: Headers = (JSON,)
        body: bytes = scope["path"].encode()
        if path == "/waits":
            await asyncio.get_running_loop().run_in_executor(None, self.go_on.wait, 10)
        elif path == "/clock":
            await in_a_task()
            async with asyncio.timeout(5):
                await asyncio.sleep(0.01)
        elif path == "/late":
            async with asyncio.timeout(0):  # there is no task: a fault of the application
                await asyncio.sleep(0)
        elif path == "/fails":
            raise ZeroDivisionError
        elif path == "/line":
            headers = ((b"x", b"1\r\nset-cookie: 2"),)
        elif path == "/close":
            headers = (JSON, CLOSE)
        elif path == "/nothing":
            status, body = 204, b""
        elif path == "/body":
            body = b""
            more = True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
        self.tasks[path] = asyncio.current_task() is not None
        whole = scope.get("extensions", {}).get(WHOLE) if self._whole else None
        if whole is not None and whole(status, headers, body):
            assert not whole(status, headers, body), "once"
            return
        length = () if status == 204 else ((b"content-length", b"%d" % len(body)),)
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def served(app: Echo) -> Iterator[int]:
    listening = threading.Event()
    server = Server(app, signals=False, started=lambda port: listening.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert listening.wait(10)
        yield server.port
    finally:
        app.go_on.set()
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def said(port: int, *pieces: bytes, answers: int = 1) -> list[tuple[bytes, bytes]]:
    """Heads, without the date and in the order of their lines, and bodies."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        for piece in pieces:
            line.sendall(piece)
        with line.makefile("rb") as stream:
            return [_read(stream, pieces[0].startswith(b"HEAD")) for _ in range(answers)]


def _read(stream: Any, no_body: bool) -> tuple[bytes, bytes]:
    lines = list(iter(stream.readline, b"\r\n"))
    assert lines[-1:] != [b""], lines
    named = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    head = b"".join(sorted(line for line in lines if not line.startswith(b"date")))
    return head, b"" if no_body else stream.read(int(named.get(b"content-length", b"0")))


REQUESTS = (
    b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /close HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"GET /fails HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
    b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.split(b"\r\n")[0].decode().replace(" ", "_"))
def test_what_is_answered_is_what_uvicorn_would_send(request_: bytes) -> None:
    with served(Echo()) as ours, served(Echo(at_once=False)) as theirs, served(Echo(whole=False)) as messages:
        assert said(ours, request_) == said(theirs, request_) == said(messages, request_)


def test_many_that_come_together_are_answered_in_their_order() -> None:
    """As many as would be too deep for a stack."""
    many = 3_000
    asked = b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(many))
    with served(Echo()) as port:
        told: list[tuple[bytes, bytes]] = []
        thread = threading.Thread(target=lambda: told.extend(said(port, asked, answers=many)))
        thread.start()
        thread.join(30)
    assert [body for _, body in told] == [b"/%d" % number for number in range(many)]


def test_one_that_waits_holds_up_what_came_after_it_on_its_connection_and_nobody_else() -> None:
    app = Echo()
    with served(app) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"GET /waits HTTP/1.1\r\nhost: x\r\n\r\nGET /after HTTP/1.1\r\nhost: x\r\n\r\n")
        assert said(port, REQUESTS[0])[0][1] == b"/a"
        line.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line.recv(1)
        app.go_on.set()
        line.settimeout(10)
        with line.makefile("rb") as stream:
            assert [_read(stream, False)[1] for _ in range(2)] == [b"/waits", b"/after"]
    assert not app.tasks["/waits"], "what it waited for was there, and it went on without one"


def test_who_asks_for_a_task_gets_one_and_who_needs_one_without_asking_is_answered_with_an_error() -> None:
    app = Echo()
    with served(app) as port:
        assert said(port, b"GET /clock HTTP/1.1\r\nhost: x\r\n\r\n")[0][1] == b"/clock"
        assert said(port, b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n")[0][1] == b"Internal Server Error"
        assert said(port, REQUESTS[0])[0][1] == b"/a", "and the next is served"
    assert app.tasks["/clock"] and not app.tasks["/a"]


def test_no_header_ends_its_line() -> None:
    with served(Echo()) as port:
        head, body = said(port, b"GET /line HTTP/1.1\r\nhost: x\r\n\r\n")[0]
    assert b"set-cookie" not in head and body == b"Internal Server Error"


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "KEEP_ALIVE", 1)
    with served(Echo()) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        for _ in range(8):
            line.sendall(REQUESTS[0])
            with line.makefile("rb") as stream:
                assert _read(stream, False)[1] == b"/a"
            line.settimeout(0.2)
            with pytest.raises(TimeoutError):
                line.recv(1)
            line.settimeout(10)
        assert line.recv(1) == b"", "closed by the server"


def test_a_request_leaves_nothing_for_the_collector_of_cycles() -> None:
    with served(Echo()) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:

        def ask(times: int) -> None:
            with line.makefile("rb") as stream:
                for _ in range(times):
                    line.sendall(REQUESTS[0])
                    _read(stream, False)

        ask(10)
        gc.collect()
        gc.disable()
        try:
            ask(500)
            assert gc.collect() < 500
        finally:
            gc.enable()
