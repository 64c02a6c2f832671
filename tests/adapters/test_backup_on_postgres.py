"""Backups of a real PostgreSQL: there and back, over what is there, and no password in a list of processes."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator import bootstrap
from orchestrator.adapters.backup.database import dump_postgresql
from orchestrator.adapters.backup.making import make
from orchestrator.adapters.doctor.examining import examine
from orchestrator.adapters.sql.engine import Engine
from orchestrator.adapters.sql.store import open_store
from orchestrator.core.editions import Lifetimes, first_of
from orchestrator.core.fleet import Device
from orchestrator.errors import Refused, StoreUnavailable
from orchestrator.services.doctor import Area, Level
from orchestrator.services.settings import Settings
from orchestrator.services.tick import GATEWAY
from tests.postgres import Cluster

Running = tuple[Cluster, str]

NOW = datetime.now(UTC)

pytestmark = pytest.mark.postgres


def house(root: Path, url: str) -> Settings:
    root.mkdir(mode=0o700)
    (root / "wave.yaml").write_text(f"root: .\ndatabase: {url}\n")
    settings = bootstrap.load_settings(None, {"root": str(root)})
    open_store(settings.database_url, create=True).close()
    return settings


def devices(url: str) -> list[str]:
    engine = Engine(url, create=False)
    try:
        with engine.reading() as link:
            return [str(row[0]) for row in link.rows("SELECT id FROM device ORDER BY id")]
    finally:
        engine.close()


def enrol(settings: Settings, *names: str) -> None:
    app = bootstrap.open_application(settings)
    try:
        list(app.devices.enroll([Device(name, "rpi4", "main") for name in names], tokens=False))
    finally:
        app.close()


def test_there_and_back_over_what_is_there(postgres: Running, tmp_path: Path) -> None:
    settings = house(tmp_path / "house", postgres[0].url(postgres[0].database()))
    url = settings.database_url
    enrol(settings, "old")
    with closing(open_store(url)) as store, store.writing() as w:
        w.save_edition(first_of(7, "digest", "{}", Lifetimes(), root_version=1, now=NOW))
    archive = tmp_path / "b.tar.gz"
    make(settings, settings.root / "wave.yaml", archive, now=NOW, content=False)
    enrol(settings, "young")
    with pytest.raises(Refused, match="--yes"):
        bootstrap.restore(archive, None, {"root": str(settings.root)}, by="mika", yes=False, dry_run=False)
    done = bootstrap.restore(archive, None, {"root": str(settings.root)}, by="mika", yes=True, dry_run=False)
    assert devices(url) == ["old"]
    with closing(open_store(url)) as store, store.reading() as r:
        assert r.check() == []
        assert r.frozen() is not None
        assert r.last_edition() == 1_007
    assert done.set_aside is not None
    assert stat.S_IMODE((done.set_aside / "wave.pgdump").stat().st_mode) == 0o600


def test_where_a_gateway_serves_nothing_is_restored(postgres: Running, tmp_path: Path) -> None:
    settings = house(tmp_path / "house", postgres[0].url(postgres[0].database()))
    archive = tmp_path / "b.tar.gz"
    make(settings, None, archive, now=NOW, content=False)
    enrol(settings, "young")
    with closing(open_store(settings.database_url)) as store, store.writing() as w:
        w.heartbeat(GATEWAY, now=bootstrap.utc_now())
    with pytest.raises(Refused, match="Stop all of them"):
        bootstrap.restore(archive, None, {"root": str(settings.root)}, by="mika", yes=True, dry_run=False)
    assert devices(settings.database_url) == ["young"]


def test_no_secret_stands_in_the_words_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of pg_dump writes down what it is given."""
    said = tmp_path / "said"
    program = tmp_path / "bin/pg_dump"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {said}\nenv | grep ^PG | sort >> {said}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    url = "postgresql+psycopg://wave:s%40cret@db.example:5433/house?sslmode=verify-full"
    dump_postgresql(url, tmp_path / "dump")
    words, *variables = said.read_text().splitlines()
    assert "s@cret" not in words and "s%40" not in words and "house" not in words
    assert variables == [
        "PGDATABASE=house",
        "PGHOST=db.example",
        "PGPASSWORD=s@cret",
        "PGPORT=5433",
        "PGSSLMODE=verify-full",
        "PGUSER=wave",
    ]


def test_a_program_that_fails_is_told_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://wave:secret@127.0.0.1:1/house"
    with pytest.raises(StoreUnavailable) as refused:
        dump_postgresql(url, tmp_path / "dump")
    assert "secret" not in str(refused.value)


def test_a_server_that_does_not_keep_what_it_has_accepted_is_found(postgres: Running, tmp_path: Path) -> None:
    """The cluster of the tests has `fsync` off, which no house may have."""
    settings = house(tmp_path / "house", postgres[0].url(postgres[0].database()))
    found = [each for each in examine(settings, NOW) if each.area is Area.STORE]
    assert [each.level for each in found] == [Level.OK, Level.FAIL]
    assert "fsync = off" in found[1].sentence
    gone = settings.model_copy(update={"database": settings.database_url.replace("test_", "none_")})
    assert [each.level for each in examine(gone, NOW) if each.area is Area.STORE] == [Level.FAIL]
