"""Editions on every store: numbers only rise for a device, and two processes never give one number to two contents."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.core.editions import Content, Edition, Lifetimes, Shown
from orchestrator.errors import TooMany
from orchestrator.services.edition_store import Told
from orchestrator.services.editions import MOST_RISES, Editions, Wish
from orchestrator.services.tuf import Tuf
from orchestrator.services.writer import Writer
from tests.contract.building import DAY, NOW, Opener, device, enroll

ONE = Edition(1, "d" * 64, "{}", NOW + 365 * DAY, NOW + 7 * DAY, 1)


def test_an_edition_is_kept_and_signed_again(store: SqlStore) -> None:
    with store.writing() as w:
        assert (w.last_edition(), w.edition(1), w.newest_edition(ONE.digest)) == (0, None, None)
        w.lock_editions()
        w.save_edition(ONE)
        w.save_edition(Edition(2, "e" * 64, "{}", NOW + DAY, NOW + DAY, 1))
        w.save_edition(Edition(3, ONE.digest, "{}", NOW + DAY, NOW + DAY, 1))
    with store.writing() as w:
        again = ONE.signed_again(lifetimes=Lifetimes(), root_version=2, now=NOW + DAY)
        w.save_edition(again)
    with store.reading() as r:
        assert r.last_edition() == 3
        assert r.edition(1) == again
        newest = r.newest_edition(ONE.digest)
        assert newest is not None and newest.number == 3


def test_what_a_device_was_shown_never_goes_down(store: SqlStore) -> None:
    with store.writing() as w:
        one, other = enroll(w, device("d0"), device("d1"))
        for number in (1, 2, 3):
            w.save_edition(Edition(number, "d" * 64, "{}", NOW, NOW, 1))
        assert w.shown_editions([]) == {}
        w.show_editions({one: 2, other: 1})
        w.show_editions({one: 1, other: 3})
    with store.reading() as r:
        assert r.shown_editions([one, other]) == {one: 2, other: 3}


def test_the_last_that_a_device_told_is_kept_by_topic(store: SqlStore) -> None:
    network = Told("network", '{"hostname":"a"}', 16, "x" * 64, NOW)
    with store.writing() as w:
        (key,) = enroll(w, device("d0"))
        assert w.told(key) == []
        w.tell(key, network)
        w.tell(key, Told("config", "[pacman]", 8, "y" * 64, NOW))
        w.tell(key, network._replace(text="{}", received_at=NOW + timedelta(seconds=1)))
        w.keep_delta_stats("s" * 64, "{}")
        w.keep_delta_stats("s" * 64, "{}")
    with store.reading() as r:
        assert [(told.topic, told.text) for told in r.told(key)] == [("config", "[pacman]"), ("network", "{}")]
        assert (r.delta_stats("s" * 64), r.delta_stats("t" * 64)) == ("{}", None)


def test_a_device_that_says_now_this_now_that_does_not_use_up_the_numbers_of_all(
    store: SqlStore, tmp_path: Path
) -> None:
    with store.writing() as w:
        restless, calm = enroll(w, device("d0"), device("d1"))
    Tuf(TufFolder(tmp_path / "tuf"), lambda: NOW).init()
    now = [NOW]
    writer = Writer(store, clock=lambda: now[0])
    editions = Editions(store, writer, Tuf(TufFolder(tmp_path / "tuf"), lambda: now[0]), lambda: now[0], most_kept=0)

    def ask(key: int, version: int) -> Edition:
        content = Content("rpi4", (Shown(f"rpi4-{version}", version, f"{version:064d}", ("main",)),))
        found = editions.show(Wish(key, content))
        return found if isinstance(found, Edition) else found.result(30)

    for number in range(MOST_RISES + 2):
        ask(restless, 41 + number % 2)
    with pytest.raises(TooMany):
        ask(restless, 41)
    with store.reading() as r:
        assert r.last_edition() == MOST_RISES + 2
    assert ask(calm, 41).number <= MOST_RISES + 2
    now[0] += DAY
    assert ask(restless, 43).number == MOST_RISES + 3
    assert ask(restless, 41).number == MOST_RISES + 4
    writer.close()


def test_two_processes_give_every_number_once_and_never_a_lower_one(opener: Opener, tmp_path: Path) -> None:
    """Twenty devices ask both processes, for five contents there and back, all at once."""
    first = opener()
    with first.writing() as w:
        keys = enroll(w, *(device(f"d{number}") for number in range(20)))
    Tuf(TufFolder(tmp_path / "tuf"), lambda: NOW).init()
    stores = [first, opener()]
    houses = []
    for store in stores:
        writer = Writer(store, clock=lambda: NOW)
        tuf = Tuf(TufFolder(tmp_path / "tuf"), lambda: NOW)
        houses.append((Editions(store, writer, tuf, lambda: NOW, most_kept=0), writer))
    seen: dict[int, list[int]] = {key: [] for key in keys}

    def asks(some: list[int]) -> None:
        for version in (41, 42, 41, 43, 42, 44, 41):
            for key in some:
                editions, _ = houses[(key + version) % 2]
                content = Content("rpi4", (Shown(f"rpi4-{version}", version, f"{version:064d}", ("main",)),))
                found = editions.show(Wish(key, content))
                edition = found if isinstance(found, Edition) else found.result(30)
                assert f"{version:064d}" in edition.body
                seen[key].append(edition.number)

    threads = [threading.Thread(target=asks, args=(keys[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for _, writer in houses:
        writer.close()
    for numbers in seen.values():
        assert len(numbers) == 7 and numbers == sorted(numbers)
    with first.reading() as r:
        last = r.last_edition()
        bodies = {number: found.body for number in range(1, last + 1) if (found := r.edition(number)) is not None}
    assert len(bodies) == last  # no number is missing
