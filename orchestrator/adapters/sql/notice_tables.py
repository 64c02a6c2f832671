"""The table of messages to people."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, key_field, number_field, text_field


class NoticeTable(Base, table=True):
    """One message to one destination. ``occasion`` is what it is about, within the rollout: ``notice_once`` lets it be
    asked for once, whoever asks again. ``attempts`` is the fence of its lease."""

    __tablename__ = "notice"
    __table_args__ = (
        Index("notice_once", "rollout_key", "occasion", "destination", unique=True),
        Index("notice_due", "status", "next_at"),
    )

    key: int | None = key_field()
    rollout_key: int = Field(sa_type=BigInteger, foreign_key="rollout.key")
    occasion: str = text_field()
    destination: str = text_field()
    body: str = text_field()
    status: str = text_field()
    attempts: int = Field(sa_type=BigInteger)
    queued_at: int = number_field()
    next_at: int = number_field()
    give_up_at: int = number_field()
    lease_until: int | None = number_field()
    ended_at: int | None = number_field()
    error: str | None = text_field()
