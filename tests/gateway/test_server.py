"""The server on a real socket: it says its port, takes bodies as devices send them, and stops when told."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.errors import Unavailable
from orchestrator.gateway import guard
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.own import OwnDoor
from orchestrator.gateway.server import App, Server
from tests.services.fleet_world import World


@contextmanager
def serving(gateway: App, **more: Any) -> Iterator[tuple[Server, int]]:
    listening = threading.Event()
    server = Server(gateway, signals=False, started=lambda port: listening.set(), **more)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert listening.wait(10)
        yield server, server.port
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def exchange(port: int, *pieces: bytes, pause: float = 0) -> bytes:
    with connected(port) as line:
        for piece in pieces:
            line.sendall(piece)
            time.sleep(pause)
        line.settimeout(5)
        found = b""
        while b"}" not in found and (received := line.recv(65536)):
            found += received
        return found


def test_devices_are_answered_over_http(world: World) -> None:
    (device,) = world.fleet(1)
    world.apply()
    with serving(Gateway([OwnDoor(world.devices)])) as (_, port):
        url = f"http://127.0.0.1:{port}"
        headers = {"authorization": f"Bearer {world.tokens[device]}"}
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        said = {"commit": world.said(41).commit, "version": 41}
        answer = httpx.post(f"{url}/v1/devices/{device}/check-in", json=said, headers=headers)
        assert answer.json()["offer"]["rollout"] == "lmp-42"
        event = {"id": "e", "rollout": "lmp-42", "target": 42, "event": "downloading"}
        told = httpx.post(f"{url}/v1/devices/{device}/reports", json={"events": [event]}, headers=headers)
        assert told.json()["accepted"] == 1


def test_a_chunked_body_is_taken_and_a_slow_one_ended(world: World) -> None:
    (device,) = world.enroll(1)
    start = (
        f"POST /v1/devices/{device}/check-in HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.tokens[device]}\r\n"
    )
    chunked = start.encode() + b"transfer-encoding: chunked\r\n\r\n"
    with serving(Gateway([OwnDoor(world.devices)], read_seconds=0.2)) as (_, port):
        whole = exchange(port, chunked, b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n")
        assert whole.startswith(b"HTTP/1.1 200")
        slow = exchange(port, start.encode() + b"content-length: 10\r\n\r\n{")
        assert slow.startswith(b"HTTP/1.1 408")
        assert json.loads(slow.partition(b"\r\n\r\n")[2])["error"]["kind"] == "too_slow"
        large = exchange(port, start.encode() + b"content-length: 10000000\r\n\r\n")
        assert large.startswith(b"HTTP/1.1 413")
        assert b"\r\nconnection: close\r\n" in large.lower()


@pytest.mark.parametrize("path", ["/healthz", "/v1/devices/{device}/check-in"], ids=["answered", "under way"])
@pytest.mark.parametrize("trailer", [b"a: b\r\n", b"a"], ids=["many", "one without an end"])
def test_what_comes_behind_a_body_fills_no_memory(world: World, path: str, trailer: bytes) -> None:
    """A chunked body may have headers behind it, which no parser bounds."""
    (device,) = world.enroll(1)
    start = f"POST {path.format(device=device)} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.tokens[device]}\r\n"
    piece = trailer * (32_768 // len(trailer))
    with serving(Gateway([OwnDoor(world.devices)], read_seconds=8)) as (_, port), connected(port) as line:
        line.sendall(start.encode() + b"transfer-encoding: chunked\r\n\r\n0\r\n" + (b"" if trailer != b"a" else b"x: "))
        sent, began = 0, time.monotonic()
        with contextlib.suppress(ConnectionError):
            while sent < 64 * 1024 * 1024 and time.monotonic() - began < 7:
                line.sendall(piece)
                sent += len(piece)
        assert sent < 16 * 1024 * 1024, "the rest lies between two sockets"


def test_a_body_in_many_small_pieces_is_taken(world: World) -> None:
    (device,) = world.enroll(1)
    start = f"POST /v1/devices/{device}/reports HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.tokens[device]}\r\n"
    body = b'{"events": []' + b" " * 30_000 + b"}"
    pieces = b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n"
    with serving(Gateway([OwnDoor(world.devices)])) as (_, port):
        head = start.encode() + b"transfer-encoding: chunked\r\n\r\n"
        assert exchange(port, head, *(pieces[at : at + 9_999] for at in range(0, len(pieces), 9_999))).startswith(
            b"HTTP/1.1 200"
        )


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"\r\n", b"\r\n", b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\n", b"x-a: 1\r\n", b"x-b: 2\r\n", b"x-c: 3\r\n", b"x-d: 4\r\n"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n", b"GET /hea"),
    ],
    ids=["nothing", "empty lines", "slow headers", "a slow second request"],
)
def test_who_does_not_say_what_it_wants_is_hung_up_on(
    world: World, monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.3)
    with serving(Gateway([OwnDoor(world.devices)])) as (_, port), connected(port) as line:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                line.sendall(piece)
                time.sleep(0.1)
            while line.recv(65536):
                pass
        assert 0.25 < time.monotonic() - began < 5


def test_a_head_without_end_is_cut_off(world: World) -> None:
    with serving(Gateway([OwnDoor(world.devices)])) as (_, port), connected(port) as line:
        sent = 0
        with contextlib.suppress(ConnectionError):
            line.sendall(b"POST /v1/devices/")
            while sent < 50_000_000:
                sent += line.send(b"x" * 10_000)
        assert sent < 50_000_000


def test_a_slow_answer_is_no_slow_head(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.1)
    (device,) = world.enroll(1)
    start = f"POST /v1/devices/{device}/check-in HTTP/1.1\r\nauthorization: Bearer {world.tokens[device]}\r\n"
    with serving(Gateway([OwnDoor(world.devices)])) as (_, port):
        whole = exchange(port, start.encode() + b"content-length: 2\r\n\r\n", b"{", b"}", pause=0.2)
        assert whole.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("times", [0.5, 4])
def test_who_sends_a_long_body_in_vain_reads_why(world: World, times: float) -> None:
    """Answered before the body is there: a short rest of it is read past, and behind a long one the connection is
    closed, which a client that is still sending takes as a broken pipe. The answer came before that."""
    (device,) = world.enroll(1)
    length = int(times * guard.UNREAD_BYTES)
    head = f"POST /v1/devices/{device}/check-in HTTP/1.1\r\nauthorization: Bearer wrong\r\n"
    with serving(Gateway([OwnDoor(world.devices)])) as (_, port):
        with connected(port) as line:
            line.sendall(f"{head}content-length: {length}\r\n\r\n".encode())
            broken = False
            try:
                line.sendall(b"x" * length)
            except ConnectionError:
                broken = True
            assert line.recv(65536).startswith(b"HTTP/1.1 401")
            assert broken == (times > 1)
        url = f"http://127.0.0.1:{port}/v1/devices/{device}/check-in"
        assert httpx.post(url, content=b"x" * length, headers={"authorization": "Bearer wrong"}).status_code == 401


def told(port: int, ask: bytes) -> bytes:
    """Nothing, when the connection is closed at once: before the words are sent, or with them unread."""
    try:
        return exchange(port, ask)
    except ConnectionError:
        return b""


def test_too_many_connections_are_told_or_closed_and_the_rest_is_served(world: World) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with serving(Gateway([OwnDoor(world.devices)]), at_once=5) as (_, port), contextlib.ExitStack() as idle:
        assert exchange(port, ask).startswith(b"HTTP/1.1 200")
        lines = [idle.enter_context(connected(port)) for _ in range(5)]
        assert exchange(port, ask).startswith(b"HTTP/1.1 503")
        lines += [idle.enter_context(connected(port)) for _ in range(200)]
        with contextlib.suppress(ConnectionError):
            assert lines[-1].recv(1) == b"", "the server has come to the last of them"
        assert told(port, ask) == b"", "closed without a word"
        for line in lines:
            line.close()
        ends = time.monotonic() + 10
        while not told(port, ask).startswith(b"HTTP/1.1 200"):
            assert time.monotonic() < ends, "it does not see that they are gone"


@pytest.mark.parametrize(("soft", "hard", "possible"), [(64, 4096, 1870), (1024, 1_000_000, 10_000), (64, 100, 1)])
def test_connections_go_by_the_files_that_may_be_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, possible: int
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    assert guard.connections_possible() == possible
    assert raised == [(min(hard, 20_356), hard)]


def test_it_listens_on_a_socket_it_is_given_and_only_one_can(world: World) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    with serving(Gateway([OwnDoor(world.devices)]), sockets=[given]) as (server, found):
        assert found == port == server.port
        with pytest.raises(Unavailable, match="in use"):
            Server(Gateway([OwnDoor(world.devices)]), port=port, signals=False).run()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_stopping_server_hears_out_who_had_just_begun_to_speak(world: World) -> None:
    """A connection that was kept open asks after the stop, another is in the middle of its body: both are answered and
    closed. One that stays silent is closed; a new one finds nobody."""
    (device,) = world.enroll(1)
    start = f"POST /v1/devices/{device}/check-in HTTP/1.1\r\nauthorization: Bearer {world.tokens[device]}\r\n"
    ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with serving(Gateway([OwnDoor(world.devices)])) as (server, port), contextlib.ExitStack() as open_ones:
        kept, silent, slow = (open_ones.enter_context(connected(port)) for _ in range(3))
        for line in (kept, silent):
            line.sendall(ask)
            assert line.recv(65536).startswith(b"HTTP/1.1 200")
        slow.sendall(start.encode() + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert slow.recv(65536).startswith(b"HTTP/1.1 100"), "it waits for the body"
        slow.sendall(b"{")
        server.stop()
        while True:
            try:
                connected(port).close()
            except OSError:
                break
        kept.sendall(ask)
        slow.sendall(b"}")
        for line in (kept, slow):
            answer = line.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200") and b"\r\nconnection: close\r\n" in answer
            assert line.recv(65536) == b""
        assert silent.recv(65536) == b""


def test_what_the_queue_cannot_take_is_told_to_come_again_and_the_rest_is_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is held by somebody else while three times as many report as the queue takes: some are told 503
    at once, and wait for nothing; when it is free again the others are acknowledged, and exactly they are there."""
    with contextlib.closing(World(f"sqlite:///{tmp_path / 'wave.db'}")) as world:
        devices = world.fleet(30)
        world.apply(policy={"slices": {"first": 30}})
        for device in devices:
            world.check_in(device)
        monkeypatch.setattr(world.devices.writer, "most_waiting", 10)
        holding = sqlite3.connect(tmp_path / "wave.db", isolation_level=None)
        with contextlib.closing(holding), serving(Gateway([OwnDoor(world.devices)])) as (_, port):
            holding.execute("BEGIN IMMEDIATE")

            def report(device: str) -> httpx.Response:
                event = {"id": f"of-{device}", "rollout": "lmp-42", "target": 42, "event": "downloading"}
                url = f"http://127.0.0.1:{port}/v1/devices/{device}/reports"
                headers = {"authorization": f"Bearer {world.tokens[device]}"}
                return httpx.post(url, json={"events": [event]}, headers=headers, timeout=30)

            with ThreadPoolExecutor(30) as people:
                asked = {device: people.submit(report, device) for device in devices}
                done = as_completed(asked.values())
                told_busy = next(done).result()
                assert told_busy.status_code == 503 and told_busy.headers["retry-after"] == "5"
                for _ in range(9):
                    next(done)
                assert {each.result().status_code for each in asked.values() if each.done()} == {503}
                assert world.devices.writer.waiting <= 10
                holding.execute("ROLLBACK")
            taken = {device for device, each in asked.items() if each.result().status_code == 200}
        with world.store.reading() as r:
            assert {event.device for event in r.events(rollout="lmp-42", limit=100)} == taken
        assert 10 <= len(taken) <= 20


def test_a_server_that_gets_round_to_its_work_late_says_so() -> None:
    told: list[timedelta] = []
    said = threading.Event()

    def late(by: timedelta) -> None:
        told.append(by)
        if by > timedelta(seconds=0.2):
            said.set()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(0.4)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"}"})

    with serving(slow, late=late) as (_, port):
        exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert said.wait(5)
    assert max(told) < timedelta(seconds=5)
