"""A store that dies on command, and the means to compare one life with another."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.services.store import Writing
from tests.behind import Behind

WRITES = frozenset(name for name in vars(Writing) if not name.startswith("_"))
"""Every call of the port that may write."""

Contents = dict[str, list[tuple[Any, ...]]]


class Crash(BaseException):
    """The process is gone: no ``except Exception`` may catch it."""


@dataclass
class Fuse:
    """Burns at the point after ``left`` others; None: never. ``passed``: the points so far."""

    left: int | None
    passed: list[str] = field(default_factory=list)

    def reach(self, point: str) -> None:
        self.passed.append(point)
        if self.left is None:
            return
        if self.left == 0:
            self.left = None
            raise Crash(point)
        self.left -= 1


class CrashingStore(Behind):
    """The real store behind a fuse: every writing call, the moment before a commit and the moment after are points at
    which the process may die."""

    def __init__(self, inner: SqlStore, fuse: Fuse) -> None:
        super().__init__(inner)
        self._fuse = fuse

    @contextmanager
    def writing(self) -> Iterator[Any]:
        with self.inner.writing() as w:
            yield _Watched(w, self._fuse)
            self._fuse.reach("before the commit")
        self._fuse.reach("after the commit")

    def close(self) -> None: ...


class _Watched:
    def __init__(self, w: Any, fuse: Fuse) -> None:
        self._w = w
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._w, name)
        if name not in WRITES:
            return found

        def call(*args: Any, **keys: Any) -> Any:
            self._fuse.reach(name)
            return found(*args, **keys)

        return call


# ------------------------------------------------------------------------------------------------- images


def _connected(store: Any, do: Callable[[Any], Any]) -> Any:
    lent = store._engine._pool.connect()
    try:
        return do(lent.driver_connection)
    finally:
        lent.close()


_IMAGE: Final = sqlite3.connect(":memory:", check_same_thread=False)
_SCRATCH: Final[list[SqlStore]] = []


def remember(store: Any) -> None:
    """Keep a store in memory as it is now. There is one such image: the one before is forgotten."""
    _connected(store, lambda raw: raw.backup(_IMAGE))


def revive() -> SqlStore:
    """A store as the remembered one was. There is one at a time: the one before is overwritten."""
    if not _SCRATCH:
        _SCRATCH.append(open_store("sqlite://"))
    _connected(_SCRATCH[0], _IMAGE.backup)
    return SqlStore(_SCRATCH[0]._engine)  # a fresh one, that has nothing in mind


def contents_of(store: Any, *, without: frozenset[str] = frozenset()) -> Contents:
    """Every row of every table, some columns aside."""

    def read(raw: Any) -> Contents:
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        tables = [name for name in tables if not name.startswith("sqlite_")]  # what numbers were used up, no content
        found: Contents = {}
        for table in tables:
            columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})") if row[1] not in without]
            rows = raw.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall() if columns else []
            found[table] = sorted(rows, key=repr)
        return found

    contents: Contents = _connected(store, read)
    return contents


def difference(one: Contents, other: Contents) -> str:
    """The first rows that only one of them has."""
    said = []
    for table in one:
        if one[table] != other[table]:
            here = [row for row in one[table] if row not in other[table]][:2]
            there = [row for row in other[table] if row not in one[table]][:2]
            said.append(f"{table}: {str(here)[:600]} against {str(there)[:600]}")
    return "\n".join(said)
