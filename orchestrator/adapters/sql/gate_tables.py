"""The table of what gates said."""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, number_field, text_field


class GateTable(Base, table=True):
    """The last answer of each gate of a wave. ``question``: what was asked, ``since``: from when on without a long
    pause."""

    __tablename__ = "gate"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field(primary_key=True)
    name: str = text_field(primary_key=True)
    question: str = text_field()
    answer: str = text_field()
    because: str = text_field()
    got_at: int = number_field()
    since: int = number_field()
