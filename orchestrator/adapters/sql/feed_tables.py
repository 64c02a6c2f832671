"""The table that numbers the entries of all journals in the order of their commits."""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, key_field


class FeedTable(Base, table=True):
    """Rows are only added, each as the last thing before its commit, one transaction after the other: so the order of
    the numbers is the order of the commits."""

    __tablename__ = "journal_feed"

    number: int | None = key_field()
    rollout_key: int = Field(sa_type=BigInteger)
    seq: int = Field(sa_type=BigInteger)
