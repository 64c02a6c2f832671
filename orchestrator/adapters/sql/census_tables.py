"""The table of censuses: the fleet as it was counted now and then, so that no page has to."""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, text_field


class CensusTable(Base, table=True):
    """All but the time are JSON. ``versions``: devices by version, '' for one that nobody knows. ``running``,
    ``groups`` and ``quietest`` are kept of the newest only: of those before they are empty."""

    __tablename__ = "census"

    taken_at: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    versions: str = text_field()
    statuses: str = text_field()
    silent: str = text_field()
    running: str = text_field()
    groups: str = text_field()
    quietest: str = text_field()
