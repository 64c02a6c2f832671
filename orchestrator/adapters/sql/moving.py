"""Everything of a SQLite database into an empty PostgreSQL one, row by row and in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from sqlalchemy import Table

from orchestrator.adapters.sql.engine import Engine
from orchestrator.adapters.sql.link import FOREIGN, Link, Row, translated
from orchestrator.adapters.sql.schema import NEWEST, migrate, version_of
from orchestrator.adapters.sql.store import open_store
from orchestrator.adapters.sql.tables import METADATA
from orchestrator.errors import InvalidInput, Refused, StoreUnavailable

_AT_ONCE: Final = 10_000
"""Rows that are held in memory."""


def move(source_url: str, target_url: str) -> dict[str, int]:
    """How many rows of each table there are now. The source is only read; whoever calls sees to it that nobody writes
    to it. Raises InvalidInput, Refused when the target is not empty, StoreUnavailable; then the target is as it was,
    but for empty tables."""
    with closing(Engine(source_url, create=False)) as source, closing(Engine(target_url, create=False)) as target:
        if source.postgres or not target.postgres:
            raise InvalidInput(
                "Only a SQLite database can be copied, and only into PostgreSQL.",
                remedy="Name a settings file with `database: postgresql+psycopg://…`.",
            )
        if (version := version_of(source)) != NEWEST:
            raise StoreUnavailable(f"The database has schema {version}, not {NEWEST}.", remedy="`wave db upgrade`.")
        if version_of(target) is not None:
            raise Refused(f"The database {target.where} is not empty.", remedy="Name an empty one.")
        migrate(target)
        with source.reading() as read, target.writing() as written:
            # what a new schema holds is in the source as well, and newer there
            for table in reversed(METADATA.sorted_tables):
                if written.one(f'SELECT 1 FROM "{table.name}" LIMIT 1') is not None:
                    written.run(f'DELETE FROM "{table.name}"')
            counts = {table.name: _copied(table, read, written, target.where) for table in METADATA.sorted_tables}
    with closing(open_store(target_url, create=False)) as store, store.reading() as r:
        if found := r.check():
            raise StoreUnavailable(f"The copy does not count up: {found[0].what}.", remedy="Keep the old one.")
    return counts


def _copied(table: Table, read: Link, written: Link, where: str) -> int:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    count = 0
    try:
        with written.raw.cursor().copy(f'COPY "{table.name}" ({names}) FROM STDIN') as copy:
            for row in _rows(read, f'SELECT {names} FROM "{table.name}"'):
                copy.write_row(row)
                count += 1
    except FOREIGN as error:
        raise translated(error, where) from error
    for column in table.primary_key.columns:
        # a key that the database counts goes on above the highest
        counted = written.one("SELECT pg_get_serial_sequence(?, ?)", (f'"{table.name}"', column.name))
        if count and counted is not None and counted[0] is not None:
            written.rows(f'SELECT setval(?, (SELECT max("{column.name}") FROM "{table.name}"))', (counted[0],))
    return count


def _rows(read: Link, statement: str) -> Iterator[Row]:
    cursor = read.raw.cursor()
    cursor.execute(statement)
    while rows := cursor.fetchmany(_AT_ONCE):
        yield from rows
