"""Enrolment and gateway tokens, and revoked certificates: kept, locked, counted."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from orchestrator.adapters.sql import schema
from orchestrator.adapters.sql.store import SqlStore, open_store, upgrade
from orchestrator.errors import Conflict, NotFound
from orchestrator.services.credentials import Grant, GrantKind, Revoked, RevokedKind, digest_of
from tests.contract.building import DAY, NOW, Opener, undone

GRANT = Grant(
    name="enr-1",
    kind=GrantKind.ENROLMENT,
    digest=digest_of("one"),
    tag="promoted",
    group="lab",
    hardware_ids=("rpi4", "imx8"),
    labels={"site": "berlin"},
    uses_left=3,
    until=NOW + DAY,
    may_replace=True,
    created_at=NOW,
    created_by="ann",
)
BARE = Grant(
    name="gw-1",
    kind=GrantKind.GATEWAY,
    digest=digest_of("two"),
    hardware_ids=("rpi4",),
    may_register=True,
    created_at=NOW,
    created_by="ben",
)


def test_what_was_handed_out_comes_back_as_it_was(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_grant(GRANT)
        w.add_grant(BARE)
    with store.reading() as r:
        assert list(r.grants()) == [GRANT, BARE]
    with store.writing() as w:
        assert w.lock_grants([GRANT.digest, BARE.digest, digest_of("none")]) == {
            GRANT.digest: GRANT,
            BARE.digest: BARE,
        }


def test_neither_a_name_nor_a_token_is_given_twice(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_grant(GRANT)
    for again in (replace(BARE, name="enr-1"), replace(BARE, digest=GRANT.digest)):
        with pytest.raises(Conflict), store.writing() as w:
            w.add_grant(again)


def test_a_token_is_revoked_once(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_grant(GRANT)
        assert w.revoke_grant("enr-1", now=NOW)
        assert not w.revoke_grant("enr-1", now=NOW + DAY)
        assert w.grants()[0].revoked_at == NOW
        with pytest.raises(NotFound, match="wave enrolment list"):
            w.revoke_grant("enr-2", now=NOW)


def test_uses_are_counted_down_where_they_are_bounded(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_grant(GRANT)
        w.add_grant(BARE)
        w.use_grant(GRANT.digest, 2)
        w.use_grant(BARE.digest, 2)
        assert [(each.uses_left, each.used) for each in w.grants()] == [(1, 2), (None, 2)]


def test_certificates_are_revoked_from_the_later_moment_on(store: SqlStore) -> None:
    with undone(store) as w:
        for at, by in ((NOW + DAY, "ann"), (NOW, "ben")):
            w.revoke_certificates(Revoked(RevokedKind.DEVICE, "gw-1", at, by))
        w.revoke_certificates(Revoked(RevokedKind.SERIAL, "ab", NOW, "ann"))
        assert list(w.revoked_certificates()) == [
            Revoked(RevokedKind.DEVICE, "gw-1", NOW + DAY, "ben"),
            Revoked(RevokedKind.SERIAL, "ab", NOW, "ann"),
        ]
        assert w.allow_certificates(RevokedKind.SERIAL, "ab")
        assert not w.allow_certificates(RevokedKind.SERIAL, "ab")


def test_two_stores_never_use_a_token_more_often_than_it_may(opener: Opener) -> None:
    """Twenty threads over two stores look and take, as enrolments do: three uses are taken, and no more."""
    stores = [opener(), opener()]
    with stores[0].writing() as w:
        w.add_grant(GRANT)

    def take(number: int) -> bool:
        with stores[number % 2].writing() as w:
            left = w.lock_grants([GRANT.digest])[GRANT.digest].uses_left
            assert left is not None
            if left:
                w.use_grant(GRANT.digest, 1)
            return left > 0

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(take, range(20))) == 3
    with stores[1].reading() as r:
        assert (r.grants()[0].uses_left, r.grants()[0].used) == (0, 3)


def test_a_database_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "wave.db"
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO device_group (name) VALUES ('lab')")
    raw.close()
    assert upgrade(f"sqlite:///{path}") == schema.NEWEST
    store = open_store(f"sqlite:///{path}")
    with store.reading() as r:
        assert (list(r.grants()), r.groups()) == ([], {"lab": 0})
    store.close()
