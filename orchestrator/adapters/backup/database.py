"""The database in a backup: a consistent copy of it while others write, and the way back."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url

from orchestrator.adapters.sql.engine import Engine
from orchestrator.adapters.sql.link import translated
from orchestrator.adapters.sql.schema import VERSIONS, version_of
from orchestrator.adapters.sql.store import SqlStore, open_store, upgrade
from orchestrator.core.editions import MOST_EDITIONS
from orchestrator.errors import InvalidInput, Refused, StoreUnavailable, Unavailable
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.tick import GATEWAY

PROGRAM_SECONDS: Final = 6 * 3600
"""How long pg_dump or pg_restore may take."""

_NOT_WRITTEN: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC})
"""What SQLite says of a copy that finds no room: of the two files only the copy is written."""

_FOR_EVER: Final = timedelta(days=36_500)
_ALIVE_FOR: Final = timedelta(minutes=1)
_AS_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "service": "PGSERVICE",
    "passfile": "PGPASSFILE",
}


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for PostgreSQL."""
    read = make_url(url)
    return Path(str(read.database)) if read.get_backend_name() == "sqlite" and read.database else None


def copy_sqlite(source: Path, to: Path) -> None:
    """All of one moment, whoever writes meanwhile, and nobody waits for it. Raises StoreUnavailable, and Unavailable
    where the copy cannot be written."""
    _begin(to)
    try:
        with closing(sqlite3.connect(source, timeout=10)) as raw, closing(sqlite3.connect(to)) as copy:
            # all pages in one step are one read transaction: in WAL it begins nothing anew and blocks nobody
            raw.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in _NOT_WRITTEN:
            raise no_room(to.parent, "there is not enough room") from error
        raise translated(error, str(source)) from error
    check_sqlite(to)


def no_room(folder: Path, why: str) -> Unavailable:
    return Unavailable(f"The backup cannot be written in {folder}: {why}.", remedy="Name a directory with room.")


def _begin(file: Path) -> None:
    """Empty, and for its owner alone from its first byte on."""
    try:
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        raise no_room(file.parent, error.strerror or str(error)) from error


def check_sqlite(file: Path) -> None:
    """Raises InvalidInput for a file that is damaged or no database."""
    try:
        with closing(sqlite3.connect(file)) as raw:
            (said,) = raw.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok":
        raise InvalidInput(f"The copy of the database is damaged: {said}.", remedy="`wave doctor` looks at the other.")


def dump_postgresql(url: str, to: Path) -> None:
    """All of one moment. Raises StoreUnavailable, and Unavailable where it cannot be written."""
    _begin(to)
    words = ["pg_dump", "--format=custom", "--compress=0", "--no-owner", "--no-privileges", f"--file={to}"]
    _run(words, _variables(make_url(url)), url)


def load_postgresql(url: str, dump: Path) -> None:
    """In the place of what is there, in one transaction. Raises StoreUnavailable, and nothing was changed."""
    read = make_url(url)
    words = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--no-privileges", "--single-transaction"]
    quoted = str(read.database).replace("\\", "\\\\").replace("'", "\\'")
    _run([*words, "--exit-on-error", f"--dbname=dbname='{quoted}'", str(dump)], _variables(read), url)


def _variables(url: URL) -> dict[str, str]:
    """How PostgreSQL's programs are told where to go: no word of it stands in a list of processes."""
    asked: dict[str, object] = {"host": url.host, "port": url.port, **url.query}
    found = {_AS_VARIABLES[name]: str(value) for name, value in asked.items() if value and name in _AS_VARIABLES}
    if url.username:
        found["PGUSER"] = url.username
    if url.password is not None:
        found["PGPASSWORD"] = str(url.password)
    if url.database:
        found["PGDATABASE"] = url.database
    return found


def _run(words: Sequence[str], variables: Mapping[str, str], url: str) -> None:
    where = make_url(url).render_as_string()
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **variables, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise StoreUnavailable(
            f"The program `{words[0]}` is not there.", remedy="Install PostgreSQL's client (`postgresql-client`)."
        ) from None
    except subprocess.TimeoutExpired:
        raise StoreUnavailable(f"`{words[0]}` did not end in {PROGRAM_SECONDS // 3600} hours.") from None
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line.lower()), "it gave no reason")
        raise StoreUnavailable(
            f"`{words[0]}` could not do it on {where}: {said.strip()}.",
            remedy="Its version must be the server's or newer, and the user must own the database.",
        )


# ------------------------------------------------------------------------------------------------- what is in it


def version_in(url: str) -> str | None:
    """The schema's version; None for an empty database or none at all."""
    try:
        engine = Engine(url, create=False)
    except StoreUnavailable:
        return None
    try:
        return version_of(engine)
    finally:
        engine.close()


def last_edition(url: str) -> int:
    """The last number that devices of aktualizr-lite were shown; 0 where that cannot be known."""
    engine = Engine(url, create=False)
    try:
        with engine.reading() as link:
            return int(link.rows("SELECT max(number) FROM edition")[0][0] or 0)
    except StoreUnavailable:
        return 0
    finally:
        engine.close()


def check_unused(url: str, now: datetime) -> None:
    """Raises Refused when a gateway has said within a minute that it serves this database (PostgreSQL, where no lock
    tells)."""
    store = open_store(url, create=False)
    try:
        with store.reading() as r:
            last = r.last_heartbeat(GATEWAY)
    finally:
        store.close()
    if last is not None and abs(now - last) < _ALIVE_FOR:
        raise Refused("A `wave serve` serves this database.", remedy="Stop all of them, wait a minute, and try again.")


def check_version(version: str | None) -> None:
    """Raises Refused for a schema that this program has never had."""
    if version not in VERSIONS:
        raise Refused(
            f"The backup's database has schema {version}, which this program does not know.",
            remedy="Use the version of this program that made it, or a newer one.",
        )


def made_safe(url: str, *, by: str, reason: str, passed_over: int, at_least: int, now: datetime) -> int:
    """Bring a restored database to this program's schema, freeze all offers, end all sessions, and let no number that
    devices of aktualizr-lite have seen be shown again; the number from which they count on, or 0."""
    upgrade(url)
    store = open_store(url, create=False)
    try:
        Rollouts(store, lambda: now).freeze(by=by, reason=reason)
        with store.writing() as w:
            # who signed out after the backup must not be signed in again by it
            w.drop_sessions(now=now + _FOR_EVER, unseen_since=now + _FOR_EVER)
        return _lifted(store, passed_over, at_least, now)
    finally:
        store.close()


def _lifted(store: SqlStore, passed_over: int, at_least: int, now: datetime) -> int:
    with store.writing() as w:
        w.lock_editions()
        last = w.last_edition()
        if not last and not at_least:
            return 0
        number = min(max(last + passed_over, at_least), MOST_EDITIONS - 1)
        w.retire_editions(number, now)
        return number
