"""The feed of journals over HTTP: it goes on exactly where it broke off, and ends for whoever may not read any more."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from orchestrator.adapters.sql.store import SqlReading
from orchestrator.core.roles import Role
from orchestrator.services.people import Person
from orchestrator.web import app as side
from orchestrator.web.api import journal_feed
from tests.cli.elsewhere import MIKA, Known, served
from tests.cli.house import House
from tests.contract.test_feed import appended
from tests.web.house_of_people import Open, opened


class Reader:
    """A reader of server-sent events, as browsers are."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def beat(self) -> bool:
        """A sign of life, and nothing else; False when the stream ends."""
        for line in self._lines:
            if line:
                assert line.startswith(":"), line
                return True
        return False

    def event(self) -> dict[str, str] | None:
        """The next event; None when the stream ends."""
        found: dict[str, str] = {}
        for line in self._lines:
            if not line and found:
                return found
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                found[name] = value
        return None

    def events(self, many: int) -> list[tuple[str, str, str]]:
        """Number, rollout and sentence of the next so many."""
        found = []
        for _ in range(many):
            event = self.event()
            assert event is not None
            said = json.loads(event["data"])
            found.append((event["id"], said["rollout"], said["entry"]["event"]))
        return found


@contextmanager
def reading(url: str, last: str | None = None, token: str = MIKA, **more: Any) -> Iterator[Reader]:
    headers = {"authorization": f"Bearer {token}"} | ({} if last is None else {"last-event-id": last})
    with httpx.stream("GET", f"{url}/api/v1/journal/feed", headers=headers, timeout=20, **more) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Reader(answer.iter_lines())


def test_a_reader_goes_on_where_it_broke_off_over_a_restart(house: House) -> None:
    with served(house) as url:
        with reading(url, "0") as reader:
            assert [each[1:] for each in reader.events(1)] == [("lmp-42", "applied")]
            house.ok("start", "lmp-42")
            first = reader.events(1)
            assert first[0][2] == "started"
        house.ok("pause", "lmp-42")
    house.ok("resume", "lmp-42")
    with served(house) as url:
        house.ok("pause", "lmp-42")
        with reading(url, first[0][0]) as reader:
            assert [each[2] for each in reader.events(3)] == ["paused", "resumed", "paused"]
            house.ok("resume", "lmp-42")
            assert [each[2] for each in reader.events(1)] == ["resumed"]


def test_every_stream_ends_with_the_server(house: House) -> None:
    with ExitStack() as ending:
        server = ExitStack()
        reader = ending.enter_context(reading(server.enter_context(served(house)), "0"))
        reader.events(1)
        server.close()
        assert reader.event() is None


def test_a_reader_with_a_number_of_another_store_is_told_to_begin_anew(house: House) -> None:
    with served(house) as url, reading(url, "900") as reader:
        event = reader.event()
        assert event is not None
        assert (event["event"], event["id"]) == ("lost", "1")
        house.ok("start", "lmp-42")
        assert reader.events(1)[0][2] == "started"


def test_nothing_is_lost_and_nothing_comes_twice_while_the_server_is_started_anew(house: House) -> None:
    """Somebody writes all the time; the reader is cut off in the middle, three times."""
    orders, many = threading.Event(), 60

    def write() -> None:
        with house.application() as app:
            for number in range(many):
                (app.rollouts.resume if number % 2 else app.rollouts.pause)("lmp-42", by="ann")
                orders.wait(0.01)

    house.ok("start", "lmp-42")
    writer = threading.Thread(target=write)
    got: list[tuple[str, int]] = []
    last = "0"
    writer.start()
    for until in (10, 25, 45, many + 2):
        with served(house) as url, reading(url, last) as reader:
            while len(got) < until:
                event = reader.event()
                assert event is not None
                last = event["id"]
                got.append((last, json.loads(event["data"])["entry"]["seq"]))
    writer.join(20)
    assert [seq for _, seq in got] == list(range(1, many + 3))
    assert [int(number) for number, _ in got] == sorted({int(number) for number, _ in got})


def test_while_nothing_happens_a_sign_of_life_comes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_feed, "BEAT_EVERY", timedelta(milliseconds=20))
    with served(house) as url, reading(url) as reader:
        assert all(reader.beat() for _ in range(5))


