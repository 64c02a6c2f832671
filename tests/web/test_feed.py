"""Following the journals: nothing is left out, nothing comes twice, and nobody costs anything while nothing happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.services.store import Reading
from orchestrator.web import feed
from orchestrator.web.feed import BEAT, Feed, News, frame
from tests.contract.building import rollout
from tests.contract.test_feed import appended

QUICK = timedelta(milliseconds=10)
LONG = timedelta(seconds=20)


class Counting:
    """The store, and how often it was read."""

    def __init__(self, store: SqlStore) -> None:
        self.store, self.times = store, 0

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        self.times += 1
        with self.store.reading() as r:
            yield r

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class World:
    """A rollout whose journal goes on."""

    def __init__(self) -> None:
        self.store = Counting(open_store("sqlite://"))
        self.over = threading.Event()
        self.feed = Feed(lambda: self.store, self.over, look_every=QUICK)
        with self.store.store.writing() as w:
            self.row = w.add_rollout(rollout())

    def write(self, many: int = 1) -> None:
        with self.store.store.writing() as w:
            for _ in range(many):
                self.row = appended(w, self.row, f"entry {self.row.journal_seq + 1}")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.over.set()
    made.store.store.close()


async def seqs(news: AsyncIterator[News], many: int) -> list[int]:
    """The ``seq`` of the next entries."""
    found: list[int] = []
    while len(found) < many:
        found += [each.entry.seq for each in (await asyncio.wait_for(anext(news), 10)).entries]
    return found


def test_a_follower_gets_what_comes_after_it_came(world: World) -> None:
    async def main() -> None:
        world.write(3)
        news = world.feed.follow(beat_every=LONG)
        assert (await anext(news)).stirred
        world.write(2)
        assert await seqs(news, 2) == [4, 5]
        world.write()
        assert await seqs(news, 1) == [6]

    asyncio.run(main())


def test_a_follower_that_comes_back_goes_on_where_it_stood(world: World) -> None:
    async def main() -> None:
        world.write(7)
        assert await seqs(world.feed.follow(4, beat_every=LONG), 3) == [5, 6, 7]
        assert await seqs(world.feed.follow(0, beat_every=LONG), 7) == [1, 2, 3, 4, 5, 6, 7]

    asyncio.run(main())


def test_more_than_memory_keeps_comes_from_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_KEPT", 5)
    monkeypatch.setattr(feed, "AT_ONCE", 3)
    world.feed = Feed(lambda: world.store, world.over, look_every=QUICK)

    async def main() -> None:
        slow, quick = (world.feed.follow(0, beat_every=LONG) for _ in range(2))
        assert (await anext(slow)).stirred
        got: list[int] = []
        for _ in range(4):
            world.write(13)
            got += await seqs(quick, 13)
        assert got == list(range(1, 53))
        assert await seqs(slow, 52) == got

    asyncio.run(main())


def test_a_number_that_this_store_never_came_to_begins_anew(world: World) -> None:
    async def main() -> None:
        world.write(2)
        news = world.feed.follow(900, beat_every=LONG)
        assert await anext(news) == News((), 2, lost=True)
        world.write()
        assert await seqs(news, 1) == [3]

    asyncio.run(main())


def test_while_nothing_happens_a_beat_comes(world: World) -> None:
    async def main() -> None:
        news = world.feed.follow(beat_every=QUICK)
        assert (await anext(news)).stirred
        while (found := await asyncio.wait_for(anext(news), 10)).stirred:
            pass  # the first look says so once more
        assert found == News((), 0)

    asyncio.run(main())


def test_everything_ends_when_the_server_does(world: World) -> None:
    async def main() -> None:
        news = world.feed.follow(beat_every=LONG)
        assert (await anext(news)).stirred
        world.over.set()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(news), 10)
        assert world.feed.followers == 0

    asyncio.run(main())


def test_two_hundred_followers_cost_as_many_looks_as_one(world: World) -> None:
    async def main() -> None:
        news = [world.feed.follow(beat_every=LONG) for _ in range(200)]
        for each in news:
            assert (await anext(each)).stirred
        came = asyncio.gather(*(seqs(each, 1) for each in news))
        before = world.store.times
        await asyncio.sleep(30 * QUICK.total_seconds())
        assert world.store.times - before <= 40
        world.write()
        assert await asyncio.wait_for(came, 10) == [[1]] * 200
        for each in news:
            await each.aclose()
        assert world.feed.followers == 0

    asyncio.run(main())


def test_nobody_looks_while_nobody_follows(world: World) -> None:
    async def main() -> None:
        news = world.feed.follow(beat_every=LONG)
        assert (await anext(news)).stirred
        await news.aclose()

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name == "feed":
            thread.join(10)
    assert not [each for each in threading.enumerate() if each.name == "feed"]


def test_a_frame_is_one_event_whatever_is_in_it() -> None:
    assert frame("journal", {"sentence": "a\nb\r\nü"}, number=7) == (
        'id: 7\nevent: journal\ndata: {"sentence":"a\\nb\\r\\nü"}\n\n'.encode()
    )
    assert BEAT.startswith(b":")
