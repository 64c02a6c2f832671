"""Opening: what is made, what is refused, and in which words."""

from __future__ import annotations

import re
import sqlite3
import stat
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from orchestrator.adapters.sql import schema
from orchestrator.adapters.sql.engine import Engine
from orchestrator.adapters.sql.link import translated
from orchestrator.adapters.sql.store import SqlWriting, open_store, schema_version, upgrade
from orchestrator.adapters.sql.tables import METADATA
from orchestrator.errors import InvalidInput, StoreUnavailable
from tests.contract.building import NOW, Opener, device
from tests.postgres import Cluster


def made(statement: str) -> str:
    """A statement of a schema, its spaces, quotes and the order of its constraints aside."""
    return re.sub(r"\s+", " ", statement.replace('"', "")).replace("( ", "(").replace(" )", ")").replace(" ,", ",")


def test_a_store_in_memory_has_the_schema_that_the_migrations_make(tmp_path: Path) -> None:
    path = tmp_path / "wave.db"
    open_store(f"sqlite:///{path}").close()
    listed = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND sql IS NOT NULL"
    with sqlite3.connect(path) as connection:
        migrated = {row[:2]: row[3] for row in connection.execute(listed)}
        note = connection.execute("SELECT * FROM house").fetchall()
    store = open_store("sqlite://")
    with store.reading() as r:
        at_once = {row[:2]: row[3] for row in r.link.rows(listed)}
        assert r.link.rows("SELECT * FROM house") == note
    store.close()
    connection.close()
    assert {key: sorted(made(sql).split(", ")) for key, sql in at_once.items() if key[0] != "table"} == {
        key: sorted(made(sql).split(", ")) for key, sql in migrated.items() if key[0] != "table"
    }
    assert at_once.keys() == migrated.keys()
    for key in at_once:
        assert ("WITHOUT ROWID" in at_once[key]) == ("WITHOUT ROWID" in migrated[key])
        assert ("AUTOINCREMENT" in at_once[key]) == ("AUTOINCREMENT" in migrated[key])


def differences(engine: Engine) -> list[object]:
    address = "postgresql+psycopg://" if engine.postgres else "sqlite://"
    alchemy = create_engine(address, creator=engine.connection())
    with alchemy.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
    alchemy.dispose()
    return list(found)


def test_the_migrations_make_what_the_tables_say(opener: Opener) -> None:
    opener()
    engine = Engine(opener.url)
    assert differences(engine) == []
    engine.close()


def test_the_versions_known_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert [one.revision for one in script.walk_revisions()][::-1] == list(schema.VERSIONS)
    assert script.get_current_head() == schema.NEWEST


def test_a_store_in_memory_opens_at_once() -> None:
    """Hundreds of tests open one: the median of nine stays far below 50 ms."""
    took = []
    for _ in range(9):
        begun = time.perf_counter()
        open_store("sqlite://").close()
        took.append(time.perf_counter() - begun)
    assert sorted(took)[4] < 0.05


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "wave.db"
    store = open_store(f"sqlite:///{path}")
    with store.writing() as w:
        w.add_group("lab")
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert w.link.rows("PRAGMA journal_mode") == [("wal",)]
        assert w.link.rows("PRAGMA synchronous") == [(2,)]
        assert w.link.rows("PRAGMA foreign_keys") == [(1,)]
    store.close()
    relaxed = open_store(f"sqlite:///{path}", synchronous="NORMAL")
    with relaxed.reading() as r:
        assert r.link.rows("PRAGMA synchronous") == [(1,)]
        assert r.groups() == {"lab": 0}
    relaxed.close()


def test_the_version_of_a_database(opener: Opener) -> None:
    assert upgrade(opener.url) == schema.NEWEST
    assert upgrade(opener.url) == schema.NEWEST
    assert schema_version(opener.url) == schema.NEWEST
    opener(create=False)


