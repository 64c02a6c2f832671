"""One connection of one session: SQL text in, tuples out, and every foreign exception translated here.

Why text and not objects: these statements are the same on both databases, most of them carry thousands of rows, and
the mapping costs ten times what the statement does (11,000 rows/s against 120,000 and more). What differs between the
databases is here.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import psycopg

from orchestrator.errors import Busy, Conflict, StoreUnavailable, WaveError

Row = tuple[Any, ...]

FOREIGN: Final = (sqlite3.Error, psycopg.Error)
"""What the drivers raise."""

_SAID: Final[tuple[tuple[str, type[WaveError], str, str], ...]] = (
    (
        "locked",
        StoreUnavailable,
        "The database {where} is locked by another program.",
        "Let it finish, or stop it (`fuser` names it), and try again.",
    ),
    (
        "readonly",
        StoreUnavailable,
        "The database {where} cannot be written: the file or its directory is read-only.",
        "Give the user this program runs as the right to write both.",
    ),
    (
        "read-only",
        StoreUnavailable,
        "The database {where} takes no writing: it is read-only.",
        "Use the address of the primary server.",
    ),
    (
        "full",
        StoreUnavailable,
        "The disk that holds the database {where} is full; nothing of this was written.",
        "Free some space and try again.",
    ),
    (
        "No space left",
        StoreUnavailable,
        "The disk that holds the database {where} is full; nothing of this was written.",
        "Free some space and try again.",
    ),
    (
        "not a database",
        StoreUnavailable,
        "{where} is not a database of this program.",
        "Name another file, or move this one away and let a new one be made.",
    ),
    (
        "no such table",
        StoreUnavailable,
        "{where} is not the database that it was: a table is missing.",
        "Look whether somebody replaced it; `wave restore` brings a backup back.",
    ),
    (
        "malformed",
        StoreUnavailable,
        "The database {where} is damaged.",
        "Restore the last backup, or recover it with `sqlite3 FILE .recover`.",
    ),
    (
        "unable to open",
        StoreUnavailable,
        "The database {where} cannot be opened.",
        "Make its directory, and let the user this program runs as read and write it.",
    ),
    (
        "disk I/O error",
        StoreUnavailable,
        "The disk that holds the database {where} fails.",
        "Look at the system's log; restore a backup on another disk if it is broken.",
    ),
)


def translated(error: BaseException, where: str) -> WaveError:
    """The error of ours that stands for one of a driver's."""
    if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
        return Conflict("Two writers met in the database and this one gave way; nothing of it was written.")
    if isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.QueryCanceled):
        return Busy("The database was busy for too long; nothing of this was written.")
    said = str(error)
    if "unable to open" in said and (folder := Path(where).parent).is_dir() and not os.access(folder, os.W_OK):
        # SQLite needs files beside the database even to read it, and says no more than this when it cannot make them.
        return StoreUnavailable(
            f"The database {where} cannot be opened: its directory is read-only.",
            remedy="Mount it writable, or give the user this program runs as the right to write it.",
        )
    for sign, kind, message, remedy in _SAID:
        if sign in said:
            return kind(message.format(where=where), remedy=remedy)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StoreUnavailable(
            f"The database {where} does not answer: "
            f"{said.strip().splitlines()[0] if said.strip() else 'no reason given'}.",
            remedy="Start PostgreSQL, and check address, user and password.",
        )
    if "UNIQUE" in said or isinstance(error, psycopg.errors.UniqueViolation):
        return Conflict(f"Somebody else wrote the same row first ({said.strip().splitlines()[0]}).")
    return StoreUnavailable(f"The database {where} refused: {said.strip()}.")


@lru_cache(maxsize=4096)
def _numbered(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


class Link:
    """A connection while a session has it. ``?`` marks a parameter on both databases."""

    def __init__(self, raw: Any, *, where: str, postgres: bool) -> None:
        self.raw = raw
        self.where = where
        self.postgres = postgres
        self._cursor = raw.cursor()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Execute; how many rows it changed. (Not for RETURNING.)"""
        try:
            if self.postgres:
                return int(self._cursor.execute(_numbered(sql), parameters).rowcount)
            return int(self._cursor.execute(sql, parameters).rowcount)
        except FOREIGN as error:
            raise translated(error, self.where) from error

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        try:
            if self.postgres:
                return list(self._cursor.execute(_numbered(sql), parameters).fetchall())
            return list(self._cursor.execute(sql, parameters).fetchall())
        except FOREIGN as error:
            raise translated(error, self.where) from error

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Execute once for each."""
        try:
            self._cursor.executemany(_numbered(sql) if self.postgres else sql, parameters)
        except FOREIGN as error:
            raise translated(error, self.where) from error

    def script(self, sql: str) -> None:
        """A statement without parameters, as it stands."""
        try:
            self._cursor.execute(sql)
        except FOREIGN as error:
            raise translated(error, self.where) from error

    def counted(self, columns: Sequence[str], rest: str, parameters: Sequence[Any] = ()) -> Counter[Row]:
        """How many rows there are of each combination of ``columns``; ``rest`` begins with FROM. Nothing is kept per
        row.

        PostgreSQL groups by hash. SQLite groups by sorting, which for a million rows takes three times as long as
        counting them here as they stream by.
        """
        try:
            if self.postgres:
                places = ", ".join(str(place) for place, _ in enumerate(columns, 1))
                rows = self.rows(f"SELECT {', '.join(columns)}, count(*) {rest} GROUP BY {places}", parameters)
                return Counter({row[:-1]: row[-1] for row in rows})
            return Counter(self._cursor.execute(f"SELECT {', '.join(columns)} {rest}", parameters))
        except FOREIGN as error:
            raise translated(error, self.where) from error

    def within(self, column: str, values: Iterable[int] | Iterable[str]) -> tuple[str, Any]:
        """``column`` is one of many values: a condition with one parameter, whatever their number."""
        listed = list(values)
        if self.postgres:
            # The driver would choose the narrowest type that fits, and with it another plan for each batch.
            kind = "" if not listed else "::bigint[]" if isinstance(listed[0], int) else "::text[]"
            return f"{column} = ANY(?{kind})", listed
        return f"{column} IN (SELECT value FROM json_each(?))", json.dumps(listed)

    def of_status(self, statuses: Collection[StrEnum] | None) -> tuple[str, tuple[Any, ...]]:
        """``status`` is one of these, or whatever it is where there are None: a condition and its parameters."""
        if statuses is None:
            return "1 = 1", ()
        condition, listed = self.within("status", sorted(status.value for status in statuses))
        return condition, (listed,)

    def by_index(self, name: str) -> str:
        """What makes SQLite, which keeps no statistics, go by this index; PostgreSQL knows by itself."""
        return "" if self.postgres else f" INDEXED BY {name}"

    def locked(self, sql: str, how: str = "FOR UPDATE") -> str:
        """The query, its rows locked until the transaction ends. On SQLite the writer is alone anyway."""
        return f"{sql} {how}" if self.postgres else sql
