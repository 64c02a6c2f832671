"""What people ordered outside rollouts: newest first, page by page, and gone with what it tells of."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.services.house_log_store import HouseEvent
from tests.contract.building import DAY, NOW, undone

EVENTS = [
    HouseEvent(NOW + n * DAY, "<b>ann</b>", "group_added", f"g{n}", f"<b>ann</b> made group g{n}.") for n in range(5)
]


def test_it_is_told_newest_first_and_page_by_page(store: SqlStore) -> None:
    with store.writing() as w:
        for each in EVENTS:
            w.log_house_event(each)
    with store.reading() as r:
        found = list(r.house_events())
        assert [replace(each, number=0) for each in found] == EVENTS[::-1]
        first = list(r.house_events(limit=2))
        assert first == found[:2]
        assert list(r.house_events(after=first[-1].number, limit=2)) == found[2:4]
        assert list(r.house_events(after=found[-1].number)) == []


def test_what_was_taken_back_was_not_ordered(store: SqlStore) -> None:
    with undone(store) as w:
        w.log_house_event(EVENTS[0])
        assert len(w.house_events()) == 1
    with store.reading() as r:
        assert list(r.house_events()) == []
