"""Requests that are carried out once: who began, and what was answered."""

from __future__ import annotations

import threading
from datetime import timedelta

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.services.once import Kept
from tests.contract.building import NOW, Opener


def test_the_second_is_told_what_the_first_was_answered(store: SqlStore) -> None:
    with store.writing() as w:
        assert w.begin_once("ann", "k", b"d", now=NOW) is None
    with store.writing() as w:
        assert w.begin_once("ann", "k", b"e", now=NOW) == Kept(b"d", NOW)
        assert w.begin_once("ben", "k", b"e", now=NOW) is None
        w.end_once("ann", "k", 200, b"\x00yes")
    with store.writing() as w:
        assert w.begin_once("ann", "k", b"d", now=NOW) == Kept(b"d", NOW, 200, b"\x00yes")
        w.drop_once("ann", "k")
        assert w.begin_once("ann", "k", b"d", now=NOW) is None


def test_what_is_old_is_forgotten(store: SqlStore) -> None:
    with store.writing() as w:
        w.begin_once("ann", "old", b"d", now=NOW - timedelta(days=2))
        w.begin_once("ann", "new", b"d", now=NOW)
        assert w.sweep_once(NOW - timedelta(days=1)) == 1
        assert w.begin_once("ann", "old", b"d", now=NOW) is None
        assert w.begin_once("ann", "new", b"d", now=NOW) is not None


def test_of_many_at_once_one_begins(opener: Opener) -> None:
    stores = [opener() for _ in range(6)]
    begin = threading.Barrier(len(stores))
    found: list[Kept | None] = []

    def ask(store: SqlStore) -> None:
        begin.wait(10)
        with store.writing() as w:
            found.append(w.begin_once("ann", "k", b"d", now=NOW))

    threads = [threading.Thread(target=ask, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(each is None for each in found) == [False] * (len(stores) - 1) + [True]
