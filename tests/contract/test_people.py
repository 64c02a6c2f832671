"""People, their tokens, their sessions and what happened around them: kept, locked, ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.roles import Role
from orchestrator.errors import Conflict, NotFound
from orchestrator.services.credentials import digest_of
from orchestrator.services.people_store import PersonEvent, PersonRow, SessionRow, TokenRow
from tests.contract.building import DAY, NOW, Opener, undone

ANN = PersonRow("Ann", frozenset({Role.ADMIN, Role.VIEWER}), NOW, "root", password="$argon2id$…", disabled_at=NOW + DAY)
BEN = PersonRow("<b>ben</b>", frozenset({Role.VIEWER}), NOW, "Ann", subject="https://id.example 7")
TOKEN = TokenRow(
    "tok-1", "Ann", frozenset({Role.VIEWER}), digest_of("one"), NOW, "Ann", NOW + DAY, tags=("beta", "main")
)
SESSION = SessionRow(digest_of("s"), "Ann", NOW, NOW + DAY, NOW)


def test_people_come_back_as_they_were_by_name_and_by_subject(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_person(ANN)
        w.add_person(BEN)
    with store.reading() as r:
        assert list(r.people()) == [BEN, ANN]
        assert r.person("Ann") == r.person("ANN") == r.person("ann ") == ANN
        assert r.person("nobody") is None
        assert r.person_by_subject("https://id.example 7") == BEN
        assert r.person_by_subject("https://id.example 8") is None


def test_two_names_that_look_alike_to_a_computer_are_one_person(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_person(ANN)
        w.add_person(BEN)
    for other in (replace(ANN, name="aNN"), replace(ANN, name="Ａnn"), replace(BEN, name="cem")):
        with pytest.raises(Conflict), store.writing() as w:
            w.add_person(other)


def test_what_may_change_of_a_person_changes(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_person(ANN)
        changed = replace(ANN, roles=frozenset({Role.APPROVER}), password="new", subject="x y", disabled_at=None)
        assert w.lock_person("ann") == ANN
        w.save_person(changed)
        assert w.person("ann") == changed
        assert w.lock_person("ben") is None
        with pytest.raises(NotFound, match="wave user list"):
            w.save_person(BEN)


def test_a_token_is_found_by_its_digest_used_and_revoked_once(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_person(ANN)
        w.add_person_token(TOKEN)
    for again in (replace(TOKEN, digest=digest_of("two")), replace(TOKEN, name="tok-2")):
        with pytest.raises(Conflict), store.writing() as w:
            w.add_person_token(again)
    with undone(store) as w:
        assert w.person_token(TOKEN.digest) == TOKEN
        assert w.person_token(digest_of("two")) is None
        w.use_person_token(TOKEN.digest, now=NOW + timedelta(hours=1))
        assert w.revoke_person_token("tok-1", now=NOW + DAY)
        assert not w.revoke_person_token("tok-1", now=NOW + 2 * DAY)
        assert list(w.person_tokens()) == [replace(TOKEN, used_at=NOW + timedelta(hours=1), revoked_at=NOW + DAY)]
        with pytest.raises(NotFound, match="wave token list"):
            w.revoke_person_token("tok-2", now=NOW)


def test_sessions_are_seen_ended_and_dropped_when_they_are_over(store: SqlStore) -> None:
    def other(name: str, until: timedelta, seen: timedelta) -> SessionRow:
        return SessionRow(digest_of(name), "Ann", NOW, NOW + until, NOW + seen)

    with undone(store) as w:
        w.add_person(ANN)
        w.add_session(SESSION)
        w.see_session(SESSION.digest, now=NOW + timedelta(hours=2))
        assert w.session(SESSION.digest) == replace(SESSION, seen_at=NOW + timedelta(hours=2))
        assert w.end_session(SESSION.digest) and not w.end_session(SESSION.digest)
        assert w.session(SESSION.digest) is None
        hour = timedelta(hours=1)
        for each in (other("over", hour, hour), other("unseen", DAY, 0 * hour), other("good", DAY, hour)):
            w.add_session(each)
        assert w.drop_sessions(now=NOW + hour, unseen_since=NOW) == 2
        assert w.session(digest_of("good")) is not None
        assert w.end_sessions("ANN") == 1


def test_what_happened_is_told_newest_first(store: SqlStore) -> None:
    with undone(store) as w:
        told = [PersonEvent(NOW + n * DAY, "Ann", "added", "ben", f"<i>{n}</i>") for n in range(3)]
        for each in told:
            w.log_person_event(each)
        newest = w.person_events(limit=2)
        assert list(newest) == [told[2], told[1]]
        assert list(w.person_events(after=newest[1].number)) == [told[0]]
        assert list(w.person_events(after=newest[0].number, limit=1)) == [told[1]]


def test_of_many_who_add_one_person_at_once_one_does(opener: Opener) -> None:
    stores = [opener(), opener()]

    def add(number: int) -> bool:
        try:
            with stores[number % 2].writing() as w:
                w.add_person(ANN)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(8))) == 1
