"""Authentication sets on every store: kept, found, one accepted of each identity, and never too many that wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.errors import Conflict
from orchestrator.services.mender.sets import AuthSet, SetStatus, set_id
from tests.contract.building import NOW


def one(identity: str = '{"mac":"a"}', key: str = "key", *, minute: int = 0, **more: Any) -> AuthSet:
    at = NOW + timedelta(minutes=minute)
    known = AuthSet(
        id=set_id(identity, key),
        identity=identity,
        public_key=key,
        status=SetStatus.PENDING,
        asked_at=at,
        seen_at=at,
    )
    return replace(known, **more)


def test_a_set_is_kept_and_changed(store: SqlStore) -> None:
    first = one()
    with store.writing() as w:
        w.save_auth_set(first)
    later = replace(
        first, status=SetStatus.ACCEPTED, device_id="gw-1", seen_at=NOW + timedelta(1), decided_at=NOW, decided_by="ann"
    )
    with store.writing() as w:
        assert w.lock_auth_sets([first.identity, "{}"]) == [first]
        w.save_auth_set(later)
    with store.reading() as r:
        assert r.auth_set(first.id) == later
        assert r.auth_set("f" * 64) is None


def test_sets_are_found_by_what_people_know_of_them(store: SqlStore) -> None:
    a, b = one(key="a", device_id="gw-1"), one(key="b", minute=1)
    c = one('{"mac":"c"}', status=SetStatus.REJECTED)
    with store.writing() as w:
        for each in (c, b, a):
            w.save_auth_set(each)
    with store.reading() as r:
        assert r.auth_sets_of(identity=a.identity) == [a, b]
        assert r.auth_sets_of(device_id="gw-1") == [a]
        assert r.auth_sets_of(device_id="\0") == r.auth_sets_of(device_id="nobody") == r.auth_sets_of() == []
        assert r.auth_sets_like(c.id[:7], limit=5) == [c]
        everything = sorted((a, b, c), key=lambda each: each.id)
        assert list(r.auth_sets()) == everything
        assert list(r.auth_sets(after=everything[0].id, limit=1)) == everything[1:2]
        assert list(r.auth_sets([SetStatus.REJECTED])) == [c]
    with store.writing() as w:
        assert w.remove_auth_sets([a.id, c.id, "none"]) == 2
    with store.reading() as r:
        assert list(r.auth_sets()) == [b]


def test_an_identity_has_one_accepted_set(store: SqlStore) -> None:
    with store.writing() as w:
        w.save_auth_set(one(key="a", status=SetStatus.ACCEPTED))
    with pytest.raises(Conflict), store.writing() as w:
        w.save_auth_set(one(key="b", status=SetStatus.ACCEPTED))
    with store.writing() as w:
        w.save_auth_set(one('{"mac":"other"}', status=SetStatus.ACCEPTED))


def test_of_those_that_wait_who_has_not_asked_for_long_goes_first(store: SqlStore) -> None:
    waiting = [one(f'{{"mac":"{number}"}}', minute=number) for number in range(5)]
    with store.writing() as w:
        for each in waiting:
            w.save_auth_set(each)
        w.save_auth_set(one(status=SetStatus.REJECTED, minute=-9))
        assert w.drop_pending(keep=5, unseen_since=NOW + timedelta(days=1)) == 5
        assert w.drop_pending(keep=2, unseen_since=NOW) == 5, "all have asked since"
        assert w.drop_pending(keep=2, unseen_since=NOW + timedelta(days=1)) == 2
    with store.reading() as r:
        assert {each.id for each in r.auth_sets([SetStatus.PENDING])} == {each.id for each in waiting[3:]}
        assert len(r.auth_sets([SetStatus.REJECTED])) == 1


def test_who_waits_is_shown_newest_first(store: SqlStore) -> None:
    waiting = [one(f'{{"mac":"{number}"}}', minute=number) for number in range(5)]
    with store.writing() as w:
        for each in waiting:
            w.save_auth_set(each)
        w.save_auth_set(one(status=SetStatus.REJECTED, minute=9))
    with store.reading() as r:
        assert list(r.auth_sets_waiting(limit=9)) == waiting[::-1]
        assert list(r.auth_sets_waiting(limit=2)) == [waiting[4], waiting[3]]
        assert list(r.auth_sets_waiting(asked_since=NOW + timedelta(minutes=3), limit=9)) == [waiting[4], waiting[3]]
