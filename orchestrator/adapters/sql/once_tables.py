"""The table of requests that are carried out once, and what was answered."""

from __future__ import annotations

from sqlalchemy import Index
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, number_field, text_field


class KeptAnswerTable(Base, table=True):
    """``status`` NULL: it is being carried out. ``answer`` NULL: it is not kept, for it holds a secret or is large."""

    __tablename__ = "kept_answer"
    __table_args__ = (Index("kept_answer_since", "begun_at"),)

    person: str = text_field(primary_key=True)
    key: str = text_field(primary_key=True)
    digest: bytes = Field()
    begun_at: int = number_field()
    status: int | None = Field()
    answer: bytes | None = Field()
