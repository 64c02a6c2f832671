"""Messages to people in the store: asked for once, leased one by one, ended by whoever holds the lease."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.notices import Notice
from orchestrator.services.notice_store import Post, Unsent, Wanted
from tests.contract.building import DAY, HOUR, NOW, Opener, rollout

SOON = timedelta(minutes=5)
NOTICE = Notice(
    "id", "r", 42, 1, "halted", None, "policy", "now", "halted", None, "t", "s < & '\"", "m", ("wave explain r",)
)


def asked(w: SqlWriting, *destinations: str, occasion: str = "journal 1", rollout_key: int = 1) -> None:
    w.add_notices(Wanted(rollout_key, occasion, NOTICE, NOW, NOW + DAY), destinations)


def test_what_is_asked_for_twice_is_there_once(store: SqlStore) -> None:
    with store.writing() as w:
        row = w.add_rollout(rollout())
        asked(w, "oncall", "audit", rollout_key=row.key)
        asked(w, "oncall", rollout_key=row.key)
        asked(w, "oncall", occasion="journal 2", rollout_key=row.key)
        assert [each.destination for each in w.notices()] == ["oncall", "audit", "oncall"]
        assert w.notices()[0].notice == NOTICE and w.next_notice_at() == NOW
        assert w.count_notices() == {Post.WAITING: 3, Post.SENT: 0, Post.DEAD: 0}
        assert w.unsent_notices(most=9) == Unsent(waiting=3, failing=0, dead=0)
        assert w.unsent_notices(most=2) == Unsent(waiting=2, failing=0, dead=0), "and no more is looked at"
        assert [each.key for each in w.notices(rollout="r", statuses={Post.SENT})] == []
        assert len(w.notices(rollout="r", limit=2)) == 2 and w.notices(rollout="another") == []
        newest = w.notices()
        assert w.notices(after=newest[0].key, limit=1) == newest[1:2] and w.notices(after=newest[2].key) == []


def test_of_each_destination_the_oldest_is_leased_and_given_to_nobody_else(store: SqlStore) -> None:
    with store.writing() as w:
        key = w.add_rollout(rollout()).key
        for occasion in ("one", "two"):
            asked(w, "oncall", "audit", occasion=occasion, rollout_key=key)
        first = w.lease_notices(now=NOW, until=NOW + SOON, limit=10)
        assert [(each.destination, each.attempts, each.lease_until) for each in first] == [
            ("oncall", 1, NOW + SOON),
            ("audit", 1, NOW + SOON),
        ]
        assert len(w.lease_notices(now=NOW, until=NOW + SOON, limit=1)) == 1
        assert len(w.lease_notices(now=NOW, until=NOW + SOON, limit=10)) == 1
        assert w.lease_notices(now=NOW, until=NOW + SOON, limit=10) == []
        assert w.next_notice_at() == NOW + SOON
        again = w.lease_notices(now=NOW + SOON, until=NOW + HOUR, limit=1)
        assert [each.attempts for each in again] == [2]
        assert not w.end_notice(again[0].key, 1, Post.SENT, None, at=NOW)
        assert w.end_notice(again[0].key, 2, Post.SENT, None, at=NOW + SOON)
        assert not w.end_notice(again[0].key, 2, Post.DEAD, "late", at=NOW)
        assert w.notices(statuses={Post.SENT})[0].ended_at == NOW + SOON


def test_what_waits_for_its_next_try_or_is_dead_can_be_revived(store: SqlStore) -> None:
    with store.writing() as w:
        key = w.add_rollout(rollout()).key
        asked(w, "a", "b", "c", rollout_key=key)
        a, b, c = w.lease_notices(now=NOW, until=NOW + SOON, limit=10)
        w.end_notice(a.key, 1, Post.WAITING, "503", at=NOW + HOUR)
        w.end_notice(b.key, 1, Post.DEAD, "503", at=NOW)
        assert w.lease_notices(now=NOW + HOUR - SOON, until=NOW + HOUR, limit=10)[0].destination == "c"
        assert w.next_notice_at() == NOW + HOUR
        assert w.revive_notices([b.key, c.key], now=NOW, give_up_at=NOW + DAY) == 1
        assert w.revive_notices(None, now=NOW + DAY, give_up_at=NOW + 2 * DAY) == 2
        assert {each.next_at for each in w.notices(statuses={Post.WAITING}) if each.key != c.key} == {NOW + DAY}


def test_two_that_lease_at_once_share_what_there_is(opener: Opener) -> None:
    stores = [opener(), opener()]
    with stores[0].writing() as w:
        key = w.add_rollout(rollout()).key
        for number in range(20):
            asked(w, f"d{number}", rollout_key=key)

    def lease(store: SqlStore) -> list[int]:
        found: list[int] = []
        while len(found) < 20:
            with store.writing() as w:
                taken = w.lease_notices(now=NOW, until=NOW + SOON, limit=3)
            if not taken:
                break
            found += [each.key for each in taken]
        return found

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lease, stores)
    assert sorted(one + other) == sorted(set(one + other)) and len(one + other) == 20


def test_what_fails_and_what_is_dead_is_counted_and_what_arrived_is_not(store: SqlStore) -> None:
    with store.writing() as w:
        key = w.add_rollout(rollout()).key
        asked(w, "a", "b", "c", "d", rollout_key=key)
        first, second, third = w.lease_notices(now=NOW, until=NOW + SOON, limit=3)
        w.end_notice(first.key, 1, Post.SENT, None, at=NOW)
        w.end_notice(second.key, 1, Post.WAITING, "it is down", at=NOW + SOON)
        w.end_notice(third.key, 1, Post.DEAD, "it is down", at=NOW)
        assert w.unsent_notices(most=9) == Unsent(waiting=2, failing=1, dead=1)
