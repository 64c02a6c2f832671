"""The feed of journals over HTTP: it goes on exactly where it broke off, and ends for whoever may not read any more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import pytest

from orchestrator.adapters.sql.store import SqlReading
from tests.cli.elsewhere import MIKA, served
from tests.cli.house import House
from tests.web.house_of_people import Open, opened


class Reader:
    """A reader of server-sent events, as browsers are."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

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


@pytest.mark.parametrize("ends", ["revoked", "over", "disabled"])
def test_who_may_not_read_any_more_is_told_nothing_more(house: House, ends: str) -> None:
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