def test_nobody_has_more_streams_than_they_may(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "STREAMS", 3)
    known = Known()
    known.people["ben"] = Person("ben", frozenset({Role.VIEWER}))
    with served(house, known) as url, ExitStack() as open_streams:
        mine = [open_streams.enter_context(reading(url, "0")) for _ in range(2)]
        with reading(url, "0"):
            for _ in range(3):
                refused = httpx.get(f"{url}/api/v1/journal/feed", headers={"authorization": f"Bearer {MIKA}"})
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "15")
                assert refused.json()["type"] == "urn:wave:problem:too_many"
            with reading(url, "0", "ben") as other:
                other.events(1)
        # One has gone: there is room for another as soon as the server has seen that.
        ends_at = time.monotonic() + 20
        while _status(url) != 200:
            assert time.monotonic() < ends_at
        assert all(reader.events(1) for reader in mine)


def _status(url: str) -> int:
    headers = {"authorization": f"Bearer {MIKA}"}
    with httpx.stream("GET", f"{url}/api/v1/journal/feed", headers=headers) as answer:
        return int(answer.status_code)


def test_whoever_does_not_read_holds_no_memory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty megabytes wait for a reader that takes none of it: they stay where they are, and come when it reads."""
    made = 0
    write = journal_feed._event

    def counted(each: Any) -> bytes:
        nonlocal made
        made += 1
        return write(each)

    monkeypatch.setattr(journal_feed, "_event", counted)
    many = 2_500
    with house.application() as app, app.store.writing() as w:
        row = w.rollout("lmp-42")
        for _ in range(many):
            assert row is not None
            row = appended(w, row, "x" * 8_000)
    with served(house) as url, socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        line.settimeout(30)
        there = urlsplit(url)
        line.connect((there.hostname, there.port))
        head = f"GET /api/v1/journal/feed?after=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {MIKA}\r\n\r\n"
        line.sendall(head.encode())
        came = line.recv(100)
        before, still = -1, 0
        while still < 10:
            before, still = made, still + 1 if before == made else 0
            time.sleep(0.05)
        assert made < many * 2 // 3, "more was made than can be on its way"
        told = 0
        while told < many:
            piece = line.recv(1 << 20)
            assert piece
            came = came[-5:] + piece
            told += came.count(b'"seq":')
        assert made >= many


@pytest.mark.parametrize("ends", ["revoked", "over", "disabled"])
@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "busy"])
def test_who_may_not_read_any_more_is_told_nothing_more(
    house: House, ends: str, quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends, also while nothing happens."""
    monkeypatch.setattr(journal_feed, "BEAT_EVERY", timedelta(milliseconds=50) if quiet else timedelta(seconds=15))
    with opened(house) as site:
        name, token = site.populated.token("viewer", for_=timedelta(hours=1))
        with reading(site.url, "0", token) as reader:
            reader.events(1)
            match ends:
                case "revoked":
                    site.populated.people.revoke_token(name, by="root")
                case "over":
                    house.now += timedelta(hours=1)
                case _:
                    site.populated.people.disable("viewer", by="root")
            if not quiet:
                house.ok("start", "lmp-42")
            assert reader.event() is None


def test_a_stream_that_was_open_ends_with_the_session_and_keeps_none_alive(house: House) -> None:
    """Stolen or not: after sign-out it tells nothing, and while it stands open nobody has looked."""
    with (
        opened(house) as site,
        closing(site.browser("viewer")) as browser,
        browser.stream("GET", "/live") as watching,
        browser.stream("GET", "/api/v1/journal/feed?after=0") as feed,
    ):
        reader, live = Reader(feed.iter_lines()), Reader(watching.iter_lines())
        reader.events(1)
        assert live.event() == {"retry": "2000"}
        assert live.event() == {"event": "change", "data": "{}"}
        seen_at = _seen(site)
        house.now += timedelta(hours=11)
        house.ok("start", "lmp-42")
        assert reader.events(1)[0][2] == "started"
        assert _seen(site) == seen_at
        browser.post("/sign-out")
        house.ok("pause", "lmp-42")
        assert reader.event() is None
        while (told := live.event()) is not None:
            assert told == {"event": "change", "data": "{}"}, "what had happened before"


def _seen(site: Open) -> list[tuple[int]]:
    with site.populated.app.store.reading() as r:
        assert isinstance(r, SqlReading)
        return list(r.link.rows("SELECT seen_at FROM person_session"))


def test_what_is_no_number_is_refused(house: House) -> None:
    with served(house) as url:
        for last in ("x", "-1", "1.5", "9" * 30):
            headers = {"authorization": f"Bearer {MIKA}", "last-event-id": last}
            answer = httpx.get(f"{url}/api/v1/journal/feed", headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert httpx.get(f"{url}/api/v1/journal/feed").status_code == 401
