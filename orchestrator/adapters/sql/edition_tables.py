"""Tables of what aktualizr-lite devices are shown, and of what devices told of themselves."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, number_field, text_field


class EditionTable(Base, table=True):
    """Contents of ``targets.json`` under the numbers they were shown as. ``digest`` and ``body`` never change."""

    __tablename__ = "edition"
    __table_args__ = (Index("edition_of_content", "digest", "number"),)

    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    digest: str = text_field()
    body: str = text_field()
    expires_at: int = number_field()
    timestamp_expires_at: int = number_field()
    root_version: int = Field(sa_type=BigInteger)
    signings: int = Field(sa_type=BigInteger)


class ShownEditionTable(Base, table=True):
    """The edition that a device was shown last: its number only grows."""

    __tablename__ = "shown_edition"

    device_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="device.key")
    number: int = Field(sa_type=BigInteger, foreign_key="edition.number")


class ToldTable(Base, table=True):
    """The last that a device told of itself by topic."""

    __tablename__ = "device_told"

    device_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="device.key")
    topic: str = text_field(primary_key=True)
    text: str = text_field()
    size: int = Field(sa_type=BigInteger)
    digest: str = text_field()
    received_at: int = number_field()


class DeltaStatsTable(Base, table=True):
    """Files that say how large deltas are, by their digest."""

    __tablename__ = "delta_stats"

    sha256: str = text_field(primary_key=True)
    text: str = text_field()
