"""The feed of all journals: one order, that of the commits, with nothing left out after any number."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.journal import Entry
from orchestrator.services.feed import Fed
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Writing
from tests.contract.building import NOW, Opener, rollout, undone


def appended(w: Writing, row: RolloutRow, sentence: str) -> RolloutRow:
    """The rollout with one more entry in its journal."""
    entry = Entry(row.journal_seq + 1, NOW, "paused", "ann", sentence, facts={"a": [1]}).sealed()
    w.append_journal(row, [entry])
    return replace(row, journal_seq=entry.seq)


def sentences(found: Sequence[Fed]) -> list[tuple[str, str]]:
    return [(each.rollout, each.entry.sentence) for each in found]


def test_entries_of_all_journals_come_in_one_order(store: SqlStore) -> None:
    with store.writing() as w:
        one, two = w.add_rollout(rollout("one")), w.add_rollout(rollout("two"))
        assert w.feed_head() == 0
    with store.writing() as w:
        two = appended(w, two, "first")
        one = appended(w, one, "second")
    with store.writing() as w:
        appended(w, two, "third")
    with store.reading() as r:
        found = r.feed(after=0, limit=10)
        assert sentences(found) == [("two", "first"), ("one", "second"), ("two", "third")]
        assert [each.number for each in found] == sorted({each.number for each in found})
        assert found[0].entry == r.journal(two.key)[0]
        assert r.feed_head() == found[-1].number
        assert r.feed(after=found[0].number, limit=1) == found[1:2]
        assert not r.feed(after=r.feed_head(), limit=10)


def test_what_is_taken_back_is_in_no_feed(store: SqlStore) -> None:
    with store.writing() as w:
        row = w.add_rollout(rollout())
    with undone(store) as w:
        appended(w, row, "never")
    with store.writing() as w:
        appended(w, row, "at last")
    with store.reading() as r:
        assert sentences(r.feed(after=0, limit=10)) == [("r", "at last")]


def test_something_stirs_with_every_entry_and_every_event_and_not_otherwise(store: SqlStore) -> None:
    with store.writing() as w:
        row = w.add_rollout(rollout())
    with store.reading() as r:
        before = r.stir()
        assert r.stir() == before
    with store.writing() as w:
        appended(w, row, "so")
    with store.reading() as r:
        assert r.stir() != before


def test_who_reads_after_a_number_misses_no_commit_that_was_under_way(opener: Opener) -> None:
    """Writers that overlap, begun in one order and committed in another, and a reader that only ever goes on."""
    writers, each = 4, 10
    first = opener()
    with first.writing() as w:
        rows = [w.add_rollout(rollout(f"r{n}")) for n in range(writers)]
    stores = [opener() for _ in range(writers)]
    begin = threading.Barrier(writers + 1)

    def write(store: SqlStore, row: RolloutRow) -> None:
        begin.wait(10)
        for number in range(each):
            with store.writing() as w:
                row = appended(w, row, str(number))

    threads = [threading.Thread(target=write, args=(store, row)) for store, row in zip(stores, rows, strict=True)]
    for thread in threads:
        thread.start()
    seen: list[Fed] = []
    begin.wait(10)
    while len(seen) < writers * each:
        alive = any(thread.is_alive() for thread in threads)
        with first.reading() as r:
            found = r.feed(after=seen[-1].number if seen else 0, limit=7)
        seen += found
        assert found or alive, f"only {len(seen)} of {writers * each} came"
    for thread in threads:
        thread.join(10)
    assert {(one.rollout, one.entry.seq) for one in seen} == {
        (f"r{n}", seq) for n in range(writers) for seq in range(1, each + 1)
    }
