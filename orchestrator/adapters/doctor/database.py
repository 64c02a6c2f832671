"""The store: is it there, whole, of this program's schema, and as safe against a loss of power as it says."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from orchestrator.adapters.doctor.words import size
from orchestrator.adapters.sql.engine import Engine
from orchestrator.adapters.sql.schema import NEWEST, VERSIONS, version_of
from orchestrator.services.doctor import Area, Finding, broken, doubtful, fine
from orchestrator.services.settings import Settings

QUICK_CHECK_SECONDS: Final = 2.0
"""How long SQLite may look for damage; a large file is looked through in part and that is said."""

LARGE_LOG: Final = 512 * 1024 * 1024
"""Bytes of a write-ahead log that say that something keeps it from being emptied."""

_OLDEST_POSTGRESQL: Final = 130_000


def store(settings: Settings, now: datetime) -> Iterator[Finding]:
    engine = Engine(settings.database_url, create=False)
    try:
        version = version_of(engine)
        if version == NEWEST:
            yield fine(Area.STORE, f"The database {engine.where} answers and has schema {version}.")
        elif version is None:
            yield broken(Area.STORE, f"The database {engine.where} is empty.", "`wave db upgrade` makes its tables.")
        elif version in VERSIONS:
            yield broken(
                Area.STORE,
                f"The database {engine.where} has schema {version}, and this program needs {NEWEST}.",
                "Stop `wave serve`, `wave backup FILE`, then `wave db upgrade`.",
            )
        else:
            yield broken(
                Area.STORE,
                f"The database {engine.where} has schema {version}, newer than this program's {NEWEST}.",
                "Install the version of this program that wrote it, or a newer one.",
            )
        if engine.postgres:
            yield from _postgresql(engine)
        elif engine.path is not None:
            yield from _sqlite(engine.path, settings.synchronous)
    finally:
        engine.close()


def _sqlite(path: Path, synchronous: str) -> Iterator[Finding]:
    ends = time.monotonic() + QUICK_CHECK_SECONDS
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as raw:
        mode = _journal_mode(raw)
        raw.set_progress_handler(lambda: time.monotonic() > ends, 50_000)
        try:
            said = [row[0] for row in raw.execute("PRAGMA quick_check(1)")]
        except sqlite3.OperationalError:
            yield fine(
                Area.STORE,
                f"No damage was found in the first {QUICK_CHECK_SECONDS:g} seconds of looking ({size(path)});"
                " `wave db check` looks at all of it.",
            )
        except sqlite3.DatabaseError as error:
            said = [str(error)]
        else:
            if said == ["ok"]:
                yield fine(Area.STORE, f"SQLite finds no damage in it ({size(path)}).")
        if said and said != ["ok"]:
            yield broken(
                Area.STORE,
                f"The database {path} is damaged: {said[0]}.",
                "Stop `wave serve` and `wave restore FILE` the last backup.",
            )
    if mode != "wal":
        # opening it has just asked for it
        yield doubtful(
            Area.STORE,
            f"Its journal mode is {mode}: who reads and who writes wait for each other.",
            "Put it on a disk of this machine: a file system over a network cannot share a write-ahead log.",
        )
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size > LARGE_LOG:
        yield doubtful(
            Area.STORE,
            f"Its write-ahead log has grown to {size(log)}.",
            "Something reads the database without an end; end it and the log is emptied.",
        )
    if synchronous == "FULL":
        yield fine(Area.STORE, "What is committed survives a loss of power (synchronous: FULL).")
    else:
        yield fine(Area.STORE, "A loss of power may take the last commits with it (synchronous: NORMAL).")


def _journal_mode(raw: sqlite3.Connection) -> str:
    return str(raw.execute("PRAGMA journal_mode").fetchone()[0])


def _postgresql(engine: Engine) -> Iterator[Finding]:
    with engine.reading() as link:
        number = int(link.rows("SHOW server_version_num")[0][0])
        kept = {name: link.rows(f"SHOW {name}")[0][0] for name in ("fsync", "full_page_writes", "synchronous_commit")}
    if number < _OLDEST_POSTGRESQL:
        yield doubtful(
            Area.STORE,
            f"PostgreSQL is version {number // 10_000}, which gets no repairs any more.",
            "Upgrade the server.",
        )
    off = [f"{name} = {value}" for name, value in kept.items() if value == "off"]
    if off:
        yield broken(
            Area.STORE,
            f"A loss of power may take what was accepted with it: {', '.join(off)}.",
            "Set them to `on` in postgresql.conf.",
        )
    else:
        yield fine(Area.STORE, f"PostgreSQL {number // 10_000} keeps what is committed.")
