"""Connections and transactions of one database: the only place that opens, begins, commits and gives back.

* SQLite in memory: one connection, one lock; every session has it alone.
* SQLite in a file: WAL, so that readers see a snapshot and never wait. Writers of one process queue at a lock, which
  is fair and quick; against other processes they wait by ``busy_timeout``. ``BEGIN IMMEDIATE`` makes a writer the
  writer before it reads anything. A file that was removed or replaced under an open engine is refused with every
  session: what is written to a file without a name is lost with the process, and nobody must be told that it was
  accepted.
* PostgreSQL: a writer runs READ COMMITTED and locks the rows it decides on; a reader REPEATABLE READ READ ONLY.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy.engine import URL
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import Pool, QueuePool, StaticPool

from orchestrator.adapters.sql.address import read_address
from orchestrator.adapters.sql.link import FOREIGN, Link, translated
from orchestrator.errors import Busy, InvalidInput, StoreUnavailable

BUSY_AFTER: Final = 10.0
"""Seconds a writer waits for its turn before it is told to come back."""

_CONNECTIONS: Final = 16
"""Connections kept open to a file or a server; as many again are opened when needed."""

_CACHE_KIB: Final = 32_768
"""Page cache of one SQLite connection."""


_CHECKPOINT_PAGES: Final = 8_000
"""Pages (32 MiB) that the log of a SQLite file may gather before they go to their places: reports hit pages at random,
and a page that was hit ten times is then written there once."""


class Engine:
    """One database. Thread-safe; ``synchronous`` (FULL or NORMAL) is for SQLite files only."""

    def __init__(
        self, url: str, *, create: bool = True, synchronous: str = "FULL", busy_after: float = BUSY_AFTER
    ) -> None:
        self.url: URL = read_address(url)
        if synchronous not in {"FULL", "NORMAL"}:
            raise InvalidInput(f"synchronous is FULL or NORMAL, not {synchronous!r}.")
        self.postgres = self.url.get_backend_name() == "postgresql"
        self.path = (
            None if self.postgres or self.url.database in {None, "", ":memory:"} else Path(str(self.url.database))
        )
        self.memory = not self.postgres and self.path is None
        self.where = str(self.path) if self.path else "in memory" if self.memory else self.url.render_as_string()
        self._synchronous = synchronous
        self._busy_after = busy_after
        self._writer = threading.Lock()
        self._mine = threading.local()
        self._opened: tuple[int, int] | None = None
        if self.path is not None:
            self._make_file(self.path, create)
        connect: Callable[[], Any] = self.connection()
        self._pool: Pool = (
            StaticPool(connect)
            if self.memory
            else QueuePool(
                connect, pool_size=_CONNECTIONS, max_overflow=_CONNECTIONS, timeout=busy_after, reset_on_return=None
            )
        )

    def close(self) -> None:
        self._pool.dispose()

    # ------------------------------------------------------------------------------------------- sessions

    @contextmanager
    def reading(self) -> Iterator[Link]:
        """One snapshot."""
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if self.postgres else "BEGIN"
        with self._alone(needed=self.memory), self._session(begin) as link:
            yield link

    @contextmanager
    def writing(self) -> Iterator[Link]:
        """One transaction. Raises Busy when the writer before this one does not end in time."""
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED" if self.postgres else "BEGIN IMMEDIATE"
        with self._alone(needed=not self.postgres), self._session(begin) as link:
            yield link

    @contextmanager
    def _alone(self, *, needed: bool) -> Iterator[None]:
        if not needed:
            yield
            return
        if getattr(self._mine, "held", False):
            raise RuntimeError("A session was opened inside another of the same thread: it would wait for itself.")
        if not self._writer.acquire(timeout=self._busy_after):
            raise Busy(f"The database {self.where} was busy for {self._busy_after:g} s; nothing of this was written.")
        self._mine.held = True
        try:
            yield
        finally:
            self._mine.held = False
            self._writer.release()

    @contextmanager
    def _session(self, begin: str) -> Iterator[Link]:
        lent, link = self._begun(begin)
        try:
            yield link
            link.script("COMMIT")
        except BaseException:
            with suppress(*FOREIGN):
                lent.driver_connection.execute("ROLLBACK")
            if self.postgres and lent.driver_connection.closed:
                lent.invalidate()
            raise
        finally:
            lent.close()

    def _begun(self, begin: str) -> tuple[Any, Link]:
        """A connection with its transaction begun. A kept one that the server has closed meanwhile is replaced once."""
        self._check_same_file()
        for kept in (True, False):
            lent = self._take()
            try:
                link = Link(lent.driver_connection, where=self.where, postgres=self.postgres)
                lent.driver_connection.execute(begin)
                return lent, link
            except FOREIGN as error:
                gone = self.postgres and lent.driver_connection.closed
                if gone:
                    lent.invalidate()
                lent.close()
                if gone and kept:
                    continue
                if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                    raise Busy(
                        f"The database {self.where} was busy for {self._busy_after:g} s; nothing of this was written.",
                        remedy="Another program is writing it; try again.",
                    ) from error
                raise translated(error, self.where) from error
        raise AssertionError("unreachable")

    def _check_same_file(self) -> None:
        """Raises StoreUnavailable where the file is not the one that was opened first."""
        if self._opened is None or self._which() == self._opened:
            return
        raise StoreUnavailable(
            f"The database {self.where} was removed or replaced while it was in use; nothing of this was written.",
            remedy="Put back the file that was there, or stop `wave serve` and start it again with this one.",
        )

    def _which(self) -> tuple[int, int] | None:
        assert self.path is not None
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _take(self) -> Any:
        try:
            return self._pool.connect()
        except FOREIGN as error:
            raise translated(error, self.where) from error
        except PoolTimeout as error:
            raise Busy("All connections to the database are in use.") from error

    # ------------------------------------------------------------------------------------------- connections

    def connection(self) -> Callable[[], Any]:
        """How to open a connection outside the pool, for the migrations."""
        return self._connect_postgres if self.postgres else self._connect_sqlite

    def _make_file(self, path: Path, create: bool) -> None:
        if path.is_dir():
            raise StoreUnavailable(f"{path} is a directory, not a database.", remedy="Name a file in it.")
        if path.exists():
            return
        if not create:
            raise StoreUnavailable(
                f"There is no database at {path}.", remedy="Check the path, or make one with `wave db upgrade`."
            )
        if not path.parent.is_dir():
            raise StoreUnavailable(
                f"The database {path} cannot be made: there is no directory {path.parent}.",
                remedy="Make the directory first.",
            )
        try:
            # Tokens' digests and the fleet are nobody else's business. SQLite gives its side files the same mode.
            path.touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                f"The database {path} cannot be made: {error.strerror}.",
                remedy="Let the user this program runs as write that directory, or free some space.",
            ) from error

    def _connect_sqlite(self) -> sqlite3.Connection:
        raw = sqlite3.connect(
            # never makes a file: an empty one in the place of one that is gone would hide that
            ":memory:" if self.path is None else f"{self.path.absolute().as_uri()}?mode=rw",
            uri=self.path is not None,
            timeout=self._busy_after,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            raw.execute("PRAGMA foreign_keys = ON")
            raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            if self.path is not None:
                raw.execute(f"PRAGMA synchronous = {self._synchronous}")
                raw.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
                # Stays with the file; on a read-only one it cannot be set and need not.
                if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    raw.execute("PRAGMA journal_mode = WAL")
                if self._opened is None:
                    self._opened = self._which()
        except BaseException:
            raw.close()
            raise
        return raw

    def _connect_postgres(self) -> psycopg.Connection[Any]:
        asked: dict[str, Any] = {
            "host": self.url.host,
            "port": self.url.port,
            "dbname": self.url.database,
            "user": self.url.username,
            "password": None if self.url.password is None else str(self.url.password),
            "connect_timeout": 10,
            "application_name": "wave",
            **self.url.query,
        }
        return psycopg.connect(autocommit=True, **{name: value for name, value in asked.items() if value is not None})
