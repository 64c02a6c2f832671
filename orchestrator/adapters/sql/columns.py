"""What the declarations of all tables share: the metadata they belong to, and their kinds of columns."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Integer, MetaData, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA: Final = MetaData()

NO_COMMIT: Final = ""
NO_VERSION: Final = -1

_KEY: Final = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only in a column that is declared INTEGER."""

SORTED: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Compared by code point on both databases, so that pages of a list follow each other the same way."""


def key_field(**more: Any) -> Any:
    return Field(default=None, primary_key=True, sa_type=_KEY, **more)


def number_field(**more: Any) -> Any:
    return Field(sa_type=BigInteger, **more)


def tally_field() -> Any:
    """A count that begins at nothing."""
    return Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})


def text_field(**more: Any) -> Any:
    return Field(sa_type=Text, **more)


class Base(SQLModel, registry=registry(metadata=METADATA)):
    pass
