"""The database's schema: which version it has, how a new one is made, how an older one is brought up to date.

Alembic's migrations are the one way to a schema on disk. A store in memory is made from the metadata at once, because
tests open hundreds; a test holds the two equal.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from orchestrator.adapters.sql import (
    artifact_tables,
    census_tables,
    edition_tables,
    feed_tables,
    gate_tables,
    house_log_tables,
    identity_tables,
    mender_tables,
    notice_tables,
    once_tables,
    people_tables,
    protocol_tables,
)
from orchestrator.adapters.sql.engine import Engine
from orchestrator.adapters.sql.house_tables import SEEDS, TRIGGERS
from orchestrator.adapters.sql.link import FOREIGN, translated
from orchestrator.adapters.sql.tables import METADATA
from orchestrator.errors import StoreUnavailable

VERSIONS: Final = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
)
"""Every schema there has been, oldest first. A test holds them equal to the migrations."""

NEWEST: Final = VERSIONS[-1]

_DECLARED: Final = (
    artifact_tables,
    census_tables,
    edition_tables,
    feed_tables,
    gate_tables,
    house_log_tables,
    identity_tables,
    mender_tables,
    once_tables,
    notice_tables,
    people_tables,
    protocol_tables,
)
"""Modules whose tables are in the metadata because they are imported."""

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

_ONE_AT_A_TIME: Final = 0x77617665
"""Number of the PostgreSQL lock under which a schema is made: "wave"."""


def version_of(engine: Engine) -> str | None:
    """The version the database says it has; None when it is new. Raises StoreUnavailable when it holds somebody else's
    tables."""
    with engine.reading() as link:
        listed = (
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            if engine.postgres
            else "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        )
        tables = {row[0] for row in link.rows(listed)}
        if not tables:
            return None
        row = link.one("SELECT version_num FROM alembic_version") if "alembic_version" in tables else None
        if row is None:
            raise StoreUnavailable(
                f"The database {engine.where} belongs to another program.",
                remedy="Give this one a database of its own.",
            )
        return str(row[0])


def require(engine: Engine, *, create: bool) -> None:
    """Make sure that the database has the newest schema; a new one is made with ``create``. Raises StoreUnavailable."""
    if engine.memory:
        _make_at_once(engine)
        return
    version = version_of(engine)
    if version == NEWEST:
        return
    if version is None:
        if not create:
            raise StoreUnavailable(
                f"The database {engine.where} is empty.",
                remedy="Make it with `wave db upgrade`, or bring one that was lost back with `wave restore`.",
            )
        migrate(engine)
    elif version in VERSIONS:
        raise StoreUnavailable(
            f"The database {engine.where} has schema {version}, and this program needs {NEWEST}.",
            remedy="Stop what uses it, back it up, and run `wave db upgrade`.",
        )
    else:
        raise StoreUnavailable(
            f"The database {engine.where} has schema {version}, which is newer than this program ({NEWEST}).",
            remedy="Use the version of this program that wrote it, or a newer one.",
        )


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest version, in one transaction; two programs that try at once follow each other."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    address = "postgresql+psycopg://" if engine.postgres else "sqlite://"
    alchemy = create_engine(address, creator=engine.connection(), poolclass=NullPool)
    try:
        with alchemy.connect() as connection:
            # The connection commits by itself until told otherwise; from here on it is told.
            if engine.postgres:
                connection.exec_driver_sql("BEGIN")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
    except FOREIGN as error:
        raise translated(error, engine.where) from error
    finally:
        alchemy.dispose()


@cache
def _statements() -> tuple[str, ...]:
    """The schema as SQLite reads it, compiled once for all stores in memory."""
    dialect = sqlite.dialect()
    made = []
    for table in METADATA.sorted_tables:
        made.append(str(CreateTable(table).compile(dialect=dialect)))
        made += [
            str(CreateIndex(index).compile(dialect=dialect))
            for index in sorted(table.indexes, key=lambda i: str(i.name))
        ]
    return (*made, *TRIGGERS["sqlite"], *SEEDS)


def _make_at_once(engine: Engine) -> None:
    with engine.writing() as link:
        for statement in _statements():
            link.script(statement)