def test_an_older_and_a_newer_database_are_refused(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    opener()
    newest = schema.NEWEST
    with monkeypatch.context() as patched:
        patched.setattr(schema, "VERSIONS", (*schema.VERSIONS, "9999"))
        patched.setattr(schema, "NEWEST", "9999")
        said = rf"has schema {newest}, and this program needs 9999.*wave db upgrade"
        with pytest.raises(StoreUnavailable, match=said):
            opener()
    monkeypatch.setattr(schema, "VERSIONS", ("0000",))
    monkeypatch.setattr(schema, "NEWEST", "0000")
    with pytest.raises(StoreUnavailable, match="newer than this program"):
        opener()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE dogs (name TEXT)")
    connection.close()
    with pytest.raises(StoreUnavailable, match="belongs to another program"):
        open_store(f"sqlite:///{path}")


def test_what_is_no_database_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk " * 100, encoding="utf-8")
    with pytest.raises(StoreUnavailable, match=r"notes\.txt is not a database of this program\. Name another file"):
        open_store(f"sqlite:///{path}")
    with pytest.raises(StoreUnavailable, match=r"there is no directory .*gone\. Make the directory first"):
        open_store(f"sqlite:///{tmp_path}/gone/wave.db")
    with pytest.raises(StoreUnavailable, match="is a directory"):
        open_store(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreUnavailable, match=r"no database at .*Check the path"):
        open_store(f"sqlite:///{tmp_path}/none.db", create=False)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(InvalidInput, match="mysql"):
        open_store("mysql://localhost/x")
    with pytest.raises(InvalidInput, match="no address"):
        open_store("wave.db")


def test_an_empty_database_is_not_filled_unasked(tmp_path: Path) -> None:
    path = tmp_path / "wave.db"
    path.touch()
    with pytest.raises(StoreUnavailable, match="is empty"):
        open_store(f"sqlite:///{path}", create=False)
    assert schema_version(f"sqlite:///{path}") is None


def test_a_full_disk_and_a_read_only_file_are_named(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'wave.db'}")

    def fill() -> None:
        with store.writing() as w:
            w.link.raw.execute("PRAGMA max_page_count = 1")
            w.enroll(((device(f"d{number}"), None) for number in range(5_000)), now=NOW)

    with pytest.raises(StoreUnavailable, match=r"is full; nothing of this was written\. Free some space"):
        fill()
    with store.reading() as r:
        assert r.tags() == {}
        r.link.raw.execute("PRAGMA max_page_count = 1000000")
        r.link.raw.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match=r"read-only\. Give the user"), store.writing() as w:
        w.add_group("lab")
    store.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("database is locked", "locked by another program"),
        ("disk I/O error", "fails"),
        ("database disk image is malformed", "damaged"),
        ("unable to open database file", "cannot be opened"),
        ("no such table: rollout", "is not the database that it was"),
        ("something new", "refused: something new"),
    ],
)
def test_what_sqlite_says_is_said_in_a_sentence(said: str, told: str) -> None:
    error = translated(sqlite3.OperationalError(said), "/tmp/wave.db")
    assert isinstance(error, StoreUnavailable)
    assert told in str(error)


@pytest.mark.postgres
def test_a_server_that_is_not_there_or_goes_away(postgres: tuple[Cluster, str]) -> None:
    running, template = postgres
    with pytest.raises(StoreUnavailable, match="does not answer"):
        open_store("postgresql+psycopg://wave@/none?host=/nowhere")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        open_store(running.url("no_such_database"))
    name = running.database(template)
    store = open_store(running.url(name))
    running.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with store.writing() as w:  # the kept connection is gone; a new one is made
        w.add_group("lab")
    with pytest.raises(StoreUnavailable), store.writing() as w:
        _cut_off(running, name, w)
    with store.reading() as r:
        assert r.groups() == {"lab": 0}
    store.close()
    running.drop(name)


def _cut_off(running: Cluster, name: str, w: SqlWriting) -> None:
    running.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    w.add_group("office")
